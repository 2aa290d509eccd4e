import { expect, it } from 'vitest';
import { Measurements, readMeasurement } from '../../src/datapath/tun/measurements.js';
import { measurementRowLength } from '../../src/lib/native.js';
import { formatIpv4 } from '../../src/model/ip.js';

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
  const nothing = {
    identity: 'p',
    heardMs: undefined,
    sentMs: undefined,
    sent: { packets: 0, bytes: 0 },
    received: { packets: 0, bytes: 0 },
    asked: 0,
    answered: 0,
    askedMs: undefined,
    answeredMs: undefined,
    roundTripUs: undefined,
    loss: undefined,
    pathMtuOut: undefined,
    pathMtuIn: undefined,
    addressSeen: undefined,
    engine: 'user',
  };
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

it('gives the same object for a peer of which nothing has changed (fault C17)', () => {
  const measurements = new Measurements();
  const numbers = [
    ['p', 1],
    ['q', 0],
  ] as const;
  const [first, quiet] = measurements.read(rowsOf({ 16: 5 }), numbers, now);
  expect(measurements.read(rowsOf({ 16: 5 }), numbers, now)).toEqual([first, quiet]);
  const [again, stillQuiet] = measurements.read(rowsOf({ 16: 5 }), numbers, now);
  expect([again === first, stillQuiet === quiet]).toEqual([true, true]);
  const [heard] = measurements.read(rowsOf({ 16: 6 }), numbers, now);
  expect(heard).toMatchObject({ identity: 'p', heardMs: 6 });
  // Another peer has the number.
  expect(measurements.read(rowsOf({ 16: 6 }), [['r', 1]], now)[0]).toMatchObject({ identity: 'r', heardMs: 6 });
});

it('reads anew a peer that owes an answer: a question is lost by time alone', () => {
  const measurements = new Measurements();
  const asked = rowsOf({ 9: now - 500, ...history(1, 0) });
  expect(measurements.read(asked, [['p', 1]], now)[0]?.loss).toBeUndefined();
  expect(measurements.read(asked, [['p', 1]], now + 600)[0]?.loss).toBe(1);
});
