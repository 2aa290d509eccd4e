/**
 * What one container's traffic costs its neighbours: the other container of each host sends or receives a flood, and what
 * a TCP flow and a quiet flow have left beside it is measured one after the other.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { addressIn, droppedPort, type Lab, type Side } from './lab.js';
import { busySeconds, describeMachine, ends } from './machine.js';
import { program, run, type Running } from './process.js';
import { datagrams, flowPort, graceMs, iperf, receivedBy, roundTrips, sendFlow, warmUpMs } from './traffic.js';
import type { RoundTrips, Subject } from './traffic.js';

export interface Flood {
  readonly name: string;
  readonly label: string;
  /** Whether it needs the third host. */
  readonly third: boolean;
  /** @returns how much of it arrived, in kpps */
  readonly run: (subject: Subject, seconds: number) => Promise<number>;
}

function datagramFlood(from: Side, to: Side, bytes: number): Flood['run'] {
  return async ({ lab, overlay }, seconds) => {
    const sender = (command: readonly string[]) => lab.beside(from, command, ends.a);
    const receiver = (command: readonly string[]) => lab.beside(to, command, ends.b);
    const path = { sender, receiver, target: addressIn(overlay.subnets[to], 3), port: flowPort };
    const report = await sendFlow(path, seconds, bytes);
    return report.received / report.seconds / 1000;
  };
}

const manyPorts = 4096;

function segmentFlood(sourcePorts: number): Flood['run'] {
  return async ({ lab, overlay }, seconds) => {
    const args = [addressIn(overlay.subnets.b, 3), droppedPort, sourcePorts, seconds].map(String);
    const before = await arrivedBeside(lab);
    await run(lab.beside('a', [program('tiny'), ...args], ends.a), {}, seconds * 1000 + graceMs);
    return ((await arrivedBeside(lab)) - before) / seconds / 1000;
  };
}

/** Packets. */
async function arrivedBeside(lab: Lab): Promise<number> {
  const text = await run(lab.beside('b', ['cat', '/proc/self/net/dev'], ends.b));
  return Number(/^ *eth0: *\d+ +(\d+)/m.exec(text)?.[1]);
}

// prettier-ignore
export const floods: readonly Flood[] = [
  { name: 'flood64', label: 'UDP of 64 B', third: false, run: datagramFlood('a', 'b', 64) },
  { name: 'flood1400', label: 'UDP of 1400 B', third: false, run: datagramFlood('a', 'b', 1400) },
  { name: 'tiny', label: 'tiny TCP packets of one port', third: false, run: segmentFlood(1) },
  { name: 'tiny-ports', label: 'tiny TCP packets of many ports', third: false, run: segmentFlood(manyPorts) },
  { name: 'other', label: 'UDP of 64 B to another host', third: true, run: datagramFlood('a', 'c', 64) },
  { name: 'third', label: 'UDP of 64 B from a third host', third: true, run: datagramFlood('c', 'b', 64) },
];

/** As often as a quiet flow asks. */
const pauseUs = 1000;
/** The flood begins within what iperf3 leaves out, and outlives what it measures. */
const omitSeconds = 1;
const beyondSeconds = 0.3;

export interface Beside extends RoundTrips {
  readonly gbps: number;
  readonly floodKpps: number;
}

export async function besideFlood(subject: Subject, seconds: number, flood: Flood): Promise<Beside> {
  const bulk = iperf(subject, seconds, ['-O', String(omitSeconds)]);
  await delay((omitSeconds * 1000) / 2);
  const floodSeconds = omitSeconds / 2 + seconds + beyondSeconds;
  const [gbps, floodKpps] = await Promise.all([arrivedOf(bulk, seconds), flood.run(subject, floodSeconds)]);
  const length = Math.min(seconds, 1);
  const [trips] = await Promise.all([
    roundTrips(subject, length, { warmUpMs, pauseUs }),
    flood.run(subject, warmUpMs / 1000 + length + beyondSeconds),
  ]);
  return { ...trips, gbps, floodKpps };
}

/** A flow that could not even end in time had nothing. */
async function arrivedOf(bulk: Running, seconds: number): Promise<number> {
  try {
    return receivedBy(await bulk.output((omitSeconds + seconds) * 1000 + graceMs)).gbps;
  } catch {
    return 0;
  }
}

const flows = { count: 30, rate: '60M' };

export interface BesideFlows extends RoundTrips {
  readonly gbps: number;
  /** Of all processors. */
  readonly cpuPercent: number;
}

/** A quiet flow beside many of one rate, which together leave room. */
export async function besideFlows(subject: Subject, seconds: number): Promise<BesideFlows> {
  const load = iperf(subject, seconds + 1, ['-P', String(flows.count), '-b', flows.rate]);
  await delay(warmUpMs);
  const began = performance.now();
  const before = busySeconds();
  const trips = await roundTrips(subject, seconds, { warmUpMs: 0, pauseUs });
  const busy = busySeconds() - before;
  const cpuPercent = (100_000 * busy) / (performance.now() - began) / describeMachine().cores;
  return { ...trips, gbps: receivedBy(await load.output(seconds * 1000 + graceMs)).gbps, cpuPercent };
}

/** Datagrams of 64 B a second beside the TCP flow. */
const mixedRate = 20_000;

export interface Mixed {
  readonly gbps: number;
  readonly deliveredKpps: number;
  readonly lostPercent: number;
}

/** One TCP flow and small datagrams of a rate that all carry, between the same ends. */
export async function mixed(subject: Subject, seconds: number): Promise<Mixed> {
  const bulk = iperf(subject, seconds + 1, []);
  await delay(warmUpMs);
  const { deliveredKpps, lostPercent } = await datagrams(subject, seconds, { bytes: 64, rate: mixedRate });
  return { gbps: receivedBy(await bulk.output(seconds * 1000 + graceMs)).gbps, deliveredKpps, lostPercent };
}
