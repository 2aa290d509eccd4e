/**
 * Whole states for the one who plans. However many changes arrive while the consumer is busy, they are one change to
 * it, and a burst of changes is a few.
 */
import { Wake } from '../lib/wake.js';
import { LinkedAbort } from '../lib/scope.js';
import type { StoreContext } from './context.js';
import { LeaseTable } from './entries.js';
import { listWatch, type ListWatchOptions } from './list-watch.js';
import { onlyKey } from './keys.js';
import type { KeyEvent, Listing, Position } from './kv.js';
import type { WatchedSet } from './store.js';

/** Between two sets at least: a set costs the consumer a pass over all leases. */
const paceMs = 25;
const aDayMs = 86_400_000;

interface RangeListener {
  readonly range: ListWatchOptions['range'];
  readonly after: Position | undefined;
  /** Returns whether it said something new. */
  readonly onListing: (listing: Listing, rewound: boolean) => boolean;
  readonly onEvents: (events: readonly KeyEvent[]) => void;
}

/**
 * Rejects with the signal's reason when aborted; ends in no other way.
 * @param listed goes on from there instead of a list of its own
 */
export async function* watchLeases(
  context: StoreContext,
  listed: LeaseTable | undefined,
  signal: AbortSignal,
): AsyncGenerator<WatchedSet, never> {
  const table = listed ?? new LeaseTable(context.keys);
  let epoch = 0;
  if (listed) yield { ...listed.snapshot(), epoch };
  const changes = watchRange(context, signal, {
    range: context.keys.subnets,
    after: listed?.position,
    onListing(listing, rewound) {
      if (rewound) epoch++;
      return table.replace(listing) || rewound;
    },
    onEvents: events => table.apply(events),
  });
  for await (const _ of changes) yield { ...table.snapshot(), epoch };
  throw signal.reason;
}

/** @param after where the document was read that is compared with */
export function watchNetworkDocument(
  context: StoreContext,
  after: Position | undefined,
  signal: AbortSignal,
): AsyncGenerator<void, never> {
  return watchRange(context, signal, {
    range: onlyKey(context.keys.config),
    after,
    onListing: () => true,
    onEvents: () => {},
  });
}

async function* watchRange(
  context: StoreContext,
  signal: AbortSignal,
  follower: RangeListener,
): AsyncGenerator<void, never> {
  const wake = new Wake();
  const inner = new LinkedAbort(signal);
  let changed = false;
  let listed = follower.after !== undefined;
  let failure: { readonly error: unknown } | undefined;
  const note = (different: boolean): void => {
    changed ||= different;
    if (changed) wake.ring();
  };
  const following = listWatch({
    ...context,
    range: follower.range,
    after: follower.after,
    signal: inner.signal,
    onListing(listing, rewound) {
      note(follower.onListing(listing, rewound) || !listed);
      listed = true;
    },
    onEvents(events) {
      follower.onEvents(events);
      note(true);
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
    await following;
  }
}
