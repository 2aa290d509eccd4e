import { expect, test } from 'vitest';
import { applyLeaseSet, emptyPeerTable, type PeerTable } from '../../src/agent/peer-table.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
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

const without = ({ routed, rejected, frozenUntilMs }: PeerTable): PeerTable => ({ routed, rejected, frozenUntilMs });
const shown = (table: PeerTable): object => ({
  ...without(table),
  routed: [...table.routed].sort(([a], [b]) => Number(a) - Number(b)),
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
      expect(shown(table), `seed ${seed}, step ${step}`).toEqual(shown(twin));
    }
  }
  expect(inSmall).toBeGreaterThan(100);
});
