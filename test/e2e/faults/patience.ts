/**
 * A limit in time for what processes must do. What they spend waiting for a processor does not count (proc(5),
 * schedstat): on a busy machine that is not their doing. A process that sleeps, loops or hangs gains nothing by it, and
 * more than twice the limit is never added.
 */
import { readdirSync, readFileSync } from 'node:fs';

const addedAtMost = 2;

export type Wait = readonly [thread: string, ms: number];

interface Senses {
  readonly nowMs: () => number;
  /** Of each thread: how long it was ready to run and did not, since it began. Nothing of a process that is gone. */
  readonly waits: (pid: number) => readonly Wait[];
}

const real: Senses = { nowMs: () => performance.now(), waits: waitsOf };

export class Patience {
  readonly #limitMs: number;
  readonly #pids: () => readonly number[];
  readonly #senses: Senses;
  readonly #begunMs: number;
  readonly #before: ReadonlyMap<string, number>;

  /** @param pids of those who must act; another one may take the place of one that ends */
  constructor(limitMs: number, pids: () => readonly number[], senses = real) {
    this.#limitMs = limitMs;
    this.#pids = pids;
    this.#senses = senses;
    this.#begunMs = senses.nowMs();
    this.#before = new Map(pids().flatMap(pid => senses.waits(pid)));
  }

  get isOver(): boolean {
    const ms = this.#senses.nowMs() - this.#begunMs;
    return ms > this.#limitMs && ms > this.#limitMs + Math.min(this.#waitedMs(), addedAtMost * this.#limitMs);
  }

  /** One process acts after the other; of its threads the one that waited longest held it up. */
  #waitedMs(): number {
    const longest = this.#pids().map(pid =>
      Math.max(0, ...this.#senses.waits(pid).map(([thread, ms]) => ms - (this.#before.get(thread) ?? 0))),
    );
    return longest.reduce((sum, ms) => sum + ms, 0);
  }
}

function waitsOf(pid: number): readonly Wait[] {
  try {
    const tasks = `/proc/${pid}/task`;
    return readdirSync(tasks).map(thread => {
      const [, waitedNs = 0] = readFileSync(`${tasks}/${thread}/schedstat`, 'latin1').split(' ').map(Number);
      return [thread, waitedNs / 1e6];
    });
  } catch {
    return [];
  }
}
