/**
 * The proof that etcd still answers this host: a linearizable read of the keys that it needs. A member without a quorum
 * serves its watches and says nothing, and a watch outlives the permission to read; only this read finds that out. A
 * member that fails it is left, and what the next one lists is the truth.
 */
import { isTartanError } from '../lib/errors.js';
import { backoffMs } from '../lib/retry.js';
import type { Prefix } from '../model/ip.js';
import type { StoreContext } from './context.js';

/** After a proof that failed. */
const retry = { firstMs: 1_000, capMs: 5_000 };
const part = 'proof';

/** Ends only by abort. The first proof comes at a random phase, so that hosts that started together do not ask together. */
export async function proveAnswers(context: StoreContext, subnet: Prefix, signal: AbortSignal): Promise<never> {
  const { kv, keys, clock, proofMs, problems } = context;
  const needed = [keys.tombstone(subnet), keys.subnet(subnet), keys.config];
  let waitMs = Math.random() * proofMs;
  for (let failures = 0; ;) {
    await clock.sleep(waitMs, signal);
    try {
      await kv.read(needed, { signal });
      failures = 0;
      problems.ended(part);
      waitMs = proofMs;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTartanError(error) || error.code === 'INVARIANT') throw error;
      // It has waited for its answer already.
      problems.failed(part, error, -Infinity);
      waitMs = backoffMs(++failures, retry);
    }
  }
}
