/**
 * A value that is read again when somebody asks for it and it is old: at most once in a period, however many ask. A
 * reading that fails leaves the last value, with its age and the reason.
 */
import { setTimeout as delay } from 'node:timers/promises';

const patienceMs = 500;
const firstPatienceMs = 3_000;

export interface Reading<T> {
  /** undefined: never read. */
  readonly value: T | undefined;
  /** Of the value. */
  readonly ageSeconds: number | null;
  /** Why the last reading failed; null when it did not. */
  readonly failure: string | null;
}

export class Refreshed<T> {
  readonly read: () => Promise<T>;
  readonly #periodMs: number;
  readonly #nowMs: () => number;
  readonly #explain: (error: unknown) => string;
  #value: T | undefined;
  #readMs: number | undefined;
  #triedMs = -Infinity;
  #failure: string | null = null;
  #reading: Promise<void> | undefined;

  constructor(
    read: () => Promise<T>,
    periodMs: number,
    explain: (error: unknown) => string,
    nowMs: () => number = () => performance.now(),
  ) {
    this.read = read;
    this.#periodMs = periodMs;
    this.#explain = explain;
    this.#nowMs = nowMs;
  }

  /** Waits for a reading, but not for long: less where there is an older value. */
  async current(): Promise<Reading<T>> {
    if (this.#nowMs() - this.#triedMs >= this.#periodMs) this.#reading ??= this.#refresh();
    const reading = this.#reading;
    const late =
      reading !== undefined &&
      (await Promise.race([
        reading.then(() => false),
        delay(this.#value === undefined ? firstPatienceMs : patienceMs, true, { ref: false }),
      ]));
    const ageSeconds = this.#readMs === undefined ? null : (this.#nowMs() - this.#readMs) / 1000;
    return { value: this.#value, ageSeconds, failure: this.#failure ?? (late ? 'no answer yet' : null) };
  }

  /** Waits for a reading, however long it takes. */
  async readNow(): Promise<T | undefined> {
    await (this.#reading ??= this.#refresh());
    return this.#value;
  }

  async #refresh(): Promise<void> {
    try {
      this.#value = await this.read();
      this.#readMs = this.#nowMs();
      this.#failure = null;
    } catch (error) {
      this.#failure = this.#explain(error);
    } finally {
      this.#triedMs = this.#nowMs();
      this.#reading = undefined;
    }
  }
}
