/** The datapath against the kernel and the real data process: what the port promises while nothing goes wrong. */
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Lab, bothUp, isRunning, pidOf, respawned, until } from './datapath-lab.js';

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

test('another configuration replaces the data process on the same link; another MTU does not', async () => {
  const { daemon } = await lab.up('a');
  const [pid, link] = [await pidOf(daemon), lab.linkIndex('a')];
  await daemon.call('start', { ...lab.config('a'), mtu: 1400 });
  expect(await pidOf(daemon)).toBe(pid);
  await daemon.call('start', lab.config('a', 8286));
  expect(await pidOf(daemon)).not.toBe(pid);
  expect(isRunning(pid)).toBe(false);
  expect(lab.linkIndex('a')).toBe(link);
  expect((await daemon.state()).generationPublished).toBe(1);
});

test('publish: the newest of many tables arrives, a bad one is refused and changes nothing', async () => {
  const { daemon } = await lab.up('a');
  const [peer] = lab.peers('a');
  for (let port = 1; port <= 500; port++) await daemon.call('publish', [{ ...peer, port }]);
  const { generationPublished } = await daemon.state();
  await until(
    'adoption of the newest',
    () => daemon.state(),
    s => s.generationAdopted === generationPublished,
  );
  await expect(daemon.call('publish', [{ ...peer, port: 0 }])).rejects.toMatchObject({
    name: 'RangeError',
    message: expect.stringContaining('10.5.2.0/24'),
  });
  await expect(daemon.call('publish', [peer, peer])).rejects.toMatchObject({ name: 'RangeError' });
  expect((await daemon.state()).generationPublished).toBe(generationPublished);
});

test('fence and deadline stop the traffic and let it go on, also over a respawn', async () => {
  const { a } = await bothUp(lab);
  await a.call('fence', true);
  expect(await lab.lost(20)).toBe(20);
  const pid = await pidOf(a);
  process.kill(pid, 'SIGKILL');
  await respawned(a, pid);
  expect(await lab.lost(20)).toBe(20);
  await a.call('fence', false);
  expect(lab.reaches()).toBe(true);
  await a.call('forwardUntil', 1);
  expect(await lab.lost(20)).toBe(20);
  const { counters } = await a.state();
  expect(counters['tx_fenced']).toBeGreaterThanOrEqual(40);
  expect(counters['tx_orphaned']).toBeGreaterThanOrEqual(20);
});

test('close leaves the data process and lets the daemon exit; remove and cleanup leave nothing', async () => {
  const first = await lab.up('a');
  const pid = await pidOf(first.daemon);
  await first.daemon.call('close');
  await first.daemon.exit();
  expect(isRunning(pid)).toBe(true);

  const second = await lab.up('a');
  expect(second.adopted).toBe(true);
  await second.daemon.call('remove');
  expect(isRunning(pid)).toBe(false);
  expect(lab.hasLink('a')).toBe(false);
  expect(readdirSync(lab.runDir('a'))).toEqual([]);

  const third = await lab.up('a');
  const last = await pidOf(third.daemon);
  // Without a close: nothing of an idle datapath keeps the event loop alive.
  await third.daemon.exit();
  expect(isRunning(last)).toBe(true);
  const tool = lab.daemon('a');
  const options = { runDir: lab.runDir('a'), device: 'tartan0' };
  expect(await tool.call('cleanup', options)).toEqual([last]);
  expect(lab.hasLink('a')).toBe(false);
  expect(await tool.call('cleanup', options)).toEqual([]);
  expect(await tool.call('cleanup', { ...options, runDir: lab.runDir('a', 'never-made') })).toEqual([]);
});

test('stop ends the data process and the link, and stays so; start makes both again', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  await a.call('stop');
  expect(isRunning(pid)).toBe(false);
  await until(
    'the end of the link',
    () => lab.hasLink('a'),
    hasLink => !hasLink,
  );
  await a.call('check');
  expect(await a.state()).toMatchObject({ respawns: 0, threads: 0 });
  expect(readdirSync(lab.runDir('a'))).toEqual([]);
  await a.call('stop');
  await a.call('start', lab.config('a'));
  lab.configureLink('a');
  expect(lab.reaches()).toBe(true);
});

test('cleanup ends a data process that lost its socket', async () => {
  const { daemon } = await lab.up('a');
  const pid = await pidOf(daemon);
  await daemon.kill();
  rmSync(`${lab.runDir('a')}/datapath.sock`);
  const options = { runDir: lab.runDir('a'), device: 'tartan0' };
  expect(await lab.daemon('a').call('cleanup', options)).toEqual([pid]);
  expect(lab.hasLink('a')).toBe(false);
});

test('directories and links under the names of the sockets are replaced, their targets untouched', async () => {
  const runDir = lab.runDir('a');
  mkdirSync(`${runDir}/datapath.sock/inside`, { recursive: true });
  mkdirSync(`${runDir}-target`);
  symlinkSync(`${runDir}-target`, `${runDir}/datapath.next`);
  const { daemon } = await lab.up('a');
  expect(await pidOf(daemon)).toBeGreaterThan(0);
  expect(existsSync(`${runDir}-target`)).toBe(true);
});

test('a data process that cannot start is DATAPATH_FAILED with its own words', async () => {
  const daemon = lab.daemon('a');
  await daemon.call('open', { runDir: lab.runDir('a'), device: 'tartan0', account: { user: 0, group: 0 } });
  await expect(daemon.call('start', lab.config('a'))).rejects.toMatchObject({
    code: 'DATAPATH_FAILED',
    message: expect.stringContaining('errno'),
  });
  const missing = lab.daemon('b');
  await missing.call('open', { runDir: lab.runDir('b'), device: 'tartan0', executable: '/nonexistent' });
  await expect(missing.call('start', lab.config('b'))).rejects.toMatchObject({ code: 'DATAPATH_FAILED' });
});

test('a UDP port in use is DATAPATH_FAILED naming it', async () => {
  const { daemon } = await lab.up('a');
  const other = lab.daemon('a');
  await other.call('open', { runDir: lab.runDir('a', 'other'), device: 'tartan1' });
  await expect(other.call('start', lab.config('a'))).rejects.toMatchObject({
    code: 'DATAPATH_FAILED',
    message: expect.stringContaining('192.0.2.1:8285'),
  });
  expect((await daemon.state()).respawns).toBe(0);
});
