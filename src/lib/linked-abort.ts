/**
 * An inner lifetime that ends with an outer signal or on its own. AbortSignal.any would do, but leaves a trace on the
 * outer signal for each use, and ours live as long as the daemon.
 */
export class LinkedAbort {
  readonly #controller = new AbortController();
  readonly #outer: readonly AbortSignal[];
  readonly #onAbort: () => void;

  constructor(...outer: readonly AbortSignal[]) {
    this.#outer = outer;
    this.#onAbort = () => {
      const ended = outer.find(signal => signal.aborted);
      this.end(ended?.reason);
    };
    for (const signal of outer) signal.addEventListener('abort', this.#onAbort, { once: true });
    if (outer.some(signal => signal.aborted)) this.#onAbort();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(reason?: unknown): void {
    for (const signal of this.#outer) signal.removeEventListener('abort', this.#onAbort);
    this.#controller.abort(reason);
  }
}
