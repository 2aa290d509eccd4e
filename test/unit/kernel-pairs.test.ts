/** The rows of pairs: what is written into the maps when peers come, move, change and leave, and the file beside them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packQuestion } from '../../src/datapath/kernel/pair-questions.js';
import { readPairs, removePairs, writePairs, type KernelPairs } from '../../src/datapath/kernel/pairs-file.js';
import { PublishedPairs, type PairMaps } from '../../src/datapath/kernel/published-pairs.js';
import { ipv4FromNumber, ipv4Number, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { TunnelPeer } from '../../src/model/plan.js';

let calls: string[];
const maps: PairMaps = {
  setPeer: (number, { remote, state, mtu }) => void calls.push(`peer ${number} ${remote % 256} ${state} ${mtu}`),
  recordFlows: number => void calls.push(`record ${number}`),
  setState: (number, state) => void calls.push(`state ${number} ${state}`),
  clearPeer: number => void calls.push(`clear ${number}`),
  setPrefix: (address, length, number) => void calls.push(`prefix ${(address >>> 8) % 256}/${length} ${number}`),
  removePrefix: (address, length) => void calls.push(`remove ${(address >>> 8) % 256}/${length}`),
};

let directory: string;
beforeEach(() => {
  calls = [];
  directory = mkdtempSync(join(tmpdir(), 'tartan-pairs-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function open(resumed: KernelPairs = new Map()): PublishedPairs {
  return new PublishedPairs({ maps, local: parseIpv4('192.0.2.1'), resumed, random: () => 5 });
}

function peer(node: number, more: Partial<TunnelPeer> = {}): TunnelPeer {
  return {
    identity: `n${node}`,
    prefixes: [parsePrefix(`10.5.${node}.0/24`)],
    endpoint: parseIpv4(`192.0.2.${node}`),
    port: 8285,
    features: 1,
    kernel: { port: 4790, vni: 1 },
    ...more,
  };
}

function withoutKernel({ identity, prefixes, endpoint, port, features }: TunnelPeer): TunnelPeer {
  return { identity, prefixes, endpoint, port, features };
}

function publish(pairs: PublishedPairs, peers: readonly TunnelPeer[], from = 0): readonly string[] {
  calls = [];
  pairs.publish(peers, new Map(peers.map(({ identity }, i) => [identity, from + i])));
  return calls;
}

test('a peer has a row while it has a kernel engine; the same peers write nothing', () => {
  const pairs = open();
  const [two, three] = [peer(2), withoutKernel(peer(3))];
  expect(publish(pairs, [two, three])).toEqual(['peer 0 2 user 0', 'prefix 2/24 0']);
  expect(publish(pairs, [two, three])).toEqual([]);
  expect(publish(pairs, [{ ...two }, three])).toEqual([]);
  expect(publish(pairs, [])).toEqual(['remove 2/24', 'clear 0']);
  expect(pairs.lengths).toEqual([]);
});

test('a prefix goes to its new owner after it was taken from the old one', () => {
  const pairs = open();
  publish(pairs, [peer(2)]);
  const owner = peer(2, { identity: 'other', endpoint: parseIpv4('192.0.2.9') });
  expect(publish(pairs, [owner], 4)).toEqual(['remove 2/24', 'clear 0', 'peer 4 9 user 0', 'prefix 2/24 4']);
});

test('a peer that moves, or withdraws its engine, goes by user space, and what it sends is still taken', () => {
  const pairs = open();
  publish(pairs, [peer(2)]);
  const one = pairs.at(0, 'n2');
  if (!one) throw new Error('no pair');
  pairs.setPair(one, { ...one.pair, engine: 'kernel' });
  expect(pairs.inKernel).toBe(1);
  expect(publish(pairs, [withoutKernel(peer(2))])).toEqual(['state 0 user']);
  expect(pairs.inKernel).toBe(0);
  publish(pairs, [peer(2)]);
  pairs.setPair(one, { ...one.pair, engine: 'kernel' });
  expect(publish(pairs, [peer(2, { endpoint: parseIpv4('192.0.2.7') })])).toEqual(['state 0 user', 'peer 0 7 user 0']);
});

test('flows are recorded before a pair moves, and no more when it does not move after all', () => {
  const pairs = open();
  publish(pairs, [peer(2)]);
  const one = pairs.at(0, 'n2');
  if (!one) throw new Error('no pair');
  calls = [];
  const moving = { ...one.pair, movesMs: 5 };
  pairs.setPair(one, moving);
  pairs.setPair(one, { ...moving, unanswered: 1 });
  pairs.setPair(one, { ...moving, movesMs: undefined });
  pairs.setPair(one, moving);
  pairs.setPair(one, { ...moving, engine: 'kernel', movesMs: undefined });
  expect(calls).toEqual(['record 0', 'state 0 user', 'record 0', 'state 0 kernel']);
});

test('pairs of an earlier daemon begin in the kernel, once', () => {
  const pairs = open(new Map([['n2', 1400]]));
  expect(publish(pairs, [peer(2), peer(3)])).toEqual([
    'peer 0 2 kernel 1400',
    'prefix 2/24 0',
    'peer 1 3 user 0',
    'prefix 3/24 1',
  ]);
  expect(pairs.inKernel).toBe(1);
  publish(pairs, []);
  expect(pairs.inKernel).toBe(0);
  expect(publish(pairs, [peer(2)])[0]).toBe('peer 0 2 user 0');
});

test('65,536 peers: one of them that moves costs one row', () => {
  const pairs = open();
  const peers = Array.from({ length: 65_536 }, (_, i) =>
    peer(1, {
      identity: `many ${i}`,
      prefixes: [{ base: ipv4FromNumber(ipv4Number(parseIpv4('10.0.0.0')) + i * 64), length: 26 }],
    }),
  );
  expect(publish(pairs, peers)).toHaveLength(2 * 65_536);
  peers[7] = { ...peer(1), ...peers[7], endpoint: parseIpv4('192.0.2.8') } as TunnelPeer;
  expect(publish(pairs, peers)).toEqual(['peer 7 8 user 0']);
  expect(pairs.lengths).toEqual([26]);
});

test('the most frequent prefix lengths are looked up, four at most', () => {
  const pairs = open();
  const lengths = [24, 25, 26, 27, 28, 28, 24];
  publish(
    pairs,
    lengths.map((length, i) => peer(i, { identity: `${i}`, prefixes: [parsePrefix(`10.5.${i}.0/${length}`)] })),
  );
  expect(pairs.lengths).toEqual([24, 28, 25, 26]);
});

test('the file gives back what was written, and anything else is no file', () => {
  expect(readPairs(directory)).toBeUndefined();
  const saved = { vni: 7, pairs: new Map([['10.5.2.0/24 n2', 1500]]) };
  writePairs(directory, saved);
  expect(readPairs(directory)).toEqual(saved);
  const path = join(directory, 'kernel-pairs.json');
  for (const text of [
    '',
    '[',
    '[]',
    '{"version":2,"vni":1,"pairs":[]}',
    '{"version":1,"pairs":[]}',
    '{"version":1,"vni":1}',
  ]) {
    writeFileSync(path, text);
    expect(readPairs(directory), text).toBeUndefined();
  }
  writeFileSync(path, '{"version":1,"vni":1,"pairs":[["a"],3,["b",-1],["c",0]]}');
  expect(readPairs(directory)).toEqual({ vni: 1, pairs: new Map([['c', 0]]) });
  removePairs(directory);
  removePairs(directory);
  expect(readPairs(directory)).toBeUndefined();
});

test('a question has the bytes of a probe of kind 3', () => {
  const question = packQuestion({ sequence: 0x01020304, opaque: 0x1122334455667788n }, parsePrefix('10.5.1.0/24'));
  expect(question.toString('hex')).toBe('e001030001020304112233445566778804180a0501000000');
});
