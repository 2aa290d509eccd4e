/**
 * Withdraws the features of a node from its leases, before an earlier version runs there: that one would neither keep
 * what they promise nor remove them. No daemon may run on the host, because it would write them again.
 */
import { TartanError } from '../lib/errors.js';
import { withoutFeatures, type Features } from '../model/features.js';
import { formatPrefix, type Prefix } from '../model/ip.js';
import { leasePut, retryLostRaces, unmodifiedKey } from './claim.js';
import { getEntry, readEntry } from './entries.js';
import type { ReleaseContext } from './release.js';

export interface Withdrawal {
  readonly subnet: Prefix;
  /** The lease had the member, whether or not this version understands what was in it. */
  readonly withdrawn: boolean;
  readonly features: Features;
}

/**
 * @returns a withdrawal for each lease of the node
 * @throws TartanError STORE_UNAVAILABLE, PERMISSION
 */
export async function withdrawFeatures(
  context: ReleaseContext,
  nodeId: string,
  signal: AbortSignal,
): Promise<readonly Withdrawal[]> {
  const { kv, keys } = context;
  const withdrawals: Withdrawal[] = [];
  for (const kvEntry of (await kv.list(keys.subnets, { signal })).entries) {
    const entry = readEntry(keys, kvEntry);
    if (entry.kind !== 'lease' || entry.lease.nodeId !== nodeId) continue;
    const { subnet } = entry.lease;
    const result = await retryLostRaces(context, signal, () => withdrawFrom(context, nodeId, subnet, signal));
    if (!result)
      throw new TartanError('STORE_UNAVAILABLE', `the lease of ${formatPrefix(subnet)} changes all the time`);
    if (result !== 'gone') withdrawals.push(result);
  }
  return withdrawals;
}

/** @returns undefined when the key changed between its read and its write */
async function withdrawFrom(
  context: ReleaseContext,
  nodeId: string,
  subnet: Prefix,
  signal: AbortSignal,
): Promise<Withdrawal | 'gone' | undefined> {
  const { kv, keys } = context;
  const entry = await getEntry(context, subnet, signal);
  if (entry?.kind !== 'lease' || entry.lease.nodeId !== nodeId) return 'gone';
  const { lease } = entry;
  const text = withoutFeatures(lease.text);
  if (text === lease.text) return { subnet, withdrawn: false, features: lease.features };
  const put = leasePut(keys, subnet, text, lease.leaseId);
  const { outcome } = await kv.commit(unmodifiedKey(keys, lease), [put], { signal });
  return outcome === 'done' ? { subnet, withdrawn: true, features: lease.features } : undefined;
}
