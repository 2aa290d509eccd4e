/**
 * Whole sets of leases for the one who plans. However many changes arrive while the consumer is busy, they are one set
 * to it, and a burst of changes is a few sets.
 */
import { Wake } from '../lib/wake.js';
import type { LeaseSet } from '../model/lease.js';
import { Inner } from './abort.js';
import type { StoreContext } from './context.js';
import { LeaseTable } from './entries.js';
import { follow } from './follow.js';

/** Between two sets at least: a set costs the consumer a pass over all leases. */
const paceMs = 25;
const aDayMs = 86_400_000;

/** Rejects with the signal's reason when aborted; ends in no other way. */
export async function* watchLeases(context: StoreContext, signal: AbortSignal): AsyncGenerator<LeaseSet, never> {
  const table = new LeaseTable(context.keys);
  const wake = new Wake();
  const inner = new Inner(signal);
  let changed = false;
  let listed = false;
  let failure: { readonly error: unknown } | undefined;
  const note = (different: boolean): void => {
    changed ||= different;
    if (changed) wake.ring();
  };
  const following = follow({
    ...context,
    range: context.keys.subnets,
    signal: inner.signal,
    onListing(listing) {
      note(table.replace(listing) || !listed);
      listed = true;
    },
    onEvents(events) {
      table.apply(events);
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
      yield table.snapshot();
      await context.clock.sleep(paceMs, signal);
    }
  } finally {
    inner.end(signal.reason);
    await following;
  }
}
