/** The choice of a subnet against a twin that looks at every subnet one by one. */
import { describe, expect, it } from 'vitest';
import {
  chooseQuarantined,
  chooseSubnet,
  isFree,
  randomFree,
  type AgedTombstone,
  type AllocationRequest,
  type Tombstone,
} from '../../src/model/allocation.js';
import {
  formatPrefix,
  nthPrefix,
  parsePrefix,
  prefixAround,
  prefixesOverlap,
  type Prefix,
} from '../../src/model/ip.js';
import { subnetAt, subnetCount, type NetworkConfig } from '../../src/model/network.js';
import { networkOf } from '../support/store.js';

/** A small generator, so that a failure can be repeated. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function naiveFree(network: NetworkConfig, busy: readonly Prefix[]): readonly string[] {
  return Array.from({ length: subnetCount(network) }, (_, index) => subnetAt(network, index))
    .filter(subnet => !busy.some(other => prefixesOverlap(other, subnet)))
    .map(formatPrefix);
}

function randomPrefixes(random: () => number, count: number): readonly Prefix[] {
  const first = parsePrefix('10.4.252.0/32');
  return Array.from({ length: count }, () =>
    prefixAround(nthPrefix(first, Math.floor(random() * 6000)).base, 21 + Math.floor(random() * 10)),
  );
}

const request = (more: Partial<AllocationRequest> = {}): AllocationRequest => ({
  network: networkOf('10.5.0.0/20', { SubnetLen: 24 }),
  taken: [],
  tombstones: [],
  nodeId: 'me',
  random: Math.random,
  ...more,
});
const tombstone = (subnet: string, nodeId: string, revision = 1n): Tombstone => ({
  subnet: parsePrefix(subnet),
  nodeId,
  revision,
  leaseId: '0',
  reserved: false,
});

describe('randomFree', () => {
  it('finds exactly the free ones, each as often as the others', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = generator(seed);
      const network = networkOf('10.5.0.0/20', { SubnetLen: 22 + (seed % 7) });
      const busy = randomPrefixes(random, Math.floor(random() * 12));
      const free = naiveFree(network, busy);
      const found = free.map((_, index) => randomFree(network, busy, () => (index + 0.5) / free.length));
      expect(
        found.map(subnet => subnet && formatPrefix(subnet)),
        `seed ${seed}`,
      ).toEqual(free);
      if (free.length === 0) expect(randomFree(network, busy, random)).toBeUndefined();
    }
  });

  it('stays within SubnetMin and SubnetMax', () => {
    const network = networkOf('10.5.0.0/16', { SubnetMin: '10.5.10.0', SubnetMax: '10.5.12.0' });
    const ends = [0, 0.999999].map(value => randomFree(network, [], () => value));
    expect(ends.map(subnet => subnet && formatPrefix(subnet))).toEqual(['10.5.10.0/24', '10.5.12.0/24']);
  });

  it('takes a large network with many leases in its stride', () => {
    const network = networkOf('10.0.0.0/8', { SubnetLen: 28 });
    const busy = Array.from({ length: 65_536 }, (_, index) => subnetAt(network, index * 3));
    const begin = performance.now();
    const subnet = randomFree(network, busy, () => 0);
    expect(subnet && formatPrefix(subnet)).toBe('10.0.0.32/28');
    expect(performance.now() - begin).toBeLessThan(1000);
  });
});

describe('chooseSubnet', () => {
  it('prefers the own former subnet, then never used ones', () => {
    const tombstones = [tombstone('10.5.3.0/24', 'me'), tombstone('10.5.4.0/24', 'other')];
    expect(chooseSubnet(request({ tombstones }))).toEqual(parsePrefix('10.5.3.0/24'));
    const taken = [parsePrefix('10.5.3.128/25')];
    for (let seed = 1; seed < 50; seed++) {
      const subnet = chooseSubnet(request({ tombstones, taken, random: generator(seed) }));
      expect(subnet && formatPrefix(subnet)).not.toMatch(/^10\.5\.[34]\.0/);
    }
  });

  it('takes what is reserved for the node before what it had', () => {
    const reserved = { ...tombstone('10.5.9.0/24', 'me', 9n), reserved: true };
    expect(chooseSubnet(request({ tombstones: [tombstone('10.5.3.0/24', 'me'), reserved] }))).toEqual(reserved.subnet);
  });

  it('never overlaps a lease', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = generator(seed);
      const taken = randomPrefixes(random, 8);
      const tombstones = randomPrefixes(random, 4).map((subnet, index) =>
        tombstone(formatPrefix(subnet), index % 2 ? 'me' : 'x'),
      );
      const subnet = chooseSubnet(request({ taken, tombstones, random }));
      if (subnet)
        expect(
          taken.some(other => prefixesOverlap(other, subnet)),
          `seed ${seed}`,
        ).toBe(false);
    }
  });
});

describe('chooseQuarantined', () => {
  const network = networkOf('10.5.0.0/22', { SubnetLen: 24 });
  const choose = (
    aged: readonly AgedTombstone[],
    evenYoung = false,
    taken: readonly Prefix[] = [],
  ): string | undefined => {
    const subnet = chooseQuarantined({ ...request({ network }), taken }, aged, evenYoung);
    return subnet && formatPrefix(subnet);
  };
  const aged = (subnet: string, ageSeconds: number | undefined, over: boolean, more = {}): AgedTombstone => ({
    ...tombstone(subnet, 'other', ageSeconds === undefined ? 1n : 5n),
    ageSeconds,
    over,
    ...more,
  });

  it('gives away what is old enough, the oldest first, and what is young only when asked', () => {
    const tombstones = [aged('10.5.1.0/24', 100, true), aged('10.5.2.0/24', 300, true), aged('10.5.3.0/24', 9, false)];
    expect(choose(tombstones)).toBe('10.5.2.0/24');
    expect(choose(tombstones, false, [parsePrefix('10.5.2.0/24')])).toBe('10.5.1.0/24');
    expect(choose(tombstones.slice(2))).toBeUndefined();
    expect(choose(tombstones.slice(2), true)).toBe('10.5.3.0/24');
  });

  it('takes one of unknown age when asked only, and one that is reserved never', () => {
    const forGood = aged('10.5.1.0/24', undefined, false);
    const reserved = aged('10.5.2.0/24', undefined, false, { reserved: true });
    expect(choose([forGood, reserved])).toBeUndefined();
    expect(choose([forGood, reserved], true)).toBe('10.5.1.0/24');
    expect(choose([reserved], true)).toBeUndefined();
  });

  it('uses the room that another subnet length left, around what is still kept', () => {
    const left = aged('10.5.2.0/23', 300, true);
    expect(choose([left, aged('10.5.3.128/25', 9, false), aged('10.5.1.0/24', 9, false)])).toBe('10.5.2.0/24');
  });
});

describe('isFree', () => {
  it('refuses what does not fit, is leased, or was left by another node', () => {
    const given = request({
      taken: [parsePrefix('10.5.2.0/25')],
      tombstones: [tombstone('10.5.3.0/24', 'x'), tombstone('10.5.4.0/24', 'me')],
    });
    const answers = [
      '10.5.1.0/24',
      '10.5.2.0/24',
      '10.5.3.0/24',
      '10.5.4.0/24',
      '10.5.0.0/24',
      '10.5.1.0/25',
      '10.6.1.0/24',
    ];
    expect(answers.map(text => isFree(given, parsePrefix(text)))).toEqual([
      true,
      false,
      false,
      true,
      false,
      false,
      false,
    ]);
  });
});
