/** The traffic of the tests between the two ends of a lab, and what it cost. */
import { sides, type Lab } from './lab.js';
import { busySeconds, ends, ranSeconds, residentMb } from './machine.js';
import type { Overlay } from './overlay.js';
import { program, run, Running } from './process.js';

/** A contender that is up and reachable. */
export interface Subject {
  readonly name: string;
  readonly lab: Lab;
  readonly overlay: Overlay;
  /** Of the end on side b. */
  readonly target: string;
}

export interface Bulk {
  readonly gbps: number;
  readonly cpuSecondsPerGb: number;
  readonly retransmits: number;
  /** Segments that arrived before one sent earlier. */
  readonly outOfOrder: number;
  /** Packets that no queue of the hosts had room for: those of links (the TUN's too) and of UDP sockets. */
  readonly dropped: number;
  readonly rssMb: number;
}

/** Fixed, because the default of the machine decides TCP's figures. By socket: a namespace may be refused it. */
export const congestionControl = 'cubic';

const iperfPort = 5201;
const flowPort = 5301;
/** By whether its server shares the processor of the asker. */
const echoPorts = { apart: 5401, together: 5402 };
const graceMs = 15_000;
/** Of the load before round trips under it count. */
const warmUpMs = 500;

/** The servers that tests talk to, on side b. */
export async function openServers(lab: Lab): Promise<void> {
  const iperf = new Running(lab.at('b', ['iperf3', '-s', '-p', String(iperfPort), '--forceflush']));
  const serve = (port: number): readonly string[] => [program('echo'), 'serve', String(port)];
  const echoes = [lab.at('b', serve(echoPorts.apart)), lab.at('b', serve(echoPorts.together), ends.a)];
  await iperf.line(/Server listening/);
  for (const echo of echoes) await new Running(echo).line(/^ready$/);
}

/** @throws Error when the other end does not answer in time */
export async function reach(subject: Subject): Promise<void> {
  const ping = ['ping', '-n', '-q', '-i', '0.2', '-c', '1', '-w', '10', subject.target];
  await run(subject.lab.at('a', ping));
}

function iperf(subject: Subject, seconds: number, options: readonly string[]): Running {
  const times = ['-p', String(iperfPort), '-t', String(seconds), '-J', '-C', congestionControl];
  return new Running(subject.lab.at('a', ['iperf3', '-c', subject.target, ...times, ...options]));
}

/** The parts of iperf3's report that are used. */
interface IperfReport {
  readonly end: Readonly<Record<string, { readonly bytes: number; readonly bits_per_second: number } | undefined>>;
}

export async function bulk(subject: Subject, seconds: number, options: readonly string[]): Promise<Bulk> {
  const before = await tcpCounters(subject);
  const droppedBefore = await droppedByQueues(subject.lab);
  const busyBefore = busySeconds();
  const text = await iperf(subject, seconds, options).output(seconds * 1000 + graceMs);
  const busy = busySeconds() - busyBefore;
  const rssMb = residentMb(subject.overlay.pids);
  const after = await tcpCounters(subject);
  const { end } = JSON.parse(text) as IperfReport;
  const received = [end['sum_received'], end['sum_received_bidir_reverse']].filter(sum => sum !== undefined);
  const bytes = received.reduce((sum, one) => sum + one.bytes, 0);
  return {
    gbps: received.reduce((sum, one) => sum + one.bits_per_second, 0) / 1e9,
    cpuSecondsPerGb: busy / (bytes / 1e9),
    retransmits: after.retransmits - before.retransmits,
    outOfOrder: after.outOfOrder - before.outOfOrder,
    dropped: (await droppedByQueues(subject.lab)) - droppedBefore,
    rssMb,
  };
}

/** Of both ends together. */
async function tcpCounters(subject: Subject): Promise<{ readonly retransmits: number; readonly outOfOrder: number }> {
  const files = ['cat', '/proc/self/net/snmp', '/proc/self/net/netstat'];
  const texts = [await run(subject.lab.at('a', files)), await run(subject.lab.at('b', files))];
  const sum = (protocol: string, name: string): number =>
    texts.reduce((total, text) => total + counter(text, protocol, name), 0);
  return { retransmits: sum('Tcp', 'RetransSegs'), outOfOrder: sum('TcpExt', 'TCPOFOQueue') };
}

async function droppedByQueues(lab: Lab): Promise<number> {
  let dropped = 0;
  for (const side of sides) {
    const [links = '', snmp = ''] = await Promise.all(
      ['dev', 'snmp'].map(file => lab.run(side, ['cat', `/proc/self/net/${file}`])),
    );
    // Bytes, packets, errors and drops of what was received, four more, then the same of what was sent.
    for (const [, numbers = ''] of links.matchAll(/^ *\S+: *(.*)$/gm)) {
      const fields = numbers.trim().split(/ +/).map(Number);
      dropped += (fields[3] ?? 0) + (fields[11] ?? 0);
    }
    dropped += counter(snmp, 'Udp', 'RcvbufErrors');
  }
  return dropped;
}

/** A line of names and a line of values for each protocol. */
export function counter(text: string, protocol: string, name: string): number {
  const [names = [], values = []] = text
    .split('\n')
    .filter(line => line.startsWith(`${protocol}: `))
    .map(line => line.split(' '));
  return Number(values[names.indexOf(name)] ?? 0);
}

export interface Datagrams {
  readonly deliveredKpps: number;
  readonly lostPercent: number;
  readonly reordered: number;
  /** Of both ends and of all that runs on the hosts, for a million that were delivered. */
  readonly cpuSecondsPerMillion: number;
}

/** @param rate of datagrams a second; as many as one sender can without it */
export async function datagrams(subject: Subject, seconds: number, bytes: number, rate?: number): Promise<Datagrams> {
  const daemons = [...(await subject.lab.pids('a')), ...(await subject.lab.pids('b'))];
  const ranBefore = ranSeconds(daemons);
  const receiver = new Running(subject.lab.at('b', [program('flow'), 'receive', String(flowPort)]));
  await receiver.line(/^ready$/);
  const paced = rate === undefined ? [] : [String(rate)];
  const args = ['send', subject.target, String(flowPort), String(bytes), String(seconds), ...paced];
  const sender = new Running(subject.lab.at('a', [program('flow'), ...args]));
  const { sent, cpu } = JSON.parse(await sender.output(seconds * 1000 + graceMs)) as {
    readonly sent: number;
    readonly cpu: number;
  };
  receiver.signal('SIGTERM');
  const report = JSON.parse(await receiver.output(graceMs)) as {
    readonly received: number;
    readonly reordered: number;
    readonly seconds: number;
    readonly cpu: number;
  };
  const ran = ranSeconds(daemons) - ranBefore + cpu + report.cpu;
  return {
    deliveredKpps: report.received / Math.max(report.seconds, seconds) / 1000,
    lostPercent: (100 * (sent - report.received)) / sent,
    reordered: report.reordered,
    cpuSecondsPerMillion: ran / (Math.max(1, report.received) / 1e6),
  };
}

export interface RoundTrips {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly lost: number;
}

export interface RoundTripOptions {
  /** While one TCP flow goes the same way. */
  readonly loaded: boolean;
  /** Both ends on one processor. */
  readonly together: boolean;
}

/** One after another. */
export async function roundTrips(
  subject: Subject,
  seconds: number,
  { loaded, together }: RoundTripOptions,
): Promise<RoundTrips> {
  const load = loaded ? iperf(subject, Math.ceil(seconds + warmUpMs / 1000), []) : undefined;
  const port = echoPorts[together ? 'together' : 'apart'];
  const args = ['ask', subject.target, String(port), String(loaded ? warmUpMs : 50), String(seconds)];
  const text = await run(subject.lab.at('a', [program('echo'), ...args]), {}, seconds * 1000 + graceMs);
  await load?.output(seconds * 1000 + graceMs);
  const trips = JSON.parse(text) as { readonly p50: number; readonly p99: number; readonly lost: number };
  return { p50Us: trips.p50, p99Us: trips.p99, lost: trips.lost };
}
