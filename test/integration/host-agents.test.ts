/**
 * Two agents of two networks over one host adapter, in a namespace of its own. Their leases are in a store in memory.
 *
 *   default 10.5.0.0/16   udp, tartan0, data process          u0 192.0.2.1/24 (underlay)
 *   blue    10.6.0.0/16   vx6, made by the host adapter
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Status } from '../../src/agent/status.js';
import { lockRunDir } from '../../src/cli/lock.js';
import { readStatus } from '../../src/tool/status-client.js';
import { HostLab } from '../support/host-lab.js';
import { isRunning } from './datapath-lab.js';

/** What a pass of an agent did, or why it failed. */
interface Told {
  readonly network: string;
  readonly changes?: readonly string[];
  readonly conflicts?: readonly string[];
  readonly error?: string;
}

const names = ['default', 'blue'] as const;
const nothingToDo = { changes: [], conflicts: [] };

let lab: HostLab;
let directories: Readonly<Record<(typeof names)[number], { readonly runDir: string; readonly stateDir: string }>>;
const pids = new Set<number>();

beforeEach(async () => {
  lab = await HostLab.open('host-child-agents');
  lab.run('ip link add u0 type veth peer name u1');
  lab.run('ip addr add 192.0.2.1/24 dev u0');
  lab.run('ip link set u0 up');
  const [runDir, stateDir] = [join(lab.directory, 'run'), join(lab.directory, 'state')];
  const below = 'networks/blue';
  directories = {
    default: { runDir, stateDir },
    blue: { runDir: join(runDir, below), stateDir: join(stateDir, below) },
  };
});

afterEach(async () => {
  const namespace = readlinkSync(lab.namespace);
  await lab.close();
  // A data process outlives its daemon, when a test ends early.
  for (const pid of pids) if (isRunning(pid) && readlinkSync(`/proc/${pid}/ns/net`) === namespace) process.kill(pid);
});

async function statusOf(network: (typeof names)[number]): Promise<Status | undefined> {
  const reading = await readStatus(directories[network].runDir);
  const status = reading.kind === 'status' ? reading.status : undefined;
  if (status?.datapath?.pid) pids.add(status.datapath.pid);
  return status;
}

/** Starts both agents, and waits until both are ready and had some passes more. */
async function start() {
  const child = lab.spawn('host-child-agents', lab.directory);
  const ended = new Promise(resolve => child.once('close', resolve));
  const [before, after]: [Told[], Told[]] = [[], []];
  let isReady = false;
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  createInterface({ input: child.stdout }).on('line', line => (isReady ? after : before).push(JSON.parse(line)));
  const ready = async (): Promise<unknown[]> => Promise.all(names.map(async name => (await statusOf(name))?.ready));
  await vi.waitFor(async () => expect(await ready(), errors).toEqual([true, true]), { timeout: 10_000, interval: 50 });
  isReady = true;
  const passes = (name: string): number => after.filter(({ network }) => network === name).length;
  await vi.waitFor(() => expect(Math.min(...names.map(passes))).toBeGreaterThan(3), { timeout: 10_000 });
  return { child, ended, before, after };
}

function results(told: readonly Told[]): readonly unknown[] {
  return told.map(({ changes, conflicts, error }) => error ?? { changes, conflicts });
}

function changesOf(told: readonly Told[]): readonly string[] {
  return told.flatMap(({ changes = [] }) => changes);
}

test('each has its own files and its part of the host, and they do not fight', async () => {
  const { before, after, child, ended } = await start();
  expect(results(after)).toEqual(after.map(() => nothingToDo));
  expect(changesOf(before).filter(change => change.includes('remove'))).toEqual([]);
  // The data plane of the other network had made a link too, and let go of it.
  expect([...lab.run('ip -br link').matchAll(/^(?:tartan|vx)\w+/gm)].flat().sort()).toEqual(['tartan0', 'vx6']);
  expect(lab.run('ip link show vx6')).toContain('alias tartan blue');
  const routes = lab.run('ip -4 route show table main');
  expect(routes).toMatch(/^10\.5\.0\.0\/16 dev tartan0 proto 167/m);
  expect(routes).toMatch(/^10\.6\.200\.0\/24 via 10\.6\.200\.0 dev vx6 proto 167 onlink/m);
  expect(lab.rules().match(/-[io] (tartan0|vx6) .*-j ACCEPT/g)).toHaveLength(8);

  const [own, blue] = [await statusOf('default'), await statusOf('blue')];
  expect(own).toMatchObject({ network: '10.5.0.0/16', problems: [], datapath: { engine: 'tun' } });
  expect(blue).toMatchObject({ network: '10.6.0.0/16', problems: [], datapath: null, backend: { type: 'vxlan' } });
  expect(own?.node.id).toBe(blue?.node.id);
  expect(readdirSync(directories.default.stateDir).sort()).toEqual(['networks', 'node-id', 'state.json']);
  expect(readdirSync(directories.blue.stateDir)).toEqual(['state.json']);
  for (const name of names) expect(() => lockRunDir(directories[name].runDir)).toThrow(/a running tartand holds/);

  // Somebody takes a part of each away: both come back, once.
  const seen = after.length;
  lab.run('ip route del 10.6.200.0/24');
  lab.run('ip route del 10.5.0.0/16 dev tartan0');
  await vi.waitFor(() => expect(changesOf(after.slice(seen))).toHaveLength(2), { timeout: 5000 });
  expect([...changesOf(after.slice(seen))].sort()).toEqual([
    'route add 10.5.0.0/16 metric 0 dev tartan0',
    'route add 10.6.200.0/24 metric 0 via 10.6.200.0 dev vx6 onlink',
  ]);
  child.stdin.end();
  await ended;
});

test('after a death the first of them that gives its plan removes nothing of the other one', async () => {
  const first = await start();
  first.child.kill('SIGKILL');
  await first.ended;
  const { before, after, child, ended } = await start();
  expect(results([...before, ...after])).toEqual([...before, ...after].map(() => nothingToDo));
  child.stdin.end();
  await ended;
});
