/** Waiting for something that others put right: tries until it works, and says so at growing distances. */
import { backoffMs, type BackoffLimits } from './backoff.js';
import type { Clock } from './clock.js';
import { TartanError, type ErrorCode } from './errors.js';
import { LogThrottle, type Log } from './log.js';

export interface RetryOptions {
  /** Name of the log event. */
  readonly event: string;
  /** Errors that are expected to heal; any other is thrown. */
  readonly codes: readonly ErrorCode[];
  readonly limits: BackoffLimits;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Told the message of each failed try. */
  readonly onProblem: (message: string) => void;
}

export async function retrying<T>(options: RetryOptions, attempt: () => Promise<T>): Promise<T> {
  const throttle = new LogThrottle();
  let last: ErrorCode | undefined;
  for (let count = 1; ; count++) {
    try {
      return await attempt();
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof TartanError) || !options.codes.includes(error.code)) throw error;
      options.onProblem(error.message);
      // Another reason is news, however long the first one was waited for.
      if (error.code !== last) {
        throttle.reset();
        count = 1;
      }
      last = error.code;
      if (throttle.due()) options.log.warn(options.event, error.message, { attempt: count, code: error.code });
      await options.clock.sleep(backoffMs(count, options.limits), options.signal);
    }
  }
}
