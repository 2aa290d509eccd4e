/**
 * Which subnet a node takes: pure, on whole numbers. Ranges of subnet numbers that are taken are merged, so the cost
 * depends on how many leases there are and not on how large the network is.
 */
import type { Ipv4, Prefix } from './ipv4.js';
import { prefixesOverlap, prefixLast } from './ipv4.js';
import { isLeasable, subnetAt, subnetCount, type NetworkConfig } from './network.js';

/** A subnet stays its last owner's for this many TTLs after the owner's last sign of life (reliability.md section 3). */
export const quarantineTtls = 7;

/** A subnet that a node has or once had: its entry under `held/`. */
export interface Tombstone {
  readonly subnet: Prefix;
  readonly nodeId: string;
  readonly revision: bigint;
  /** '0' when the store never forgets it. */
  readonly leaseId: string;
  /** An operator keeps the subnet for this node, which has not taken it yet. */
  readonly reserved: boolean;
}

export interface AgedTombstone extends Tombstone {
  /** Since the owner's last sign of life, undefined where the store does not know. */
  readonly ageSeconds: number | undefined;
  /** Its quarantine is over. */
  readonly over: boolean;
}

export interface AllocationRequest {
  readonly network: NetworkConfig;
  /** Leased now, of any length and also beyond the range. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  readonly nodeId: string;
  /** 0 <= random() < 1 */
  readonly random: () => number;
}

/** The subnet reserved for this node, then its own former one, then any that nobody has had. */
export function chooseSubnet(request: AllocationRequest): Prefix | undefined {
  const { network, tombstones, nodeId } = request;
  const own = tombstones.filter(tombstone => tombstone.nodeId === nodeId && isFree(request, tombstone.subnet));
  const former = own.find(({ reserved }) => reserved) ?? own[0];
  if (former) return former.subnet;
  const foreign = tombstones.filter(tombstone => tombstone.nodeId !== nodeId);
  return randomFree(network, [...request.taken, ...foreign.map(({ subnet }) => subnet)], request.random);
}

/**
 * Another node's former subnet, for when no other is free: one whose quarantine is over, the oldest first.
 * @param evenYoung any that is not reserved, the oldest first: the operator vouches that the owner is gone
 */
export function chooseQuarantined(
  request: Omit<AllocationRequest, 'tombstones'>,
  tombstones: readonly AgedTombstone[],
  evenYoung: boolean,
): Prefix | undefined {
  const { network, taken, nodeId } = request;
  const foreign = tombstones.filter(tombstone => tombstone.nodeId !== nodeId);
  const usable = foreign.filter(({ over, reserved }) => over || (evenYoung && !reserved));
  const kept = foreign.filter(tombstone => !usable.includes(tombstone));
  const busy = [...taken, ...kept.map(({ subnet }) => subnet)];
  const oldest = [...usable]
    .sort(oldestFirst)
    .find(({ subnet }) => isLeasable(network, subnet) && !busy.some(other => prefixesOverlap(other, subnet)));
  // What a network of other subnet lengths left behind is no subnet of this one, but room for it.
  return oldest ? oldest.subnet : usable.length > 0 ? randomFree(network, busy, request.random) : undefined;
}

/** By age where both are known; else by when they were taken. */
export function oldestFirst(a: AgedTombstone, b: AgedTombstone): number {
  if (a.ageSeconds !== undefined && b.ageSeconds !== undefined && a.ageSeconds !== b.ageSeconds)
    return b.ageSeconds - a.ageSeconds;
  return a.revision < b.revision ? -1 : a.revision > b.revision ? 1 : 0;
}

/** Whether this node may take this subnet: not leased in whole or part, and not another node's former one. */
export function isFree(request: Omit<AllocationRequest, 'random'>, subnet: Prefix): boolean {
  return (
    isLeasable(request.network, subnet) &&
    !request.taken.some(other => prefixesOverlap(other, subnet)) &&
    !request.tombstones.some(other => other.nodeId !== request.nodeId && prefixesOverlap(other.subnet, subnet))
  );
}

/** Uniformly among all free ones, so that many hosts starting at once seldom want the same. */
export function randomFree(network: NetworkConfig, busy: readonly Prefix[], random: () => number): Prefix | undefined {
  const runs = busyRuns(network, busy);
  const free = subnetCount(network) - runs.reduce((sum, run) => sum + run.last - run.first + 1, 0);
  if (free <= 0) return undefined;
  let index = Math.floor(random() * free);
  for (const run of runs) {
    if (index < run.first) break;
    index += run.last - run.first + 1;
  }
  return subnetAt(network, index);
}

interface Run {
  readonly first: number;
  readonly last: number;
}

/** Numbers of the subnets that overlap any of the prefixes, as disjoint runs in order. */
function busyRuns(network: NetworkConfig, busy: readonly Prefix[]): readonly Run[] {
  const runs = busy
    .filter(prefix => prefix.base <= lastAddress(network) && prefixLast(prefix) >= network.subnetMin)
    .map(prefix => ({ first: numberOf(network, prefix.base), last: numberOf(network, prefixLast(prefix)) }))
    .sort((a, b) => a.first - b.first);
  const merged: { first: number; last: number }[] = [];
  for (const run of runs) {
    const open = merged.at(-1);
    if (open && run.first <= open.last + 1) open.last = Math.max(open.last, run.last);
    else merged.push({ ...run });
  }
  return merged;
}

function subnetSize(network: NetworkConfig): number {
  return 2 ** (32 - network.subnetLength);
}

function lastAddress(network: NetworkConfig): number {
  return network.subnetMax + subnetSize(network) - 1;
}

/** The number of the subnet that contains the address, the nearest one for an address beyond the range. */
function numberOf(network: NetworkConfig, address: Ipv4): number {
  const number = Math.floor((address - network.subnetMin) / subnetSize(network));
  return Math.min(Math.max(number, 0), subnetCount(network) - 1);
}
