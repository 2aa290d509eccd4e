import { expect, it } from 'vitest';
import type { PeerMeasurement } from '../../src/datapath/datapath.js';
import { Measurements, readMeasurement } from '../../src/datapath/tun/measurements.js';
import { measurementRowLength, type NativeTable } from '../../src/lib/native.js';
import { formatIpv4 } from '../../src/model/ip.js';
import { blankMeasurement } from '../support/samples.js';

const now = 1_000_000;

function rowsOf(values: Readonly<Record<number, number>>): Float64Array {
  const words = new Float64Array(2 * measurementRowLength);
  for (const [place, value] of Object.entries(values)) words[measurementRowLength + Number(place)] = value;
  return words;
}

const history = (asked: number, answered: number): Readonly<Record<number, number>> => ({
  13: asked * 2 ** 32 + answered,
});

it('knows nothing of a peer whose row is empty, or that has none', () => {
  const nothing = { ...blankMeasurement, identity: 'p' };
  expect(readMeasurement('p', rowsOf({}), 1, now)).toEqual(nothing);
  expect(readMeasurement('p', rowsOf({}), 7, now)).toEqual(nothing);
});

it('reads each number at its place', () => {
  const seen = 0xc0_00_02_09 * 0x10000 + 40_000;
  const row = Object.fromEntries([1, 2, 3, 4, 5, 6, seen, 8, 9, 10, 11, 12, 13, 0, 15, 16, 17].entries());
  const measured = readMeasurement('p', rowsOf(row), 1, now);
  expect(measured).toMatchObject({
    sentMs: 1,
    sent: { packets: 3, bytes: 4 },
    received: { packets: 5, bytes: 6 },
    asked: 8,
    answered: 9,
    askedMs: 10,
    answeredMs: 11,
    roundTripUs: { p50: 12, p99: 13 },
    pathMtuOut: 15,
    pathMtuIn: 16,
    heardMs: 17,
    addressSeen: { port: 40_000 },
  });
  expect(measured.addressSeen && formatIpv4(measured.addressSeen.address)).toBe('192.0.2.9');
});

it('tells the loss of the last questions, without one that may still be answered', () => {
  const lossOf = (words: Readonly<Record<number, number>>): number | undefined =>
    readMeasurement('p', rowsOf(words), 1, now).loss;
  expect(lossOf(history(0, 0))).toBeUndefined();
  expect(lossOf(history(1, 1))).toBe(0);
  expect(lossOf(history(4, 0b0111))).toBe(0.25);
  expect(lossOf(history(100, 0xffff_ffff))).toBe(0);
  expect(lossOf(history(32, 0x7fff_ffff))).toBe(1 / 32);
  const waiting = { 9: now - 500, 10: now - 2000 };
  expect(lossOf({ ...history(4, 0b1110), ...waiting })).toBe(0);
  expect(lossOf({ ...history(1, 0), ...waiting })).toBeUndefined();
  expect(lossOf({ ...history(4, 0b1110), 9: now - 1000, 10: now - 2000 })).toBe(0.25);
});

/** A table whose rows a test sets, with the addon's way of telling what has changed. */
class Rows implements Pick<NativeTable, 'measure'> {
  words: Float64Array | undefined = rowsOf({});

  measure(rows: Float64Array, changed: Uint32Array): number | undefined {
    if (!this.words) return undefined;
    let count = 0;
    for (let number = 0; number < Math.min(2, changed.length); number++) {
      const [start, end] = [number * measurementRowLength, (number + 1) * measurementRowLength];
      const row = this.words.subarray(start, end);
      if (row.every((word, place) => word === rows[start + place])) continue;
      rows.set(row, start);
      changed[count++] = number;
    }
    return count;
  }
}

it('gives the same object for a peer of which nothing has changed (fault C17)', () => {
  const [measurements, table] = [new Measurements(), new Rows()];
  const numbers = [
    ['p', 1],
    ['q', 0],
  ] as const;
  table.words = rowsOf({ 16: 5 });
  const [first, quiet] = measurements.read(table, numbers, now);
  const [again, stillQuiet] = measurements.read(table, numbers, now);
  expect([again === first, stillQuiet === quiet]).toEqual([true, true]);
  table.words = rowsOf({ 16: 6 });
  const [heard, unheard] = measurements.read(table, numbers, now);
  expect(heard).toMatchObject({ identity: 'p', heardMs: 6 });
  expect(unheard === quiet).toBe(true);
  table.words = undefined;
  expect(measurements.read(table, [['q', 0]], now)).toEqual([]);
  table.words = rowsOf({ 16: 6 });
  // Another peer has the number.
  const others = [...numbers.slice(1), ['r', 1]] as const;
  expect(measurements.read(table, others, now)).toMatchObject([{ identity: 'q' }, { identity: 'r', heardMs: 6 }]);
});

it('reads anew a peer that owes an answer until it is lost: that is by time alone', () => {
  const [measurements, table] = [new Measurements(), new Rows()];
  table.words = rowsOf({ 9: now - 500, ...history(1, 0) });
  const numbers = [['p', 1]] as const;
  const read = (atMs: number): PeerMeasurement | undefined => measurements.read(table, numbers, atMs)[0];
  expect([read(now)?.loss, read(now + 100)?.loss]).toEqual([undefined, undefined]);
  const lost = read(now + 600);
  expect(lost?.loss).toBe(1);
  expect(read(now + 700) === lost).toBe(true);
});
