/**
 * Reservations, as an operator makes and ends them. A lease key without an etcd lease is one, as flannel has it. For a
 * node id that was not seen yet there is no address to publish, and a made-up one would be routed to: its reservation
 * stands under `held/` alone, out of flannel's sight, until the node takes it. A living node is never interrupted: its
 * lease becomes a reservation, and its reservation a lease, in one guarded write that it finds by its watch.
 */
import { backoffMs } from '../lib/retry.js';
import { TartanError } from '../lib/errors.js';
import { chooseSubnet, type Tombstone } from '../model/allocation.js';
import { formatIpv4, formatPrefix, prefixCovers, prefixesOverlap, samePrefix } from '../model/ipv4.js';
import type { Ipv4, Prefix } from '../model/ipv4.js';
import { formatLeaseValue, type Lease } from '../model/lease.js';
import { isLeasable, type NetworkConfig } from '../model/network.js';
import {
  dropLeases,
  idsOf,
  rewriteKey,
  tombstoneGuard,
  tombstoneOf,
  unchangedSince,
  unmodifiedKey,
  type Grant,
} from './claim.js';
import { formatReservedFor, readEntry, readTombstone, type Entry } from './entries.js';
import { noFreeSubnet } from './exhaustion.js';
import type { Write } from './kv.js';
import { onlyKey } from './keys.js';
import { tombstoneSeconds } from './quarantine.js';
import { forgetTombstone, removeLease, type ReleaseContext } from './release.js';
import { SnapshotReader, type ClusterSnapshot } from './cluster-snapshot.js';

/** Whom a subnet is reserved for. */
export type Holder =
  { readonly kind: 'node'; readonly nodeId: string } | { readonly kind: 'address'; readonly publicIp: Ipv4 };

export interface ReserveRequest {
  readonly network: NetworkConfig;
  /** Without one: what the holder has, else any that is free. */
  readonly subnet: Prefix | undefined;
  readonly holder: Holder;
}

export interface Refusal {
  readonly kind: 'refused';
  readonly reason: string;
  readonly next: string;
}

export type ReserveResult =
  Refusal | { readonly kind: 'reserved'; readonly subnet: Prefix; readonly before: 'free' | 'leased' | 'reserved' };

const races = { firstMs: 50, capMs: 500 };
const mostRaces = 20;
/** No node has it. */
const nobody = ' ';

/** @throws TartanError NO_FREE_SUBNET, STORE_UNAVAILABLE, PERMISSION */
export async function reserve(
  context: ReleaseContext,
  request: ReserveRequest,
  signal: AbortSignal,
): Promise<ReserveResult> {
  const reader = new SnapshotReader(context);
  for (let race = 1; race <= mostRaces; race++) {
    const snapshot = await reader.readSnapshot(request.network, signal);
    const result =
      (await convert(context, request, snapshot, signal)) ?? (await create(context, request, snapshot, signal));
    if (result) return result;
    await context.clock.sleep(backoffMs(race, races), signal);
  }
  throw new TartanError('STORE_UNAVAILABLE', `the leases changed ${mostRaces} times while one was being reserved`);
}

/** What the holder has becomes a reservation as it is. */
async function convert(
  context: ReleaseContext,
  { subnet, holder }: ReserveRequest,
  snapshot: ClusterSnapshot,
  signal: AbortSignal,
): Promise<ReserveResult | undefined> {
  const has = snapshot.leases.filter(lease => isHolders(lease, holder));
  const lease = has.find(entry => subnet === undefined || samePrefix(entry.subnet, subnet));
  if (!lease) return has[0] && refuseSecond(holder, has[0].subnet, has[0].leaseId === '0');
  if (lease.leaseId === '0') return { kind: 'reserved', subnet: lease.subnet, before: 'reserved' };
  const { kv, keys } = context;
  const key = keys.subnet(lease.subnet);
  const writes: readonly Write[] = [
    { kind: 'put', key, value: Buffer.from(formatLeaseValue(lease)), leaseId: '0' },
    ...(lease.nodeId === undefined ? [] : [tombstonePut(context, lease.subnet, lease.nodeId)]),
  ];
  const { outcome } = await kv.commit(unmodifiedKey(key, lease), writes, { signal });
  if (outcome !== 'done') return undefined;
  const spent = [lease.leaseId, tombstoneOf(snapshot, lease.subnet)?.leaseId ?? '0'];
  if (lease.nodeId !== undefined) await dropLeases(context, spent, signal);
  return { kind: 'reserved', subnet: lease.subnet, before: 'leased' };
}

async function create(
  context: ReleaseContext,
  request: ReserveRequest,
  snapshot: ClusterSnapshot,
  signal: AbortSignal,
): Promise<ReserveResult | undefined> {
  const { kv, keys } = context;
  const { network, holder } = request;
  const nodeId = holder.kind === 'node' ? holder.nodeId : nobody;
  const pending = snapshot.tombstones.find(({ reserved, nodeId: owner }) => reserved && owner === nodeId);
  if (pending && (!request.subnet || samePrefix(pending.subnet, request.subnet)))
    return { kind: 'reserved', subnet: pending.subnet, before: 'reserved' };
  if (pending) return refuseSecond(holder, pending.subnet, true);
  const { taken, tombstones } = snapshot;
  const subnet = request.subnet ?? chooseSubnet({ network, taken, tombstones, nodeId, random: Math.random });
  if (!subnet) {
    const kept = tombstones.map(tombstone => ({ ...tombstone, ageSeconds: undefined, over: false }));
    throw noFreeSubnet(network, snapshot.leases.length, kept);
  }
  const refusal = refuseSubnet(network, subnet) ?? refuseOccupied(snapshot, subnet, nodeId);
  if (refusal) return refusal;
  const key = keys.subnet(subnet);
  const tombstone = tombstoneOf(snapshot, subnet);
  const { outcome } = await kv.commit(
    [...unchangedSince(keys, snapshot), { kind: 'absent', key }, tombstoneGuard(keys.tombstone(subnet), tombstone)],
    [
      holder.kind === 'node'
        ? tombstonePut(context, subnet, formatReservedFor(holder.nodeId))
        : { kind: 'put', key, value: Buffer.from(formatLeaseValue(strangerAt(holder.publicIp))), leaseId: '0' },
    ],
    { signal },
  );
  if (outcome !== 'done') return undefined;
  if (tombstone) await dropLeases(context, [tombstone.leaseId], signal);
  return { kind: 'reserved', subnet, before: 'free' };
}

function isHolders(lease: Lease, holder: Holder): boolean {
  return holder.kind === 'node' ? lease.nodeId === holder.nodeId : lease.publicIp === holder.publicIp;
}

function tombstonePut({ keys }: ReleaseContext, subnet: Prefix, value: string): Write {
  return { kind: 'put', key: keys.tombstone(subnet), value: Buffer.from(value), leaseId: '0' };
}

function strangerAt(publicIp: Ipv4): Parameters<typeof formatLeaseValue>[0] {
  return { publicIp, backend: { type: 'udp' }, nodeId: undefined, bootId: undefined, released: false };
}

function refuseSecond(holder: Holder, subnet: Prefix, reserved: boolean): Refusal {
  const who = holder.kind === 'node' ? `node ${holder.nodeId}` : `the host at ${formatIpv4(holder.publicIp)}`;
  const next = reserved ? `tartan lease release ${formatPrefix(subnet)}` : 'tartan leave, on that host';
  const reason = `${who} has ${formatPrefix(subnet)} ${reserved ? 'reserved' : 'leased'} already, and a node has one subnet`;
  return { kind: 'refused', reason, next: `reserve that one, or give it up first: ${next}` };
}

/** @returns undefined for a subnet that the network leases */
export function refuseSubnet(network: NetworkConfig, subnet: Prefix): Refusal | undefined {
  if (isLeasable(network, subnet)) return undefined;
  const reason = !prefixCovers(network.network, subnet)
    ? `is not a part of the network ${formatPrefix(network.network)}`
    : subnet.length !== network.subnetLength
      ? `has the wrong length: the subnets of ${formatPrefix(network.network)} are /${network.subnetLength}`
      : `is outside of what is leased, ${formatIpv4(network.subnetMin)} to ${formatIpv4(network.subnetMax)}`;
  const next = 'choose another subnet, or none to have one chosen; tartan config get shows the network';
  return { kind: 'refused', reason: `${formatPrefix(subnet)} ${reason}`, next };
}

function refuseOccupied(snapshot: ClusterSnapshot, subnet: Prefix, nodeId: string): Refusal | undefined {
  const lease = snapshot.leases.find(other => prefixesOverlap(other.subnet, subnet));
  const text = formatPrefix(subnet);
  const next = 'choose another subnet; tartan leases -o wide shows who has what';
  if (lease) {
    const how = samePrefix(lease.subnet, subnet) ? 'is held' : `overlaps ${formatPrefix(lease.subnet)}, which is held`;
    return { kind: 'refused', reason: `${text} ${how} by ${describeOwner(lease)}`, next };
  }
  const other = snapshot.taken.find(prefix => prefixesOverlap(prefix, subnet));
  if (other) return { kind: 'refused', reason: `${text} overlaps ${formatPrefix(other)}, which is taken`, next };
  const kept = snapshot.tombstones.find(entry => entry.nodeId !== nodeId && prefixesOverlap(entry.subnet, subnet));
  return kept && refuseKept(kept, `${text} cannot be reserved`);
}

/** A subnet without a lease that is some node's all the same. */
export function refuseKept({ subnet, nodeId, reserved }: Tombstone, what: string): Refusal {
  const text = formatPrefix(subnet);
  const why = reserved ? 'is reserved for' : 'is kept for';
  return {
    kind: 'refused',
    reason: `${what}: ${text} ${why} node ${nodeId}`,
    next: reserved
      ? `tartan lease release ${text}`
      : `choose another subnet, or where that node is surely gone: tartan lease release --force ${text}`,
  };
}

export function describeOwner({ nodeId, publicIp }: Lease): string {
  return nodeId === undefined ? `the host at ${formatIpv4(publicIp)}` : `node ${nodeId} at ${formatIpv4(publicIp)}`;
}

export type ReleaseResult =
  | Refusal
  /** Nobody has it any more. */
  | { readonly kind: 'free' }
  /** Its node lives and goes on with an ordinary lease. */
  | { readonly kind: 'leased'; readonly nodeId: string }
  /** Its node did not answer. */
  | { readonly kind: 'ending'; readonly nodeId: string; readonly seconds: number };

const graceSeconds = 60;
/** What a daemon has by default: how long the silent node's quarantine will be. */
const defaultTtlSeconds = 86_400;
/** A living node answers its watch within a second. */
const answerMs = 3_000;
const pollMs = 100;

/**
 * Ends a reservation. A node that lives keeps its subnet as an ordinary lease: the key gets a short etcd lease,
 * which the node finds and replaces by its own. Where nobody does, the key ends with that lease, and the subnet stays
 * kept for the node as after any silent end: it may be alive and cut off. Only a reservation that nobody uses, or a
 * word that its node is gone, frees the subnet at once.
 * @param force its node is surely gone
 */
export async function releaseReservation(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const entry = await readKey(context, subnet, signal);
  if (!entry) return releaseKept(context, subnet, force, signal);
  const text = formatPrefix(subnet);
  if (entry.kind === 'rejected') {
    const key = context.keys.subnet(subnet).toString();
    return refuse(`${text} is no lease: its value ${entry.rejected.reason}`, `look at it with: etcdctl get ${key}`);
  }
  const { lease } = entry;
  if (lease.leaseId !== '0') {
    const reason = `${text} is an ordinary lease of ${describeOwner(lease)}, not a reservation`;
    return refuse(reason, 'to free it run on that host: tartan leave');
  }
  const { nodeId, bootId } = lease;
  if (nodeId !== undefined && bootId !== undefined && !lease.released && !force)
    return turnBack(context, { ...lease, nodeId }, signal);
  if (await removeLease(context, lease, signal)) return { kind: 'free' };
  return refuse(`${text} is in use: ${describeOwner(lease)} answered`, 'to free it run on that host: tartan leave');
}

/** Without a lease key: a reservation that waits for its node, or the tombstone of one that went silent. */
async function releaseKept(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const { kv, keys } = context;
  const [held] = (await kv.list(onlyKey(keys.tombstone(subnet)), { signal })).entries;
  const tombstone = held && readTombstone(keys, held);
  const text = formatPrefix(subnet);
  if (!tombstone) return refuse(`${text} is neither leased nor reserved`, 'see what is with: tartan leases -o wide');
  if (!tombstone.reserved && !force) return refuseKept(tombstone, 'this is no reservation');
  if (await forgetTombstone(context, tombstone, signal)) return { kind: 'free' };
  return refuse(`${text} was taken meanwhile`, 'see by whom with: tartan leases');
}

async function turnBack(
  context: ReleaseContext,
  lease: Lease & { readonly nodeId: string },
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const { kv, clock } = context;
  const { nodeId, subnet } = lease;
  const grant: Grant = {
    leaseId: await kv.grantLease(graceSeconds, { signal }),
    tombstoneLeaseId: await kv.grantLease(tombstoneSeconds(defaultTtlSeconds), { signal }),
    sentAtMs: clock.now(),
  };
  const turned = await rewriteKey(context, lease, lease, grant, signal);
  if (typeof turned === 'string') {
    await dropLeases(context, idsOf(grant), signal);
    return refuse(`${formatPrefix(subnet)} changed meanwhile`, 'run it again');
  }
  for (const endMs = clock.now() + answerMs; clock.now() < endMs; await clock.sleep(pollMs, signal)) {
    const now = await readKey(context, subnet, signal);
    const answered = now?.kind === 'lease' && now.lease.leaseId !== grant.leaseId && now.lease.nodeId === nodeId;
    if (!answered) continue;
    await dropLeases(context, idsOf(grant), signal);
    return { kind: 'leased', nodeId };
  }
  return { kind: 'ending', nodeId, seconds: graceSeconds };
}

async function readKey({ kv, keys }: ReleaseContext, subnet: Prefix, signal: AbortSignal): Promise<Entry | undefined> {
  const [found] = (await kv.list(onlyKey(keys.subnet(subnet)), { signal })).entries;
  return found && readEntry(keys, found);
}

function refuse(reason: string, next: string): Refusal {
  return { kind: 'refused', reason, next };
}
