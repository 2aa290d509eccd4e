/**
 * The routed peers, as a pure function of the lease sets and of time. The store cannot tell an expiry from a delete by
 * hand, so a peer that only vanishes is held down: it keeps its route for a while. A goodbye or a new owner of its
 * range removes the route at once.
 *
 * A store that went back (restored, wiped) deleted nobody: a peer that it forgot is kept until its own lease would end.
 *
 *   present --- vanished, forgotten ---> held down --- time is up ---> dropped
 *      ^  \______ released, new owner, overlapped ______________^
 *      |______________ back again ________|
 */
import { prefixKey, samePrefix, type PrefixKey } from '../model/ip.js';
import { formatLeaseKey, type Lease, type RejectedEntry } from '../model/lease.js';
import { Prefixes, refuseAlone, vetLeases, type LocalView } from '../model/lease-set.js';
import type { WatchedSet } from '../store/store.js';
import type { HoldDown } from './saved-state.js';

export interface Missing {
  readonly sinceMs: number;
  readonly untilMs: number;
  /** The store went back to a time without the key; nobody deleted it. */
  readonly forgotten: boolean;
}

export interface RoutedPeer {
  readonly lease: Lease;
  /** The epoch of its revisions; undefined for a peer of the saved state, which any lease replaces. */
  readonly epoch: number | undefined;
  /** For a peer that the store does not have: since when, and until when it stays routed, in CLOCK_BOOTTIME ms. */
  readonly missing: Missing | undefined;
}

export interface PeerTable {
  /** The peers by the key of their subnet. */
  readonly routed: ReadonlyMap<PrefixKey, RoutedPeer>;
  /** The leases of these peers, in the same order. */
  readonly leases: readonly Lease[];
  /** Those of the peers that the store does not have. */
  readonly missing: readonly RoutedPeer[];
  readonly rejected: readonly RejectedEntry[];
  /** What the table was made from: a set with few differences is applied in small. */
  readonly applied?: Applied;
  /** Until then no vanished peer is dropped, because most peers vanished together. CLOCK_BOOTTIME ms. */
  readonly frozenUntilMs: number;
}

interface Applied {
  readonly set: WatchedSet;
  readonly self: LocalView;
  /** The ranges of this host, of all leases of the set and of the missing peers. The next table takes them over. */
  readonly ranges: Prefixes;
}

export interface ApplyContext {
  readonly self: LocalView;
  readonly nowMs: number;
  /** How long a vanished peer stays routed; 0 drops it at once. */
  readonly holdMs: number;
}

export const emptyPeerTable: PeerTable = {
  routed: new Map(),
  leases: [],
  missing: [],
  rejected: [],
  frozenUntilMs: -Infinity,
};

/** Peers that vanish within this time vanished together. */
const togetherMs = 5_000;
/** flannel writes a lease again only when this TTL of it is over; a host of ours does so as soon as etcd answers it. */
const forgottenMs = { flannel: 86_400_000, ours: 60_000 };
/** A set with more differences is applied as a whole. */
const fewMax = 100;

/** Returns the table of a start. A restart does not prolong the hold-downs, or those peers might never be dropped. */
export function savedPeerTable(leases: readonly Lease[], self: LocalView, holdDowns: readonly HoldDown[]): PeerTable {
  const { peers } = vetLeases({ leases, rejected: [], revision: 0n }, self);
  const missing = new Map(
    holdDowns.map(
      ({ subnet, untilMs }) => [prefixKey(subnet), { sinceMs: -Infinity, untilMs, forgotten: false }] as const,
    ),
  );
  const routed = peers.map(lease => {
    const key = prefixKey(lease.subnet);
    return [key, { lease, epoch: undefined, missing: missing.get(key) }] as const;
  });
  return withRouted(emptyPeerTable, new Map(routed));
}

export function applyLeaseSet(table: PeerTable, set: WatchedSet, context: ApplyContext): PeerTable {
  return applyFew(table, set, context) ?? applyWhole(table, set, context);
}

/**
 * Applies a set that differs from the one before by leases that were rewritten in place, that came into free ranges or
 * that vanished: what such a lease is does not depend on the others. @returns undefined for every other difference
 */
function applyFew(table: PeerTable, set: WatchedSet, context: ApplyContext): PeerTable | undefined {
  const { self, holdMs } = context;
  const { applied } = table;
  if (applied?.set.epoch !== set.epoch || applied.self.publicIp !== self.publicIp) return undefined;
  if (!samePrefix(applied.self.subnet, self.subnet) || !sameItems(applied.set.rejected, set.rejected)) return undefined;
  const difference = compareSets(applied.set.leases, set.leases);
  if (!difference) return undefined;
  const { changed, gone } = difference;
  if (holdMs === 0 && gone.length + table.missing.length > 0) return undefined;
  for (const { lease, old } of changed) {
    if (lease.released || refuseAlone(lease, self) !== undefined) return undefined;
    if (old ? !isRewritten(table, old, lease, set.epoch) : !takesFreeRange(applied, lease)) return undefined;
  }
  const next = { ...table, applied: { ...applied, self, set } };
  if (changed.length + gone.length === 0) return next;
  const missing = missPeers(table, set, gone, context);
  if (!missing) return undefined;
  const routed = new Map(table.routed);
  const leases = [...table.leases];
  for (const { lease, old } of changed) {
    routed.set(prefixKey(lease.subnet), { lease, epoch: set.epoch, missing: undefined });
    leases[old ? leases.indexOf(old) : leases.length] = lease;
  }
  for (const peer of missing) routed.set(prefixKey(peer.lease.subnet), peer);
  return { ...next, routed, leases, missing: missing.length > 0 ? [...table.missing, ...missing] : table.missing };
}

interface Difference {
  readonly changed: readonly { readonly lease: Lease; readonly old: Lease | undefined }[];
  readonly gone: readonly Lease[];
}

/** @returns undefined when more than a few leases differ; what comes stands behind all that were there */
function compareSets(before: readonly Lease[], now: readonly Lease[]): Difference | undefined {
  const changed: { lease: Lease; old: Lease | undefined }[] = [];
  const gone: Lease[] = [];
  let at = 0;
  // Every lease of the cluster passes here at each change: nothing else is done for those that did not change.
  for (let i = 0; i < now.length; i++) {
    const lease = now[i];
    if (lease === before[at++] || !lease) continue;
    for (at--; at < before.length && gone.length <= fewMax; at++) {
      const old = before[at];
      if (old === lease || (old && samePrefix(old.subnet, lease.subnet))) break;
      if (old) gone.push(old);
    }
    const old = before[at++];
    if (old !== lease) changed.push({ lease, old });
    if (changed.length + gone.length > fewMax) return undefined;
  }
  if (before.length - at > fewMax) return undefined;
  gone.push(...before.slice(at));
  return changed.length + gone.length > fewMax ? undefined : { changed, gone };
}

/** @returns the peers of leases that vanished; undefined when that may let other leases in, or was a mass */
function missPeers(
  table: PeerTable,
  { rejected, epoch }: WatchedSet,
  gone: readonly Lease[],
  { nowMs, holdMs }: ApplyContext,
): readonly RoutedPeer[] | undefined {
  if (gone.length === 0) return [];
  if (table.rejected.length > rejected.length) return undefined;
  const peers = gone.flatMap(lease => {
    const peer = table.routed.get(prefixKey(lease.subnet));
    return peer?.lease === lease ? { ...peer, missing: missingSince(peer, epoch, nowMs, holdMs) } : [];
  });
  const missing = [...table.missing, ...peers];
  if (peers.length < gone.length || isMass(missing, table.leases.length - missing.length, nowMs)) return undefined;
  return peers;
}

function takesFreeRange({ ranges }: Applied, { subnet }: Lease): boolean {
  if (ranges.overlapping(subnet)) return false;
  ranges.add(subnet);
  return true;
}

/** Whether a routed peer only changed its own key. */
function isRewritten(table: PeerTable, old: Lease, lease: Lease, epoch: number): boolean {
  const before = table.routed.get(prefixKey(old.subnet));
  if (before?.lease !== old || old.createRevision !== lease.createRevision) return false;
  return samePrefix(old.subnet, lease.subnet) && mayReplace(before, lease, epoch);
}

export function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a === b || (a.length === b.length && a.every((item, i) => item === b[i]));
}

function applyWhole(table: PeerTable, set: WatchedSet, context: ApplyContext): PeerTable {
  const { self, nowMs, holdMs } = context;
  const { trusted, refused } = filterTrusted(table, set);
  const vetted = vetLeases({ ...set, leases: trusted, rejected: [...set.rejected, ...refused] }, self);
  const routed = new Map<PrefixKey, RoutedPeer>(
    vetted.peers.map(lease => [prefixKey(lease.subnet), { lease, epoch: set.epoch, missing: undefined }]),
  );
  const absent = vanishedFrom(table, set, vetted.peers, context);
  const vanished = absent.filter(({ missing }) => holdMs > 0 || missing?.forgotten);
  for (const peer of vanished) routed.set(prefixKey(peer.lease.subnet), peer);
  const frozenUntilMs = isMass(vanished, vetted.peers.length, nowMs) ? nowMs + holdMs : table.frozenUntilMs;
  const ranges = vetted.taken;
  for (const { subnet } of [self, ...set.leases, ...vanished.map(({ lease }) => lease)])
    if (!ranges.has(subnet)) ranges.add(subnet);
  return {
    ...withRouted(table, routed),
    rejected: vetted.rejected,
    frozenUntilMs,
    applied: { set, self, ranges },
  };
}

function withRouted(table: PeerTable, routed: ReadonlyMap<PrefixKey, RoutedPeer>): PeerTable {
  const peers = [...routed.values()];
  return {
    rejected: table.rejected,
    frozenUntilMs: table.frozenUntilMs,
    routed,
    leases: peers.map(({ lease }) => lease),
    missing: peers.filter(({ missing }) => missing),
  };
}

/** Drops the peers whose hold-down is over. @returns the same table when there are none */
export function expirePeers(table: PeerTable, nowMs: number): PeerTable {
  const expired = table.missing.filter(peer => routedUntilMs(table, peer) <= nowMs);
  if (expired.length === 0) return table;
  const routed = new Map(table.routed);
  for (const { lease } of expired) {
    routed.delete(prefixKey(lease.subnet));
    table.applied?.ranges.remove(lease.subnet);
  }
  return { ...withRouted(table, routed), ...(table.applied && { applied: table.applied }) };
}

/** Returns until when a peer stays routed, in CLOCK_BOOTTIME ms; Infinity for a peer that the store has. */
export function routedUntilMs(table: PeerTable, { missing }: RoutedPeer): number {
  return missing ? Math.max(missing.untilMs, table.frozenUntilMs) : Infinity;
}

/** Leaves out released leases, and keeps the earlier owner where a rewritten key names another one. */
function filterTrusted(
  table: PeerTable,
  set: WatchedSet,
): { trusted: readonly Lease[]; refused: readonly RejectedEntry[] } {
  const refused: RejectedEntry[] = [];
  const trusted = set.leases.flatMap(lease => {
    if (lease.released) return [];
    const before = table.routed.get(prefixKey(lease.subnet));
    if (!before || mayReplace(before, lease, set.epoch)) return [lease];
    const reason =
      'names another owner in a key that was not created anew, the owner of before is kept: delete the key to move the lease';
    refused.push({ key: formatLeaseKey(lease.subnet), revision: lease.revision, reason });
    return [before.lease];
  });
  return { trusted, refused };
}

/** A new owner creates the key, with a higher create revision. A host that changes its address rewrites its own key. */
function mayReplace(before: RoutedPeer, lease: Lease, epoch: number): boolean {
  const sameOwner = lease.nodeId !== undefined && lease.nodeId === before.lease.nodeId;
  const sameAddress = lease.publicIp === before.lease.publicIp;
  return sameOwner || sameAddress || before.epoch !== epoch || lease.createRevision > before.lease.createRevision;
}

/** Returns the routed peers whose subnet the set does not name, and whose range nobody else owns in whole or part. */
function vanishedFrom(
  table: PeerTable,
  set: WatchedSet,
  peers: readonly Lease[],
  { self, nowMs, holdMs }: ApplyContext,
): readonly RoutedPeer[] {
  const named = new Set(set.leases.map(lease => prefixKey(lease.subnet)));
  const absent = [...table.routed.values()].filter(({ lease }) => !named.has(prefixKey(lease.subnet)));
  if (absent.length === 0) return [];
  const owned = new Prefixes();
  owned.add(self.subnet);
  for (const { subnet } of peers) owned.add(subnet);
  return absent
    .filter(({ lease }) => !owned.overlapping(lease.subnet))
    .map(peer => (peer.missing ? peer : { ...peer, missing: missingSince(peer, set.epoch, nowMs, holdMs) }));
}

function missingSince({ lease, epoch }: RoutedPeer, epochNow: number, sinceMs: number, holdMs: number): Missing {
  const forgotten = epoch !== undefined && epoch < epochNow;
  const keptMs = lease.nodeId === undefined ? forgottenMs.flannel : forgottenMs.ours;
  return { sinceMs, untilMs: sinceMs + (forgotten ? Math.max(keptMs, holdMs) : holdMs), forgotten };
}

/** Whether more peers vanished just now, and together, than remain. One peer alone is never a mass. */
function isMass(vanished: readonly RoutedPeer[], remaining: number, nowMs: number): boolean {
  const since = vanished.flatMap(({ missing }) => (missing && !missing.forgotten ? missing.sinceMs : []));
  const together = since.filter(sinceMs => nowMs - sinceMs < togetherMs).length;
  return since.includes(nowMs) && together > 1 && together > remaining;
}
