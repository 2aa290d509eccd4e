/**
 * The contender `tartan-kernel`: tartand with `--engine=kernel` on each host and an etcd, as the kernel engine is chosen
 * between hosts that have heard of each other and answer on its own path. It has the capabilities that its unit leaves it:
 * with more of them the verifier masks less, and the programs are faster. The user-space contender needs no daemon.
 */
import { existsSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openCommand } from './command-contender.js';
import type { Lab, Side } from './lab.js';
import { Absent, kernelEngine, type Overlay } from './overlay.js';
import { unitSetting } from './priority.js';
import { run } from './process.js';

const device = 'tartan-k';
/** Until the device is there; a host that cannot have it carries packets without. */
const deviceMs = 3000;
/** Until the peers are known and have answered. */
const answerMs = 20_000;
const pings = 20;

/** @throws Absent where the build has no such engine, or packets do not take it */
export async function openKernelEngine(lab: Lab, dist: string): Promise<Overlay> {
  const tartand = join(dist, 'tartand.js');
  if (!/^ *--engine\b/m.test(await run(['node', tartand, '--help'])))
    throw new Absent('tartand of this build knows no --engine');
  const places = '--run-dir=$BENCH_DIRECTORY/run --state-dir=$BENCH_DIRECTORY/state --subnet-file=$BENCH_SUBNET_FILE';
  const underlay = '--iface=$BENCH_INTERFACE --etcd-endpoints=$BENCH_ETCD';
  const command = `exec ${underUnit().join(' ')} node ${tartand} --engine=kernel ${underlay} ${places}`;
  const overlay = await openCommand(lab, kernelEngine, command);
  await hasDevice(lab);
  for (const side of lab.sides) {
    for (const peer of lab.peersOf(side)) await takesDevice(lab, side, overlay.hosts[peer]);
  }
  return { ...overlay, pids: overlay.pids.filter(isDataProcess) };
}

/** What begins a command that gets the capabilities of the unit and no others. */
export function underUnit(): readonly string[] {
  const kept = unitSetting('CapabilityBoundingSet').split(' ');
  const words = kept.map(name => `+${name.replace(/^CAP_/, '').toLowerCase()}`);
  return ['setpriv', '--no-new-privs', `--bounding-set=${['-all', ...words].join(',')}`];
}

async function hasDevice(lab: Lab): Promise<void> {
  for (const began = Date.now(); Date.now() - began < deviceMs; await delay(100)) {
    const found = await Promise.all(lab.sides.map(side => sentBy(lab, side)));
    if (found.every(sent => sent !== undefined)) return;
  }
  throw new Absent(`tartand --engine=kernel made no ${device} within ${deviceMs / 1000} s`);
}

/** Waits until what the host sends to that address leaves by the device of the engine. @throws Absent */
export async function takesDevice(lab: Lab, side: Side, target: string): Promise<void> {
  for (const began = Date.now(); Date.now() - began < answerMs; await delay(200)) {
    const before = (await sentBy(lab, side)) ?? 0;
    await run(lab.on(side, ['sh', '-c', `ping -n -q -i 0.01 -c ${pings} -w 2 ${target} || :`]));
    if (((await sentBy(lab, side)) ?? 0) - before >= pings) return;
  }
  throw new Absent(`packets from host ${side} to ${target} did not take ${device} within ${answerMs / 1000} s`);
}

/** Packets; undefined where there is no such device. */
async function sentBy(lab: Lab, side: Side): Promise<number | undefined> {
  const text = await lab.run(side, ['cat', '/proc/self/net/dev']);
  const [, numbers] = new RegExp(`^ *${device}: *(.*)$`, 'm').exec(text) ?? [];
  return numbers === undefined ? undefined : Number(numbers.split(/ +/)[9]);
}

/** Its memory is compared, not that of the daemon. */
function isDataProcess(pid: number): boolean {
  const path = `/proc/${pid}/exe`;
  return existsSync(path) && basename(readlinkSync(path)) === 'tartan-datapath';
}
