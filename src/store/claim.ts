/**
 * The guarded transactions of reliability.md section 3. A key that another node owns is never written: each write
 * names what must still be true of the key.
 */
import { isTartanError } from '../lib/errors.js';
import type { Tombstone } from '../model/allocation.js';
import { samePrefix, type Prefix } from '../model/ipv4.js';
import { formatLeaseValue, type Lease, type LeaseValue } from '../model/lease.js';
import type { StoreContext } from './context.js';
import type { Keys } from './keys.js';
import type { Commit, Compare, Write } from './kv.js';
import { tombstoneSeconds } from './quarantine.js';
import type { ClusterSnapshot } from './cluster-snapshot.js';

/** A lease in our hands, and when the store last heard of it. */
export interface Claim {
  readonly lease: Lease;
  /** The etcd lease of its entry under `held/`; '0' beside a reservation. */
  readonly tombstoneLeaseId: string;
  /** CLOCK_BOOTTIME ms at the send of the grant or KeepAlive. */
  readonly sentAtMs: number;
}

/** The two etcd leases of a subnet, granted or renewed together: its own and that of its tombstone. */
export interface Grant {
  readonly leaseId: string;
  readonly tombstoneLeaseId: string;
  readonly sentAtMs: number;
}

/** A reservation and its entry under `held/` never expire. */
export function reservationAt(nowMs: number): Grant {
  return { leaseId: '0', tombstoneLeaseId: '0', sentAtMs: nowMs };
}

export function idsOf({ leaseId, tombstoneLeaseId }: Grant): readonly string[] {
  return [leaseId, tombstoneLeaseId];
}

export interface ClaimRequest {
  readonly subnet: Prefix;
  readonly value: LeaseValue & { readonly nodeId: string };
  readonly grant: Grant;
  readonly snapshot: ClusterSnapshot;
}

export async function grantLease(context: StoreContext, ttlSeconds: number, signal: AbortSignal): Promise<Grant> {
  const { kv, clock } = context;
  const sentAtMs = clock.now();
  const [leaseId, tombstoneLeaseId] = await Promise.all([
    kv.grantLease(ttlSeconds, { signal }),
    kv.grantLease(tombstoneSeconds(ttlSeconds), { signal }),
  ]);
  return { leaseId, tombstoneLeaseId, sentAtMs };
}

/** Creates the lease key, if nothing at all changed among the leases since the survey. */
export async function createKey(
  context: StoreContext,
  request: ClaimRequest,
  signal: AbortSignal,
): Promise<Claim | Exclude<Commit['outcome'], 'done'>> {
  const { keys, kv } = context;
  const { subnet, value, grant, snapshot } = request;
  const key = keys.subnet(subnet);
  const tombstone = tombstoneOf(snapshot, subnet);
  const compares: readonly Compare[] = [
    ...unchangedSince(keys, snapshot),
    { kind: 'absent', key },
    tombstoneGuard(keys.tombstone(subnet), tombstone),
  ];
  const writes: readonly Write[] = [
    { kind: 'put', key, value: Buffer.from(formatLeaseValue(value)), leaseId: grant.leaseId },
    tombstoneWrite(context, subnet, value.nodeId, grant),
  ];
  const { outcome, revision } = await kv.commit(compares, writes, { signal });
  if (outcome !== 'done') return outcome;
  // The lease of the tombstone that was there before has nothing to keep any more.
  if (tombstone && tombstone.leaseId !== grant.tombstoneLeaseId)
    void dropLeases(context, [tombstone.leaseId], signal).catch(() => {});
  const lease = { ...value, subnet, createRevision: revision, revision, leaseId: grant.leaseId };
  return { ...grant, lease };
}

/** Rewrites a key that is ours, as it was last seen, with this value and these leases. */
export async function rewriteKey(
  context: Pick<StoreContext, 'kv' | 'keys'>,
  seen: Lease,
  value: LeaseValue & { readonly nodeId: string },
  grant: Grant,
  signal: AbortSignal,
): Promise<Claim | Exclude<Commit['outcome'], 'done'>> {
  const key = context.keys.subnet(seen.subnet);
  const writes: readonly Write[] = [
    { kind: 'put', key, value: Buffer.from(formatLeaseValue(value)), leaseId: grant.leaseId },
    tombstoneWrite(context, seen.subnet, value.nodeId, grant),
  ];
  const { outcome, revision } = await context.kv.commit(unmodifiedKey(key, seen), writes, { signal });
  if (outcome !== 'done') return outcome;
  const lease = { ...seen, ...value, revision, leaseId: grant.leaseId };
  return { ...grant, lease };
}

/**
 * Deletes a key that is ours, as it was last seen, with its entry under `held/` and their etcd leases: it is free at
 * once.
 */
export async function deleteKey(
  context: Pick<StoreContext, 'kv' | 'keys'>,
  seen: Lease,
  tombstone: Tombstone | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const key = context.keys.subnet(seen.subnet);
  const writes: readonly Write[] = [
    { kind: 'delete', key },
    { kind: 'delete', key: context.keys.tombstone(seen.subnet) },
  ];
  const { outcome } = await context.kv.commit(unmodifiedKey(key, seen), writes, { signal });
  if (outcome !== 'done') return false;
  // What flannel granted is flannel's.
  const leaseIds = [seen.nodeId === undefined ? '0' : seen.leaseId, tombstone?.leaseId ?? '0'];
  await dropLeases(context, leaseIds, signal);
  return true;
}

/** Best effort: a lease left behind has no key and ends by itself. */
export async function dropLeases(
  { kv }: Pick<StoreContext, 'kv'>,
  leaseIds: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  for (const leaseId of leaseIds) {
    if (leaseId === '0') continue;
    try {
      await kv.revokeLease(leaseId, { signal });
    } catch (error) {
      if (!isTartanError(error)) throw error;
    }
  }
}

export function tombstoneOf(snapshot: Pick<ClusterSnapshot, 'tombstones'>, subnet: Prefix): Tombstone | undefined {
  return snapshot.tombstones.find(other => samePrefix(other.subnet, subnet));
}

/** Nothing was leased, and nothing left, since the survey. */
export function unchangedSince(
  keys: Keys,
  { revision, tombstonesRevision: heldRevision }: ClusterSnapshot,
): readonly Compare[] {
  return [
    { kind: 'unchanged-since', range: keys.subnets, revision },
    { kind: 'unchanged-since', range: keys.tombstones, revision: heldRevision },
  ];
}

/** The entry under `held/` is as it was in the survey. */
export function tombstoneGuard(key: Buffer, tombstone: Tombstone | undefined): Compare {
  return tombstone ? { kind: 'modified-at', key, revision: tombstone.revision } : { kind: 'absent', key };
}

export function unmodifiedKey(key: Buffer, seen: Lease): readonly Compare[] {
  return [
    { kind: 'lease', key, leaseId: seen.leaseId },
    { kind: 'modified-at', key, revision: seen.revision },
  ];
}

function tombstoneWrite(
  context: Pick<StoreContext, 'keys'>,
  subnet: Prefix,
  nodeId: string,
  { tombstoneLeaseId: leaseId }: Grant,
): Write {
  return { kind: 'put', key: context.keys.tombstone(subnet), value: Buffer.from(nodeId), leaseId };
}
