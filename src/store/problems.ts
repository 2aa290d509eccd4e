/**
 * What the store does not give us now, by the part that asks. An etcd that is silent for a moment (a restart, another
 * leader) is no problem; a refusal is one at once.
 */
import type { Clock } from '../lib/clock.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import { pauseUntilRung, Wake } from '../lib/wake.js';
import { isStranger } from './history.js';

interface Failure {
  readonly message: string;
  /** An answer that refuses us, not silence. */
  readonly refused: boolean;
  readonly sinceMs: number;
  readonly lastMs: number;
}

/** Silence that lasts this long is a problem. */
const silenceMs = 3_000;

export class Problems {
  readonly #clock: Clock;
  readonly #failures = new Map<string, Failure>();
  readonly #pauses = new Set<Wake>();
  #answers = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param sinceMs the time of our clock since when the part has no answer */
  failed(part: string, error: unknown, sinceMs = this.#failures.get(part)?.sinceMs ?? this.#clock.now()): void {
    const refused = !isTartanError(error, 'STORE_UNAVAILABLE') || isStranger(error);
    this.#failures.set(part, { message: messageOf(error), refused, sinceMs, lastMs: this.#clock.now() });
  }

  /** The part has its answer. */
  ended(part: string): void {
    if (!this.#failures.delete(part)) return;
    this.#answers++;
    for (const pause of this.#pauses) pause.ring();
  }

  /** How often a part that had failed has got its answer. */
  get answers(): number {
    return this.#answers;
  }

  /**
   * The pause of a part before it asks again: until then, or until another part that failed has its answer.
   * @param answers of the time when this part asked; an answer that came since ends the pause at once
   */
  async pause(ms: number, answers: number, signal: AbortSignal): Promise<void> {
    if (answers !== this.#answers) return signal.throwIfAborted();
    const pause = new Wake();
    this.#pauses.add(pause);
    try {
      await pauseUntilRung(this.#clock, ms, pause, signal);
    } finally {
      this.#pauses.delete(pause);
    }
  }

  /** What refuses us, each once. */
  get refusals(): readonly string[] {
    const refusals = [...this.#failures.values()].filter(({ refused }) => refused);
    return [...new Set(refusals.map(({ message }) => message))];
  }

  /** Each refusal once, and the last of the silences: all parts suffer from the same one. */
  get current(): readonly string[] {
    const failures = [...this.#failures.values()];
    const silences = failures.filter(({ refused, sinceMs }) => !refused && this.#clock.now() - sinceMs >= silenceMs);
    const [last] = silences.sort((a, b) => b.lastMs - a.lastMs);
    return [...new Set([...this.refusals, ...(last ? [last.message] : [])])];
  }
}
