/** The datapath when something dies, is damaged or is lost: adoption, respawn, replacement. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Lab, bothUp, isRunning, memoryOf, pidOf, respawned, until } from './datapath-lab.js';

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

test('a killed daemon loses no packet, the next one adopts the same data process', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  const before = (await a.state()).generationPublished;
  const lost = lab.lost(2000);
  await a.kill();
  const next = await lab.up('a');
  expect(next.adopted).toBe(true);
  expect(await pidOf(next.daemon)).toBe(pid);
  expect(await lost).toBe(0);
  const state = await next.daemon.state();
  expect(state.generationPublished).toBe(before);
  expect(state.generationAdopted).toBe(before);
  expect(state.respawns).toBe(0);
});

test('a killed data process is respawned, also an adopted one, and nothing counted is lost', async () => {
  const { a, b } = await bothUp(lab);
  await lab.lost(100);
  const first = await pidOf(a);
  const counted = (await a.state()).counters['tx_ok'] ?? 0;
  expect(counted).toBeGreaterThanOrEqual(100);
  process.kill(first, 'SIGKILL');
  const state = await respawned(a, first);
  expect(lab.reaches()).toBe(true);
  expect(state.respawns).toBe(1);
  expect(state.changes).toBe(1);
  expect(state.generationPublished).toBe(1);
  expect((await a.state()).counters['tx_ok']).toBeGreaterThan(counted);
  await until(
    'adoption of the table',
    () => a.state(),
    s => s.generationAdopted === 1,
  );

  await b.kill();
  const adopter = lab.daemon('b');
  await adopter.call('open', { runDir: lab.runDir('b'), device: 'tartan0' });
  await adopter.call('start', lab.config('b'));
  const second = await pidOf(adopter);
  // Before it has published anything: routes and words come from the adopted file.
  process.kill(second, 'SIGKILL');
  await respawned(adopter, second);
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
});

test('a data process that dies at once again and again is respawned with growing pauses', async () => {
  const { daemon } = await lab.up('a');
  const tookMs: number[] = [];
  for (let death = 0; death < 3; death++) {
    const pid = await pidOf(daemon);
    const began = Date.now();
    process.kill(pid, 'SIGKILL');
    await respawned(daemon, pid);
    tookMs.push(Date.now() - began);
  }
  expect(tookMs[1]).toBeGreaterThanOrEqual(95);
  expect(tookMs[2]).toBeGreaterThanOrEqual(195);
  const { respawns, events } = await daemon.state();
  expect(respawns).toBe(3);
  expect(events.filter(e => e.startsWith('datapath.died'))).toHaveLength(3);
});

test('a daemon killed at any instant of its start leaves nothing that stops the next', async () => {
  for (let attempt = 0; attempt < 10; attempt++) {
    const victim = lab.daemon('a');
    const starting = victim
      .call('open', { runDir: lab.runDir('a'), device: 'tartan0' })
      .then(() => victim.call('start', lab.config('a')))
      .catch(() => {});
    await delay(Math.random() * 250);
    await victim.kill();
    await starting;
    const { daemon } = await lab.up('a');
    expect(await pidOf(daemon)).toBeGreaterThan(0);
    expect(lab.hasLink('a')).toBe(true);
    await daemon.call(attempt % 2 ? 'remove' : 'close');
  }
});

test('a damaged table is never believed: the next daemon replaces the data process and keeps the link', async () => {
  const { a } = await bothUp(lab);
  const [pid, link] = [await pidOf(a), lab.linkIndex('a')];
  await a.kill();
  const fd = openSync(memoryOf(pid, 'routes'), 'r+');
  writeSync(fd, Buffer.alloc(256, 0x55), 0, 256, 0);
  closeSync(fd);
  const next = await lab.up('a');
  expect(next.adopted).toBe(false);
  expect(isRunning(pid)).toBe(false);
  expect(lab.linkIndex('a')).toBe(link);
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
});

test('a table that is damaged while the daemon runs is replaced by it', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  const fd = openSync(memoryOf(pid, 'routes'), 'r+');
  writeSync(fd, Buffer.alloc(12, 0x55), 0, 12, 0);
  closeSync(fd);
  const state = await until(
    'a replacement',
    () => a.state(),
    s => s.pid !== undefined && s.pid !== pid,
  );
  expect(state.changes).toBeGreaterThanOrEqual(1);
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
});

test('another datapath on the host is DUPLICATE_NODE, and the first goes on', async () => {
  const { a } = await bothUp(lab);
  const second = lab.daemon('a');
  const lost = lab.lost(500);
  const other = { runDir: lab.runDir('a', 'other'), device: 'tartan0' };
  await expect(second.call('open', other)).rejects.toMatchObject({
    code: 'DUPLICATE_NODE',
    message: expect.stringContaining('tartan0'),
  });
  expect(await lost).toBe(0);
  expect((await a.state()).respawns).toBe(0);
});

test('a data process whose socket file was lost is ended and the link taken over', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  await a.kill();
  rmSync(lab.runDir('a'), { recursive: true });
  const next = await lab.up('a');
  expect(next.adopted).toBe(false);
  expect(isRunning(pid)).toBe(false);
  expect(lab.hasLink('a')).toBe(true);
});

test('a data process that is stopped and does not answer is ended and replaced', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  await a.kill();
  process.kill(pid, 'SIGSTOP');
  const next = await lab.up('a');
  expect(next.adopted).toBe(false);
  expect(isRunning(pid)).toBe(false);
});

test('both dead at once: the link is gone and the next start makes all of it', async () => {
  const { a } = await bothUp(lab);
  const pid = await pidOf(a);
  await a.kill();
  process.kill(pid, 'SIGKILL');
  await until(
    'the end of the link',
    () => lab.hasLink('a'),
    seen => !seen,
  );
  const next = await lab.up('a');
  expect(next.adopted).toBe(false);
  lab.configureLink('a');
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
});

test('a deleted link is made again and said through onChange', async () => {
  const { a } = await bothUp(lab);
  lab.ip('a', 'link', 'delete', 'tartan0');
  await until(
    'a new link',
    () => a.state(),
    s => s.changes > 0 && lab.hasLink('a'),
  );
  lab.configureLink('a');
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
});
