/**
 * Which host joined by which user of etcd: keys `<prefix>/joined/<user>/<node id>` beside the leases, which flannel shares
 * and which therefore stay as they are.
 */
import { hostname } from 'node:os';
import { isTartanError } from '../lib/errors.js';
import { silentLog } from '../lib/log.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { joinedRange, nameBelow, printable } from '../store/keys.js';
import type { Kv } from '../store/kv.js';

const callMs = 5_000;

/** Writes that a node joined by the user of these options; nothing without a user, or where its role has no such key. */
export async function recordJoin(options: EtcdOptions, nodeId: string): Promise<void> {
  if (options.username === undefined) return;
  const kv = openEtcd(options, silentLog);
  const key = Buffer.concat([joinedRange(options.prefix, options.username).start, Buffer.from(nodeId)]);
  const signal = AbortSignal.timeout(callMs);
  try {
    const value = Buffer.from(hostname().slice(0, 253));
    await kv.commit([], [{ kind: 'put', key, value, leaseId: '0' }], { signal });
  } catch (error) {
    if (!isTartanError(error, 'PERMISSION')) throw error;
  } finally {
    await kv.close();
  }
}

export interface JoinedHost {
  readonly nodeId: string;
  readonly hostName: string;
}

/** The hosts that joined by a user and have a lease: one that left is none. @param nodeIds of the leases */
export async function readJoined(
  kv: Kv,
  { prefix, user, nodeIds }: { readonly prefix: string; readonly user: string; readonly nodeIds: ReadonlySet<string> },
): Promise<readonly JoinedHost[]> {
  const range = joinedRange(prefix, user);
  const { entries } = await kv.list(range, { signal: AbortSignal.timeout(callMs) });
  return entries
    .map(({ key, value }) => ({ nodeId: nameBelow(range, key), hostName: printable(value.toString('latin1')) }))
    .filter(({ nodeId }) => nodeIds.has(nodeId));
}

/** Removes what is known of the hosts of a user. */
export async function forgetJoined(kv: Kv, prefix: string, user: string): Promise<void> {
  const signal = AbortSignal.timeout(callMs);
  const { entries } = await kv.list(joinedRange(prefix, user), { signal });
  for (const { key } of entries) await kv.commit([], [{ kind: 'delete', key }], { signal });
}
