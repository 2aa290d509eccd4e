/**
 * The numbers of peers: under its number a peer stands in the shared memory, and so does all that the data process
 * learns about it. A peer keeps its number as long as it is published, and finds it again when it comes back before
 * another peer has got it. A freed number is given to another peer only after every thread uses a table in which it was
 * free, and the data process has zeroed what it kept under it. Pure.
 */
import { createHash } from 'node:crypto';
import type { Generation } from '../datapath.js';

/** 16 bytes of SHA-256 over the text of an identity, in hexadecimal. */
export type IdentityHash = string;

/** What the data process has done by now. */
export interface Settled {
  /** Every thread uses the table of this generation or a later one. */
  readonly generation: Generation;
  isBlockZeroed(peerNumber: number): boolean;
}

/** Nothing is known of the data process, or none runs. */
export const nothingSettled: Settled = { generation: 0, isBlockZeroed: () => false };

interface Freed {
  /** The peer that had the number. */
  readonly identity: IdentityHash;
  /** The first generation whose table has the number free. */
  readonly generation: Generation;
}

export interface PeerNumbers {
  readonly inUse: ReadonlyMap<IdentityHash, number>;
  readonly freed: ReadonlyMap<number, Freed>;
  /** The first generation whose table has all other numbers free; 0 when no peer ever had one of them. */
  readonly othersFreeIn: Generation;
}

export const noNumbers: PeerNumbers = { inUse: new Map(), freed: new Map(), othersFreeIn: 0 };

export function hashIdentity(identity: string): IdentityHash {
  return createHash('sha256').update(identity).digest('hex').slice(0, 32);
}

/** The hash as the four numbers of a row (NativeRows). */
export function identityWords(hash: IdentityHash): readonly number[] {
  return [0, 8, 16, 24].map(at => Number.parseInt(hash.slice(at, at + 8), 16));
}

/** @returns undefined for four zeros, which are the identity of a free number */
export function readIdentity(words: Uint32Array): IdentityHash | undefined {
  if (words.every(word => word === 0)) return undefined;
  return Array.from(words, word => word.toString(16).padStart(8, '0')).join('');
}

/**
 * Continues the numbers of an earlier daemon.
 * @param identities of the live table, by number
 * @param othersFreeIn 0 when every thread uses that table
 */
export function resumeNumbers(
  identities: readonly (IdentityHash | undefined)[],
  othersFreeIn: Generation,
): PeerNumbers {
  const inUse = new Map<IdentityHash, number>();
  for (const [number, identity] of identities.entries()) if (identity !== undefined) inUse.set(identity, number);
  return { inUse, freed: new Map(), othersFreeIn };
}

/**
 * Numbers the peers of the next table. Peers that had a number keep it, whatever comes beside them. Of new ones the first
 * get the lowest numbers; those for which no number is left are not in the result.
 * @param generation of the next table
 * @param max how many numbers there are
 */
export function assignNumbers(
  before: PeerNumbers,
  identities: readonly IdentityHash[],
  generation: Generation,
  settled: Settled,
  max: number,
): PeerNumbers {
  const { numbers, comers } = keepNumbers(before, new Map(), identities);
  const { inUse, freed } = numbers;
  for (const [identity, number] of before.inUse) if (!inUse.has(identity)) freed.set(number, { identity, generation });
  return numberComers(numbers, comers, settled, max);
}

/** As `assignNumbers`, when all that had a number stay and some come: the cost is that of the copies. */
export function addNumbers(
  before: PeerNumbers,
  identities: readonly IdentityHash[],
  settled: Settled,
  max: number,
): PeerNumbers {
  const { numbers, comers } = keepNumbers(before, new Map(before.inUse), identities);
  return numberComers(numbers, comers, settled, max);
}

interface Numbering extends PeerNumbers {
  readonly inUse: Map<IdentityHash, number>;
  readonly freed: Map<number, Freed>;
}

function numberComers(numbers: Numbering, comers: readonly IdentityHash[], settled: Settled, max: number): PeerNumbers {
  const { inUse, freed } = numbers;
  if (comers.length === 0) return numbers;
  const taken = takenNumbers(inUse, max);
  let candidate = -1;
  for (const identity of comers) {
    do candidate = taken.indexOf(0, candidate + 1);
    while (candidate >= 0 && !isUsable(numbers, candidate, settled));
    if (candidate < 0) break;
    freed.delete(candidate);
    inUse.set(identity, candidate);
  }
  return numbers;
}

/** Whether a peer that was refused would get a number now. */
export function hasUsableNumber(numbers: PeerNumbers, settled: Settled, max: number): boolean {
  const taken = takenNumbers(numbers.inUse, max);
  for (let number = taken.indexOf(0); number >= 0; number = taken.indexOf(0, number + 1))
    if (isUsable(numbers, number, settled)) return true;
  return false;
}

/** @returns 1 at the place of each number in use */
function takenNumbers(inUse: PeerNumbers['inUse'], max: number): Uint8Array {
  const taken = new Uint8Array(max);
  for (const number of inUse.values()) taken[number] = 1;
  return taken;
}

/**
 * Lets peers that have or had a number use it, and tells which peers need one.
 * @param inUse who has a number beside these peers; those of them are added
 */
function keepNumbers(
  before: PeerNumbers,
  inUse: Map<IdentityHash, number>,
  identities: readonly IdentityHash[],
): { readonly numbers: Numbering; readonly comers: readonly IdentityHash[] } {
  const freed = new Map(before.freed);
  const former = new Map(Array.from(before.freed, ([number, { identity }]) => [identity, number]));
  const comers = new Set<IdentityHash>();
  for (const identity of identities) {
    const number = before.inUse.get(identity) ?? former.get(identity);
    if (number === undefined) {
      comers.add(identity);
      continue;
    }
    inUse.set(identity, number);
    freed.delete(number);
  }
  return { numbers: { inUse, freed, othersFreeIn: before.othersFreeIn }, comers: [...comers] };
}

function isUsable({ freed, othersFreeIn }: PeerNumbers, number: number, settled: Settled): boolean {
  const freeIn = freed.get(number)?.generation ?? othersFreeIn;
  return freeIn === 0 || (settled.generation >= freeIn && settled.isBlockZeroed(number));
}
