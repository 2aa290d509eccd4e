/**
 * One real daemon on a large host and in a large cluster: what it costs at rest, how long `status` takes, and how late a
 * new peer is in the table of the data plane. The figures are printed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { messageOf } from '../../src/lib/errors.js';
import { Scope } from '../../src/lib/scope.js';
import { FaultEtcd } from '../e2e/faults/etcd.js';
import { keyPrefix, Lab } from '../support/lab.js';
import type { LabHost } from '../support/lab-host.js';
import { probe, root, run, start } from '../support/tools.js';
import { secondLine } from '../support/traffic.js';

const peers = Number(process.env['TARTAN_PEERS'] ?? 57_000);
const idleSeconds = Number(process.env['TARTAN_IDLE_SECONDS'] ?? 60);
const trials = Number(process.env['TARTAN_TRIALS'] ?? 20);
const ttlSeconds = 86_400;
const few = '/few/network';
/** Where the packets for new peers go. */
const receiver = '192.0.2.254';
const port = 8285;
const scope = new Scope((name, error) => process.stderr.write(`closing ${name}: ${messageOf(error)}\n`));
let lab: Lab;
let etcd: FaultEtcd;
/** The one that is measured: another one, without saved peers, for each size of the cluster. */
let host: LabHost;

beforeAll(async () => {
  lab = await Lab.open(scope, { nodes: ['a', 'b'], etcd: false });
  etcd = await scope.own('etcd', new FaultEtcd(lab.spaces, 1));
  await etcd.start();
  const backend = '"SubnetLen":24,"Backend":{"Type":"udp"}';
  await etcd.write({ [`${keyPrefix}/config`]: `{"Network":"10.0.0.0/8","SubnetMin":"10.240.0.0",${backend}}` });
  await etcd.write({ [`${few}/config`]: `{"Network":"10.0.0.0/8",${backend}}` });
  await simulate(peers);
}, 600_000);
afterEach(() => host.stopDaemon());
afterAll(() => scope.close());

/** Leases and quarantine entries as that many hosts would leave them; fifty share an etcd lease. */
async function simulate(count: number): Promise<void> {
  const grant = (TTL: number) => etcd.ask(client => client.leaseClient.leaseGrant({ TTL }));
  for (let from = 0; from < count; from += 50) {
    const numbers = Array.from({ length: Math.min(50, count - from) }, (_, index) => from + index);
    const [lease, held] = [await grant(ttlSeconds), await grant(28 * ttlSeconds)];
    const puts = numbers.flatMap(number => [
      put(`${keyPrefix}/subnets/${nameOf(number)}`, valueOf(number), lease.ID),
      put(`${keyPrefix}/held/${nameOf(number)}`, `node-${number}`, held.ID),
    ]);
    await etcd.ask(client => client.kv.txn({ success: puts }));
  }
}

function put(key: string, value: string, lease: string) {
  return { request_put: { key: Buffer.from(key), value: Buffer.from(value), lease } };
}

function nameOf(number: number): string {
  return `10.${number >> 8}.${number & 255}.0-24`;
}

function valueOf(
  number: number,
  publicIp = `172.${16 + (number >> 12)}.${(number >> 4) & 255}.${1 + (number & 15)}`,
): string {
  return JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, nodeId: `node-${number}`, bootId: `boot-${number}` });
}

function say(text: string): void {
  process.stdout.write(
    `${text} (load ${loadavg()
      .map(load => load.toFixed(1))
      .join(' ')})\n`,
  );
}

function medianAndWorst(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  return `median ${Math.round(medianOf(values))} ms, worst ${Math.round(sorted.at(-1) ?? NaN)} ms of ${values.length}`;
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

/** Seconds of processor that all threads of a process have taken, to the nanosecond (schedstat of proc(5)). */
function processorSeconds(pid: number): number {
  const ns = readdirSync(`/proc/${pid}/task`).map(thread =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]),
  );
  return ns.reduce((sum, one) => sum + one, 0) / 1e9;
}

/** The part of a core that the daemon takes while nobody asks it anything. */
async function idleShare(seconds = idleSeconds): Promise<number> {
  const { pid } = host.daemon;
  const [begunMs, before] = [performance.now(), processorSeconds(pid)];
  await delay(seconds * 1000);
  return ((processorSeconds(pid) - before) * 1000) / (performance.now() - begunMs);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

/** Resident and proportional size of a process in MiB (smaps_rollup of proc(5)). */
function sizeOf(pid: number): string {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  const mib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(rollup)?.[1]) / 1024;
  return `Rss ${Math.round(mib('Rss'))} MiB, Pss ${Math.round(mib('Pss'))} MiB`;
}

async function startDaemon(letter: string, flags: Readonly<Record<string, string>> = {}): Promise<void> {
  host = lab.node(letter);
  const environment = { NODE_OPTIONS: process.env['TARTAN_NODE_OPTIONS'] ?? '' };
  const daemon = host.startDaemon({ 'etcd-endpoints': etcd.endpoints, ...flags }, environment);
  await daemon.waitForEvent('daemon.ready', {}, 60_000);
}

/** The longest that a start goes on: the state file of many peers is written each half minute. */
const settleSeconds = 35;

test(`a host among ${peers} others at rest`, async () => {
  const begunMs = performance.now();
  await startDaemon('a');
  await host.waitForPeers(peers);
  say(`${peers} peers: in the adopted table after ${Math.round(performance.now() - begunMs)} ms`);
  await delay(settleSeconds * 1000);
  const share = await idleShare();
  say(`${peers} peers: idle ${percent(share)} of a core over ${idleSeconds} s`);
  say(`${peers} peers: tartand ${sizeOf(host.daemon.pid)}; tartan-datapath ${sizeOf(await host.datapathPid())}`);
  const { pid } = host.daemon;
  const before = processorSeconds(pid);
  const status = await statusTimes();
  const perStatusMs = ((processorSeconds(pid) - before) * 1000) / trials;
  say(`${peers} peers: status ${medianAndWorst(status)}; ${Math.round(perStatusMs)} ms of processor each`);
  const late = await newPeers(peers);
  say(`${peers} peers: a new peer is reached after ${medianAndWorst(late)}`);
  expect(share).toBeLessThan(0.01);
  expect(medianOf(status)).toBeLessThan(500);
  expect(medianOf(late)).toBeLessThan(100);
}, 600_000);

/** What `status` takes when no recent document is there to be given again. */
async function statusTimes(): Promise<readonly number[]> {
  const times: number[] = [];
  for (let trial = 0; trial < trials; trial++) {
    const begunMs = performance.now();
    await host.status();
    const ms = performance.now() - begunMs;
    times.push(ms);
    await delay(11 * ms);
  }
  return times;
}

/** From the write in etcd to the first packet of a container that reaches the new peer, in ms. */
async function newPeers(first: number): Promise<readonly number[]> {
  await host.addressContainer();
  const script = join(root, 'test/support/first-packets.mjs');
  const listener = start(lab.spaces.inside('e', [process.execPath, script, String(port)]));
  const lines = createInterface(listener.stdout)[Symbol.asyncIterator]();
  expect((await lines.next()).value).toBe('ready');
  const times: number[] = [];
  const processorMs: number[] = [];
  try {
    for (let number = first; number < first + trials; number++) {
      const address = nameOf(number).replace('.0-24', '.2');
      const sender = start(lab.spaces.inside('ac', [probe, 'send', address, '7001', '1000']));
      await secondLine(sender);
      await delay(400 + Math.random() * 400);
      const before = processorSeconds(host.daemon.pid);
      const writtenMs = performance.timeOrigin + performance.now();
      await etcd.write({ [`${keyPrefix}/subnets/${nameOf(number)}`]: valueOf(number, receiver) });
      // An echo of the watch of the peers may come before, to another address of the subnet.
      let [arrivedMs, destination] = ['', ''];
      while (destination !== address)
        [arrivedMs = '', destination = ''] = String((await lines.next()).value).split(' ');
      times.push(Number(arrivedMs) - writtenMs);
      processorMs.push((processorSeconds(host.daemon.pid) - before) * 1000);
      sender.kill('SIGTERM');
    }
  } finally {
    listener.kill();
  }
  say(`processor time of tartand until then: ${medianAndWorst(processorMs)}`);
  return times;
}

const foreignRoutes = Number(process.env['TARTAN_ROUTES'] ?? 100_000);

test(`${foreignRoutes} routes of others`, async () => {
  const routes = Array.from({ length: foreignRoutes }, (_, i) => {
    const destination = `${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24`;
    return `route add ${destination} via 192.0.2.253 proto bgp\n`;
  });
  const batch = lab.spaces.inside('b', ['ip', '-batch', '-']);
  await run(batch, { input: routes.join('') });
  await startDaemon('b', { 'etcd-prefix': few });
  await delay(settleSeconds * 1000);
  const share = await idleShare();
  say(`${foreignRoutes} routes of others: idle ${percent(share)} of a core over ${idleSeconds} s`);
  say(`${foreignRoutes} routes of others: tartand ${sizeOf(host.daemon.pid)}`);
  const churn = churnRoutes();
  const during = await idleShare(20);
  say(`${foreignRoutes} routes of others, 20 changes a second among them: ${percent(during)} of a core`);
  await churn();
  await run(batch, { input: routes.map(text => text.replace('add', 'del')).join('') });
  expect(share).toBeLessThan(0.01);
  expect(during).toBeLessThan(0.01);
}, 300_000);

/** A route of others comes and goes, until the function that is returned is called. */
function churnRoutes(): () => Promise<void> {
  const stop = new AbortController();
  const change = async (): Promise<void> => {
    for (let i = 0; !stop.signal.aborted; i++) {
      const verb = i % 2 === 0 ? 'add' : 'del';
      await run(lab.spaces.inside('b', ['ip', 'route', verb, '198.51.100.0/24', 'via', '192.0.2.253', 'proto', 'bgp']));
      await delay(50);
    }
  };
  const ended = change();
  return () => {
    stop.abort();
    return ended;
  };
}

const foreignRules = Number(process.env['TARTAN_RULES'] ?? 5_000);

test(`${foreignRules} rules of others`, async () => {
  const rules = Array.from({ length: foreignRules }, (_, i) => `-A OTHERS -s 10.77.${i >> 8}.${i & 255}/32 -j RETURN`);
  const text = ['*filter', ':OTHERS - [0:0]', ...rules, 'COMMIT', ''].join('\n');
  await run(lab.node('b').inside(['iptables-restore', '--noflush']), { input: text });
  await startDaemon('b', { 'etcd-prefix': few });
  await delay(settleSeconds * 1000);
  const own = processorSeconds(host.daemon.pid);
  const [begunMs, children] = [performance.now(), childrenSeconds(host.daemon.pid)];
  await delay(idleSeconds * 1000);
  const wallSeconds = (performance.now() - begunMs) / 1000;
  const share = (processorSeconds(host.daemon.pid) - own) / wallSeconds;
  const withPrograms = share + (childrenSeconds(host.daemon.pid) - children) / wallSeconds;
  say(
    `${foreignRules} rules of others: idle ${percent(share)} of a core over ${idleSeconds} s, ${percent(withPrograms)} with the programs that list them`,
  );
  // The programs of iptables and nft take as much again; a sweep runs them once a minute.
  expect(share).toBeLessThan(0.01);
}, 300_000);

/** Seconds of processor of the programs that a process has started and waited for. */
function childrenSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[13]) + Number(fields[14])) / 100;
}
