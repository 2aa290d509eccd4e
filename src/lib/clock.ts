/**
 * Time. Deadlines are milliseconds of CLOCK_BOOTTIME (clock_gettime(2)), which goes on through suspend as etcd's clock
 * does. Wall-clock time has one use: it tells whether a state file of another boot is too old. Tests inject a clock of
 * their own.
 */
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { builtFile, native } from './native.js';

export interface Clock {
  /** Returns milliseconds of CLOCK_BOOTTIME. */
  now(): number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** A longer step is time in which this program was stopped or starved, or the host was suspended. */
const longestStepMs = 2_500;

/**
 * How long something has stayed the same, without the time in which this program did not run. Who owns it looks each
 * two seconds at least.
 */
export class HeldTime<T> {
  ms = 0;
  #last: T | undefined;
  #lookedMs = -Infinity;

  /** Something was seen at the last look. */
  get isSeen(): boolean {
    return this.#last !== undefined;
  }

  /**
   * @param seen undefined: nothing that could stay
   * @param sinceMs when it began to be so, if that is known
   */
  look(seen: T | undefined, nowMs: number, sinceMs = nowMs): void {
    const stays = seen !== undefined && seen === this.#last;
    const stepMs = Math.min(nowMs - (stays ? this.#lookedMs : sinceMs), longestStepMs);
    this.ms = seen === undefined ? 0 : stepMs + (stays ? this.ms : 0);
    this.#last = seen;
    this.#lookedMs = nowMs;
  }
}

/** setTimeout fires at once above 2^31-1 ms, so a longer sleep uses several timers. */
const longestTimerMs = 2 ** 31 - 1;

/** Where the addon was not built there is no data process, and nothing else knows our time. */
function withoutAddon(): number {
  return Math.floor(performance.now());
}

let readBootMs: (() => number) | undefined;

function bootMs(): number {
  readBootMs ??= existsSync(builtFile('tartan.node')) ? () => native().bootMs() : withoutAddon;
  return readBootMs();
}

export const bootClock: Clock = {
  now() {
    // Not /proc/uptime: in a container of LXC it is the time since the container's start.
    return bootMs();
  },
  async sleep(ms, signal) {
    for (let left = Math.max(0, ms); ; left -= longestTimerMs) {
      signal.throwIfAborted();
      await delay(Math.min(left, longestTimerMs), undefined, { signal }).catch(() => signal.throwIfAborted());
      if (left <= longestTimerMs) return;
    }
  },
};
