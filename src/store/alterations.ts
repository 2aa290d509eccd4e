/**
 * How often somebody alters the own lease. Each alteration is put right by one guarded write. Two programs that both do
 * so would fight without end, so after three writes within 10 s there is one a minute, until a minute passes in peace.
 */

export interface Alterations {
  /** The key has a text under our node id and boot id that we never wrote. */
  readonly pending: boolean;
  readonly often: boolean;
  /** CLOCK_BOOTTIME ms before which the altered key is not written. */
  readonly writeAtMs: number;
  /** When the last three were put right, in CLOCK_BOOTTIME ms. */
  readonly putRightAtMs: readonly number[];
}

const mostAtOnce = 3;
const atOnceMs = 10_000;
const calmMs = 60_000;

export const noAlterations: Alterations = { pending: false, often: false, writeAtMs: 0, putRightAtMs: [] };

/** The key was altered. */
export function addAlteration(before: Alterations, nowMs: number): Alterations {
  if (before.pending) return before;
  const { putRightAtMs } = before;
  const lastMs = putRightAtMs.at(-1) ?? -Infinity;
  const lately = putRightAtMs.filter(ms => nowMs - ms < atOnceMs).length;
  const often = lately >= mostAtOnce || (before.often && nowMs - lastMs < calmMs);
  return { ...before, pending: true, often, writeAtMs: often ? lastMs + calmMs : 0 };
}

/** The key says again what it must. */
export function putRight(before: Alterations, nowMs: number): Alterations {
  if (!before.pending) return before;
  return { ...endAlteration(before), putRightAtMs: [...before.putRightAtMs, nowMs].slice(-mostAtOnce) };
}

/** The altered text is gone, for another one or with its key. */
export function endAlteration(before: Alterations): Alterations {
  return before.pending ? { ...before, pending: false, writeAtMs: 0 } : before;
}
