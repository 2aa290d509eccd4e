/**
 * Writes lines, or datagrams, to a reader that may stall: a full pipe, a journal that does not read. A line waits in a
 * queue of bounded length; lines beyond it are dropped and counted, and the count is told when the reader reads again.
 * Nothing waits but `flush`, for a bounded time.
 */

/**
 * Takes what can be written within `waitMs`.
 * @returns the number of bytes
 * @throws Error when the reader is gone
 */
export type WriteSome = (bytes: Buffer, waitMs: number) => number;

export interface LogWriterOptions {
  /** Makes the line that tells how many were dropped. */
  readonly dropped: (lines: number) => string | Buffer;
  readonly maxBytes?: number;
  readonly retryMs?: number;
}

export class LogWriter {
  readonly #target: WriteSome;
  readonly #dropped: LogWriterOptions['dropped'];
  readonly #maxBytes: number;
  readonly #retryMs: number;
  /** The first one may be the rest of a line. */
  readonly #queue: Buffer[] = [];
  #queuedBytes = 0;
  #droppedLines = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(target: WriteSome, { dropped, maxBytes = 64 * 1024, retryMs = 50 }: LogWriterOptions) {
    this.#target = target;
    this.#dropped = dropped;
    this.#maxBytes = maxBytes;
    this.#retryMs = retryMs;
  }

  /** @param line with its line feed, or a datagram */
  write(line: string | Buffer): void {
    this.#add(line);
    // A reader that stalls is looked at by the timer only.
    if (this.#timer === undefined) this.#writeOut(0);
    if (this.#queue.length > 0 && this.#timer === undefined) {
      this.#timer = setInterval(() => this.#retry(), this.#retryMs);
      this.#timer.unref();
    }
  }

  /** Tries for at most `limitMs` to write all that waits: the last words before an exit. */
  flush(limitMs: number): void {
    this.#writeOut(performance.now() + limitMs);
  }

  #add(line: string | Buffer): void {
    const bytes = typeof line === 'string' ? Buffer.from(line) : line;
    if (this.#queuedBytes + bytes.length > this.#maxBytes && this.#queue.length > 0) {
      this.#droppedLines++;
      return;
    }
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
  }

  #retry(): void {
    this.#writeOut(0);
    if (this.#queue.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #writeOut(untilMs: number): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const count = this.#writeSome(first, Math.max(0, Math.ceil(untilMs - performance.now())));
      if (count === 0) return;
      this.#queuedBytes -= count;
      if (count < first.length) this.#queue[0] = first.subarray(count);
      else this.#queue.shift();
      if (this.#queue.length === 0) this.#tellDropped();
    }
  }

  #tellDropped(): void {
    if (this.#droppedLines === 0) return;
    const line = this.#dropped(this.#droppedLines);
    this.#droppedLines = 0;
    this.#add(line);
  }

  /** A reader that is gone, or a full disk, loses what waits: the daemon goes on without a log. */
  #writeSome(bytes: Buffer, waitMs: number): number {
    try {
      return this.#target(bytes, waitMs);
    } catch {
      this.#droppedLines += this.#queue.length;
      this.#queue.length = 0;
      this.#queuedBytes = 0;
      return 0;
    }
  }
}
