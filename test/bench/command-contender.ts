/**
 * Any other daemon in flannel's style, given by `--contender 'name=command'`. The command runs by `sh -c` on each host
 * until it is ended, with these variables, and must write the subnet file in flannel's form when packets can flow.
 * Behind the bridge there are three hosts, and what belongs to the peer has two values with a space between.
 *
 *   BENCH_SIDE           a, b or c                        BENCH_INTERFACE      link of the underlay
 *   BENCH_ADDRESS        of this host on the underlay     BENCH_PEER_ADDRESS   of the other host
 *   BENCH_SUBNET         to be used unless it leases one  BENCH_PEER_SUBNET    the other host's
 *   BENCH_NETWORK        of all subnets                   BENCH_SUBNET_FILE    where FLANNEL_SUBNET and _MTU belong
 *   BENCH_DIRECTORY      empty, for whatever it keeps     BENCH_ETCD           endpoint; an etcd is started when named
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isExecutable } from '../../src/lib/file.js';
import { address, addressIn, link, network, type Lab, type Side } from './lab.js';
import { subnets, tunnel, type Contender, type Overlay } from './overlay.js';
import { Running, run, tree } from './process.js';

const startLimitMs = 20_000;
const etcdPort = 2379;
const configKey = '/coreos.com/network/config';

let labs = 0;

export function commandContender(name: string, command: string): Contender {
  return { name, open: lab => openCommand(lab, name, command) };
}

/** Ready when every host has written its subnet file. */
export async function openCommand(lab: Lab, name: string, command: string): Promise<Overlay> {
  // In the private /run (run.sh): gone with the bench.
  const directory = `/run/contender-${labs++}`;
  const etcd = command.includes('BENCH_ETCD') ? await openEtcd(lab, directory) : undefined;
  const started = lab.sides.map(side => {
    const own = join(directory, side);
    mkdirSync(own, { recursive: true });
    const env = { ...variables(lab, side, own), ...(etcd === undefined ? {} : { BENCH_ETCD: etcd }) };
    return { side, file: env.BENCH_SUBNET_FILE, process: new Running(lab.on(side, ['sh', '-c', command]), { env }) };
  });
  const found: Record<Side, string> = { ...subnets };
  const hosts: Record<Side, string> = { ...tunnel };
  let mtu = 0;
  for (const { side, file, process } of started) {
    const text = await written(file, process, name);
    const [, base = '', length = ''] = /^FLANNEL_SUBNET="?([\d.]+)\/(\d+)"?$/m.exec(text) ?? [];
    found[side] = `${addressIn(base, 0)}/${length}`;
    hosts[side] = addressIn(base, 0);
    mtu = Number(/^FLANNEL_MTU="?(\d+)"?$/m.exec(text)?.[1]);
  }
  return { mtu, subnets: found, hosts, pids: await pidsOf(lab, etcd) };
}

function variables(lab: Lab, side: Side, directory: string) {
  const peers = lab.peersOf(side);
  return {
    BENCH_SIDE: side,
    BENCH_INTERFACE: link,
    BENCH_ADDRESS: address[side],
    BENCH_PEER_ADDRESS: peers.map(peer => address[peer]).join(' '),
    BENCH_SUBNET: subnets[side],
    BENCH_PEER_SUBNET: peers.map(peer => subnets[peer]).join(' '),
    BENCH_NETWORK: network,
    BENCH_DIRECTORY: directory,
    BENCH_SUBNET_FILE: join(directory, 'subnet.env'),
  } as const;
}

async function written(file: string, process: Running, name: string): Promise<string> {
  for (const began = Date.now(); Date.now() - began < startLimitMs; await delay(50)) {
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    if (/^FLANNEL_SUBNET=.*\n/m.test(text) && /^FLANNEL_MTU=.*\n/m.test(text)) return text;
    if (process.over) break;
  }
  throw new Error(`contender ${name} wrote no FLANNEL_SUBNET and FLANNEL_MTU to BENCH_SUBNET_FILE: ${process.said}`);
}

/** Everything on host a but the etcd: nothing else runs there before a test does. */
async function pidsOf(lab: Lab, etcd: string | undefined): Promise<readonly number[]> {
  const pids = await lab.pids('a');
  if (etcd === undefined) return pids;
  return pids.filter(pid => !commandOf(pid).includes('--listen-peer-urls'));
}

/** Empty for a process that has ended meanwhile. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

/** On host a, reached by all over the underlay; it holds the network document that flannel's udp backend wants. */
export async function openEtcd(lab: Lab, directory: string): Promise<string> {
  const endpoint = `http://${address.a}:${etcdPort}`;
  const urls = ['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint];
  const peers = ['--listen-peer-urls', 'http://127.0.0.1:0', '--log-level', 'error'];
  const etcd = new Running(
    lab.on('a', [tool('TARTAN_ETCD', 'etcd'), '--data-dir', join(directory, 'etcd'), ...urls, ...peers]),
  );
  const document = JSON.stringify({ Network: network, Backend: { Type: 'udp' } });
  for (const began = Date.now(); ; await delay(100)) {
    try {
      await put(lab, endpoint, [[configKey, document]]);
      return endpoint;
    } catch (error) {
      if (etcd.over || Date.now() - began > startLimitMs) throw new Error(`no etcd: ${etcd.said}`, { cause: error });
    }
  }
}

/** Writes the keys in one transaction. */
export async function put(lab: Lab, endpoint: string, rows: readonly (readonly [string, string])[]): Promise<void> {
  const command = [tool('TARTAN_ETCDCTL', 'etcdctl'), '--endpoints', endpoint, 'txn'];
  const puts = rows.map(([key, value]) => `put ${key} ${JSON.stringify(value)}`);
  // No compares, then what is done, then what is done else.
  const input = `\n${puts.join('\n')}\n\n\n`;
  await run(lab.on('a', command), { env: { ETCDCTL_API: '3' }, input });
}

function tool(variable: string, name: string): string {
  const given = process.env[variable];
  if (given !== undefined) return given;
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), join(tree, '.cache/tools/usr/bin')];
  const found = directories.map(directory => join(directory, name)).find(isExecutable);
  if (found === undefined) throw new Error(`no ${name}: set ${variable}, or put it into PATH`);
  return found;
}
