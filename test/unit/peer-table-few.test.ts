import { expect, test } from 'vitest';
import { applyLeaseSet, emptyPeerTable, expirePeers, type PeerTable } from '../../src/agent/peer-table.js';
import { comparePrefixes, parseIpv4, parsePrefix, type Prefix } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import { fakeLease } from '../support/fakes.js';

const self = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.1.0/24'),
  publicIp: parseIpv4('192.0.2.1'),
};

/** Numbers that are the same in each run (a linear congruential generator). */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return below => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
}

function someLease(random: (below: number) => number, revision: number): Lease {
  const subnet = ['10.5.0.0/22', '10.6.0.0/24'][random(40)] ?? `10.5.${random(30)}.0/24`;
  const lease = fakeLease(subnet, `192.0.2.${random(20)}`, `node-${random(20)}`, BigInt(revision));
  return { ...lease, released: random(20) === 0 };
}

function change(leases: readonly Lease[], random: (below: number) => number, revision: number): readonly Lease[] {
  const next = [...leases];
  for (let count = random(3); count >= 0; count--) {
    const at = random(next.length);
    const old = next[at];
    const kind = random(6);
    const fresh = someLease(random, revision);
    if (kind < 3 && old) next[at] = { ...old, publicIp: fresh.publicIp, revision: BigInt(revision) };
    else if (kind === 3 && old) next[at] = { ...fresh, subnet: old.subnet };
    else if (kind === 4) next.splice(at, 1);
    else if (!next.some(({ subnet }) => subnet.base === fresh.subnet.base)) next.push(fresh);
  }
  return next;
}

const without = (table: PeerTable): PeerTable => {
  const { routed, leases, missing, rejected, frozenUntilMs } = table;
  return { routed, leases, missing, rejected, frozenUntilMs };
};
const byKey = (a: { readonly subnet: Prefix }, b: { readonly subnet: Prefix }): number =>
  comparePrefixes(a.subnet, b.subnet);
const shown = (table: PeerTable): object => ({
  ...without(table),
  routed: [...table.routed].sort(([a], [b]) => Number(a) - Number(b)),
  leases: [...table.leases].sort(byKey),
  missing: [...table.missing].sort((a, b) => byKey(a.lease, b.lease)),
  rejected: [...table.rejected].sort((a, b) => (a.key < b.key ? -1 : 1)),
});

test('fault C23: a set applied by its differences is what it is applied as a whole, over random changes', () => {
  let inSmall = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomOf(seed);
    let leases: readonly Lease[] = [];
    let [table, twin] = [emptyPeerTable, emptyPeerTable];
    for (let step = 1; step <= 60; step++) {
      leases = change(leases, random, step);
      const set = {
        leases,
        rejected: [],
        revision: BigInt(step),
        epoch: random(30) === 0 ? step : (table.applied?.set.epoch ?? 0),
      };
      const context = { self, nowMs: step * 1000, holdMs: random(2) * 5000 };
      const before = table;
      table = applyLeaseSet(table, set, context);
      if (before.applied && table.rejected === before.rejected) inSmall++;
      twin = applyLeaseSet(without(twin), set, context);
      expect(table.leases).toEqual([...table.routed.values()].map(({ lease }) => lease));
      if (random(4) === 0) [table, twin] = [expirePeers(table, step * 1000), expirePeers(twin, step * 1000)];
      expect(shown(table), `seed ${seed}, step ${step}`).toEqual(shown(twin));
    }
  }
  expect(inSmall).toBeGreaterThan(100);
});

/** A lease that counts how often somebody looks at its subnet. */
function watchedLease(number: number, looks: { count: number }): Lease {
  const lease = fakeLease(
    `10.5.${number >> 2}.${(number & 3) * 64}/26`,
    `192.0.2.${2 + (number % 200)}`,
    `node-${number}`,
  );
  return {
    ...lease,
    get subnet() {
      looks.count++;
      return lease.subnet;
    },
  };
}

test('fault C17: of many leases only those are looked at that came, changed or vanished, also while some are missing', () => {
  const looks = { count: 0 };
  const leases = Array.from({ length: 900 }, (_, i) => watchedLease(i + 8, looks));
  let table = emptyPeerTable;
  const apply = (set: readonly Lease[]): number => {
    looks.count = 0;
    const context = { self, nowMs: 1000, holdMs: 5000 };
    table = applyLeaseSet(table, { leases: set, rejected: [], revision: 1n, epoch: 0 }, context);
    return looks.count;
  };
  expect(apply(leases)).toBeGreaterThan(900);
  const more = [...leases, watchedLease(1000, looks)];
  expect(apply(more)).toBeLessThan(10);
  const fewer = more.toSpliced(500, 1);
  expect(apply(fewer)).toBeLessThan(10);
  expect(table.missing.map(({ lease }) => lease)).toEqual([more[500]]);
  expect(apply([...fewer, watchedLease(1001, looks)])).toBeLessThan(10);
  looks.count = 0;
  table = expirePeers(table, 6000);
  expect(table.routed.size).toBe(901);
  expect(looks.count).toBeLessThan(10);
});
