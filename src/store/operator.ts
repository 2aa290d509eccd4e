/** What the operator's tool asks of the cluster: single reads and writes, no loops. */
import type { Tombstone } from '../model/allocation.js';
import { formatLeaseKey, type Lease, type RejectedEntry } from '../model/lease.js';
import { LeaseTable, readTombstone } from './entries.js';
import { Keys, onlyKey } from './keys.js';
import type { Kv, Position } from './kv.js';
import type { AbortOptions } from './store.js';
import { readTimesLeft } from './time-left.js';

export interface TimedLease extends Lease {
  /** Seconds left as the store says; null for a reservation, 0 when it ended meanwhile. */
  readonly ttlSeconds: number | null;
}

export interface TimedLeases {
  readonly leases: readonly TimedLease[];
  /** Subnets without a lease that are kept for a node: reserved for it, or left by it without a goodbye. */
  readonly kept: readonly Tombstone[];
  readonly rejected: readonly RejectedEntry[];
  readonly revision: bigint;
}

/** @throws TartanError STORE_UNAVAILABLE, PERMISSION */
export async function readTimedLeases(kv: Kv, prefix: string, { signal }: AbortOptions): Promise<TimedLeases> {
  const keys = new Keys(prefix);
  const table = new LeaseTable(keys);
  const tombstones = await kv.list(keys.tombstones, { signal });
  table.replace(await kv.list(keys.subnets, { signal }));
  const { leases, rejected, revision } = table.snapshot();
  const times = await readTimesLeft(
    kv,
    leases.map(({ leaseId }) => leaseId),
    signal,
  );
  const timed = leases.map(lease => ({
    ...lease,
    ttlSeconds: lease.leaseId === '0' ? null : (times.get(lease.leaseId)?.ttlSeconds ?? 0),
  }));
  const leased = new Set(leases.map(({ subnet }) => formatLeaseKey(subnet)));
  const kept = tombstones.entries
    .flatMap(entry => readTombstone(keys, entry) ?? [])
    .filter(({ subnet }) => !leased.has(formatLeaseKey(subnet)));
  return { leases: timed, kept, rejected, revision };
}

/** @returns undefined when the key does not exist */
export async function getNetworkText(kv: Kv, prefix: string, { signal }: AbortOptions): Promise<string | undefined> {
  return (await readNetworkText(kv, new Keys(prefix), signal)).text;
}

export async function putNetworkText(kv: Kv, prefix: string, text: string, { signal }: AbortOptions): Promise<void> {
  const { config } = new Keys(prefix);
  // A write is never sent twice: a read before it finds the endpoint that answers.
  await kv.list(onlyKey(config), { signal });
  await kv.commit([], [{ kind: 'put', key: config, value: Buffer.from(text), leaseId: '0' }], { signal });
}

export async function readNetworkText(
  kv: Kv,
  keys: Keys,
  signal: AbortSignal,
): Promise<{ readonly text: string | undefined; readonly at: Position }> {
  const { entries, revision, clusterId } = await kv.list(onlyKey(keys.config), { signal });
  return { text: entries[0]?.value.toString('utf8'), at: { revision, clusterId } };
}
