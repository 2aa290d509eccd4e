/**
 * The back-off of starts that end the same way for a while: another live host has our identity, or etcd refuses us. The
 * service manager starts the daemon again after a second; systemd before 254 cannot wait longer each time, so the daemon
 * waits before it ends. A file in the run directory counts the refusals of this boot.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { isTartanError, messageOf } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import { backoffMs } from '../lib/retry.js';

/** The longest is below the watchdog's time, which nobody feeds while the daemon waits for its end. */
const waits = { firstMs: 1_000, capMs: 25_000 } as const;
/** A refusal so long ago says nothing about this one. */
const forgetMs = 300_000;

export interface BackOff {
  /** Waits before an error ends the daemon, the longer the more refusals came before it. */
  wait(error: unknown, signal: AbortSignal): Promise<void>;
  /** The start was no refusal. */
  reset(): void;
}

export function openBackOff(runDir: string, clock: Clock, log: Log): BackOff {
  const path = join(runDir, 'refused-starts');
  return {
    async wait(error, signal) {
      if (!isTartanError(error, 'DUPLICATE_NODE') && !isTartanError(error, 'PERMISSION')) return;
      const count = refusals(path, clock.now()) + 1;
      // A random of 1 makes the delay the whole step, without jitter.
      const ms = backoffMs(count, waits, () => 1);
      // A directory that cannot be written has no count: each wait is the first then.
      ignoring(() => writeFileAtomic(path, `${count} ${clock.now() + ms}\n`, 0o600));
      log.error('daemon.refused', `${messageOf(error)}. The next start is tried in ${ms / 1000} s`, { count });
      try {
        await clock.sleep(ms, signal);
      } catch {
        // The daemon is to stop.
      }
    },
    reset: () => ignoring(() => rmSync(path, { force: true })),
  };
}

/** Returns how many starts in a row were refused before; CLOCK_BOOTTIME ms beyond now are of another boot. */
function refusals(path: string, nowMs: number): number {
  const [count = NaN, atMs = NaN] = (readBounded(path, 64) ?? '').split(' ').map(Number);
  return count >= 1 && atMs <= nowMs && nowMs - atMs < forgetMs ? count : 0;
}

function ignoring(act: () => void): void {
  try {
    act();
  } catch {
    // The count is a convenience.
  }
}
