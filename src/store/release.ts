/** A planned leave: a word of goodbye, so that peers drop the route at once, then the key, and the subnet is free. */
import { formatLeaseValue, type Lease } from '../model/lease.js';
import type { Tombstone } from '../model/allocation.js';
import { samePrefix, type Prefix } from '../model/ipv4.js';
import { unmodifiedKey, deleteKey, dropLeases } from './claim.js';
import type { StoreContext } from './context.js';
import { readEntry, readTombstone } from './entries.js';
import { onlyKey } from './keys.js';

/** Long enough for watchers to see the goodbye before the delete. */
const goodbyeMs = 200;
const longestMs = 10_000;

export interface ReleasedSubnet {
  readonly subnet: Prefix;
  /** It stays reserved for its node. */
  readonly reserved: boolean;
}

export type ReleaseContext = Pick<StoreContext, 'kv' | 'keys' | 'clock'>;

/** A key that is not ours any more is left alone; a reservation stays, marked released. */
export async function releaseSubnet(context: ReleaseContext, nodeId: string, subnet: Prefix): Promise<void> {
  const { kv, keys } = context;
  const signal = AbortSignal.timeout(longestMs);
  const [found] = (await kv.list(onlyKey(keys.subnet(subnet)), { signal })).entries;
  if (!found) return forget(context, nodeId, subnet, signal);
  const entry = readEntry(keys, found);
  if (entry.kind !== 'lease' || entry.lease.nodeId !== nodeId) return;
  const { lease } = entry;
  if (lease.leaseId === '0') await sayGoodbye(context, lease, signal);
  else await removeLease(context, lease, signal);
}

/** @returns false when the key changed meanwhile: it is as its owner wants it */
export async function removeLease(context: ReleaseContext, lease: Lease, signal: AbortSignal): Promise<boolean> {
  const { kv, keys, clock } = context;
  const revision = await sayGoodbye(context, lease, signal);
  if (revision === undefined) return false;
  const [found] = (await kv.list(onlyKey(keys.tombstone(lease.subnet)), { signal })).entries;
  await clock.sleep(goodbyeMs, signal);
  return deleteKey(context, { ...lease, revision }, found && readTombstone(keys, found), signal);
}

/** @returns the revision of the key, undefined when it had changed */
async function sayGoodbye(
  { kv, keys }: ReleaseContext,
  lease: Lease,
  signal: AbortSignal,
): Promise<bigint | undefined> {
  const key = keys.subnet(lease.subnet);
  const value = Buffer.from(formatLeaseValue({ ...lease, released: true }));
  const { outcome, revision } = await kv.commit(
    unmodifiedKey(key, lease),
    [{ kind: 'put', key, value, leaseId: lease.leaseId }],
    { signal },
  );
  return outcome === 'done' ? revision : undefined;
}

/** The key is gone already: what is left is that nobody else may have the subnet. */
async function forget(context: ReleaseContext, nodeId: string, subnet: Prefix, signal: AbortSignal): Promise<void> {
  const { kv, keys } = context;
  const [found] = (await kv.list(onlyKey(keys.tombstone(subnet)), { signal })).entries;
  const tombstone = found && readTombstone(keys, found);
  if (tombstone?.nodeId === nodeId && !tombstone.reserved) await forgetTombstone(context, tombstone, signal);
}

/** @returns false when the subnet is leased again, or the tombstone has changed */
export async function forgetTombstone(
  context: ReleaseContext,
  { subnet, revision, leaseId }: Tombstone,
  signal: AbortSignal,
): Promise<boolean> {
  const { kv, keys } = context;
  const key = keys.tombstone(subnet);
  const { outcome } = await kv.commit(
    [
      { kind: 'absent', key: keys.subnet(subnet) },
      { kind: 'modified-at', key, revision },
    ],
    [{ kind: 'delete', key }],
    { signal },
  );
  if (outcome === 'done') await dropLeases(context, [leaseId], signal);
  return outcome === 'done';
}

/**
 * Everything of a node that will not come back, or not soon. Nobody may forward for it any more.
 * @returns the subnets that were its; one that is reserved stays reserved
 */
export async function releaseNode(
  context: ReleaseContext,
  nodeId: string,
  signal: AbortSignal,
): Promise<readonly ReleasedSubnet[]> {
  const { kv, keys } = context;
  const { entries } = await kv.list(keys.subnets, { signal });
  const found = await kv.list(keys.tombstones, { signal });
  const leases = entries
    .map(entry => readEntry(keys, entry))
    .flatMap(entry => (entry.kind === 'lease' && entry.lease.nodeId === nodeId ? [entry.lease] : []));
  const tombstones = found.entries
    .flatMap(entry => readTombstone(keys, entry) ?? [])
    .filter(tombstone => tombstone.nodeId === nodeId && !tombstone.reserved)
    .filter(({ subnet }) => !leases.some(lease => samePrefix(lease.subnet, subnet)));
  for (const { subnet } of [...leases, ...tombstones]) await releaseSubnet(context, nodeId, subnet);
  return [
    ...leases.map(({ subnet, leaseId }) => ({ subnet, reserved: leaseId === '0' })),
    ...tombstones.map(({ subnet }) => ({ subnet, reserved: false })),
  ];
}
