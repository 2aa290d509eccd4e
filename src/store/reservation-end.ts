/**
 * The end of a reservation. A node that lives keeps its subnet as an ordinary lease: the key gets a short etcd lease,
 * which the node finds and replaces by its own. Where nobody does, the key ends with that lease, and the subnet stays
 * kept for the node as after any silent end: it may be alive and cut off. Only a reservation that nobody uses, or a
 * word that its node is gone, frees the subnet at once.
 */
import { formatPrefix, type Prefix } from '../model/ipv4.js';
import type { Lease } from '../model/lease.js';
import { dropLeases, idsOf, rewriteKey, type Grant } from './claim.js';
import { readEntry, readTombstone, type Entry } from './entries.js';
import { onlyKey } from './keys.js';
import { tombstoneSeconds } from './quarantine.js';
import { describeOwner, refuseKept, type Refusal } from './reservation.js';
import { forgetTombstone, removeLease, type ReleaseContext } from './release.js';

export type ReleaseResult =
  | Refusal
  /** Nobody has it any more. */
  | { readonly kind: 'free' }
  /** Its node lives and goes on with an ordinary lease. */
  | { readonly kind: 'leased'; readonly nodeId: string }
  /** Its node did not answer. */
  | { readonly kind: 'ending'; readonly nodeId: string; readonly seconds: number };

const graceSeconds = 60;
/** What a daemon has by default: how long the silent node's quarantine will be. */
const defaultTtlSeconds = 86_400;
/** A living node answers its watch within a second. */
const answerMs = 3_000;
const pollMs = 100;

/** @param force its node is surely gone */
export async function releaseReservation(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const entry = await readKey(context, subnet, signal);
  if (!entry) return releaseKept(context, subnet, force, signal);
  const text = formatPrefix(subnet);
  if (entry.kind === 'rejected') {
    const key = context.keys.subnet(subnet).toString();
    return refuse(`${text} is no lease: its value ${entry.rejected.reason}`, `look at it with: etcdctl get ${key}`);
  }
  const { lease } = entry;
  if (lease.leaseId !== '0') {
    const reason = `${text} is an ordinary lease of ${describeOwner(lease)}, not a reservation`;
    return refuse(reason, 'to free it run on that host: tartan leave');
  }
  const { nodeId, bootId } = lease;
  if (nodeId !== undefined && bootId !== undefined && !lease.released && !force)
    return turnBack(context, { ...lease, nodeId }, signal);
  if (await removeLease(context, lease, signal)) return { kind: 'free' };
  return refuse(`${text} is in use: ${describeOwner(lease)} answered`, 'to free it run on that host: tartan leave');
}

/** Without a lease key: a reservation that waits for its node, or the tombstone of one that went silent. */
async function releaseKept(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const { kv, keys } = context;
  const [held] = (await kv.list(onlyKey(keys.heldBy(subnet)), { signal })).entries;
  const tombstone = held && readTombstone(keys, held);
  const text = formatPrefix(subnet);
  if (!tombstone) return refuse(`${text} is neither leased nor reserved`, 'see what is with: tartan leases -o wide');
  if (!tombstone.reserved && !force) return refuseKept(tombstone, 'this is no reservation');
  if (await forgetTombstone(context, tombstone, signal)) return { kind: 'free' };
  return refuse(`${text} was taken meanwhile`, 'see by whom with: tartan leases');
}

async function turnBack(
  context: ReleaseContext,
  lease: Lease & { readonly nodeId: string },
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const { kv, clock } = context;
  const { nodeId, subnet } = lease;
  const grant: Grant = {
    leaseId: await kv.grantLease(graceSeconds, { signal }),
    heldLeaseId: await kv.grantLease(tombstoneSeconds(defaultTtlSeconds), { signal }),
    sentAtMs: clock.now(),
  };
  const turned = await rewriteKey(context, lease, lease, grant, signal);
  if (typeof turned === 'string') {
    await dropLeases(context, idsOf(grant), signal);
    return refuse(`${formatPrefix(subnet)} changed meanwhile`, 'run it again');
  }
  for (const endMs = clock.now() + answerMs; clock.now() < endMs; await clock.sleep(pollMs, signal)) {
    const now = await readKey(context, subnet, signal);
    const answered = now?.kind === 'lease' && now.lease.leaseId !== grant.leaseId && now.lease.nodeId === nodeId;
    if (!answered) continue;
    await dropLeases(context, idsOf(grant), signal);
    return { kind: 'leased', nodeId };
  }
  return { kind: 'ending', nodeId, seconds: graceSeconds };
}

async function readKey({ kv, keys }: ReleaseContext, subnet: Prefix, signal: AbortSignal): Promise<Entry | undefined> {
  const [found] = (await kv.list(onlyKey(keys.subnet(subnet)), { signal })).entries;
  return found && readEntry(keys, found);
}

function refuse(reason: string, next: string): Refusal {
  return { kind: 'refused', reason, next };
}
