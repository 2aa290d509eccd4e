/** Tables with few differences from the one before: they say the same as if all had been packed anew. */
import { expect, test } from 'vitest';
import { PublishedState } from '../../src/datapath/tun/published-state.js';
import { peerRowLength, routeRowLength, type NativeRows } from '../../src/lib/native.js';
import {
  comparePrefixes,
  formatAddress,
  formatIpv4,
  ipv4FromNumber,
  parseIpv4,
  parsePrefix,
} from '../../src/model/ip.js';
import type { TunnelPeer } from '../../src/model/plan.js';

function peer(number: number, hop: number): TunnelPeer {
  const subnet = `10.5.${number}.0/24`;
  const prefixes = [parsePrefix(subnet)];
  return { identity: `${subnet} n${number}`, prefixes, endpoint: parseIpv4(`192.0.2.${hop}`), port: 8285, features: 0 };
}

/** `10.5.2.0 192.0.2.7` for each route: the endpoint stands in the row that the route names. */
function meaning({ peers, routes }: NativeRows): readonly string[] {
  return Array.from({ length: routes.length / routeRowLength }, (_, i) => {
    const [base = 0, , , , , , number = 0] = routes.subarray(i * routeRowLength);
    const row = [...peers.subarray(number * peerRowLength, (number + 1) * peerRowLength)];
    const endpoint = row.find(word => formatIpv4(ipv4FromNumber(word)).startsWith('192.0.2.')) ?? 0;
    return `${formatIpv4(ipv4FromNumber(base))} ${formatIpv4(ipv4FromNumber(endpoint))}`;
  });
}

test('fault C17, fault C23: peers that come, move and leave at random', () => {
  let rows: NativeRows | undefined;
  const published = new PublishedState({ peersMax: 60, check: given => (rows = given) });
  let state = 7;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  let peers = new Map<number, TunnelPeer>();
  for (let step = 0; step < 600; step++) {
    peers = new Map(peers);
    for (let count = random(3); count >= 0; count--) {
      const number = random(70);
      if (peers.size > 55 || random(8) === 0) peers.delete(number);
      else peers.set(number, peer(number, 1 + random(250)));
    }
    const sorted = [...peers.values()].sort((a, b) =>
      comparePrefixes(a.prefixes[0] ?? parsePrefix('0.0.0.0/0'), b.prefixes[0] ?? parsePrefix('0.0.0.0/0')),
    );
    published.replace(sorted, undefined);
    const refused = new Set(published.refused);
    expect(
      published
        .numbers()
        .map(([identity]) => identity)
        .toSorted(),
    ).toEqual(sorted.flatMap(one => (refused.has(one) ? [] : one.identity)).toSorted());
    const expected = sorted
      .filter(one => !refused.has(one))
      .map(one => `${formatAddress(one.prefixes[0]?.base ?? ipv4FromNumber(0))} ${formatIpv4(one.endpoint)}`);
    expect(meaning(rows ?? { peers: new Uint32Array(), routes: new Uint32Array() }), `step ${step}`).toEqual(expected);
  }
});

test('fault C17: a peer that comes among many is packed alone', () => {
  let looks = 0;
  const watched = (number: number): TunnelPeer => {
    const prefixes = [parsePrefix(`10.${number >> 8}.${number & 255}.0/24`)];
    const look = (): typeof prefixes => {
      looks++;
      return prefixes;
    };
    return {
      ...peer(1, 2),
      identity: `n${number}`,
      get prefixes() {
        return look();
      },
    };
  };
  const peers = Array.from({ length: 1000 }, (_, i) => watched(2 * i));
  let rows: NativeRows | undefined;
  const published = new PublishedState({ peersMax: 2000, check: given => (rows = given) });
  published.replace(peers, undefined);
  expect(published.numbers()).toBe(published.numbers());
  looks = 0;
  published.replace(peers.toSpliced(501, 0, watched(1001)), undefined);
  expect(looks).toBeLessThan(20);
  expect(rows?.routes.length).toBe(1001 * routeRowLength);
  expect(published.numbers()).toHaveLength(1001);
});
