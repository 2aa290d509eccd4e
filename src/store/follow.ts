/**
 * List + watch of one range, for ever: the whole range, then each change, then the whole range again after a
 * compaction, any break of the watch, and on a timer. A failed read is never an empty listing.
 */
import { backoffMs } from '../lib/backoff.js';
import type { Clock } from '../lib/clock.js';
import { isTartanError } from '../lib/errors.js';
import { Repeated, type Log } from '../lib/log.js';
import { Inner } from './abort.js';
import type { KeyEvent, KeyRange, Kv, Listing, WatchEnd } from './kv.js';

export interface FollowOptions {
  readonly kv: Kv;
  readonly range: KeyRange;
  readonly clock: Clock;
  readonly log: Log;
  readonly sweepMs: number;
  /** A revision that the store is known to have reached. */
  readonly known?: () => bigint;
  /** @param rewound the store went back in time (restored, wiped, another cluster): older revisions count too */
  readonly onListing: (listing: Listing, rewound: boolean) => void;
  readonly onEvents: (events: readonly KeyEvent[]) => void;
  readonly signal: AbortSignal;
}

const retry = { firstMs: 100, capMs: 5_000 };
/** A watch that held this long was sound: the next break starts the back-off anew. */
const soundMs = 10_000;

/** Ends by abort only: rejects with the signal's reason. */
export async function follow(options: FollowOptions): Promise<never> {
  const { kv, range, clock, log, signal } = options;
  const said = new Repeated();
  let seen: { readonly revision: bigint; readonly clusterId: string } | undefined;
  for (let failures = 0; ;) {
    try {
      const known = options.known?.() ?? 0n;
      const listing = await kv.list(range, { signal });
      const rewound =
        listing.revision < known ||
        (seen !== undefined && (listing.revision < seen.revision || listing.clusterId !== seen.clusterId));
      if (rewound)
        log.warn('store.rewound', 'the store was restored or replaced: everything is read again', {
          revision: String(listing.revision),
          clusterId: listing.clusterId,
        });
      seen = listing;
      options.onListing(listing, rewound);
      const begun = clock.now();
      const end = await watchUntilSweep(options, listing, events => {
        const last = events.at(-1);
        if (last) seen = { revision: revisionOf(last), clusterId: listing.clusterId };
        options.onEvents(events);
      });
      if (end === 'sweep' || clock.now() - begun >= soundMs) {
        failures = 0;
        said.reset();
      }
      if (end === 'sweep') continue;
      log.debug('store.watch-ended', `a watch ended: ${end.reason}`, { kind: end.kind });
    } catch (error) {
      signal.throwIfAborted();
      if (!isTartanError(error, 'STORE_UNAVAILABLE') && !isTartanError(error, 'PERMISSION')) throw error;
      if (said.due()) log.warn('store.unavailable', error.message, { attempt: failures + 1 });
    }
    await clock.sleep(backoffMs(++failures, retry), signal);
  }
}

/** The sweep simply ends the watch: the list that follows covers the gap. */
async function watchUntilSweep(
  options: FollowOptions,
  listing: Listing,
  onEvents: (events: readonly KeyEvent[]) => void,
): Promise<WatchEnd | 'sweep'> {
  const { kv, range, clock, sweepMs, signal } = options;
  const inner = new Inner(signal);
  const sweep = clock.sleep(sweepMs, inner.signal).then((): 'sweep' => 'sweep');
  const request = { range, revision: listing.revision + 1n, clusterId: listing.clusterId, onEvents };
  const watch = kv.watch(request, { signal: inner.signal });
  try {
    return await Promise.race([sweep, watch]);
  } finally {
    inner.end();
    await Promise.allSettled([sweep, watch]);
  }
}

function revisionOf(event: KeyEvent): bigint {
  return event.kind === 'put' ? event.entry.modRevision : event.revision;
}
