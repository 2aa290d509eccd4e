/** The reads and writes of the operator's tool: single ones, without a loop. */
import type { Tombstone } from '../model/allocation.js';
import { TartanError } from '../lib/errors.js';
import { formatLeaseKey, type Lease, type RejectedEntry } from '../model/lease.js';
import { LeaseTable, readTombstone } from './entries.js';
import { Keys, onlyKey } from './keys.js';
import type { KeyValue, Kv, Position } from './kv.js';
import type { AbortOptions } from './store.js';
import { readTimesToLive } from './quarantine.js';

export interface TimedLease extends Lease {
  /** The remaining seconds by the store's clock; null for a reservation, 0 for a lease that has just ended. */
  readonly ttlSeconds: number | null;
}

export interface TimedLeases {
  readonly leases: readonly TimedLease[];
  /** The tombstones on subnets without a lease: reserved for a node, or left by a node without a release. */
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
  const times = await readTimesToLive(kv, leases, signal);
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
  await kv.commit([], [{ kind: 'put', key: config, value: Buffer.from(text), leaseId: '0' }], { signal });
}

export async function readNetworkText(
  kv: Kv,
  keys: Keys,
  signal: AbortSignal,
): Promise<{ readonly text: string | undefined; readonly entry: KeyValue | undefined; readonly at: Position }> {
  const { entries, revision, clusterId } = await kv.list(onlyKey(keys.config), { signal });
  const [entry] = entries;
  if (entry?.omittedBytes !== undefined)
    throw new TartanError(
      'CONFIG_INVALID',
      `${keys.config.toString()} has ${entry.omittedBytes} bytes, expected a network document`,
    );
  return { text: entry?.value.toString('utf8'), entry, at: { revision, clusterId } };
}
