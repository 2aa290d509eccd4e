/** When which fault was in force: everything between two of them is quiet, and there all must be well. */
import type { Allowance, LogLine } from './log.js';

interface Window {
  readonly fault: string;
  readonly fromMs: number;
  readonly allows: Allowance;
  toMs: number;
}

export class Windows {
  readonly #windows: Window[] = [];

  constructor(lines: readonly LogLine[]) {
    for (const line of lines) {
      if (line.kind !== 'mark') continue;
      const open = this.#windows.at(-1);
      if (line.mark === 'inject')
        this.#windows.push({ fault: line.fault, fromMs: line.atMs, allows: line.allows, toMs: Infinity });
      else if (line.mark === 'converged' && open) open.toMs = line.atMs;
    }
  }

  allowance(fault: string): Allowance | undefined {
    return this.#windows.find(window => window.fault === fault)?.allows;
  }

  /** Undefined outside of all. */
  allowanceAt(atMs: number): Allowance | undefined {
    const begun = this.#windows.findLast(({ fromMs }) => fromMs <= atMs);
    return begun && atMs <= begun.toMs ? begun.allows : undefined;
  }

  /** No fault touches this time. Before the first mark hosts are still starting: that is not quiet. */
  quiet(fromMs: number, toMs: number): boolean {
    const begun = this.#windows.findLast(window => window.fromMs <= toMs);
    return begun !== undefined && begun.toMs < fromMs;
  }
}
