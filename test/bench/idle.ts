/**
 * What a host costs that has nothing to do: processor time and wake-ups of all our processes, memory of tartand, and how
 * long it takes from its start to READY=1. By the programs of a package where `npm run package` has made them, with their
 * own Node, else by dist and the Node that runs the bench.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { commandOf, openEtcd, put } from './command-contender.js';
import { idleSizes } from './goals.js';
import { Collector, median, type Group } from './groups.js';
import { underUnit } from './kernel-engine.js';
import { link, Lab, type Side, type Underlay } from './lab.js';
import { unitSetting } from './priority.js';
import { run, Running, tree } from './process.js';
import type { RoundOptions } from './rounds.js';
import { countMetric } from './tests.js';

export type IdleOptions = Pick<RoundOptions, 'say' | 'keep' | 'before'>;

/** Node.js tidies its heap up for about 70 s after a start. */
const settleMs = 80_000;
const watchMs = 60_000;
const starts = 10;
const ours = 'tartand';
const bare = 'node -e 0';
const id = 'idle';

const cpu = [0, 2].map(peers => countMetric(`idle-cpu-${peers}`, `CPU of a core, ${peers} peers`, '%', 2));
const wakes = [0, 2].map(peers => countMetric(`idle-wakes-${peers}`, `wake-ups, ${peers} peers`, '1/s', 1));
const rss = [2, idleSizes.many].map(peers => countMetric(`idle-rss-${peers}`, `RSS, ${peers} peers`, 'MB', 1));
const pss = [2, idleSizes.many].map(peers => countMetric(`idle-pss-${peers}`, `PSS, ${peers} peers`, 'MB', 1));
const anonymous = [2, idleSizes.many].map(peers =>
  countMetric(`idle-anonymous-${peers}`, `of it anonymous, ${peers} peers`, 'MB', 1),
);
const ready = countMetric('idle-ready', 'start to READY=1, or to its end', 's', 2);

interface Programs {
  readonly node: string;
  readonly tartand: string;
}

/** What the unit puts into the environment. */
const unitEnvironment = Object.fromEntries(
  [...unitSetting('Environment').matchAll(/"?(\w+)=([^"]*?)(?:"|(?= \w+=)|$)/g)].map(([, name, value]) => [
    name,
    value,
  ]),
);

function findPrograms(): Programs {
  const processor = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const home = join(tree, '.cache/package', processor, 'programs/lib/tartan');
  const packaged = join(home, 'dist/bundle/tartand.js');
  if (existsSync(packaged)) return { node: join(home, 'bin/node'), tartand: packaged };
  return { node: process.execPath, tartand: join(tree, 'dist/tartand.js') };
}

interface Host {
  readonly lab: Lab;
  readonly side: Side;
  readonly daemon: Running;
}

/** A daemon with directories of its own, and the capabilities of the unit. */
function startDaemon({ node, tartand }: Programs, lab: Lab, side: Side, etcd: string, env = {}): Running {
  const directory = directoryOf(lab, side);
  mkdirSync(directory, { recursive: true });
  const places = [`--run-dir=${directory}/run`, `--state-dir=${directory}/state`];
  const files = [`--subnet-file=${directory}/subnet.env`, `--docker-env-file=${directory}/docker.env`];
  const options = [`--iface=${link}`, `--etcd-endpoints=${etcd}`, ...places, ...files];
  return new Running(lab.on(side, [...underUnit(), node, tartand, ...options]), {
    env: { ...unitEnvironment, ...env },
  });
}

function directoryOf(lab: Lab, side: Side): string {
  return join('/run/idle', lab.name, side);
}

async function openHosts(programs: Programs, name: string, underlay: Underlay, sides: readonly Side[]) {
  const lab = await Lab.open(name, underlay, 'host');
  // No daemon of ours is to share its host with etcd where that can be had.
  const etcd = await openEtcd(lab, join('/run/idle', name));
  const hosts = sides.map((side): Host => ({ lab, side, daemon: startDaemon(programs, lab, side, etcd) }));
  for (const { side, daemon } of hosts) await written(join(directoryOf(lab, side), 'subnet.env'), daemon);
  return { lab, etcd, hosts };
}

async function written(file: string, daemon: Running): Promise<void> {
  for (const began = Date.now(); !existsSync(file); await delay(50))
    if (daemon.over || Date.now() - began > 20_000) throw new Error(`tartand wrote no ${file}: ${daemon.said}`);
}

interface Sample {
  readonly atMs: number;
  readonly nanoseconds: number;
  readonly wakes: number;
}

/** Of every thread of our processes on the host; what has ended meanwhile is not counted, but for children of the daemon. */
async function sampleOf({ lab, side, daemon }: Host): Promise<Sample> {
  const pids = (await lab.pids(side)).filter(pid => !commandOf(pid).includes('--listen-peer-urls'));
  const threads = pids.flatMap(pid => namesIn(`/proc/${pid}/task`).map(task => `/proc/${pid}/task/${task}`));
  const spent = threads.map(path => Number(textOf(`${path}/schedstat`).split(' ')[0] ?? 0));
  const woken = threads.map(path => numberIn(textOf(`${path}/status`), 'voluntary_ctxt_switches'));
  // Ticks of children that were waited for: cutime and cstime of proc(5), a hundred a second.
  const [, fields = ''] = textOf(`/proc/${daemon.pid}/stat`).split(') ');
  const children = fields.split(' ').slice(13, 15).map(Number);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return { atMs: performance.now(), nanoseconds: sum(spent) + 1e7 * sum(children), wakes: sum(woken) };
}

function namesIn(directory: string): readonly string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** Of a file of proc(5) with a name and a number in each line. */
function numberIn(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
}

async function costOf(host: Host): Promise<{ readonly percent: number; readonly wakes: number }> {
  const before = await sampleOf(host);
  await delay(watchMs);
  const after = await sampleOf(host);
  const seconds = (after.atMs - before.atMs) / 1000;
  return {
    percent: (after.nanoseconds - before.nanoseconds) / 1e7 / seconds,
    wakes: (after.wakes - before.wakes) / seconds,
  };
}

/** Megabytes; a daemon that runs by `exec` has the number of its command. */
function memoryOf(pid: number): readonly [rss: number, pss: number, anonymous: number] {
  const [status, rollup] = [textOf(`/proc/${pid}/status`), textOf(`/proc/${pid}/smaps_rollup`)];
  const values = [numberIn(status, 'VmRSS'), numberIn(rollup, 'Pss'), numberIn(status, 'RssAnon')];
  const [whole = 0, shared = 0, own = 0] = values.map(kilobytes => kilobytes / 1000);
  return [whole, shared, own];
}

const listener =
  'use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, sockaddr_un($ARGV[0])) or die; $| = 1; print "bound\\n"; ' +
  'while (defined recv(S, $text, 8192, 0)) { print "$text\\n" }';

/** Seconds from the start of the program to READY=1, on a host that had its lease before. */
async function readySeconds(programs: Programs, lab: Lab, etcd: string): Promise<number> {
  const socket = join('/run/idle', `notify-${performance.now()}`);
  const hearing = new Running(['perl', '-e', listener, socket]);
  await hearing.line(/^bound$/);
  const began = performance.now();
  const daemon = startDaemon(programs, lab, 'a', etcd, { NOTIFY_SOCKET: socket });
  try {
    await hearing.line(/^READY=1$/);
    return (performance.now() - began) / 1000;
  } finally {
    daemon.signal('SIGTERM');
    await ended(daemon);
    await hearing.close();
  }
}

async function ended(daemon: Running): Promise<void> {
  for (const began = Date.now(); !daemon.over; await delay(20)) if (Date.now() - began > 10_000) await daemon.close();
}

async function bareSeconds(node: string): Promise<number> {
  const began = performance.now();
  await run([node, '-e', '0']);
  return (performance.now() - began) / 1000;
}

const manyNetwork = '{"Network":"10.32.0.0/11","SubnetLen":24,"SubnetMin":"10.63.0.0","Backend":{"Type":"udp"}}';

/** Leases as other hosts would leave them, but for the etcd lease on which theirs hang. */
function leaseOf(number: number): readonly [key: string, value: string] {
  const address = `172.${16 + (number >> 12)}.${(number >> 4) & 255}.${1 + (number & 15)}`;
  const value = { PublicIP: address, PublicIPv6: null, nodeId: `node-${number}`, bootId: `boot-${number}` };
  return [`/coreos.com/network/subnets/10.${32 + (number >> 8)}.${number & 255}.0-24`, JSON.stringify(value)];
}

async function openMany(programs: Programs): Promise<{ readonly lab: Lab; readonly host: Host }> {
  const lab = await Lab.open('many', 'wire', 'host');
  const etcd = await openEtcd(lab, '/run/idle/many');
  await put(lab, etcd, [['/coreos.com/network/config', manyNetwork]]);
  for (let from = 0; from < idleSizes.many; from += 100)
    await put(
      lab,
      etcd,
      Array.from({ length: 100 }, (_, index) => leaseOf(from + index)),
    );
  const daemon = startDaemon(programs, lab, 'b', etcd);
  await written(join(directoryOf(lab, 'b'), 'subnet.env'), daemon);
  return { lab, host: { lab, side: 'b', daemon } };
}

/** In one round of less than four minutes. */
export async function measureIdle(options: IdleOptions): Promise<void> {
  if ((options.before(id)?.rounds ?? 0) >= 1) return;
  const programs = findPrograms();
  const version = (await run([programs.node, '--version'])).trim();
  const collector = new Collector();
  const labs: Lab[] = [];
  try {
    const alone = await openHosts(programs, 'alone', 'wire', ['a']);
    labs.push(alone.lab);
    const [lone] = alone.hosts;
    if (!lone) throw new Error('a lab without a host');
    await measureStarts(programs, alone.lab, alone.etcd, lone);
    const again: Host = { ...lone, daemon: startDaemon(programs, alone.lab, 'a', alone.etcd) };
    const three = await openHosts(programs, 'three', 'bridge', ['a', 'b', 'c']);
    const many = await openMany(programs);
    labs.push(three.lab, many.lab);
    const [near] = three.hosts;
    if (!near) throw new Error('a lab without a host');
    const idler = new Running([programs.node, '-e', 'setInterval(() => {}, 1e6)']);
    options.say(`${id}: ${settleMs / 1000} s until all has settled, then ${watchMs / 1000} s of watching`);
    await delay(settleMs);
    for (const [place, cost] of (await Promise.all([again, near].map(costOf))).entries()) {
      add(cpu[place], ours, cost.percent);
      add(wakes[place], ours, cost.wakes);
    }
    for (const [place, pid] of [near.daemon.pid, many.host.daemon.pid].entries()) addMemory(place, ours, pid);
    addMemory(0, bare, idler.pid);
    await idler.close();
    collector.endRound();
    options.keep(groupOf());
  } finally {
    for (const lab of labs) await lab.close();
  }

  function add(metric: Parameters<Collector['add']>[0] | undefined, column: string, value: number): void {
    if (!metric) return;
    collector.add(metric, column, value);
    options.say(`${id} ${column}: ${metric.label} ${value.toFixed(metric.digits)} ${metric.unit}`);
  }

  function addMemory(place: number, column: string, pid: number): void {
    for (const [at, value] of memoryOf(pid).entries()) add([rss, pss, anonymous][at]?.[place], column, value);
  }

  async function measureStarts(some: Programs, lab: Lab, etcd: string, first: Host): Promise<void> {
    first.daemon.signal('SIGTERM');
    await ended(first.daemon);
    const [seconds, empty]: [number[], number[]] = [[], []];
    for (let turn = 0; turn < starts; turn++) {
      seconds.push(await readySeconds(some, lab, etcd));
      empty.push(await bareSeconds(some.node));
    }
    add(ready, ours, median(seconds));
    add(ready, bare, median(empty));
  }

  function groupOf(): Group {
    const title = `A host with nothing to do, ${programs.tartand.slice(tree.length + 1)} by Node ${version}`;
    return { id, title, columns: [ours, bare], rounds: collector.rounds, ratios: [], series: collector.series };
  }
}
