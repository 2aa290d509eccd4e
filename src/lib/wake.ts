/**
 * A doorbell: `ring` carries no value and never blocks; `wait` returns at the next ring, at once if one came since
 * the last wait, or after the given time. Ten thousand rings cost one pass.
 */
export class Wake {
  #rung = false;
  #answer: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#answer?.();
  }

  /** Rejects with the signal's reason when aborted. One waiter at a time. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#rung) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
        const answer = this;
        function done(): void {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          answer.#answer = undefined;
          resolve();
        }
        signal.addEventListener('abort', done, { once: true });
        this.#answer = done;
      });
    }
    signal.throwIfAborted();
    this.#rung = false;
  }
}
