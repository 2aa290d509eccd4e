/** Time that stands still but for `advance`. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../src/lib/clock.js';

export class TestClock implements Clock {
  #now = 0;
  readonly #sleepers = new Set<{ readonly untilMs: number; readonly wake: () => void }>();

  now(): number {
    return this.#now;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const sleeper = {
        untilMs: this.#now + ms,
        wake: (): void => {
          this.#sleepers.delete(sleeper);
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#sleepers.delete(sleeper);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#sleepers.add(sleeper);
    });
  }

  /** In small steps, letting everyone work in between. */
  async advance(ms: number, stepMs = 100): Promise<void> {
    for (const end = this.#now + ms; this.#now < end;) {
      this.#now = Math.min(end, this.#now + stepMs);
      for (const sleeper of this.#sleepers) if (sleeper.untilMs <= this.#now) sleeper.wake();
      for (let turns = 0; turns < 5; turns++) await turn();
    }
  }
}
