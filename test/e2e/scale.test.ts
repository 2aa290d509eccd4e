/** A real daemon as the five thousandth host: what its start asks of etcd, how long it takes and what it costs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { messageOf } from '../../src/lib/errors.js';
import { Scope } from '../../src/lib/scope.js';
import { keyPrefix, Lab } from '../support/lab.js';
import { daemonProgram, root, run, until } from '../support/tools.js';
import { FaultEtcd } from './faults/etcd.js';

const peers = Number(process.env['TARTAN_PEERS'] ?? 4999);
const ttlSeconds = 86_400;
/** A built tree of an earlier commit, to compare with. */
const earlier = process.env['TARTAN_EARLIER'] ?? '';
const churnSeconds = Number(process.env['TARTAN_CHURN_SECONDS'] ?? 4);
const network = '{"Network":"10.32.0.0/11","SubnetLen":24,"SubnetMin":"10.63.0.0","Backend":{"Type":"udp"}}';
const scope = new Scope((name, error) => process.stderr.write(`closing ${name}: ${messageOf(error)}\n`));
let lab: Lab;
let etcd: FaultEtcd;

beforeAll(async () => {
  lab = await Lab.open(scope, { nodes: ['a'], etcd: false });
  etcd = await scope.own('etcd', new FaultEtcd(lab.spaces, 1));
  await etcd.start();
  await etcd.write({ [`${keyPrefix}/config`]: network });
  await simulate(0, peers);
});
afterAll(() => scope.close());

/** Leases and quarantine entries as that many hosts would leave them, each on an etcd lease of its own. */
async function simulate(first: number, end: number): Promise<void> {
  for (let from = first; from < end; from += 50) {
    const numbers = Array.from({ length: Math.min(50, end - from) }, (_, index) => from + index);
    const puts = await Promise.all([
      ...numbers.map(async number => put(keyOf(number), valueOf(number), ttlSeconds)),
      ...numbers.map(async number => put(keyOf(number, 'held'), `node-${number}`, 28 * ttlSeconds)),
    ]);
    await etcd.ask(client => client.kv.txn({ success: puts }));
  }
}

async function put(key: string, value: string, seconds: number) {
  const { ID } = await etcd.ask(client => client.leaseClient.leaseGrant({ TTL: seconds }));
  return { request_put: { key: Buffer.from(key), value: Buffer.from(value), lease: ID } };
}

function keyOf(number: number, folder: 'subnets' | 'held' = 'subnets'): string {
  return `${keyPrefix}/${folder}/10.${32 + (number >> 8)}.${number & 255}.0-24`;
}

function valueOf(number: number): string {
  const publicIp = `172.${16 + (number >> 12)}.${(number >> 4) & 255}.${1 + (number & 15)}`;
  return JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, nodeId: `node-${number}`, bootId: `boot-${number}` });
}

/** Calls that etcd has counted since it started, by method. */
async function calls(): Promise<Readonly<Record<string, number>>> {
  const words = ['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:2379/metrics'];
  const text = await run(lab.spaces.inside('e', words));
  const rows = text.matchAll(/^grpc_server_started_total\{grpc_method="(\w+)",grpc_service="etcdserverpb.*\} (\S+)$/gm);
  return Object.fromEntries([...rows].map(([, method = '', count]) => [method, Number(count)]));
}

/** As loop-delay.mjs writes it. */
interface Delay {
  readonly begunMs: number;
  readonly maxMs: number;
  readonly ownMs: number;
}

/** By the daemon's own doing, which counts, and by the clock on a machine that others use too, which is only said. */
function longestBlock(file: string, sinceMs: number): Pick<Delay, 'maxMs' | 'ownMs'> | undefined {
  const delays = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as Delay)
    .filter(({ begunMs }) => begunMs >= sinceMs);
  if (delays.length === 0) return undefined;
  return {
    maxMs: Math.max(...delays.map(({ maxMs }) => maxMs)),
    ownMs: Math.max(...delays.map(({ ownMs }) => ownMs)),
  };
}

function sayBlocked({ maxMs, ownMs }: Pick<Delay, 'maxMs' | 'ownMs'>): string {
  return `event loop blocked for ${ownMs} ms at most, ${maxMs} ms by the clock`;
}

test(`a host among ${peers} others: few calls, all routes within 10 s, no long pause, little memory`, async () => {
  const host = lab.node('a');
  const delayFile = join(lab.spaces.directory, 'delays');
  const preload = pathToFileURL(join(root, 'test/support/loop-delay.mjs')).href;
  const environment = { NODE_OPTIONS: `--import ${preload}`, TARTAN_LOOP_DELAY: delayFile };
  const before = await calls();
  const begun = performance.now();
  const daemon = host.startDaemon({ 'etcd-endpoints': etcd.endpoints }, environment);
  const { time } = await daemon.waitForEvent('daemon.starting');
  await daemon.waitForEvent('plan.applied', { peers });
  await host.waitForPeers(peers);
  const ms = performance.now() - begun;
  const after = await calls();
  const asked = (method: string): number => (after[method] ?? 0) - (before[method] ?? 0);
  const resident = await residentBytes(daemon.pid);
  const blocked = await until('delays are measured', () => longestBlock(delayFile, Date.parse(String(time))));
  process.stdout.write(
    `${peers} peers: ${Math.round(ms)} ms from the start of the process to the adopted table; calls ${JSON.stringify(
      Object.fromEntries(
        ['Range', 'Txn', 'LeaseGrant', 'LeaseKeepAlive', 'LeaseTimeToLive', 'Watch'].map(name => [name, asked(name)]),
      ),
    )}; ${Math.round(resident / 2 ** 20)} MiB; ${sayBlocked(blocked)}\n`,
  );
  expect(ms).toBeLessThan(10_000);
  // The network document, in one page each what is held and what is leased, and two keys that the announcement of the
  // kernel engine reads, of which one, both or none was read by now.
  expect(asked('Range')).toBeGreaterThanOrEqual(3);
  expect(asked('Range')).toBeLessThanOrEqual(5);
  // The claim, that announcement, and a read of the proof that may fall due meanwhile.
  expect(asked('Txn')).toBeLessThanOrEqual(3);
  expect(asked('LeaseKeepAlive')).toBeLessThanOrEqual(1);
  // A processor shared with others does less in the same time: 100 ms alone were 221 ms beside 18 programs.
  expect(blocked.ownMs).toBeLessThan(400);
  expect(resident).toBeLessThan(300e6);
});

test('a thousand leases that go and come again are followed, and cost no long pause either', async () => {
  const host = lab.node('a');
  const revision = await etcd.revision();
  const begun = performance.now();
  const sinceMs = Date.now();
  const file = join(lab.spaces.directory, 'delays');
  for (let from = 0; from < 1000; from += 100)
    await etcd.write(Object.fromEntries(Array.from({ length: 100 }, (_, index) => [keyOf(from + index), undefined])));
  await simulate(0, 1000);
  await until('all routed again', async () => {
    const { peers: routed, datapath } = await host.status();
    return routed.length === peers && datapath?.generationAdopted === datapath?.generationPublished;
  });
  const blocked = await until('delays are measured', () => longestBlock(file, sinceMs));
  process.stdout.write(
    `2000 changes in ${(await etcd.revision()) - revision} writes: ${Math.round(performance.now() - begun)} ms, ${sayBlocked(blocked)}\n`,
  );
  // A processor shared with others does less in the same time: 100 ms alone were 221 ms beside 18 programs.
  expect(blocked.ownMs).toBeLessThan(400);
});

/** Seconds of processor that a process has taken. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  // A hundred ticks a second: sysconf(_SC_CLK_TCK) of Linux.
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test('fault C23: ten lease changes a second among five thousand peers cost little', async () => {
  const host = lab.node('a');
  const shareOf = async (changes: number): Promise<number> => {
    const { daemon } = host;
    const [began, before] = [performance.now(), processorSeconds(daemon.pid)];
    for (let change = 0; change < changes; change++) {
      const number = Math.min(1000, peers - 100) + (change % 100);
      const moved = `"${173 + (Math.floor(change / 100) % 2)}.`;
      await etcd.write({ [keyOf(number)]: valueOf(number).replace('"172.', moved) });
      await delay(Math.max(0, began + (change + 1) * 100 - performance.now()));
    }
    return ((processorSeconds(daemon.pid) - before) * 1000) / (performance.now() - began);
  };
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  // What measures the event loop costs a part of what is measured here.
  await host.stopDaemon();
  await host.startDaemon({ 'etcd-endpoints': etcd.endpoints }).waitForEvent('daemon.ready');
  await host.waitForPeers(peers);
  const share = await shareOf(churnSeconds * 10);
  process.stdout.write(`ten lease changes a second among ${peers}: ${percent(share)} of a core\n`);
  // A whole pass over the host for each change took 87 %, the right value is 15 % of a core that nobody else uses.
  expect(share).toBeLessThan(0.35);
  if (earlier === '') return;
  await host.stopDaemon();
  host.program = join(earlier, 'dist/tartand.js');
  await host.startDaemon({ 'etcd-endpoints': etcd.endpoints }).waitForEvent('daemon.ready');
  await host.waitForPeers(peers);
  const before = await shareOf(churnSeconds * 10);
  process.stdout.write(`the earlier build: ${percent(before)}, ${(before / share).toFixed(1)} times as much\n`);
  await host.stopDaemon();
  host.program = daemonProgram;
  await host.startDaemon({ 'etcd-endpoints': etcd.endpoints }).waitForEvent('daemon.ready');
  expect(before / share).toBeGreaterThan(2);
});

test('in the steady state nothing is written', async () => {
  const host = lab.node('a');
  await host.stopDaemon();
  await host.startDaemon({ 'etcd-endpoints': etcd.endpoints, 'lease-ttl': '6' }).waitForEvent('daemon.ready');
  // Among so many a start may go on with the saved lease first.
  await host.untilConfirmed();
  const before = { calls: await calls(), revision: await etcd.revision() };
  await until(
    'renewed four times',
    async () => ((await calls())['LeaseKeepAlive'] ?? 0) >= (before.calls['LeaseKeepAlive'] ?? 0) + 4,
    30_000,
  );
  expect(await etcd.revision()).toBe(before.revision);
  // The proof that etcd answers reads its keys in one transaction each 25 s.
  expect((await calls())['Txn'] ?? 0).toBeLessThanOrEqual((before.calls['Txn'] ?? 0) + 1);
});

async function residentBytes(pid: number): Promise<number> {
  const pages = Number(readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')[1]);
  return pages * 4096;
}
