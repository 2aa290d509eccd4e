/** The listeners of one event. The event carries no value: a listener reads the current state. */
export class Listeners {
  readonly #listeners: (() => void)[] = [];

  add(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Calls every listener, in the order of registration. */
  ring(): void {
    for (const listener of this.#listeners) listener();
  }

  clear(): void {
    this.#listeners.length = 0;
  }
}
