/** How long leases have to live, asked of the store for many at once. */
import type { Kv, TimeToLive } from './kv.js';

/** Questions in flight at once. */
const askers = 16;

/** @returns without those that are gone */
export async function readTimesLeft(
  kv: Kv,
  leaseIds: Iterable<string>,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, TimeToLive>> {
  const left = [...new Set(leaseIds)].filter(id => id !== '0');
  const times = new Map<string, TimeToLive>();
  const ask = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      const time = await kv.timeToLive(id, { signal });
      if (time) times.set(id, time);
    }
  };
  await Promise.all(Array.from({ length: askers }, ask));
  return times;
}
