/**
 * The peers in the memory of a real data process: their numbers stay whoever dies or is replaced, what is kept under a
 * number is zeroed before another peer gets it, and where numbers or memory end, the peers that are there go on.
 */
import { fstatSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { peerRowLength } from '../../src/lib/native.js';
import { treeOf } from '../support/other-version.js';
import { makePreload } from '../support/tools.js';
import { Lab, bothUp, pidOf, respawned, until, withTableOf, type Daemon } from './datapath-lab.js';

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

/** The last octet of each peer's endpoint by its number, 0 for a free number. */
function numbersIn(pid: number): readonly number[] {
  return withTableOf(pid, table => {
    const endpoints = [...(table.rows()?.peers ?? [])].filter((_, i) => i % peerRowLength === 8);
    return endpoints.map(endpoint => endpoint & 255);
  });
}

/** Publishes these peers and waits until every thread has them. */
async function publish(daemon: Daemon, ...peers: readonly number[]): Promise<readonly number[]> {
  await daemon.call(
    'publish',
    peers.map(peer => lab.peer(peer)),
  );
  const { generationPublished } = await daemon.state();
  const { pid = 0 } = await until(
    'adoption',
    () => daemon.state(),
    s => s.generationAdopted === generationPublished,
  );
  return numbersIn(pid);
}

/** The parts of a peer block that a test reads and writes as one whole. */
const blockBytes = 256;

function block(pid: number, number: number, fill?: number): Buffer {
  return withTableOf(pid, ({ countersFd }) => {
    const at = fstatSync(countersFd).size - (65_536 - number) * blockBytes;
    const bytes = Buffer.alloc(blockBytes);
    if (fill !== undefined) writeSync(countersFd, Buffer.alloc(blockBytes - 16, fill), 0, blockBytes - 16, at + 16);
    readSync(countersFd, bytes, 0, blockBytes, at);
    return bytes;
  });
}

test('numbers stay over publications, a new daemon, a new data process and a hand-over', async () => {
  const { a } = await bothUp(lab);
  expect(await publish(a, 2, 30, 40, 50)).toEqual([2, 30, 40, 50]);
  expect(await publish(a, 50, 2, 40)).toEqual([2, 0, 40, 50]);
  const first = await pidOf(a);

  // The daemon dies: the next one finds the numbers in the memory.
  await a.kill();
  const next = lab.daemon('a');
  const open = { runDir: lab.runDir('a'), device: 'tartan0' };
  expect(await next.call('open', open)).toMatchObject({ adopted: true });
  await next.call('start', lab.config('a'));
  expect(await publish(next, 60, 50, 40, 2)).toEqual([2, 60, 40, 50]);
  expect(await pidOf(next)).toBe(first);

  // The data process dies: the daemon writes the same numbers into a new memory.
  process.kill(first, 'SIGKILL');
  const { pid: second = 0 } = await respawned(next, first);
  expect(numbersIn(second)).toEqual([2, 60, 40, 50]);

  // Another build takes over.
  await next.kill();
  const other = lab.daemon('a', { tree: await treeOf('other build') });
  await other.call('open', open);
  await other.call('start', lab.config('a'));
  const third = await pidOf(other);
  expect(third).not.toBe(second);
  expect(numbersIn(third)).toEqual([2, 60, 40, 50]);
  expect(await publish(other, 70, 50, 60)).toEqual([0, 60, 0, 50, 70]);

  // Both die: numbers are dealt anew.
  await other.kill();
  process.kill(third, 'SIGKILL');
  const last = await lab.up('a');
  // Peer 2 was the first one, and its number is not free yet.
  expect(await publish(last.daemon, 50, 60)).toEqual([0, 50, 60]);
});

test('what is kept under a number is zeroed when its peer leaves, and before another one gets it', async () => {
  const { daemon } = await lab.up('a');
  await publish(daemon, 2, 3, 4);
  const pid = await pidOf(daemon);
  const identity = block(pid, 1).subarray(0, 16);
  expect(identity.equals(Buffer.alloc(16))).toBe(false);
  for (const number of [0, 1, 2]) block(pid, number, 0x77);
  const kept = block(pid, 0);
  // Equal identities: nothing is touched, for a peer that moved either.
  await daemon.call(
    'publish',
    [2, 3, 4].map(peer => ({ ...lab.peer(peer), port: 9000 })),
  );
  await publish(daemon, 2, 4);
  expect(block(pid, 0).equals(kept)).toBe(true);
  expect(block(pid, 1).equals(Buffer.alloc(blockBytes))).toBe(true);
  // The last number of the table leaves, and the table is shorter.
  await publish(daemon, 2);
  expect(block(pid, 2).equals(Buffer.alloc(blockBytes))).toBe(true);
  // Whoever writes late, the next peer does not find it.
  block(pid, 1, 0x55);
  expect(await publish(daemon, 2, 9)).toEqual([2, 9]);
  const next = block(pid, 1);
  expect(next.subarray(16).equals(Buffer.alloc(blockBytes - 16))).toBe(true);
  expect(next.subarray(0, 16).equals(identity)).toBe(false);
  expect(block(pid, 0).equals(kept)).toBe(true);
});

test('more peers than numbers: new ones are refused and named, the others go on, and come in when there is room', async () => {
  const { a } = await bothUp(lab);
  const peers = lab.peers('a');
  const warnings = async (): Promise<string> => (await a.state()).warnings.join();
  const publishMany = async (first: number, count: number): Promise<void> => {
    const generation = await a.call('publishMany', { peers, first, count });
    await until(
      'adoption',
      () => a.state(),
      s => s.generationAdopted === generation,
    );
  };
  const lost = lab.lost(1500);
  await publishMany(0, 65_535);
  expect(await warnings()).toBe('');
  await publishMany(0, 65_537);
  const refusal = /^no number is free for 2 of 65538 peers, so nothing is sent to them: 10\.191\.255\.192\/26 via /;
  expect(await warnings()).toMatch(refusal);
  // Five have left, and two of the numbers are given away as soon as the data process is ready for it.
  await a.call('publishMany', { peers, first: 5, count: 65_532 });
  await until('room', warnings, text => text === '');
  const { events, generationPublished } = await a.state();
  expect(events.filter(text => text.startsWith('datapath.peers-refused'))).toHaveLength(2);
  await until(
    'adoption',
    () => a.state(),
    s => s.generationAdopted === generationPublished,
  );
  expect(await lost).toBe(0);
});

test('a full memory: the error is told and the older table stays; with memory the newest one follows by itself', async () => {
  const library = await makePreload('test/support/full-memory.c', `${lab.runDir('a')}-full-memory.so`);
  const full = `${lab.runDir('a')}-is-full`;
  const through = ['env', `LD_PRELOAD=${library}`, `FULL_MEMORY=${full}`];
  const { a: daemon } = await bothUp(lab, {}, { through });
  const pid = await pidOf(daemon);
  const lost = lab.lost(1500);
  const many = { peers: lab.peers('a'), first: 0, count: 5000 };
  const problem = /^cannot write the table of 5001 peers \(ENOSPC: .*\): the older one stays; free some memory$/;
  writeFileSync(full, '');
  for (let attempt = 0; attempt < 2; attempt++)
    await expect(daemon.call('publishMany', many)).rejects.toMatchObject({
      code: 'DATAPATH_FAILED',
      message: expect.stringMatching(problem),
    });
  const told = await daemon.state();
  expect(told.warnings).toEqual([expect.stringMatching(problem)]);
  expect(told.events.filter(text => text.startsWith('datapath.publish-failed'))).toHaveLength(1);
  expect(numbersIn(pid)).toEqual([2]);
  rmSync(full);
  await until(
    'the newest table',
    () => daemon.state(),
    s => s.generationAdopted === told.generationPublished && s.warnings.length === 0,
  );
  expect(numbersIn(pid)).toHaveLength(5001);
  expect(await lost).toBe(0);
});
