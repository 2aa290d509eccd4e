/**
 * The planned leave of a node. The key is first written once more as released, so that peers drop the route at once.
 * Then the key is deleted, and the subnet is free.
 */
import type { Tombstone } from '../model/allocation.js';
import { samePrefix, type Prefix } from '../model/ip.js';
import { spliceMember } from '../model/json.js';
import type { Lease } from '../model/lease.js';
import { unmodifiedKey, deleteKey, dropLeases, leasePut } from './claim.js';
import type { KvContext, StoreContext } from './context.js';
import { readEntry, getEntry, readTombstone, getTombstone } from './entries.js';

/** The time between the two writes, in which watchers see that the key is released. */
const releasedMs = 200;
const longestMs = 10_000;

export interface ReleasedSubnet {
  readonly subnet: Prefix;
  /** The subnet stays reserved for its node. */
  readonly reserved: boolean;
}

export type ReleaseContext = KvContext & Pick<StoreContext, 'clock'>;

/**
 * Releases the subnet of a node. A reservation stays, marked as released. A key of another node is not changed. Where
 * the key is gone already, the tombstone of the node is deleted.
 */
export async function releaseSubnet(context: ReleaseContext, nodeId: string, subnet: Prefix): Promise<void> {
  const signal = AbortSignal.timeout(longestMs);
  const entry = await getEntry(context, subnet, signal);
  if (!entry) {
    const tombstone = await getTombstone(context, subnet, signal);
    if (tombstone?.nodeId === nodeId && !tombstone.reserved) await deleteTombstone(context, tombstone, signal);
    return;
  }
  if (entry.kind !== 'lease' || entry.lease.nodeId !== nodeId) return;
  const { lease } = entry;
  if (lease.leaseId === '0') await markReleased(context, lease, signal);
  else await removeLease(context, lease, signal);
}

/** @returns false when the key had changed: it stays as its owner wrote it */
export async function removeLease(context: ReleaseContext, lease: Lease, signal: AbortSignal): Promise<boolean> {
  const revision = await markReleased(context, lease, signal);
  if (revision === undefined) return false;
  const tombstone = await getTombstone(context, lease.subnet, signal);
  await context.clock.sleep(releasedMs, signal);
  return deleteKey(context, { ...lease, revision }, tombstone, signal);
}

/** @returns the new revision of the key, undefined when it had changed */
async function markReleased(
  { kv, keys }: ReleaseContext,
  lease: Lease,
  signal: AbortSignal,
): Promise<bigint | undefined> {
  const put = leasePut(keys, lease.subnet, spliceMember(lease.text, 'released', true), lease.leaseId);
  const { outcome, revision } = await kv.commit(unmodifiedKey(keys, lease), [put], { signal });
  return outcome === 'done' ? revision : undefined;
}

/** @returns false when the subnet is leased again, or the tombstone has changed */
export async function deleteTombstone(
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
 * Releases every subnet of a node that does not come back soon or at all. No data process may forward for the node any
 * more.
 * @returns the subnets of the node; one that is reserved stays reserved
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
