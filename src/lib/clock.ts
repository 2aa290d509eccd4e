/**
 * Time. Deadlines are milliseconds of CLOCK_BOOTTIME (clock_gettime(2)), which goes on through suspend as etcd's
 * clock does; wall-clock time decides nothing, it can only make a state file of another boot too old to use. Tests
 * inject a clock of their own.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds of CLOCK_BOOTTIME. */
  now(): number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** setTimeout fires at once above 2^31-1 ms: longer sleeps are made of pieces. */
const longestTimerMs = 2 ** 31 - 1;

export const bootClock: Clock = {
  now() {
    // The first field of /proc/uptime is CLOCK_BOOTTIME in seconds (proc(5)), with 10 ms resolution.
    const text = readFileSync('/proc/uptime', 'latin1');
    return Math.round(Number(text.slice(0, text.indexOf(' '))) * 1000);
  },
  async sleep(ms, signal) {
    for (let left = Math.max(0, ms); ; left -= longestTimerMs) {
      signal.throwIfAborted();
      await delay(Math.min(left, longestTimerMs), undefined, { signal }).catch(() => signal.throwIfAborted());
      if (left <= longestTimerMs) return;
    }
  },
};
