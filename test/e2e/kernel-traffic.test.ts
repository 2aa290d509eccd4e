/** What the engine kernel must not change of packets between containers; all pairs and underlays: test/long/kernel-traffic. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Scope } from '../../src/lib/scope.js';
import { sendBurst } from '../support/burst.js';
import { faultsOf, MixLab } from '../support/mix-lab.js';
import {
  bothWays,
  crossCongested,
  crossEsp,
  crossFragments,
  crossMarked,
  crossVxlan,
  longestDf,
  widenContainer,
} from '../support/mix-packets.js';

const scope = new Scope();
let mix: MixLab;

beforeAll(async () => {
  mix = await MixLab.open(scope, { topology: 'direct', other: 'kernel' });
});
afterAll(() => scope.close());

test('datagrams up to 65,000 bytes, UDP_SEGMENT messages and VXLAN inside arrive whole and in order', async () => {
  const before = await faultsOf(mix);
  const parts = ['16', '1436', '1437', '9000', '65000', '1436x44+1435', '100x40+16', '1000x3', '500', '65000'];
  for (const { from, to } of bothWays(mix)) {
    const ends = { from: from.containerNamespace, to: to.containerNamespace, address: to.containerAddress, port: 7003 };
    const report = await sendBurst(mix.inOrder, { ...ends, parts });
    expect(report).toMatchObject({ lost: 0, corrupted: 0, duplicates: 0, reordered: 0 });
  }
  for (const { sent, received } of await crossVxlan(mix, 5_000_000))
    expect(received).toEqual({ ...sent, source: received.source });
  expect(await faultsOf(mix)).toEqual(before);
});

test('ESP packets, fragments, options, TTL and TOS arrive as they were sent', async () => {
  for (const ends of bothWays(mix)) {
    for (const { sent, intact } of [await crossEsp(ends), await crossFragments(ends)]) expect(intact).toBe(sent);
    const marked = await crossMarked(ends);
    expect(marked.map(({ ttl, tos }) => [ttl, tos])).toEqual([0, 0, 1, 2, 3, 0xb8].map(tos => [62, tos]));
    expect(marked[1]?.options.toString('hex')).toBe('88041234');
  }
});

test('congestion of the underlay arrives inside (RFC 6040)', async () => {
  expect(await crossCongested(mix, 4790, [1, 2, 3])).toEqual([3, 3, 3]);
});

test('DF: 1464 bytes arrive and 1465 are answered', async () => {
  await Promise.all([widenContainer(mix.a), widenContainer(mix.b)]);
  for (const ends of bothWays(mix)) expect(await longestDf(ends, 1464)).toEqual(['arrives', 1464]);
});
