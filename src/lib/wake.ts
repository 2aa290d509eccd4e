import type { Clock } from './clock.js';
import { LinkedAbort } from './scope.js';

/**
 * A doorbell. `ring` carries no value and never blocks. `wait` returns at the next ring or after the given time; it
 * returns at once if a ring came since the last wait. Any number of rings before a wait count as one.
 */
export class Wake {
  #rung = false;
  #resume: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#resume?.();
  }

  /** Rejects with the signal's reason when aborted. Only one caller may wait at a time. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#rung) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
        const wake = this;
        function done(): void {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          wake.#resume = undefined;
          resolve();
        }
        signal.addEventListener('abort', done, { once: true });
        this.#resume = done;
      });
    }
    signal.throwIfAborted();
    this.#rung = false;
  }
}

/** Returns after `ms` by that clock, or at a ring. Rejects with the signal's reason when aborted. */
export async function pauseUntilRung(clock: Clock, ms: number, wake: Wake, signal: AbortSignal): Promise<void> {
  const inner = new LinkedAbort(signal);
  const timer = clock.sleep(ms, inner.signal);
  const ring = wake.wait(Infinity, inner.signal);
  try {
    await Promise.race([timer, ring]);
  } finally {
    inner.end();
    await Promise.allSettled([timer, ring]);
  }
}
