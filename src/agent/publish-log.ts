/**
 * Logs the tables that the data plane gets. The first one is logged at once; while tables follow each other quickly, one
 * line after growing gaps stands for all of them.
 */
import type { Log } from '../lib/log.js';

const gap = { firstMs: 1_000, mostMs: 10_000 } as const;

export class PublishLog {
  readonly #log: Log;
  #peers = -1;
  #tables = 0;
  #gapMs: number = gap.firstMs;
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  /** A table of so many peers was published. */
  add(peers: number): void {
    this.#tables++;
    this.#peers = peers;
    if (!this.#timer) this.#write();
  }

  close(): void {
    if (this.#tables > 0) this.#write();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #write(): void {
    const [peers, tables] = [this.#peers, this.#tables];
    this.#tables = 0;
    this.#log.info('plan.applied', `${peers} peers are published`, { peers, changes: [], tables });
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#tables === 0) {
        this.#gapMs = gap.firstMs;
        return;
      }
      this.#gapMs = Math.min(2 * this.#gapMs, gap.mostMs);
      this.#write();
    }, this.#gapMs).unref();
  }
}
