/**
 * The published state: the newest routes, and the control words (deadline and fence). It outlives the data processes
 * and is written into the table of each. The generation counts on over all tables, although each new one begins at 0.
 */
import type { NativeTable } from '../../lib/native.js';
import type { Generation } from '../datapath.js';
import { sameRoutes } from './table.js';

export class PublishedState {
  #routes: Uint32Array = new Uint32Array(0);
  #forwardUntil = 0;
  #fence = false;
  #generation: Generation = 0;
  /** For each table the generation that was written last, by our count and by the table's own. */
  readonly #written = new WeakMap<NativeTable, { readonly generation: Generation; readonly inTable: number }>();
  /** No table has the newest routes yet. */
  #unwritten = false;

  /** False until routes were published or read from an adopted table. */
  get hasRoutes(): boolean {
    return this.#generation > 0;
  }

  /** The generation of the newest routes, whether they are written or not. */
  get generation(): Generation {
    return this.#generation;
  }

  get forwardUntil(): number {
    return this.#forwardUntil;
  }

  /** Whether the newest routes are not in this table yet. */
  isBehind(table: NativeTable): boolean {
    return this.hasRoutes && this.#written.get(table)?.generation !== this.#generation;
  }

  /** Continues the state that an earlier daemon wrote. @returns false when the table is damaged */
  resume(table: NativeTable): boolean {
    const routes = table.routes();
    if (!routes) return false;
    const { generation } = table.words();
    this.#routes = routes;
    this.#generation = generation;
    this.#written.set(table, { generation, inTable: generation });
    this.readControlWords(table);
    return true;
  }

  /** Reads the only part of a table of another layout that can be read. */
  readControlWords(table: NativeTable): void {
    const words = table.words();
    this.#forwardUntil = words.forwardUntil;
    this.#fence = words.fence;
  }

  /** Equal routes keep the generation. Routes that no table has yet are replaced under the same generation. */
  replace(routes: Uint32Array): Generation {
    if (this.#generation > 0 && sameRoutes(routes, this.#routes)) return this.#generation;
    this.#routes = routes;
    if (!this.#unwritten) this.#generation++;
    this.#unwritten = true;
    return this.#generation;
  }

  setForwardUntil(bootMs: number): void {
    this.#forwardUntil = bootMs;
  }

  setFence(on: boolean): void {
    this.#fence = on;
  }

  writeControlWords(table: NativeTable): void {
    table.setForwardUntil(this.#forwardUntil);
    table.setFence(this.#fence);
  }

  /** @returns false while a thread still reads the slot that would be written */
  writeRoutes(table: NativeTable): boolean {
    const inTable = table.publish(this.#routes);
    if (inTable === 0) return false;
    this.#written.set(table, { generation: this.#generation, inTable });
    this.#unwritten = false;
    return true;
  }

  /** Writes everything into a table that no thread reads yet. */
  writeAll(table: NativeTable): void {
    this.writeControlWords(table);
    if (this.hasRoutes) this.writeRoutes(table);
  }

  /** Converts the generation that a data process reports, by the count of its table, into our count. */
  adopted(table: NativeTable, reported: number): Generation {
    const { generation, inTable } = this.#written.get(table) ?? { generation: 0, inTable: 0 };
    return Math.max(0, generation - inTable + reported);
  }
}
