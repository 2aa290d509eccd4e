import { expect, test } from 'vitest';
import { TunnelPeers } from '../../src/backend/tunnel-peers.js';
import { comparePrefixes } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import type { TunnelPeer } from '../../src/model/plan.js';
import { fakeLease } from '../support/fakes.js';

function peerOf({ subnet, publicIp }: Lease): TunnelPeer {
  return { identity: String(subnet.base), prefixes: [subnet], endpoint: publicIp, port: 8285, features: 0 };
}

const leaseOf = (number: number, hop = 2): Lease =>
  fakeLease(`10.${number >> 8}.${number & 255}.0/24`, `192.0.2.${hop}`, `node-${number}`);

test('fault C17: leases that come, move and leave at random stand as if all had been sorted', () => {
  let state = 7;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  const peers = new TunnelPeers(peerOf);
  let leases: Lease[] = [];
  for (let step = 0; step < 200; step++) {
    leases = [...leases];
    for (let count = random(3); count > 0; count--) {
      const number = random(200);
      const at = leases.findIndex(({ nodeId }) => nodeId === `node-${number}`);
      if (at < 0) leases.push(leaseOf(number));
      else if (random(4) === 0) leases.splice(at, 1);
      else leases[at] = leaseOf(number, 3 + random(200));
    }
    const sorted = leases.toSorted((a, b) => comparePrefixes(a.subnet, b.subnet));
    expect(peers.of(leases), `step ${step}`).toEqual(sorted.map(peerOf));
    expect(peers.of(leases)).toBe(peers.of(leases));
    expect(peers.of([])).toEqual([]);
  }
});

test('fault C17: a lease that comes among many is put in its place, and nobody looks at all others', () => {
  let looks = 0;
  const watched = (number: number): Lease => {
    const lease = leaseOf(number);
    return {
      ...lease,
      get subnet() {
        looks++;
        return lease.subnet;
      },
    };
  };
  const leases = Array.from({ length: 1000 }, (_, i) => watched(i));
  const peers = new TunnelPeers(peerOf);
  const before = peers.of(leases);
  looks = 0;
  const after = peers.of([...leases, watched(5000)]);
  expect(looks).toBeLessThan(40);
  expect(after.slice(0, 1000)).toEqual(before);
  expect(after[10]).toBe(before[10]);
});
