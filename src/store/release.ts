/** A planned leave: a word of goodbye, so that peers drop the route at once, then the key, and the subnet is free. */
import { formatLeaseValue, type Lease } from '../model/lease.js';
import type { Prefix } from '../model/ipv4.js';
import { asSeen, deleteKey, dropLeases } from './claim.js';
import type { StoreContext } from './context.js';
import { readEntry, readTombstone } from './entries.js';
import { onlyKey } from './keys.js';

/** Long enough for watchers to see the goodbye before the delete. */
const goodbyeMs = 200;
const longestMs = 10_000;

export type ReleaseContext = Pick<StoreContext, 'kv' | 'keys' | 'clock'>;

/** A key that is not ours any more is left alone; a reservation stays, marked released. */
export async function releaseLease(context: ReleaseContext, nodeId: string, subnet: Prefix): Promise<void> {
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
  const [held] = (await kv.list(onlyKey(keys.heldBy(lease.subnet)), { signal })).entries;
  await clock.sleep(goodbyeMs, signal);
  return deleteKey(context, { ...lease, revision }, held && readTombstone(keys, held), signal);
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
    asSeen(key, lease),
    [{ kind: 'put', key, value, leaseId: lease.leaseId }],
    { signal },
  );
  return outcome === 'done' ? revision : undefined;
}

/** The key is gone already: what is left is that nobody else may have the subnet. */
async function forget(context: ReleaseContext, nodeId: string, subnet: Prefix, signal: AbortSignal): Promise<void> {
  const { kv, keys } = context;
  const key = keys.heldBy(subnet);
  const [held] = (await kv.list(onlyKey(key), { signal })).entries;
  const tombstone = held && readTombstone(keys, held);
  if (!tombstone || tombstone.nodeId !== nodeId || tombstone.reserved) return;
  await kv.commit(
    [
      { kind: 'absent', key: keys.subnet(subnet) },
      { kind: 'modified-at', key, revision: tombstone.revision },
    ],
    [{ kind: 'delete', key }],
    { signal },
  );
  await dropLeases(context, [tombstone.leaseId], signal);
}
