import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { exitCodeOf, TartanError } from '../../src/lib/errors.js';
import { makeDirectories } from '../../src/lib/file.js';
import { openLog, LogThrottle, silentLog } from '../../src/lib/log.js';
import { backoffMs, retrying } from '../../src/lib/retry.js';
import { LinkedAbort, Scope } from '../../src/lib/scope.js';
import { Wake } from '../../src/lib/wake.js';

it('back-off grows to its cap and is never zero', () => {
  const limits = { firstMs: 100, capMs: 5000 };
  expect(backoffMs(1, limits, () => 0)).toBe(25);
  expect(backoffMs(1, limits, () => 1)).toBe(100);
  expect(backoffMs(3, limits, () => 1)).toBe(400);
  expect(backoffMs(1000, limits, () => 1)).toBe(5000);
});

it('a scope closes newest first, each once, whatever fails', async () => {
  const seen: string[] = [];
  const scope = new Scope((name, error) => seen.push(`${name}: ${(error as Error).message}`));
  await scope.own('a', { close: () => void seen.push('a') });
  scope.defer('b', () => {
    throw new Error('no');
  });
  scope.defer('c', async () => void seen.push('c'));
  await Promise.all([scope.close(), scope.close()]);
  expect(seen).toEqual(['c', 'b: no', 'a']);
  expect(() => scope.defer('d', () => {})).toThrow('scope is closed');
});

it('a ring before the wait is not lost, and many rings are one', async () => {
  const wake = new Wake();
  const never = new AbortController().signal;
  wake.ring();
  wake.ring();
  await wake.wait(1e9, never);
  let woken = false;
  const second = wake.wait(1e9, never).then(() => (woken = true));
  await Promise.resolve();
  expect(woken).toBe(false);
  wake.ring();
  await second;
});

it('a wait ends by time and by abort', async () => {
  const wake = new Wake();
  await wake.wait(1, new AbortController().signal);
  const stop = new AbortController();
  const waiting = wake.wait(1e12, stop.signal);
  stop.abort(new Error('enough'));
  await expect(waiting).rejects.toThrow('enough');
});

it('a sleep longer than a timer can hold does not fire at once', async () => {
  vi.useFakeTimers();
  const stop = new AbortController();
  const state = { done: false };
  const sleeping = bootClock.sleep(30 * 86_400_000, stop.signal).then(
    () => (state.done = true),
    () => 'aborted',
  );
  await vi.advanceTimersByTimeAsync(5000);
  expect(state.done).toBe(false);
  vi.useRealTimers();
  stop.abort();
  await sleeping;
});

it('the boot clock goes on', () => {
  const first = bootClock.now();
  expect(first).toBeGreaterThan(0);
  expect(bootClock.now()).toBeGreaterThanOrEqual(first);
});

it('repeats are due at 1, 2, 4, 8 and anew after a reset', () => {
  const throttle = new LogThrottle();
  const due = Array.from({ length: 10 }, () => throttle.due());
  expect(due.flatMap((yes, index) => (yes ? [index + 1] : []))).toEqual([1, 2, 4, 8]);
  throttle.reset();
  expect(throttle.due()).toBe(true);
});

it('a retry heals what it expects and throws the rest', async () => {
  const problems: string[] = [];
  const options = {
    event: 'x.waiting',
    codes: ['STORE_UNAVAILABLE'],
    limits: { firstMs: 1, capMs: 2 },
    clock: bootClock,
    log: silentLog,
    signal: new AbortController().signal,
    onProblem: ({ message }: TartanError) => problems.push(message),
  } as const;
  let count = 0;
  const result = await retrying(options, async () => {
    if (++count < 3) throw new TartanError('STORE_UNAVAILABLE', `try ${count}`);
    return 'done';
  });
  expect([result, problems]).toEqual(['done', ['try 1', 'try 2']]);
  await expect(retrying(options, async () => Promise.reject(new TartanError('DUPLICATE_NODE', 'two')))).rejects.toThrow(
    'two',
  );
});

it('exit codes follow the table', () => {
  expect(exitCodeOf(new TartanError('USAGE', ''))).toBe(64);
  expect(exitCodeOf(new TartanError('DUPLICATE_NODE', ''))).toBe(73);
  expect(exitCodeOf(new TypeError())).toBe(70);
});

it('log lines carry event, level and message', () => {
  const lines: string[] = [];
  const log = openLog('info', { write: line => void lines.push(line) });
  log.debug('a.b', 'not shown');
  log.warn('lease.acquired', 'text', { subnet: '10.5.1.0/24' });
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({
    level: 'warn',
    event: 'lease.acquired',
    msg: 'text',
    subnet: '10.5.1.0/24',
  });
});

it('a lifetime of its own leaves the warning of Node about listeners on', () => {
  const before = EventEmitter.defaultMaxListeners;
  new LinkedAbort().end();
  expect(EventEmitter.defaultMaxListeners).toBe(before);
});

it('makes the directories that are missing, and says why it cannot', () => {
  const base = mkdtempSync(join(tmpdir(), 'tartan-file-'));
  try {
    const wanted = join(base, 'a', 'b', 'c');
    makeDirectories(wanted, 0o700);
    makeDirectories(wanted, 0o700);
    expect(statSync(wanted).mode & 0o777).toBe(0o700);
    writeFileSync(join(base, 'file'), '');
    expect(() => makeDirectories(join(base, 'file', 'd'), 0o700)).toThrow(/ENOTDIR/);
    expect(() => makeDirectories(join(base, 'file'), 0o700)).toThrow(/EEXIST/);
    // Node's own recursive mkdir never returns there.
    expect(() => makeDirectories('/proc/tartan/run', 0o700)).toThrow(/ENOENT/);
  } finally {
    rmSync(base, { recursive: true });
  }
});
