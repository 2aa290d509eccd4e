/**
 * The kernel engine with real packets between two hosts: which engine they go by, and what outlives what. The tests follow
 * each other on one pair.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pidOf, run, until, withTableOf, type Daemon, type Host } from './datapath-lab.js';
import { KernelLab, kernelState, pairOf, untilEngine } from './kernel-lab.js';

let lab: KernelLab;
let a: Daemon;
let b: Daemon;

beforeAll(async () => {
  lab = new KernelLab();
  ({ a, b } = await lab.bothInKernel());
});

afterAll(async () => {
  await lab.close();
});

/** Packets that the data process has sent and received. */
async function carriedByUser(daemon: Daemon): Promise<number> {
  const counters = withTableOf(await pidOf(daemon), table => table.counters()?.counters);
  return (counters?.['tx_ok'] ?? 0) + (counters?.['rx_ok'] ?? 0);
}

async function untilCarriedByUser(daemon: Daemon, packets: number): Promise<void> {
  const before = await carriedByUser(daemon);
  await until(
    'packets in user space',
    () => carriedByUser(daemon),
    seen => seen >= before + packets,
  );
}

function links(host: Host): string {
  return lab.ip(host, '-o', 'link');
}

test('a pair goes by the kernel once a question was answered there, and no packet passes user space then', async () => {
  const before = [await carriedByUser(a), await carriedByUser(b)];
  expect(await lab.lost(1000)).toBe(0);
  expect([await carriedByUser(a), await carriedByUser(b)]).toEqual(before);
  const pair = await until(
    'the count of both ways',
    () => pairOf(a),
    seen => Math.min(seen?.sent.packets ?? 0, seen?.received.packets ?? 0) >= 1000,
  );
  expect(pair).not.toHaveProperty('engineReason');
  const { kernel, kernelOffer, counters } = await kernelState(a);
  expect(kernel).toEqual({ state: 'on', peers: 1 });
  expect(kernelOffer).toEqual({ port: 4790, vni: 1 });
  expect(counters['tx_ok']).toBeGreaterThanOrEqual(1000);
});

test('fence and deadline stop the kernel path at once, and let it go on', async () => {
  await a.call('fence', true);
  expect(lab.reaches()).toBe(false);
  expect((await a.state()).counters['tx_fenced']).toBeGreaterThan(0);
  await a.call('fence', false);
  expect(lab.reaches()).toBe(true);
  await a.call('forwardUntil', 1);
  expect(lab.reaches()).toBe(false);
  await a.call('forwardUntil', 2 ** 45);
  expect(lab.reaches()).toBe(true);
  expect((await pairOf(a))?.engine).toBe('kernel');
});

test('both processes of a host are killed: none of 1000 a second is lost, and the next daemon goes on in the kernel', async () => {
  const [pid, link] = [await pidOf(a), lab.linkIndex('a')];
  // The file of the pairs is written each second.
  await delay(1100);
  const numbered = await lab.flow();
  // The daemon would start another data process at once.
  await a.kill();
  process.kill(pid, 'SIGKILL');
  await until(
    'death',
    () => lab.dataProcesses('a'),
    pids => pids.length === 0,
  );
  expect(lab.linkIndex('a')).toBe(link);
  a = await lab.kernelUp('a');
  expect(lab.linkIndex('a')).toBe(link);
  expect((await pairOf(a))?.engine).toBe('kernel');
  await delay(1500);
  expect(await numbered.stop()).toMatchObject({ lost: 0, reordered: 0, duplicates: 0 });
  expect((await pairOf(a))?.engine).toBe('kernel');
  expect((await a.state()).events.filter(e => e.includes('by user space'))).toEqual([]);
});

test('the engine is switched off and on as the agent does it: none of 1000 a second is lost', async () => {
  const numbered = await lab.flow();
  const withoutKernel = (host: Host): object[] =>
    lab.peers(host).map(peer => Object.fromEntries(Object.entries(peer).filter(([name]) => name !== 'kernel')));
  // A host ceases to send first, then its lease says so, then it ceases to receive.
  await a.call('publish', withoutKernel('a'));
  await b.call('publish', withoutKernel('b'));
  expect((await pairOf(a))?.engine).toBe('user');
  await a.call('start', { ...lab.config('a'), engine: 'user' });
  expect((await kernelState(a)).kernel).toEqual({ state: 'off', peers: 0 });
  expect((await kernelState(a)).kernelOffer).toBeUndefined();
  expect(links('a')).not.toContain('tartan-k');
  expect(lab.ip('a', '-d', 'link', 'show', 'tartan0')).toContain('persist off');
  await untilCarriedByUser(a, 300);
  await a.call('start', lab.config('a'));
  await a.call('publish', lab.peers('a'));
  await b.call('publish', lab.peers('b'));
  await untilEngine(a, 'kernel');
  const { lost, duplicates, reordered } = await numbered.stop();
  expect([lost, duplicates]).toEqual([0, 0]);
  // A flow that never pauses changes its way once each time; what waited for a processor then comes late.
  expect(reordered).toBeLessThan(20);
});

test('before a downgrade all goes by user space, whatever runs: none of 1000 a second is lost', async () => {
  await delay(1100);
  const numbered = await lab.flow();
  await a.kill();
  const tool = lab.daemon('a');
  await tool.call('releaseTun');
  const [pid = 0] = lab.dataProcesses('a');
  const sent = (): number => withTableOf(pid, table => table.counters()?.counters['tx_ok'] ?? 0);
  const before = sent();
  await until('packets in user space', sent, seen => seen >= before + 300);
  expect(lab.ip('a', '-d', 'link', 'show', 'tartan0')).toContain('persist off');
  a = await lab.kernelUp('a');
  const { lost, duplicates } = await numbered.stop();
  expect([lost, duplicates]).toEqual([0, 0]);
  expect((await pairOf(a))?.engine).toBe('kernel');
});

test('UDP 4790 blocked on the other side: back to user space with the reason, nothing else is lost', async () => {
  const numbered = await lab.flow();
  await delay(200);
  const drop = 'table inet blocked { chain c { type filter hook input priority -400; udp dport 4790 counter drop; }; }';
  run(...lab.inside('b', 'nft', drop));
  await Promise.all([untilEngine(a, 'user', 15_000), untilEngine(b, 'user', 15_000)]);
  const listed = run(...lab.inside('b', 'nft', 'list', 'table', 'inet', 'blocked'));
  const blocked = Number(/counter packets (\d+)/.exec(listed)?.[1]);
  const pair = await pairOf(a);
  expect(pair?.engineReason).toMatch(/^no answer on UDP 4790 for \d+ s$/);
  expect((await a.state()).events.join('\n')).toContain('go by user space: no answer on UDP 4790');
  await delay(500);
  const { lost, duplicates } = await numbered.stop();
  expect(duplicates).toBe(0);
  expect(lost).toBeLessThanOrEqual(blocked);
  expect(lost).toBeGreaterThan(1000);
});

test('the tunnel is not planned any more, or the host is cleaned up: nothing of the kernel engine is left', async () => {
  await b.call('stop');
  await until(
    'the end of the links',
    () => links('b'),
    text => !text.includes('tartan'),
  );
  await a.kill();
  await lab.daemon('a').call('cleanup', { runDir: lab.runDir('a'), device: 'tartan0' });
  expect(links('a')).not.toContain('tartan');
  expect(run('find', lab.runDir('a'), '-type', 'f')).toBe('');
});
