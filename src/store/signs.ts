/** The signs of life of the store: what its calls and the watch of the leases tell, beside the problems. */
import type { Clock } from '../lib/clock.js';
import type { Kv } from './kv.js';
import type { Problems } from './problems.js';
import type { StoreSigns } from './store.js';

/** Since when the watch of the leases is alive. A sweep, which lists and watches anew, does not end it. */
export class WatchLife {
  sinceMs: number | undefined;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly set = (alive: boolean): void => {
    this.sinceMs = alive ? (this.sinceMs ?? this.#clock.now()) : undefined;
  };
}

export function readSigns(kv: Kv, watch: WatchLife, problems: Problems): StoreSigns {
  const { answeredMs, endpoints = [] } = kv.signs ?? {};
  return { answeredMs, watchSinceMs: watch.sinceMs, refused: problems.refusals[0], endpoints };
}
