/**
 * The guarded transactions of reliability.md section 3. A key that another node owns is never written: each write
 * names what must still be true of the key.
 */
import { isTartanError } from '../lib/errors.js';
import { samePrefix, type Prefix } from '../model/ipv4.js';
import { formatLeaseValue, type Lease, type LeaseValue } from '../model/lease.js';
import type { StoreContext } from './context.js';
import type { Commit, Compare, Write } from './kv.js';
import type { Survey } from './survey.js';

/** A lease in our hands, and when the store last heard of it. */
export interface Claim {
  readonly lease: Lease;
  /** CLOCK_BOOTTIME ms at the send of the grant or KeepAlive. */
  readonly sentAtMs: number;
}

/** An etcd lease with no key yet. */
export interface Grant {
  readonly leaseId: string;
  readonly sentAtMs: number;
}

export interface ClaimRequest {
  readonly subnet: Prefix;
  readonly value: LeaseValue & { readonly nodeId: string };
  readonly grant: Grant;
  readonly survey: Survey;
}

export async function grantLease(context: StoreContext, ttlSeconds: number, signal: AbortSignal): Promise<Grant> {
  const sentAtMs = context.clock.now();
  return { leaseId: await context.kv.grantLease(ttlSeconds, { signal }), sentAtMs };
}

/** Creates the lease key, if nothing at all changed among the leases since the survey. */
export async function createKey(
  context: StoreContext,
  request: ClaimRequest,
  signal: AbortSignal,
): Promise<Claim | Exclude<Commit['outcome'], 'done'>> {
  const { keys, kv } = context;
  const { subnet, value, grant, survey } = request;
  const key = keys.subnet(subnet);
  const compares: readonly Compare[] = [
    { kind: 'unchanged-since', range: keys.subnets, revision: survey.revision },
    { kind: 'absent', key },
    heldGuard(context, request),
  ];
  const writes: readonly Write[] = [
    { kind: 'put', key, value: Buffer.from(formatLeaseValue(value)), leaseId: grant.leaseId },
    heldWrite(context, subnet, value.nodeId),
  ];
  const { outcome, revision } = await kv.commit(compares, writes, { signal });
  if (outcome !== 'done') return outcome;
  const lease = { ...value, subnet, createRevision: revision, revision, leaseId: grant.leaseId };
  return { lease, sentAtMs: grant.sentAtMs };
}

/** Rewrites a key that is ours, as it was last seen, with this value and this lease ('0' keeps a reservation one). */
export async function rewriteKey(
  context: StoreContext,
  seen: Lease,
  value: LeaseValue & { readonly nodeId: string },
  grant: Grant,
  signal: AbortSignal,
): Promise<Claim | Exclude<Commit['outcome'], 'done'>> {
  const key = context.keys.subnet(seen.subnet);
  const writes: readonly Write[] = [
    { kind: 'put', key, value: Buffer.from(formatLeaseValue(value)), leaseId: grant.leaseId },
    heldWrite(context, seen.subnet, value.nodeId),
  ];
  const { outcome, revision } = await context.kv.commit(asSeen(key, seen), writes, { signal });
  if (outcome !== 'done') return outcome;
  const lease = { ...seen, ...value, revision, leaseId: grant.leaseId };
  return { lease, sentAtMs: grant.sentAtMs };
}

/** Deletes a key that is ours, as it was last seen, with its quarantine entry and its etcd lease: it is free at once. */
export async function deleteKey(context: StoreContext, seen: Lease, signal: AbortSignal): Promise<boolean> {
  const key = context.keys.subnet(seen.subnet);
  const writes: readonly Write[] = [
    { kind: 'delete', key },
    { kind: 'delete', key: context.keys.heldBy(seen.subnet) },
  ];
  const { outcome } = await context.kv.commit(asSeen(key, seen), writes, { signal });
  if (outcome === 'done' && seen.nodeId !== undefined) await dropGrant(context, seen.leaseId, signal);
  return outcome === 'done';
}

/** Best effort: a lease left behind has no key and ends by itself. */
export async function dropGrant(context: StoreContext, leaseId: string, signal: AbortSignal): Promise<void> {
  if (leaseId === '0') return;
  try {
    await context.kv.revokeLease(leaseId, { signal });
  } catch (error) {
    if (!isTartanError(error)) throw error;
  }
}

function asSeen(key: Buffer, seen: Lease): readonly Compare[] {
  return [
    { kind: 'lease', key, leaseId: seen.leaseId },
    { kind: 'modified-at', key, revision: seen.revision },
  ];
}

/** As it was in the survey: never used, ours, or (when asked for) that of the node that left it. */
function heldGuard(context: StoreContext, { subnet, survey }: ClaimRequest): Compare {
  const key = context.keys.heldBy(subnet);
  const tombstone = survey.tombstones.find(other => samePrefix(other.subnet, subnet));
  return tombstone ? { kind: 'value', key, value: Buffer.from(tombstone.nodeId, 'latin1') } : { kind: 'absent', key };
}

function heldWrite(context: StoreContext, subnet: Prefix, nodeId: string): Write {
  return { kind: 'put', key: context.keys.heldBy(subnet), value: Buffer.from(nodeId), leaseId: '0' };
}
