/** Reads what the data process has measured of a peer (NativeTable.measure). */
import { measurementRowLength, type NativeTable } from '../../lib/native.js';
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
    sent: traffic(word(at.sentPackets), word(at.sentBytes)),
    received: traffic(word(at.receivedPackets), word(at.receivedBytes)),
    asked: word(at.asked),
    answered: word(at.answered),
    askedMs: known(at.askedMs),
    answeredMs: known(at.answeredMs),
    roundTripUs: p50 === undefined ? undefined : { p50, p99: known(at.p99) },
    loss: lossOf(word(at.history), isWaiting(word(at.askedMs), word(at.answeredMs), nowMs)),
    pathMtuOut: known(at.pathMtuOut),
    pathMtuIn: known(at.pathMtuIn),
    addressSeen: seen === 0 ? undefined : { address: ipv4FromNumber(Math.floor(seen / 0x10000)), port: seen % 0x10000 },
    engine: 'user',
  };
}

const nothing = { packets: 0, bytes: 0 };

/** Most of many peers have none. */
function traffic(packets: number, bytes: number): PeerMeasurement['sent'] {
  return packets === 0 && bytes === 0 ? nothing : { packets, bytes };
}

type Numbers = readonly (readonly [identity: string, number: number])[];

/** Keeps the last reading: of most peers among many nothing new is known, and another reading makes no object for them. */
export class Measurements {
  #rows = new Float64Array();
  #changed = new Uint32Array();
  #numbers: Numbers | undefined;
  /** In the order of `#numbers`, and the place there of each number. */
  #read: (PeerMeasurement | undefined)[] = [];
  #places: (number | undefined)[] = [];
  /** Numbers that have another peer than at the last reading. */
  #unread: number[] = [];
  /** Numbers of peers that may still answer the newest question: the loss then changes with time alone. */
  readonly #waiting = new Set<number>();

  /**
   * @param numbers equal ones are the same object
   * @returns in their order, the same objects for peers of which nothing has changed; the next reading changes the list
   */
  read(table: Pick<NativeTable, 'measure'>, numbers: Numbers, nowMs: number): readonly PeerMeasurement[] {
    if (numbers !== this.#numbers) this.#fit(numbers);
    const count = table.measure(this.#rows, this.#changed);
    if (count === undefined) return [];
    for (const number of this.#waiting) this.#readAgain(number, nowMs);
    for (let i = 0; i < count; i++) this.#readAgain(this.#changed[i] ?? 0, nowMs);
    for (const number of this.#unread) this.#readAgain(number, nowMs);
    this.#unread = [];
    return this.#read as PeerMeasurement[];
  }

  #readAgain(number: number, nowMs: number): void {
    const place = this.#places[number];
    const [identity] = (place !== undefined && this.#numbers?.[place]) || [];
    if (place !== undefined && identity !== undefined)
      this.#read[place] = readMeasurement(identity, this.#rows, number, nowMs);
    if (identity !== undefined && mayAnswer(this.#rows, number, nowMs)) this.#waiting.add(number);
    else this.#waiting.delete(number);
  }

  /** Keeps what was read under a number that is still of the same peer. */
  #fit(numbers: Numbers): void {
    const [before, places] = [this.#read, this.#places];
    this.#numbers = numbers;
    this.#places = [];
    this.#unread = [];
    this.#read = numbers.map(([identity, number], place) => {
      this.#places[number] = place;
      const kept = before[places[number] ?? -1];
      if (kept?.identity === identity) return kept;
      this.#unread.push(number);
      return undefined;
    });
    const { length } = this.#places;
    if (length <= this.#changed.length) return;
    const rows = new Float64Array(2 * length * measurementRowLength);
    rows.set(this.#rows);
    this.#rows = rows;
    this.#changed = new Uint32Array(2 * length);
  }
}

function mayAnswer(words: Float64Array, number: number, nowMs: number): boolean {
  const start = number * measurementRowLength;
  return isWaiting(words[start + at.askedMs] ?? 0, words[start + at.answeredMs] ?? 0, nowMs);
}

function isWaiting(askedMs: number, answeredMs: number, nowMs: number): boolean {
  return answeredMs < askedMs && nowMs - askedMs < answerMs;
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
