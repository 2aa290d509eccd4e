/**
 * What the engine was last told: routes, deadline, fence. It outlives data processes and is written into the files of
 * each. Generations count on over all of them, though every new file begins at 0.
 */
import type { NativeTable } from '../../lib/native.js';
import type { Generation } from '../datapath.js';
import { sameRoutes } from './table.js';

export class PublishedState {
  #routes: Uint32Array = new Uint32Array(0);
  #forwardUntil = 0;
  #fence = false;
  #generation: Generation = 0;
  /** For each file the generation that was written last, in our count and in the file's own. */
  readonly #written = new WeakMap<NativeTable, { readonly generation: Generation; readonly own: number }>();
  /** The newest routes are in no file yet. */
  #waiting = false;

  /** False until there are routes to carry by: none was told, and none was found. */
  get known(): boolean {
    return this.#generation > 0;
  }

  /** The generation of the newest routes, written or not. */
  get generation(): Generation {
    return this.#generation;
  }

  get forwardUntil(): number {
    return this.#forwardUntil;
  }

  /** The newest routes are not in this file yet. */
  isBehind(table: NativeTable): boolean {
    return this.known && this.#written.get(table)?.generation !== this.#generation;
  }

  /** Continues what an earlier daemon wrote. @returns false when the table cannot be believed */
  resume(table: NativeTable): boolean {
    const routes = table.routes();
    if (!routes) return false;
    const { generation } = table.words();
    this.#routes = routes;
    this.#generation = generation;
    this.#written.set(table, { generation, own: generation });
    this.resumeWords(table);
    return true;
  }

  /** Of a table of another layout these alone can be read. */
  resumeWords(table: NativeTable): void {
    const words = table.words();
    this.#forwardUntil = words.forwardUntil;
    this.#fence = words.fence;
  }

  /** Equal routes keep their generation; newer ones take the place of those that still wait. */
  replace(routes: Uint32Array): Generation {
    if (this.#generation > 0 && sameRoutes(routes, this.#routes)) return this.#generation;
    this.#routes = routes;
    if (!this.#waiting) this.#generation++;
    this.#waiting = true;
    return this.#generation;
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
    this.#written.set(table, { generation: this.#generation, own: generation });
    this.#waiting = false;
    return true;
  }

  /** Everything, into a file that nobody reads yet. */
  writeAll(table: NativeTable): void {
    this.writeWords(table);
    if (this.known) this.writeRoutes(table);
  }

  /** The generation in our count that the data process of a file reports in its own. */
  adopted(table: NativeTable, reported: number): Generation {
    const { generation, own } = this.#written.get(table) ?? { generation: 0, own: 0 };
    return Math.max(0, generation - own + reported);
  }
}
