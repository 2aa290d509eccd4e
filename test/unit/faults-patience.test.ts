/** A limit of the fault lab: what a busy machine adds to it, and what adds nothing. */
import { expect, it } from 'vitest';
import { Patience, type Wait } from '../e2e/faults/patience.js';

const limitMs = 1000;

/** Whether the limit is over after a time, when threads have waited this long for a processor meanwhile. */
function isOverAfter(ms: number, ...waitedMs: readonly number[]): boolean {
  let nowMs = 0;
  let waits: readonly Wait[] = [['old', 5000]];
  const patience = new Patience(limitMs, () => [1], { nowMs: () => nowMs, waits: () => waits });
  nowMs = ms;
  waits = waitedMs.map((waited, index) => (index === 0 ? ['old', 5000 + waited] : [`new ${index}`, waited]));
  return patience.isOver;
}

it('a process that does not wait for a processor has the limit and no more', () => {
  expect(isOverAfter(1000, 0)).toBe(false);
  expect(isOverAfter(1001, 0)).toBe(true);
  // It is gone.
  expect(isOverAfter(1001)).toBe(true);
});

it('a process that waited has as much more, by the thread that waited longest', () => {
  expect(isOverAfter(1500, 499, 100)).toBe(true);
  expect(isOverAfter(1500, 500, 100)).toBe(false);
  expect(isOverAfter(1500, 100, 500)).toBe(false);
});

it('never more than twice the limit is added', () => {
  expect(isOverAfter(3000, 100_000)).toBe(false);
  expect(isOverAfter(3001, 100_000)).toBe(true);
});
