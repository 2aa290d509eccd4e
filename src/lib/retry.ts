/** Retries: the delays between attempts, and a loop that repeats an attempt until it succeeds. */
import type { Clock } from './clock.js';
import { TartanError, type ErrorCode } from './errors.js';
import { LogThrottle, type Log } from './log.js';

export interface BackoffLimits {
  readonly firstMs: number;
  readonly capMs: number;
}

/**
 * Returns the delay before a retry, in milliseconds. Delays grow exponentially with jitter, so that hosts that failed
 * together do not retry together. A delay is at least a quarter of the current step.
 * @param attempt 1 for the first retry
 */
export function backoffMs(attempt: number, limits: BackoffLimits, random: () => number = Math.random): number {
  const step = Math.min(limits.capMs, limits.firstMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(step * (0.25 + 0.75 * random()));
}

export interface RetryOptions {
  /** Name of the log event. */
  readonly event: string;
  /** Codes of the errors that may go away by themselves; every other error is thrown. */
  readonly codes: readonly ErrorCode[];
  readonly limits: BackoffLimits;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Receives the error of each failed attempt. */
  readonly onProblem: (error: TartanError) => void;
}

/** Repeats `attempt` until it succeeds; LogThrottle decides which failures are logged. */
export async function retrying<T>(options: RetryOptions, attempt: () => Promise<T>): Promise<T> {
  const throttle = new LogThrottle();
  let lastCode: ErrorCode | undefined;
  for (let count = 1; ; count++) {
    try {
      return await attempt();
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof TartanError) || !options.codes.includes(error.code)) throw error;
      options.onProblem(error);
      // An error of another code is logged at once, however long the loop has waited.
      if (error.code !== lastCode) {
        throttle.reset();
        count = 1;
      }
      lastCode = error.code;
      if (throttle.due()) options.log.warn(options.event, error.message, { attempt: count, code: error.code });
      await options.clock.sleep(error.retryMs ?? backoffMs(count, options.limits), options.signal);
    }
  }
}
