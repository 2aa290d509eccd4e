/** Reads what the data process has measured of a peer (NativeTable.measurements). */
import { measurementRowLength } from '../../lib/native.js';
import { ipv4FromNumber } from '../../model/ip.js';
import type { PeerMeasurement } from '../datapath.js';

/** The places in a row; in the order of PEER_STATISTICS of native/shared/layout.h. */
const at = {
  sentMs: 0,
  sentPackets: 2,
  sentBytes: 3,
  receivedPackets: 4,
  receivedBytes: 5,
  addressSeen: 6,
  asked: 7,
  answered: 8,
  askedMs: 9,
  answeredMs: 10,
  p50: 11,
  p99: 12,
  history: 13,
  pathMtuOut: 14,
  pathMtuIn: 15,
  heardMs: 16,
} as const;

/** A question that is younger than this and has no answer is not lost yet. */
const answerMs = 1000;
const historyMax = 32;

/** @param words all rows; a number that has none gives a peer of which nothing is known */
export function readMeasurement(identity: string, words: Float64Array, number: number, nowMs: number): PeerMeasurement {
  const start = number * measurementRowLength;
  const word = (place: number): number => words[start + place] ?? 0;
  const known = (place: number): number | undefined => word(place) || undefined;
  const p50 = known(at.p50);
  const seen = word(at.addressSeen);
  return {
    identity,
    heardMs: known(at.heardMs),
    sentMs: known(at.sentMs),
    sent: { packets: word(at.sentPackets), bytes: word(at.sentBytes) },
    received: { packets: word(at.receivedPackets), bytes: word(at.receivedBytes) },
    asked: word(at.asked),
    answered: word(at.answered),
    askedMs: known(at.askedMs),
    answeredMs: known(at.answeredMs),
    roundTripUs: p50 === undefined ? undefined : { p50, p99: known(at.p99) },
    loss: lossOf(word(at.history), word(at.answeredMs) < word(at.askedMs) && nowMs - word(at.askedMs) < answerMs),
    pathMtuOut: known(at.pathMtuOut),
    pathMtuIn: known(at.pathMtuIn),
    addressSeen: seen === 0 ? undefined : { address: ipv4FromNumber(Math.floor(seen / 0x10000)), port: seen % 0x10000 },
    engine: 'user',
  };
}

/** Keeps the last reading: of most peers among many nothing new is known, and they cost no object. */
export class Measurements {
  #words: Float64Array = new Float64Array();
  /** By number. */
  #read: (PeerMeasurement | undefined)[] = [];

  /** @returns in the order of `numbers`, the same objects for peers of which nothing has changed */
  read(
    words: Float64Array,
    numbers: readonly (readonly [identity: string, number: number])[],
    nowMs: number,
  ): readonly PeerMeasurement[] {
    const [before, last] = [this.#words, this.#read];
    this.#words = words;
    this.#read = [];
    return numbers.map(([identity, number]) => {
      const kept = last[number];
      const isKept = kept?.identity === identity && isSameRow(words, before, number) && !owesAnswer(words, number);
      return (this.#read[number] = isKept ? kept : readMeasurement(identity, words, number, nowMs));
    });
  }
}

function isSameRow(words: Float64Array, before: Float64Array, number: number): boolean {
  const start = number * measurementRowLength;
  for (let place = start; place < start + measurementRowLength; place++)
    if (words[place] !== before[place]) return false;
  return true;
}

/** The loss then changes with time alone. */
function owesAnswer(words: Float64Array, number: number): boolean {
  const start = number * measurementRowLength;
  return (words[start + at.answeredMs] ?? 0) < (words[start + at.askedMs] ?? 0);
}

/**
 * The part of the last questions that was not answered.
 * @param history their number above 32 bits of which bit 0 says that the newest was answered
 * @param isWaiting the newest may still be answered, and is left out
 */
function lossOf(history: number, isWaiting: boolean): number | undefined {
  const asked = Math.min(Math.floor(history / 2 ** 32), historyMax);
  const skipped = isWaiting ? 1 : 0;
  const bits = history % 2 ** 32;
  let answered = 0;
  for (let bit = skipped; bit < asked; bit++) if (Math.floor(bits / 2 ** bit) % 2 === 1) answered++;
  const counted = asked - skipped;
  return counted <= 0 ? undefined : 1 - answered / counted;
}
