/** Lifetimes: what ends together, what ends inside something longer, and how to wait for an end. */
import { setMaxListeners } from 'node:events';

export interface Closable {
  close(): Promise<void> | void;
}

/** Closes what it owns, newest first and each exactly once; the failure of one close does not stop the others. */
export class Scope {
  readonly #owned: { readonly name: string; readonly close: () => Promise<void> | void }[] = [];
  readonly #onError: (name: string, error: unknown) => void;
  #closing: Promise<void> | undefined;

  constructor(onError: (name: string, error: unknown) => void = () => {}) {
    this.#onError = onError;
  }

  /** Takes ownership of the object as soon as it is open, and returns it. */
  async own<T extends Closable>(name: string, opening: Promise<T> | T): Promise<T> {
    const owned = await opening;
    this.defer(name, () => owned.close());
    return owned;
  }

  defer(name: string, close: () => Promise<void> | void): void {
    if (this.#closing) throw new Error(`scope is closed, cannot own ${name}`);
    this.#owned.push({ name, close });
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    for (let item = this.#owned.pop(); item; item = this.#owned.pop()) {
      try {
        await item.close();
      } catch (error) {
        this.#onError(item.name, error);
      }
    }
  }
}

/**
 * A lifetime that ends with any of the outer signals or by `end`. AbortSignal.any is not used here: it leaves a
 * reference on the outer signal for each use, and the outer signals live as long as the daemon.
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
    // Many lifetimes end with one signal, and each takes its listener back: the warning of Node would be a false one.
    // Without a signal the call would set the default of the whole program.
    if (outer.length > 0) setMaxListeners(0, ...outer);
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

/** Rejects with the signal's reason once the signal is aborted; never resolves. */
export function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
