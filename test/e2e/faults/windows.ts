/** When which fault was in force: everything between two of them is quiet, and there all must be well. */
import type { LogLine } from './log.js';

interface Window {
  readonly fromMs: number;
  readonly mayGo: readonly string[];
  toMs: number;
}

export class Windows {
  readonly #windows: Window[] = [];

  constructor(lines: readonly LogLine[]) {
    for (const line of lines) {
      if (line.kind !== 'mark') continue;
      const open = this.#windows.at(-1);
      if (line.mark === 'inject') this.#windows.push({ fromMs: line.atMs, mayGo: line.mayGo, toMs: Infinity });
      else if (line.mark === 'converged' && open) open.toMs = line.atMs;
    }
  }

  /** Undefined outside of all. */
  mayGoAt(atMs: number): readonly string[] | undefined {
    const begun = this.#windows.findLast(({ fromMs }) => fromMs <= atMs);
    return begun && atMs <= begun.toMs ? begun.mayGo : undefined;
  }

  /** No fault touches this time. Before the first mark hosts are still starting: that is not quiet. */
  quiet(fromMs: number, toMs: number): boolean {
    const begun = this.#windows.findLast(window => window.fromMs <= toMs);
    return begun !== undefined && begun.toMs < fromMs;
  }
}
