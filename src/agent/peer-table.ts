/**
 * Which peers are routed, as a pure function of the sets that the store told and of time. The store cannot tell an
 * expiry from a delete by hand, so a peer that merely vanishes keeps its route for a while; a goodbye or a new owner of
 * its range takes the route at once.
 *
 *   present --- vanished ---> held down --- time is up ---> dropped
 *      ^  \______ released, new owner, overlapped ______________^
 *      |______________ there again _______|
 */
import type { Prefix } from '../model/ipv4.js';
import { formatLeaseKey, type Lease, type RejectedEntry } from '../model/lease.js';
import { Prefixes, vetLeases, type LocalView } from '../model/lease-set.js';
import type { WatchedSet } from '../store/store.js';
import type { HoldDown } from './saved-state.js';

export interface RoutedPeer {
  readonly lease: Lease;
  /** The epoch its revisions belong to; undefined for one remembered from an earlier run, which anything replaces. */
  readonly epoch: number | undefined;
  /** While the store does not have it: since when, and until when it is routed all the same, CLOCK_BOOTTIME ms. */
  readonly missing: { readonly sinceMs: number; readonly untilMs: number } | undefined;
}

export interface PeerTable {
  /** By `keyOf` the subnet. */
  readonly routed: ReadonlyMap<number, RoutedPeer>;
  readonly rejected: readonly RejectedEntry[];
  /** Most peers vanished together: until then none is dropped for having vanished. */
  readonly frozenUntilMs: number;
}

export interface ApplyContext {
  readonly self: LocalView;
  readonly nowMs: number;
  /** How long a vanished peer stays routed; 0: not at all. */
  readonly holdMs: number;
}

export const emptyPeerTable: PeerTable = { routed: new Map(), rejected: [], frozenUntilMs: -Infinity };

/** Peers that vanish within this time count as vanished together. */
const togetherMs = 5_000;

/** A number that is exact and, unlike the text, costs nothing to make. */
export function keyOf(subnet: Prefix): number {
  return subnet.base * 64 + subnet.length;
}

/** Where a start begins. A restart gives those who were held down no more time, or they would never go. */
export function savedPeerTable(leases: readonly Lease[], self: LocalView, holdDowns: readonly HoldDown[]): PeerTable {
  const { peers } = vetLeases({ leases, rejected: [], revision: 0n }, self);
  const missing = new Map(
    holdDowns.map(({ subnet, untilMs }) => [keyOf(subnet), { sinceMs: -Infinity, untilMs }] as const),
  );
  const routed = peers.map(lease => {
    const key = keyOf(lease.subnet);
    return [key, { lease, epoch: undefined, missing: missing.get(key) }] as const;
  });
  return { ...emptyPeerTable, routed: new Map(routed) };
}

export function applyLeaseSet(table: PeerTable, set: WatchedSet, reading: ApplyContext): PeerTable {
  const { believed, refused } = filterTrusted(table, set);
  const vetted = vetLeases({ ...set, leases: believed, rejected: [...set.rejected, ...refused] }, reading.self);
  const routed = new Map<number, RoutedPeer>(
    vetted.peers.map(lease => [keyOf(lease.subnet), { lease, epoch: set.epoch, missing: undefined }]),
  );
  const vanished = reading.holdMs > 0 ? vanishedFrom(table, set, vetted.peers, reading) : [];
  for (const peer of vanished) routed.set(keyOf(peer.lease.subnet), peer);
  const frozenUntilMs = isMass(vanished, vetted.peers.length, reading.nowMs)
    ? reading.nowMs + reading.holdMs
    : table.frozenUntilMs;
  return { routed, rejected: vetted.rejected, frozenUntilMs };
}

/** Drops those whose time is up. @returns the same table when there is none */
export function expirePeers(table: PeerTable, nowMs: number): PeerTable {
  const stays = ([, peer]: readonly [number, RoutedPeer]): boolean => heldUntilMs(table, peer) > nowMs;
  const routed = [...table.routed].filter(stays);
  return routed.length === table.routed.size ? table : { ...table, routed: new Map(routed) };
}

/** Infinity for a peer that the store has. */
export function heldUntilMs(table: PeerTable, { missing }: RoutedPeer): number {
  return missing ? Math.max(missing.untilMs, table.frozenUntilMs) : Infinity;
}

/** Without those who said goodbye, and with the owner of before where another one is named without right. */
function filterTrusted(
  table: PeerTable,
  set: WatchedSet,
): { believed: readonly Lease[]; refused: readonly RejectedEntry[] } {
  const refused: RejectedEntry[] = [];
  const believed = set.leases.flatMap(lease => {
    if (lease.released) return [];
    const before = table.routed.get(keyOf(lease.subnet));
    if (!before || mayReplace(before, lease, set.epoch)) return [lease];
    const reason =
      'names another owner in a key that was not created anew, the owner of before is kept: delete the key to move the lease';
    refused.push({ key: formatLeaseKey(lease.subnet), revision: lease.revision, reason });
    return [before.lease];
  });
  return { believed, refused };
}

/** A new owner creates the key, so its create revision is higher; a host that changes its address rewrites its own. */
function mayReplace(before: RoutedPeer, lease: Lease, epoch: number): boolean {
  const sameOwner = lease.nodeId !== undefined && lease.nodeId === before.lease.nodeId;
  const sameAddress = lease.publicIp === before.lease.publicIp;
  return sameOwner || sameAddress || before.epoch !== epoch || lease.createRevision > before.lease.createRevision;
}

/** Routed so far, not in the set at all, and nobody else's in whole or part. */
function vanishedFrom(
  table: PeerTable,
  set: WatchedSet,
  peers: readonly Lease[],
  { self, nowMs, holdMs }: ApplyContext,
): readonly RoutedPeer[] {
  const named = new Set(set.leases.map(lease => keyOf(lease.subnet)));
  const absent = [...table.routed.values()].filter(({ lease }) => !named.has(keyOf(lease.subnet)));
  if (absent.length === 0) return [];
  const owned = new Prefixes();
  owned.add(self.subnet);
  for (const { subnet } of peers) owned.add(subnet);
  return absent
    .filter(({ lease }) => !owned.overlapping(lease.subnet))
    .map(peer => (peer.missing ? peer : { ...peer, missing: { sinceMs: nowMs, untilMs: nowMs + holdMs } }));
}

/** More vanished just now, and together, than remain. One alone is never a mass. */
function isMass(vanished: readonly RoutedPeer[], remaining: number, nowMs: number): boolean {
  const since = vanished.flatMap(({ missing }) => missing?.sinceMs ?? []);
  const together = since.filter(sinceMs => nowMs - sinceMs < togetherMs).length;
  return since.includes(nowMs) && together > 1 && together > remaining;
}
