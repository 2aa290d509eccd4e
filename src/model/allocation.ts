/**
 * Chooses the subnet that a node takes. The functions are pure and count in subnet numbers. They merge the numbers that
 * are taken into ranges, so the cost depends on the number of leases and not on the size of the network.
 */
import { placesBehind, prefixesOverlap, prefixLast, type Ipv4, type Prefix } from './ip.js';
import { isLeasable, subnetAt, subnetCount, type NetworkConfig } from './network.js';

/** Only the last owner may take its subnet for this many TTLs after its last KeepAlive. */
export const quarantineTtls = 7;

/** The entry under `held/` of a subnet that a node has or had. */
export interface Tombstone {
  readonly subnet: Prefix;
  readonly nodeId: string;
  readonly revision: bigint;
  /** The etcd lease of the entry; '0' when the entry never expires. */
  readonly leaseId: string;
  /** An operator has reserved the subnet for this node, which has not taken it yet. */
  readonly reserved: boolean;
}

export interface AgedTombstone extends Tombstone {
  /** Seconds since the owner's last KeepAlive, undefined where the store cannot tell. */
  readonly ageSeconds: number | undefined;
  /** The quarantine of the subnet is over. */
  readonly over: boolean;
}

export interface AllocationRequest {
  readonly network: NetworkConfig;
  /** The subnets leased now, of any length, also outside of SubnetMin to SubnetMax. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  readonly nodeId: string;
  /** 0 <= random() < 1 */
  readonly random: () => number;
}

/** Prefers the subnet reserved for this node, then its own former one, then a random one without a tombstone. */
export function chooseSubnet(request: AllocationRequest): Prefix | undefined {
  const { network, tombstones, nodeId } = request;
  const own = tombstones.filter(tombstone => tombstone.nodeId === nodeId && isFree(request, tombstone.subnet));
  const former = own.find(({ reserved }) => reserved) ?? own[0];
  if (former) return former.subnet;
  const foreign = tombstones.filter(tombstone => tombstone.nodeId !== nodeId);
  return randomFree(network, [...request.taken, ...foreign.map(({ subnet }) => subnet)], request.random);
}

/**
 * Chooses another node's former subnet, for a network in which no other is free. It takes the oldest one whose
 * quarantine is over.
 * @param ignoreQuarantine also takes subnets in quarantine, unless they are reserved: the operator asserts that their
 * owners are gone
 */
export function chooseQuarantined(
  request: Omit<AllocationRequest, 'tombstones'>,
  tombstones: readonly AgedTombstone[],
  ignoreQuarantine: boolean,
): Prefix | undefined {
  const { network, taken, nodeId } = request;
  const foreign = tombstones.filter(tombstone => tombstone.nodeId !== nodeId);
  const usable = foreign.filter(({ over, reserved }) => over || (ignoreQuarantine && !reserved));
  const unusable = foreign.filter(tombstone => !usable.includes(tombstone));
  const busy = [...taken, ...unusable.map(({ subnet }) => subnet)];
  const oldest = [...usable]
    .sort(oldestFirst)
    .find(({ subnet }) => isLeasable(network, subnet) && !busy.some(other => prefixesOverlap(other, subnet)));
  // A tombstone of another subnet length is no subnet of this network, but its range is free to be leased.
  return oldest ? oldest.subnet : usable.length > 0 ? randomFree(network, busy, request.random) : undefined;
}

/** Orders by age where both ages are known, else by the revision of the tombstone. */
export function oldestFirst(a: AgedTombstone, b: AgedTombstone): number {
  if (a.ageSeconds !== undefined && b.ageSeconds !== undefined && a.ageSeconds !== b.ageSeconds)
    return b.ageSeconds - a.ageSeconds;
  return a.revision < b.revision ? -1 : a.revision > b.revision ? 1 : 0;
}

/** Tells whether this node may take the subnet: it overlaps no lease and no tombstone of another node. */
export function isFree(request: Omit<AllocationRequest, 'random'>, subnet: Prefix): boolean {
  return (
    isLeasable(request.network, subnet) &&
    !request.taken.some(other => prefixesOverlap(other, subnet)) &&
    !request.tombstones.some(other => other.nodeId !== request.nodeId && prefixesOverlap(other.subnet, subnet))
  );
}

/** Chooses uniformly among all free subnets, so that hosts that start together seldom choose the same one. */
export function randomFree(network: NetworkConfig, busy: readonly Prefix[], random: () => number): Prefix | undefined {
  const ranges = busyRanges(network, busy);
  const free = subnetCount(network) - ranges.reduce((sum, range) => sum + range.last - range.first + 1, 0);
  if (free <= 0) return undefined;
  let index = Math.floor(random() * free);
  for (const range of ranges) {
    if (index < range.first) break;
    index += range.last - range.first + 1;
  }
  return subnetAt(network, index);
}

interface NumberRange {
  readonly first: number;
  readonly last: number;
}

/** Returns the numbers of the subnets that overlap any of the prefixes, as disjoint ranges in order. */
function busyRanges(network: NetworkConfig, busy: readonly Prefix[]): readonly NumberRange[] {
  const lastAddress = prefixLast({ base: network.subnetMax, length: network.subnetLength });
  const ranges = busy
    .filter(prefix => prefix.base <= lastAddress && prefixLast(prefix) >= network.subnetMin)
    .map(prefix => ({ first: numberOf(network, prefix.base), last: numberOf(network, prefixLast(prefix)) }))
    .sort((a, b) => a.first - b.first);
  const merged: { first: number; last: number }[] = [];
  for (const range of ranges) {
    const open = merged.at(-1);
    if (open && range.first <= open.last + 1) open.last = Math.max(open.last, range.last);
    else merged.push({ ...range });
  }
  return merged;
}

/** Returns the number of the subnet that contains the address, of the nearest one outside of the range. */
function numberOf(network: NetworkConfig, address: Ipv4): number {
  const number = placesBehind({ base: network.subnetMin, length: network.subnetLength }, address);
  return Math.min(Math.max(number, 0), subnetCount(network) - 1);
}
