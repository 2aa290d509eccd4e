import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { feedWatchdog } from '../../src/daemon/watchdog.js';

describe('the watchdog', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** What was said in so many milliseconds. */
  function hear(env: NodeJS.ProcessEnv, ms: number): readonly string[] {
    const heard: string[] = [];
    const end = feedWatchdog(
      env,
      state => heard.push(state),
      error => heard.push(String(error)),
    );
    vi.advanceTimersByTime(ms);
    end();
    vi.advanceTimersByTime(ms);
    return heard;
  }

  it('hears twice a period that the loop turns, until the end', () => {
    expect(hear({ WATCHDOG_USEC: '30000000' }, 59_999)).toEqual(['WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1']);
    expect(hear({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: String(process.pid) }, 15_000)).toEqual(['WATCHDOG=1']);
  });

  it.each([
    {},
    { WATCHDOG_USEC: '' },
    { WATCHDOG_USEC: '0' },
    { WATCHDOG_USEC: '-5' },
    { WATCHDOG_USEC: '30s' },
    { WATCHDOG_USEC: '1000', WATCHDOG_PID: String(process.pid + 1) },
    { WATCHDOG_USEC: '1000', WATCHDOG_PID: '' },
  ])('hears nothing with %j', env => {
    expect(hear(env, 60_000)).toEqual([]);
  });

  it('has a period of any length', () => {
    expect(hear({ WATCHDOG_USEC: '1' }, 3)).toHaveLength(3);
    expect(hear({ WATCHDOG_USEC: '9'.repeat(18) }, 60_000)).toEqual([]);
  });

  it('is not the end of the daemon when nobody listens, and is reported once', () => {
    const errors: string[] = [];
    let lost = true;
    let heard = 0;
    const notify = (): void => {
      if (lost) throw new Error('sendto: ENOENT');
      heard++;
    };
    const end = feedWatchdog({ WATCHDOG_USEC: '2000000' }, notify, error => errors.push(String(error)));
    vi.advanceTimersByTime(3000);
    lost = false;
    vi.advanceTimersByTime(1000);
    end();
    expect(errors).toEqual(['Error: sendto: ENOENT']);
    expect(heard).toBe(1);
  });
});
