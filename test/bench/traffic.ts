/** The traffic of the tests between the two ends of a lab, and what it cost. */
import { addressIn, type Lab } from './lab.js';
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
/** The first of as many as there are senders. */
export const flowPort = 5301;
/** By whether its server shares the processor of the asker. */
const echoPorts = { apart: 5401, together: 5402 };
export const graceMs = 15_000;
/** Of the load before what goes beside it counts. */
export const warmUpMs = 500;

/** The servers that tests talk to, on side b. */
export async function openServers(lab: Lab): Promise<void> {
  const iperf = new Running(lab.at('b', ['iperf3', '-s', '-p', String(iperfPort), '--forceflush']));
  const serve = (port: number): readonly string[] => [program('echo'), 'serve', String(port)];
  const echoes = [lab.at('b', serve(echoPorts.apart)), lab.at('b', serve(echoPorts.together), ends.a)];
  await iperf.line(/Server listening/);
  for (const echo of echoes) await new Running(echo).line(/^ready$/);
}

/** @throws Error when a host does not answer another one in time */
export async function reach({ lab, overlay }: Subject): Promise<void> {
  for (const side of lab.sides) {
    for (const peer of lab.peersOf(side)) {
      const target = lab.topology === 'container' ? addressIn(overlay.subnets[peer], 2) : overlay.hosts[peer];
      await run(lab.at(side, ['ping', '-n', '-q', '-i', '0.2', '-c', '1', '-w', '10', target]));
    }
  }
}

export function iperf(subject: Subject, seconds: number, options: readonly string[]): Running {
  const times = ['-p', String(iperfPort), '-t', String(seconds), '-J', '-C', congestionControl];
  return new Running(subject.lab.at('a', ['iperf3', '-c', subject.target, ...times, ...options]));
}

/** The parts of iperf3's report that are used. */
interface IperfReport {
  readonly end: Readonly<Record<string, { readonly bytes: number; readonly bits_per_second: number } | undefined>>;
}

/** @returns bits a second, and bytes, of what arrived in both directions together */
export function receivedBy(text: string): { readonly gbps: number; readonly bytes: number } {
  const { end } = JSON.parse(text) as IperfReport;
  const received = [end['sum_received'], end['sum_received_bidir_reverse']].filter(sum => sum !== undefined);
  return {
    gbps: received.reduce((sum, one) => sum + one.bits_per_second, 0) / 1e9,
    bytes: received.reduce((sum, one) => sum + one.bytes, 0),
  };
}

export async function bulk(subject: Subject, seconds: number, options: readonly string[]): Promise<Bulk> {
  const before = await tcpCounters(subject);
  const droppedBefore = await droppedByQueues(subject.lab);
  const busyBefore = busySeconds();
  const text = await iperf(subject, seconds, options).output(seconds * 1000 + graceMs);
  const busy = busySeconds() - busyBefore;
  const rssMb = residentMb(subject.overlay.pids);
  const after = await tcpCounters(subject);
  const { gbps, bytes } = receivedBy(text);
  return {
    gbps,
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
  for (const side of lab.sides) {
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

export interface FlowPath {
  /** The command as it runs at that end. */
  readonly sender: (command: readonly string[]) => readonly string[];
  readonly receiver: (command: readonly string[]) => readonly string[];
  readonly target: string;
  readonly port: number;
}

export interface FlowReport {
  readonly sent: number;
  readonly received: number;
  readonly reordered: number;
  readonly seconds: number;
  /** Of both ends, in seconds. */
  readonly cpu: number;
}

/** @param rate of datagrams a second; as many as one sender can without it */
export async function sendFlow(path: FlowPath, seconds: number, bytes: number, rate?: number): Promise<FlowReport> {
  const receiver = new Running(path.receiver([program('flow'), 'receive', String(path.port)]));
  await receiver.line(/^ready$/);
  const paced = rate === undefined ? [] : [String(rate)];
  const args = ['send', path.target, String(path.port), String(bytes), String(seconds), ...paced];
  const sender = new Running(path.sender([program('flow'), ...args]));
  const { sent, cpu } = JSON.parse(await sender.output(seconds * 1000 + graceMs)) as Pick<FlowReport, 'sent' | 'cpu'>;
  receiver.signal('SIGTERM');
  const report = JSON.parse(await receiver.output(graceMs)) as Omit<FlowReport, 'sent'>;
  return { ...report, sent, seconds: Math.max(report.seconds, seconds), cpu: cpu + report.cpu };
}

export interface DatagramOptions {
  readonly bytes: number;
  /** Of each sender, in datagrams a second; as many as it can without it. */
  readonly rate?: number;
  readonly senders?: number;
}

export interface Datagrams {
  readonly deliveredKpps: number;
  readonly lostPercent: number;
  readonly reordered: number;
  /** Of both ends and of all processes on their hosts, for a million that were delivered. */
  readonly cpuSecondsPerMillion: number;
  /** Of the whole machine: what interrupts carry belongs to no process. */
  readonly machineSecondsPerMillion: number;
}

export async function datagrams(subject: Subject, seconds: number, options: DatagramOptions): Promise<Datagrams> {
  const { lab, target } = subject;
  const { bytes, rate, senders = 1 } = options;
  const daemons = [...(await lab.pids('a')), ...(await lab.pids('b'))];
  const ranBefore = ranSeconds(daemons);
  const busyBefore = busySeconds();
  const flow = (number: number): Promise<FlowReport> => {
    // One sender stays at its end; of several each other one is at the receivers' processor.
    const sender = (command: readonly string[]) => lab.at('a', command, number % 2 === 0 ? ends.a : ends.b);
    const receiver = (command: readonly string[]) => lab.at('b', command);
    return sendFlow({ sender, receiver, target, port: flowPort + number }, seconds, bytes, rate);
  };
  const reports = await Promise.all(Array.from({ length: senders }, (_, i) => flow(i)));
  const busy = busySeconds() - busyBefore;
  const sum = (of: (report: FlowReport) => number): number => reports.reduce((all, report) => all + of(report), 0);
  const [sent, received] = [sum(report => report.sent), sum(report => report.received)];
  const millions = Math.max(1, received) / 1e6;
  return {
    deliveredKpps: received / Math.max(...reports.map(report => report.seconds)) / 1000,
    lostPercent: (100 * (sent - received)) / sent,
    reordered: sum(report => report.reordered),
    cpuSecondsPerMillion: (ranSeconds(daemons) - ranBefore + sum(report => report.cpu)) / millions,
    machineSecondsPerMillion: busy / millions,
  };
}

/** In microseconds; one that was not answered counts as long as it was waited for (echo.c). */
export interface RoundTrips {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly count: number;
  readonly lost: number;
}

export interface AskOptions {
  /** Before they count. */
  readonly warmUpMs: number;
  /** After each answer. */
  readonly pauseUs?: number;
  /** Both ends on one processor. */
  readonly together?: boolean;
}

/** One after another. */
export async function roundTrips(subject: Subject, seconds: number, options: AskOptions): Promise<RoundTrips> {
  const port = echoPorts[options.together ? 'together' : 'apart'];
  const pause = options.pauseUs === undefined ? [] : [String(options.pauseUs)];
  const args = ['ask', subject.target, String(port), String(options.warmUpMs), String(seconds), ...pause];
  const text = await run(subject.lab.at('a', [program('echo'), ...args]), {}, seconds * 1000 + graceMs);
  return JSON.parse(text) as RoundTrips;
}
