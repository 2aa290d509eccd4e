/** A queue of asynchronous work: one piece runs at a time, in the order of the calls. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all earlier work has ended, also when that failed. Returns what `work` returns. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Resolves when the work that was queued before this call has ended; never rejects. */
  async drained(): Promise<void> {
    await this.#last;
  }
}
