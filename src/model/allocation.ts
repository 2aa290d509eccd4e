/**
 * Which subnet a node takes: pure, on whole numbers. Ranges of subnet numbers that are taken are merged, so the cost
 * depends on how many leases there are and not on how large the network is.
 */
import type { Ipv4, Prefix } from './ipv4.js';
import { prefixesOverlap, prefixLast } from './ipv4.js';
import { isLeasable, subnetAt, subnetCount, type NetworkConfig } from './network.js';

/** A subnet that some node once had: the quarantine entry under `held/`. */
export interface Tombstone {
  readonly subnet: Prefix;
  readonly nodeId: string;
  readonly revision: bigint;
}

export interface AllocationRequest {
  readonly network: NetworkConfig;
  /** Leased now, of any length and also beyond the range. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  readonly nodeId: string;
  /** Hand out another node's former subnet, the one left longest ago, when no other is free. */
  readonly reuseQuarantined: boolean;
  /** 0 <= random() < 1 */
  readonly random: () => number;
}

/** Own former subnet first, then any that nobody ever had, then (if asked) the oldest tombstone. */
export function chooseSubnet(request: AllocationRequest): Prefix | undefined {
  const { network, tombstones, nodeId } = request;
  const own = tombstones.filter(({ nodeId: owner, subnet }) => owner === nodeId && isLeasable(network, subnet));
  const former = own.find(({ subnet }) => isFree(request, subnet));
  if (former) return former.subnet;
  const foreign = tombstones.filter(tombstone => tombstone.nodeId !== nodeId);
  const fresh = randomFree(network, [...request.taken, ...foreign.map(({ subnet }) => subnet)], request.random);
  return fresh ?? (request.reuseQuarantined ? oldestQuarantined(request, foreign) : undefined);
}

/** Whether this node may take this subnet: not leased in whole or part, and not another node's former one. */
export function isFree(request: Omit<AllocationRequest, 'random' | 'reuseQuarantined'>, subnet: Prefix): boolean {
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

function oldestQuarantined(request: AllocationRequest, foreign: readonly Tombstone[]): Prefix | undefined {
  const byAge = [...foreign].sort((a, b) => (a.revision < b.revision ? -1 : 1));
  return byAge.find(
    ({ subnet }) => isLeasable(request.network, subnet) && !request.taken.some(other => prefixesOverlap(other, subnet)),
  )?.subnet;
}
