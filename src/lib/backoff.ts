/** Retry delays: exponential with full jitter, so that many hosts that failed together do not retry together. */
export interface BackoffLimits {
  readonly firstMs: number;
  readonly capMs: number;
}

/**
 * @param attempt 1 for the first retry
 * @returns a delay in milliseconds, at least a quarter of the current step
 */
export function backoffMs(attempt: number, limits: BackoffLimits, random: () => number = Math.random): number {
  const step = Math.min(limits.capMs, limits.firstMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(step * (0.25 + 0.75 * random()));
}
