/** The numbers of peers, rule by rule. */
import { describe, expect, test } from 'vitest';
import {
  assignNumbers,
  hasUsableNumber,
  hashIdentity,
  identityWords,
  noNumbers,
  nothingSettled,
  readIdentity,
  resumeNumbers,
  type PeerNumbers,
  type Settled,
} from '../../src/datapath/tun/peer-numbers.js';

/** Every thread uses that generation, and what was freed by then is zeroed. */
const settled = (generation: number, isBlockZeroed: Settled['isBlockZeroed'] = () => true): Settled => ({
  generation,
  isBlockZeroed,
});
const never: Settled['isBlockZeroed'] = number => {
  throw new Error(`asked for block ${number}`);
};

/** Tables one after another from a fresh start, each of peers by the letter of their identity. */
class Numbering {
  numbers: PeerNumbers = noNumbers;
  generation = 0;
  readonly #max: number;

  constructor(max = 100) {
    this.#max = max;
  }

  /** @returns the letters in the order of their numbers, with a dash for a free number */
  table(letters: string, what: Settled = nothingSettled): string {
    this.numbers = assignNumbers(this.numbers, [...letters], ++this.generation, what, this.#max);
    return this.shown;
  }

  get shown(): string {
    const byNumber: string[] = [];
    for (const [identity, number] of this.numbers.inUse) byNumber[number] = identity;
    return Array.from(byNumber, letter => letter ?? '-').join('');
  }

  hasRoom(what: Settled): boolean {
    return hasUsableNumber(this.numbers, what, this.#max);
  }
}

describe('who has a number', () => {
  test('new peers get the lowest numbers in their order, without asking for blocks that nobody had', () => {
    const n = new Numbering();
    expect(n.table('abc', settled(0, never))).toBe('abc');
    expect(n.table('abcd', settled(0, never))).toBe('abcd');
  });

  test('a peer keeps its number, whatever comes and goes, in any order', () => {
    const n = new Numbering();
    n.table('abcd');
    expect(n.table('dxb')).toBe('-b-dx');
    expect(n.table('xdb')).toBe('-b-dx');
  });

  test('the same peer twice has one number', () => {
    const n = new Numbering();
    expect(n.table('aab')).toBe('ab');
  });

  test('a peer that comes back finds its number, though nothing is settled', () => {
    const n = new Numbering();
    n.table('abc');
    n.table('c');
    expect(n.table('xac')).toBe('a-cx');
    expect(n.table('abc')).toBe('abc');
  });

  test('a peer that comes back after its number was given away gets another', () => {
    const n = new Numbering();
    n.table('ab');
    n.table('b');
    expect(n.table('bx', settled(2))).toBe('xb');
    expect(n.table('bxa', settled(3))).toBe('xba');
  });
});

describe('a freed number is given to another peer', () => {
  test('not in the same table', () => {
    const n = new Numbering();
    n.table('ab');
    expect(n.table('bx', settled(1))).toBe('-bx');
  });

  test('not before every thread uses a table without it', () => {
    const n = new Numbering();
    n.table('ab');
    n.table('b');
    expect(n.table('bx', settled(1))).toBe('-bx');
    expect(n.table('bxy', settled(2))).toBe('ybx');
  });

  test('not before its block is zeroed', () => {
    const n = new Numbering();
    n.table('abc');
    n.table('c');
    expect(
      n.table(
        'cx',
        settled(2, number => number === 1),
      ),
    ).toBe('-xc');
  });

  test('and freed again it waits for a later table again', () => {
    const n = new Numbering();
    n.table('a');
    n.table('');
    expect(n.table('x', settled(2))).toBe('x');
    n.table('');
    expect(n.table('y', settled(3))).toBe('-y');
    expect(n.table('yz', settled(4))).toBe('zy');
  });

  test('also when its table was replaced before it was written', () => {
    const n = new Numbering();
    n.table('a');
    n.table('ax');
    // The table with x was written nowhere: the next one has the same generation.
    n.generation--;
    expect(n.table('ay', settled(1))).toBe('a-y');
    expect(n.table('ayz', settled(2))).toBe('azy');
  });
});

describe('full', () => {
  test('new peers are refused, the last ones first, and the others go on', () => {
    const n = new Numbering(3);
    expect(n.table('abxyz')).toBe('abx');
    expect(n.table('zyab')).toBe('ab');
  });

  test('what is not usable yet counts', () => {
    const n = new Numbering(3);
    n.table('abc');
    n.table('bc');
    expect(n.table('bcx', settled(1))).toBe('-bc');
    expect(n.hasRoom(settled(1))).toBe(false);
    expect(n.hasRoom(settled(2, () => false))).toBe(false);
    expect(n.hasRoom(settled(2))).toBe(true);
    expect(n.table('bcx', settled(2))).toBe('xbc');
    expect(n.hasRoom(settled(9))).toBe(false);
  });

  test('a peer that comes back before its number was given away is not refused', () => {
    const n = new Numbering(2);
    n.table('ab');
    n.table('b');
    expect(n.table('ba')).toBe('ab');
  });
});

describe('over the end of the daemon', () => {
  test('the numbers of the live table go on, and free ones are new when every thread uses it', () => {
    const n = new Numbering();
    n.numbers = resumeNumbers(['a', undefined, 'c'], 0);
    n.generation = 7;
    expect(n.table('cax', settled(7, never))).toBe('axc');
  });

  test('while a thread uses the table before, nothing is known of any free number', () => {
    const n = new Numbering(5);
    n.numbers = resumeNumbers(['a', undefined, 'c'], 7);
    n.generation = 7;
    expect(n.table('acx', settled(6))).toBe('a-c');
    expect(n.hasRoom(settled(6))).toBe(false);
    expect(
      n.table(
        'acx',
        settled(7, number => number > 2),
      ),
    ).toBe('a-cx');
  });
});

describe('the identity', () => {
  test('is 16 bytes of SHA-256 as four numbers, and can be read back', () => {
    const hash = hashIdentity('10.5.2.0/24 n2');
    expect(hash).toBe('54f885a8ac05ffa6c478d01d92c33d22');
    expect(readIdentity(Uint32Array.from(identityWords(hash)))).toBe(hash);
    expect(hashIdentity('10.5.2.0/24 n3')).not.toBe(hash);
  });

  test('keeps leading zeros; all zero is nobody', () => {
    expect(readIdentity(Uint32Array.from([0, 1, 0xffffffff, 0x10]))).toBe('0000000000000001ffffffff00000010');
    expect(identityWords('0000000000000001ffffffff00000010')).toEqual([0, 1, 0xffffffff, 0x10]);
    expect(readIdentity(new Uint32Array(4))).toBeUndefined();
  });
});
