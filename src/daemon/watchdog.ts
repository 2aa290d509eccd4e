/**
 * Feeds the service manager's watchdog (sd_watchdog_enabled(3)) twice in each of its periods. Only a timer of the event
 * loop does it, so that a loop that hangs is silent.
 */

/** Node fires at once when a timer is longer. */
const longestTimerMs = 2 ** 31 - 1;

/**
 * @param notify sends one state to the service manager
 * @param onError receives the first failure of `notify`; later calls may succeed again
 * @returns a function that ends it; nothing is done where the manager does not watch this process
 */
export function feedWatchdog(
  env: NodeJS.ProcessEnv,
  notify: (state: string) => void,
  onError: (error: unknown) => void,
): () => void {
  const periodMs = watchdogPeriodMs(env);
  if (periodMs === undefined) return () => {};
  let failed = false;
  const feed = (): void => {
    try {
      notify('WATCHDOG=1');
    } catch (error) {
      if (!failed) onError(error);
      failed = true;
    }
  };
  const timer = setInterval(feed, Math.min(Math.max(1, Math.floor(periodMs / 2)), longestTimerMs));
  timer.unref();
  return () => clearInterval(timer);
}

/** @returns undefined also when the variables were meant for another process, from which we have inherited them */
function watchdogPeriodMs(env: NodeJS.ProcessEnv): number | undefined {
  const { WATCHDOG_USEC: period = '', WATCHDOG_PID: pid } = env;
  if (!/^[1-9]\d*$/.test(period) || (pid !== undefined && pid !== String(process.pid))) return undefined;
  return Number(period) / 1000;
}
