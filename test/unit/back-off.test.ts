/** Starts that are refused again and again. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openBackOff } from '../../src/daemon/back-off.js';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';

let runDir: string;
let nowMs: number;
let slept: number[];
const clock = { now: () => nowMs, sleep: async (ms: number) => void (slept.push(ms), (nowMs += ms)) };
const { signal } = new AbortController();
/** Each start is a process of its own. */
const start = () => openBackOff(runDir, clock, silentLog);
const refused = new TartanError('DUPLICATE_NODE', 'another live host has our public address');

beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), `tartan-back-off-${process.pid}-`));
  [nowMs, slept] = [1_000_000, []];
});
afterEach(() => rmSync(runDir, { recursive: true }));

it('fault U9: refused starts come at growing distances: about 17 in the 345 s that were 120', async () => {
  for (; nowMs < 1_345_000; nowMs += 1_500) await start().wait(refused, signal);
  expect(slept.slice(0, 6)).toEqual([1000, 2000, 4000, 8000, 16_000, 25_000]);
  expect(Math.max(...slept)).toBe(25_000);
  expect(slept.length).toBeLessThan(20);
});

it('fault U9: a start that succeeded, a long time, another boot and another error begin anew', async () => {
  for (let count = 0; count < 3; count++) await start().wait(new TartanError('PERMISSION', 'role'), signal);
  start().reset();
  await start().wait(refused, signal);
  nowMs += 400_000;
  await start().wait(refused, signal);
  await start().wait(refused, signal);
  nowMs = 1_000;
  await start().wait(refused, signal);
  await start().wait(new TartanError('LEASE_LOST', 'another owns it'), signal);
  await start().wait(new Error('bug'), signal);
  expect(slept).toEqual([1000, 2000, 4000, 1000, 1000, 2000, 1000]);
});
