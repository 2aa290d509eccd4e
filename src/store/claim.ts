/**
 * The guarded transactions on a subnet. A transaction compares what the caller last read of the key, so a key that
 * another node owns is never written.
 */
import { isTartanError } from '../lib/errors.js';
import { backoffMs } from '../lib/retry.js';
import type { Tombstone } from '../model/allocation.js';
import { samePrefix, type Prefix } from '../model/ip.js';
import type { Lease, LeaseValue } from '../model/lease.js';
import type { KvContext, StoreContext } from './context.js';
import type { ClusterSnapshot } from './entries.js';
import type { Keys } from './keys.js';
import type { Commit, Compare, Write } from './kv.js';
import { overlappingNames, within } from './overlap.js';
import { tombstoneSeconds } from './quarantine.js';

/** The two etcd leases of a subnet, that of its key and that of its tombstone. Both are granted or renewed together. */
export interface Grant {
  /** '0' for a reservation, as is `tombstoneLeaseId`. */
  readonly leaseId: string;
  readonly tombstoneLeaseId: string;
  /** CLOCK_BOOTTIME milliseconds at the send of the grant or KeepAlive. */
  readonly sentAtMs: number;
}

/** The result of a guarded write: this node owns the subnet by the lease. */
export interface Claim extends Omit<Grant, 'leaseId'> {
  readonly lease: Lease;
}

/** The claim, or the outcome of a transaction that wrote nothing. */
export type ClaimResult = Claim | Exclude<Commit['outcome'], 'done'>;

/** The value that a node publishes in its own lease. */
export type OwnLeaseValue = LeaseValue & { readonly nodeId: string };

/** Returns the grant of a reservation: neither its key nor its tombstone expires. */
export function reservationAt(nowMs: number): Grant {
  return { leaseId: '0', tombstoneLeaseId: '0', sentAtMs: nowMs };
}

export function idsOf({ leaseId, tombstoneLeaseId }: Grant): readonly string[] {
  return [leaseId, tombstoneLeaseId];
}

export interface ClaimRequest {
  readonly subnet: Prefix;
  readonly value: OwnLeaseValue;
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

/** Creates the lease key if no lease and no tombstone changed since the snapshot. */
export async function createKey(
  context: StoreContext,
  request: ClaimRequest,
  signal: AbortSignal,
): Promise<ClaimResult> {
  const { keys, kv } = context;
  const { subnet, value, grant, snapshot } = request;
  const compares = freeSubnetCompares(keys, subnet, snapshot);
  const { outcome, revision } = await kv.commit(compares, leaseWrites(keys, subnet, value, grant), { signal });
  if (outcome !== 'done') return outcome;
  // No key is attached any more to the etcd lease of the former tombstone.
  const former = tombstoneOf(snapshot, subnet);
  if (former && former.leaseId !== grant.tombstoneLeaseId)
    void dropLeases(context, [former.leaseId], signal).catch(() => {});
  const lease = { ...value, subnet, createRevision: revision, revision, leaseId: grant.leaseId };
  return { ...grant, lease };
}

/** Writes the value and the etcd leases to the own key, if the key has not changed since `last` was read. */
export async function rewriteKey(
  { kv, keys }: KvContext,
  last: Lease,
  value: OwnLeaseValue,
  grant: Grant,
  signal: AbortSignal,
): Promise<ClaimResult> {
  const writes = leaseWrites(keys, last.subnet, value, grant);
  const { outcome, revision } = await kv.commit(unmodifiedKey(keys, last), writes, { signal });
  if (outcome !== 'done') return outcome;
  const lease = { ...last, ...value, revision, leaseId: grant.leaseId };
  return { ...grant, lease };
}

/**
 * Deletes the own key with its tombstone, if the key has not changed since `last` was read, and revokes their etcd
 * leases. The subnet is free at once.
 * @returns false when the key had changed
 */
export async function deleteKey(
  context: KvContext,
  last: Lease,
  tombstone: Tombstone | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const { kv, keys } = context;
  const writes: readonly Write[] = [
    { kind: 'delete', key: keys.subnet(last.subnet) },
    { kind: 'delete', key: keys.tombstone(last.subnet) },
  ];
  const { outcome } = await kv.commit(unmodifiedKey(keys, last), writes, { signal });
  if (outcome !== 'done') return false;
  // flannel granted the etcd lease of a key without a node id, and only flannel may revoke it.
  const leaseIds = [last.nodeId === undefined ? '0' : last.leaseId, tombstone?.leaseId ?? '0'];
  await dropLeases(context, leaseIds, signal);
  return true;
}

/** Revokes etcd leases, '0' aside. An error of the store is ignored: a lease without a key expires by itself. */
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

const lostRace = { firstMs: 50, capMs: 500 };
export const mostRaces = 20;

/** Repeats a change that its guards refused, from its read on. @returns undefined when every attempt lost its race */
export async function retryLostRaces<T>(
  { clock }: Pick<StoreContext, 'clock'>,
  signal: AbortSignal,
  attempt: () => Promise<T | undefined>,
): Promise<T | undefined> {
  for (let race = 1; race <= mostRaces; race++) {
    const result = await attempt();
    if (result !== undefined) return result;
    await clock.sleep(backoffMs(race, lostRace), signal);
  }
  return undefined;
}

export function tombstoneOf(snapshot: Pick<ClusterSnapshot, 'tombstones'>, subnet: Prefix): Tombstone | undefined {
  return snapshot.tombstones.find(other => samePrefix(other.subnet, subnet));
}

/**
 * Compares that hold while no lease and no tombstone that overlaps the free subnet, of any length, has changed since the
 * snapshot. Whatever happens elsewhere is no reason to refuse: many hosts start at once.
 */
export function freeSubnetCompares(keys: Keys, subnet: Prefix, snapshot: ClusterSnapshot): readonly Compare[] {
  const key = keys.tombstone(subnet);
  const tombstone = tombstoneOf(snapshot, subnet);
  const { revision, tombstonesRevision } = snapshot;
  const overlapping = overlappingNames(subnet);
  return [
    ...overlapping.map(name => ({ kind: 'unchanged-since', range: within(keys.subnets, name), revision }) as const),
    ...overlapping.map(
      name =>
        ({ kind: 'unchanged-since', range: within(keys.tombstones, name), revision: tombstonesRevision }) as const,
    ),
    { kind: 'absent', key: keys.subnet(subnet) },
    tombstone ? { kind: 'modified-at', key, revision: tombstone.revision } : { kind: 'absent', key },
  ];
}

/** Compares that hold while the key has not changed since `last` was read. */
export function unmodifiedKey(keys: Keys, last: Lease): readonly Compare[] {
  const key = keys.subnet(last.subnet);
  return [
    { kind: 'lease', key, leaseId: last.leaseId },
    { kind: 'modified-at', key, revision: last.revision },
  ];
}

/** @param text one character for each byte, as LeaseValue has it */
export function leasePut(keys: Keys, subnet: Prefix, text: string, leaseId: string): Write {
  return { kind: 'put', key: keys.subnet(subnet), value: Buffer.from(text, 'latin1'), leaseId };
}

function leaseWrites(keys: Keys, subnet: Prefix, value: OwnLeaseValue, grant: Grant): readonly Write[] {
  const { leaseId, tombstoneLeaseId } = grant;
  return [
    leasePut(keys, subnet, value.text, leaseId),
    { kind: 'put', key: keys.tombstone(subnet), value: Buffer.from(value.nodeId), leaseId: tombstoneLeaseId },
  ];
}
