/** Lifetimes: what is owned is closed newest first, each exactly once, and one failure does not stop the others. */
export interface Closable {
  close(): Promise<void> | void;
}

export class Scope {
  readonly #owned: { readonly name: string; readonly close: () => Promise<void> | void }[] = [];
  readonly #onError: (name: string, error: unknown) => void;
  #closing: Promise<void> | undefined;

  constructor(onError: (name: string, error: unknown) => void = () => {}) {
    this.#onError = onError;
  }

  /** Own it the moment it exists. */
  async own<T extends Closable>(name: string, opening: Promise<T> | T): Promise<T> {
    const thing = await opening;
    this.defer(name, () => thing.close());
    return thing;
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
