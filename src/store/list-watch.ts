/**
 * List + watch of one range, for ever: the whole range, then each change, then the whole range again after a
 * compaction, any break of the watch, and on a timer. Who has read the range already begins with the changes. A failed
 * read is never an empty listing.
 */
import { backoffMs } from '../lib/retry.js';
import type { Clock } from '../lib/clock.js';
import { isTartanError } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { LinkedAbort } from '../lib/scope.js';
import type { KeyEvent, KeyRange, Kv, Listing, Position, WatchEnd } from './kv.js';

export interface ListWatchOptions {
  readonly kv: Kv;
  readonly range: KeyRange;
  readonly clock: Clock;
  readonly log: Log;
  readonly sweepMs: number;
  /** Where the caller has read the range: what came after it is the first that it is told. */
  readonly after?: Position | undefined;
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
export async function listWatch(options: ListWatchOptions): Promise<never> {
  const { clock, log, signal } = options;
  const throttle = new LogThrottle();
  let seen = options.after;
  let first = options.after;
  for (let silences = 0, breaks = 0; ;) {
    let failures: number;
    try {
      const after = first ?? (await listOnce(options, seen));
      first = undefined;
      seen = after;
      // A long silence is over: it must not make the watch wait as long when it breaks too.
      silences = 0;
      const begun = clock.now();
      const end = await watchUntilSweep(options, after, events => {
        const last = events.at(-1);
        if (last) seen = { revision: revisionOf(last), clusterId: after.clusterId };
        options.onEvents(events);
      });
      if (end === 'sweep' || clock.now() - begun >= soundMs) {
        breaks = 0;
        throttle.reset();
      }
      if (end === 'sweep') continue;
      failures = ++breaks;
      log.debug('store.watch-ended', `a watch ended: ${end.reason}`, { kind: end.kind });
    } catch (error) {
      signal.throwIfAborted();
      if (!isTartanError(error, 'STORE_UNAVAILABLE') && !isTartanError(error, 'PERMISSION')) throw error;
      failures = ++silences;
      if (throttle.due()) log.warn('store.unavailable', error.message, { attempt: failures });
    }
    await clock.sleep(backoffMs(failures, retry), signal);
  }
}

/** @returns where the range was read, without its entries: they must not live as long as the watch */
async function listOnce(options: ListWatchOptions, seen: Position | undefined): Promise<Position> {
  const { kv, range, log, signal } = options;
  const known = options.known?.() ?? 0n;
  const listing = await kv.list(range, { signal });
  const { revision, clusterId } = listing;
  const rewound =
    revision < known || (seen !== undefined && (revision < seen.revision || clusterId !== seen.clusterId));
  if (rewound)
    log.warn('store.rewound', 'the store was restored or replaced: everything is read again', {
      revision: String(revision),
      clusterId,
    });
  options.onListing(listing, rewound);
  return { revision, clusterId };
}

/** The sweep simply ends the watch: the list that follows covers the gap. */
async function watchUntilSweep(
  options: ListWatchOptions,
  after: Position,
  onEvents: (events: readonly KeyEvent[]) => void,
): Promise<WatchEnd | 'sweep'> {
  const { kv, range, clock, sweepMs, signal } = options;
  const inner = new LinkedAbort(signal);
  const sweep = clock.sleep(sweepMs, inner.signal).then((): 'sweep' => 'sweep');
  const request = { range, revision: after.revision + 1n, clusterId: after.clusterId, onEvents };
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
