/**
 * List and watch, as Kubernetes' reflectors do. `listWatch` follows one range for ever. The watches that the store
 * offers are built on it. They yield whole states: any number of changes that arrive while the consumer is busy is one
 * change.
 */
import type { Clock } from '../lib/clock.js';
import { isTartanError } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { backoffMs } from '../lib/retry.js';
import { LinkedAbort } from '../lib/scope.js';
import { Wake } from '../lib/wake.js';
import type { StoreContext } from './context.js';
import { LeaseTable, revisionOf } from './entries.js';
import { onlyKey } from './keys.js';
import type { KeyEvent, KeyRange, Kv, Listing, Position, WatchEnd } from './kv.js';
import type { Problems } from './problems.js';
import type { WatchedSet } from './store.js';

export interface ListWatchOptions {
  readonly kv: Kv;
  readonly range: KeyRange;
  readonly clock: Clock;
  readonly log: Log;
  /** Between two lists of a range of a thousand entries at most. */
  readonly sweepMs: number;
  /** How many entries the range has, as far as it is known; without it they are few. */
  readonly size?: () => number;
  /** The position at which the caller has read the range: the watch begins after it, without a list. */
  readonly after?: Position | undefined;
  /** What the listing is, in a problem. */
  readonly part: string;
  /** Called before each list. @returns a function that tells whether the listing is older than what was known then */
  readonly remember?: () => (listing: Listing) => boolean;
  /** Tells whether the store must be examined, whatever its revision. */
  readonly isSuspect?: (listing: Listing) => boolean;
  /** @throws TartanError STORE_UNAVAILABLE when another store answers; its listing does not count */
  readonly examine: (listing: Listing, rewound: boolean, signal: AbortSignal) => Promise<boolean>;
  readonly problems: Problems;
  /** Receives whether the watch is alive. */
  readonly onLife?: (alive: boolean) => void;
  /** @param rewound the store went back in time (restored, wiped, another cluster), so older revisions count too */
  readonly onListing: (listing: Listing, rewound: boolean) => void;
  readonly onEvents: (events: readonly KeyEvent[]) => void;
  readonly signal: AbortSignal;
}

const retry = { firstMs: 100, capMs: 5_000 };
/** After a watch that lasted this long the back-off starts again at its first delay. */
const soundMs = 10_000;

/**
 * Lists the range, then reports each change. It lists again after a compaction, after any end of the watch, and on a
 * timer. A failed list is never an empty listing. Ends only by abort and rejects with the signal's reason.
 */
export async function listWatch(options: ListWatchOptions): Promise<never> {
  const { clock, log, signal, part, problems } = options;
  const throttle = new LogThrottle();
  let position = options.after;
  let first = options.after;
  for (let failedLists = 0, brokenWatches = 0; ;) {
    let failures: number;
    let { answers } = problems;
    try {
      const after = first ?? (await listOnce(options, position));
      first = undefined;
      position = after;
      // The store answers again, so a break of the watch must not wait as long as the failed lists did.
      failedLists = 0;
      problems.ended(part);
      ({ answers } = problems);
      options.onLife?.(true);
      const startedMs = clock.now();
      const end = await watchUntilSweep(options, after, events => {
        const last = events.at(-1);
        if (last) position = { revision: revisionOf(last), clusterId: after.clusterId };
        options.onEvents(events);
      });
      ({ answers } = problems);
      if (end === 'sweep' || clock.now() - startedMs >= soundMs) {
        brokenWatches = 0;
        throttle.reset();
      }
      if (end === 'sweep') continue;
      options.onLife?.(false);
      failures = ++brokenWatches;
      log.debug('store.watch-ended', `a watch ended: ${end.reason}`, { kind: end.kind });
    } catch (error) {
      signal.throwIfAborted();
      if (!isTartanError(error, 'STORE_UNAVAILABLE') && !isTartanError(error, 'PERMISSION')) throw error;
      failures = ++failedLists;
      options.onLife?.(false);
      problems.failed(part, error);
      if (throttle.due()) log.warn('store.unavailable', error.message, { attempt: failures });
    }
    await problems.pause(backoffMs(failures, retry), answers, signal);
  }
}

/** @returns the position of the listing, without the entries: they must not stay in memory as long as the watch */
async function listOnce(options: ListWatchOptions, last: Position | undefined): Promise<Position> {
  const { kv, range, log, signal } = options;
  const isOlder = options.remember?.();
  const listing = await kv.list(range, { signal });
  const { revision, clusterId } = listing;
  const behind = last !== undefined && (revision < last.revision || clusterId !== last.clusterId);
  let rewound = behind || isOlder?.(listing) === true;
  if (rewound || options.isSuspect?.(listing)) rewound = await options.examine(listing, rewound, signal);
  if (rewound)
    log.warn('store.rewound', 'the store was restored or replaced: everything is read again', {
      revision: String(revision),
      clusterId,
    });
  options.onListing(listing, rewound);
  return { revision, clusterId };
}

/**
 * A range of more entries is listed so much more rarely: the lists of all hosts together then grow as the cluster does,
 * and not as its square.
 */
const sweptEntries = 1_000;

/** Watches until the sweep is due. The sweep ends the watch, and the list that follows covers the gap. */
async function watchUntilSweep(
  options: ListWatchOptions,
  after: Position,
  onEvents: (events: readonly KeyEvent[]) => void,
): Promise<WatchEnd | 'sweep'> {
  const { kv, range, clock, signal } = options;
  const inner = new LinkedAbort(signal);
  const sweepMs = options.sweepMs * Math.max(1, (options.size?.() ?? 0) / sweptEntries);
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

/** The least time between two sets, because the consumer passes over all leases for each set. */
const paceMs = 25;
const aDayMs = 86_400_000;

interface RangeListener extends Pick<
  ListWatchOptions,
  'range' | 'part' | 'after' | 'size' | 'onEvents' | 'remember' | 'isSuspect' | 'onLife'
> {
  /** @returns whether the listing has anything new */
  readonly onListing: (listing: Listing, rewound: boolean) => boolean;
}

/**
 * Yields the whole set of leases. Ends only by abort and rejects with the signal's reason.
 * @param listed the table to begin with instead of a list
 */
export async function* watchLeases(
  context: StoreContext,
  listed: LeaseTable | undefined,
  signal: AbortSignal,
): AsyncGenerator<WatchedSet, never> {
  const table = listed ?? new LeaseTable(context.keys);
  let epoch = 0;
  if (listed) yield { ...listed.snapshot(), epoch };
  context.history.table = table;
  const changes = watchRange(context, signal, {
    range: context.keys.subnets,
    part: 'leases',
    onLife: context.watchLife.set,
    after: listed?.position,
    size: () => table.size,
    // The table changes only by this watch, so it is as it was before the list.
    remember: () => listing => table.isNewerThan(listing),
    isSuspect: listing => table.sharesNothing(listing),
    onListing(listing, rewound) {
      if (rewound) epoch++;
      return table.replace(listing) || rewound;
    },
    onEvents: events => table.apply(events),
  });
  for await (const _ of changes) yield { ...table.snapshot(), epoch };
  throw signal.reason;
}

/** @param after the position at which the caller has read the document */
export function watchNetworkDocument(
  context: StoreContext,
  after: Position | undefined,
  signal: AbortSignal,
): AsyncGenerator<void, never> {
  return watchRange(context, signal, {
    range: onlyKey(context.keys.config),
    part: 'document',
    after,
    onListing: () => true,
    onEvents: () => {},
  });
}

async function* watchRange(
  context: StoreContext,
  signal: AbortSignal,
  listener: RangeListener,
): AsyncGenerator<void, never> {
  const wake = new Wake();
  const inner = new LinkedAbort(signal);
  let changed = false;
  let listed = listener.after !== undefined;
  let failure: { readonly error: unknown } | undefined;
  const report = (different: boolean): void => {
    changed ||= different;
    if (changed) wake.ring();
  };
  const watching = listWatch({
    ...context,
    ...listener,
    examine: (...given) => context.history.examine(...given),
    signal: inner.signal,
    onListing(listing, rewound) {
      report(listener.onListing(listing, rewound) || !listed);
      listed = true;
    },
    onEvents(events) {
      listener.onEvents(events);
      report(true);
    },
  }).catch((error: unknown) => {
    failure = { error };
    wake.ring();
  });
  try {
    for (;;) {
      await wake.wait(aDayMs, signal);
      if (failure) throw failure.error;
      if (!changed) continue;
      changed = false;
      yield;
      await context.clock.sleep(paceMs, signal);
    }
  } finally {
    inner.end(signal.reason);
    await watching;
  }
}
