/** Counters over the lives of several data processes: what a dead one counted is kept, so no sum goes backwards. */
import type { NativeCounters } from '../../lib/native.js';

export class Totals {
  #dead: Readonly<Record<string, number>> = {};

  /** @param last undefined when it could not be read */
  add(last: NativeCounters | undefined): void {
    this.#dead = this.plus(last);
  }

  /** The sum of all dead processes and the one that runs. */
  plus(running: NativeCounters | undefined): Readonly<Record<string, number>> {
    if (!running) return this.#dead;
    return Object.fromEntries(
      Object.entries(running.counters).map(([name, value]) => [name, value + (this.#dead[name] ?? 0)]),
    );
  }
}
