/**
 * One host's end of our data plane, run inside the host's namespace: `tartan-host.js SIDE PEERS DIST ENGINE RUN-DIRECTORY`.
 * It starts the engine of the build in DIST with its peers and answers calls, one line of JSON for each.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { Datapath } from '../../src/datapath/datapath.js';
import type * as kernel from '../../src/datapath/kernel/kernel-engine.js';
import type * as tun from '../../src/datapath/tun/tun-engine.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix, nthPrefix, parseIpv4, parsePrefix, type Ipv4, type Prefix } from '../../src/model/ip.js';
import type { TunnelPeer } from '../../src/model/plan.js';

export type HostCall =
  | { readonly call: 'fill'; readonly routes: number; readonly lengths: number }
  | { readonly call: 'update'; readonly seconds: number; readonly everyMs: number }
  | { readonly call: 'counters' };

export interface Lateness {
  /** How long each adopted table took, in ms. */
  readonly lateMs: readonly number[];
  /** Tables that were not adopted within a second. */
  readonly lost: number;
}

type UserEngine = Pick<typeof tun, 'openDatapath'>;
type KernelEngine = Pick<typeof kernel, 'openEngines'>;

const port = 8285;
const kernelPort = 4790;
const vni = 1;
const giveUpMs = 1000;
const fillLimitMs = 60_000;
const own = { a: '10.5.1.0/24', b: '10.5.2.0/24', c: '10.5.3.0/24' };
const outer = { a: '192.0.2.1', b: '192.0.2.2', c: '192.0.2.3' };
/** Room for 65,536 other subnets and as many other hosts, to whom nothing is ever sent (RFC 2544, RFC 1918). */
const firstSubnet = parseIpv4('10.128.0.0');
const firstHost = parseIpv4('198.18.0.0');
const subnetBits = 6;
const cell = new Int32Array(new SharedArrayBuffer(4));

const [side, peers, dist = '', engineWord, runDir = ''] = process.argv.slice(2);
const engine = engineWord === 'kernel' ? 'kernel' : 'user';
const ownSide = sideOf(side);
const peerSides = (peers ?? '').split(',').map(sideOf);

function sideOf(word: string | undefined): keyof typeof own {
  if (word === 'a' || word === 'b' || word === 'c') return word;
  throw new Error(`'${word}' is not a, b or c`);
}

/** The peer with the members by which earlier builds know it: a route, whose endpoint was a hop before. */
function tunnelPeer(subnet: Prefix, endpoint: Ipv4): TunnelPeer {
  const earlier = { subnet, hop: endpoint };
  const offer = engine === 'kernel' ? { kernel: { port: kernelPort, vni } } : {};
  return { identity: formatPrefix(subnet), prefixes: [subnet], endpoint, port, features: 0, ...offer, ...earlier };
}

/** The peers and as many others as the table wants, in subnets of so many lengths. */
function tableOf(count: number, lengths = 1): TunnelPeer[] {
  const table = peerSides.map(peer => tunnelPeer(parsePrefix(own[peer]), parseIpv4(outer[peer])));
  for (let i = 0; table.length < count; i++) {
    const subnet = { base: nth(firstSubnet, i * 2 ** subnetBits), length: 32 - subnetBits + (i % lengths) };
    table.push(tunnelPeer(subnet, nth(firstHost, i)));
  }
  return table;
}

function nth(first: Ipv4, offset: number): Ipv4 {
  return nthPrefix({ base: first, length: 32 }, offset).base;
}

async function openEngine(): Promise<Datapath> {
  const options = { runDir, device: 'tartan0', log: silentLog };
  // Another build of these sources: what it exports is what they do, in another folder before.
  if (engine === 'kernel')
    return ((await importOf('datapath/kernel/kernel-engine.js')) as KernelEngine).openEngines(options);
  const paths = ['datapath/tun/tun-engine.js', 'datapath/tun-engine.js'];
  const found = paths.find(path => existsSync(join(dist, path))) ?? '';
  return ((await importOf(found)) as UserEngine).openDatapath(options);
}

function importOf(path: string): Promise<unknown> {
  return import(pathToFileURL(join(dist, path)).href);
}

async function open(): Promise<Datapath> {
  const datapath = await openEngine();
  const address = parseIpv4(outer[ownSide]);
  await datapath.start({
    network: parsePrefix('10.0.0.0/8'),
    subnet: parsePrefix(own[ownSide]),
    publicIp: address,
    bindAddress: address,
    port,
    mtu: engine === 'kernel' ? 1464 : 1472,
    checkSource: true,
    checkDestination: true,
    engine,
    vni,
  });
  datapath.publish(tableOf(1));
  datapath.forwardUntil(2 ** 45);
  return datapath;
}

/** Looks a few thousand times a second: often enough to tell 2 ms from 1, without taking a core from the traffic. */
async function adopted(generation: number, limitMs: number): Promise<number | undefined> {
  const began = performance.now();
  for (;;) {
    const seen = datapath.stats().generationAdopted >= generation;
    const lateMs = performance.now() - began;
    if (seen) return lateMs;
    if (lateMs > limitMs) return undefined;
    Atomics.wait(cell, 0, 0, 0.2);
    await setImmediate();
  }
}

async function update(seconds: number, everyMs: number): Promise<Lateness> {
  const lateMs: number[] = [];
  let lost = 0;
  const end = performance.now() + seconds * 1000;
  for (let turn = 0, next = performance.now(); next < end; turn++) {
    while (performance.now() < next) Atomics.wait(cell, 0, 0, next - performance.now());
    const late = await adopted(datapath.publish(tableOf(2 + (turn % 2))), giveUpMs);
    if (late === undefined) lost++;
    else lateMs.push(late);
    next = Math.max(next + everyMs, performance.now());
  }
  return { lateMs, lost };
}

async function answer(call: HostCall): Promise<object> {
  switch (call.call) {
    case 'fill':
      if ((await adopted(datapath.publish(tableOf(call.routes, call.lengths)), fillLimitMs)) !== undefined) return {};
      throw new Error(`a table of ${call.routes} routes was not adopted in ${fillLimitMs} ms`);
    case 'update':
      return update(call.seconds, call.everyMs);
    case 'counters':
      return datapath.stats().counters;
  }
}

const datapath = await open();
const { pid, warnings } = datapath.stats();
console.log(JSON.stringify({ pid, warnings }));
for await (const line of createInterface({ input: process.stdin })) {
  // A line is a HostCall of the bench that started this process.
  console.log(JSON.stringify(await answer(JSON.parse(line) as HostCall)));
}
