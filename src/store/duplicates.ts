/** Refuses to start a node while another live host has its node id or its public address. */
import { TartanError } from '../lib/errors.js';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import { kernelBootOf, type Node } from '../model/node.js';
import type { StoreContext } from './context.js';
import type { TimeToLive } from './kv.js';
import { renewSeconds } from './lease-state.js';

/** Tells whether the owner renewed the lease so lately that it is alive or has just died. */
function isFresh({ ttlSeconds, grantedSeconds }: TimeToLive): boolean {
  return grantedSeconds - ttlSeconds <= freshSeconds(grantedSeconds);
}

function freshSeconds(grantedSeconds: number): number {
  return 1.5 * renewSeconds(grantedSeconds) + 1;
}

/** @throws TartanError DUPLICATE_NODE that names the other host and the next step */
export async function refuseDuplicates(
  context: StoreContext,
  leases: readonly Lease[],
  node: Node,
  signal: AbortSignal,
): Promise<void> {
  for (const lease of leases) {
    const clash = clashOf(lease, node);
    if (clash === undefined) continue;
    if (lease.leaseId === '0') {
      if (clash === 'address') throw duplicate(lease, node, undefined);
      continue;
    }
    const time = await context.kv.timeToLive(lease.leaseId, { signal });
    if (time && isFresh(time)) throw duplicate(lease, node, time);
  }
}

/**
 * One node id at two addresses in two boots means a copied disk, unless the machine is the same. Two node ids at one address mean two hosts with one
 * --public-ip. A reboot of this host keeps its address.
 */
function clashOf(lease: Lease, node: Node): 'address' | 'identity' | undefined {
  if (lease.nodeId === undefined || lease.released) return undefined;
  // It is this boot of this network stack, whose state directory was lost: no other host can have the boot id.
  if (lease.bootId === node.bootId && lease.publicIp === node.publicIp) return undefined;
  if (lease.nodeId !== node.id) return lease.publicIp === node.publicIp ? 'address' : undefined;
  if (lease.publicIp === node.publicIp || lease.bootId === node.bootId || isEarlierBoot(lease, node)) return undefined;
  return 'identity';
}

/**
 * Whether the lease is of an earlier boot of this machine, which has ended for certain. A copied disk has other
 * hardware, and a second namespace has the same boot of the kernel. A machine that was copied with its hardware's
 * identity cannot be told from a reboot: the later start has the lease then, and the earlier one loses it.
 */
function isEarlierBoot({ hardware, bootId }: Lease, node: Node): boolean {
  if (hardware === undefined || bootId === undefined || hardware !== node.hardware) return false;
  return kernelBootOf(bootId) !== kernelBootOf(node.bootId);
}

function duplicate(other: Lease, node: Node, time: TimeToLive | undefined): TartanError {
  const who = `node ${other.nodeId} at ${formatIpv4(other.publicIp)} with subnet ${formatPrefix(other.subnet)}`;
  const what =
    other.nodeId === node.id
      ? `another live host has our node id: ${who}, while we are at ${formatIpv4(node.publicIp)}`
      : `another live host has our public address: ${who}, while we are node ${node.id}`;
  const fix =
    other.nodeId === node.id
      ? 'A copied disk: remove the state directory of one of them, or give one a --node-id'
      : 'Give one of them another --public-ip';
  return new TartanError('DUPLICATE_NODE', `${what}. ${fix}. ${whenGone(other, time)}`);
}

function whenGone(other: Lease, time: TimeToLive | undefined): string {
  const release = `tartan lease release --force ${formatPrefix(other.subnet)}`;
  if (!time) return `If that host is gone, remove its reservation: ${release}`;
  const waitSeconds = Math.ceil(freshSeconds(time.grantedSeconds) - (time.grantedSeconds - time.ttlSeconds)) + 1;
  return `If that host is gone (this one before its disk was made anew), settle it at once: ${release}. Else it settles itself in ${waitSeconds} s`;
}
