/**
 * What the engine was last told: routes, deadline, fence. It outlives data processes and is written into the files of
 * each. Generations count on over all of them, though every new file begins at 0.
 */
import type { NativeTable } from '../lib/native.js';
import type { Generation } from './datapath.js';
import { sameRoutes } from './table.js';

export class Publication {
  #routes: Uint32Array = new Uint32Array(0);
  #forwardUntil = 0;
  #fence = false;
  #promised: Generation = 0;
  /** Promised generation less the one in the file. */
  #offset = 0;
  #waiting = false;

  /** The generation of the newest routes, written or not. */
  get generation(): Generation {
    return this.#promised;
  }

  /** The newest routes are not in the file of the running process yet. */
  get waiting(): boolean {
    return this.#waiting;
  }

  /** Continues what an earlier daemon wrote. @returns false when the file cannot be believed */
  resume(table: NativeTable): boolean {
    const routes = table.routes();
    if (!routes) return false;
    const words = table.words();
    this.#routes = routes;
    this.#promised = words.generation;
    this.#forwardUntil = words.forwardUntil;
    this.#fence = words.fence;
    return true;
  }

  /** Equal routes keep their generation; newer ones take the place of those that still wait. */
  replace(routes: Uint32Array): Generation {
    if (this.#promised > 0 && sameRoutes(routes, this.#routes)) return this.#promised;
    this.#routes = routes;
    if (!this.#waiting) this.#promised++;
    this.#waiting = true;
    return this.#promised;
  }

  setForwardUntil(bootMs: number): void {
    this.#forwardUntil = bootMs;
  }

  setFence(on: boolean): void {
    this.#fence = on;
  }

  writeWords(table: NativeTable): void {
    table.setForwardUntil(this.#forwardUntil);
    table.setFence(this.#fence);
  }

  /** @returns false while a thread still reads the slot that must be written */
  writeRoutes(table: NativeTable): boolean {
    const generation = table.publish(this.#routes);
    if (generation === 0) return false;
    this.#offset = this.#promised - generation;
    this.#waiting = false;
    return true;
  }

  /** Everything, into a file that nobody reads yet. */
  writeAll(table: NativeTable): void {
    this.writeWords(table);
    if (this.#promised > 0) this.writeRoutes(table);
  }

  /** The generation in our count that a data process reports in its own. */
  adopted(reported: number): Generation {
    return Math.max(0, this.#offset + reported);
  }
}
