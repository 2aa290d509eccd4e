/**
 * The kernel path while it is on: programs, maps, devices and pairs. When the kernel tells of a change, and each ten seconds,
 * it makes again what is missing. Each second it looks at the pairs that data passes between, asks them, and moves them from
 * one engine to the other (pair.ts). When this process dies the programs go on with what they were told, and no pair moves.
 */
import { randomInt } from 'node:crypto';
import type { Clock } from '../../lib/clock.js';
import { messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native, type NativeKernelPath, type NativeKernelTraffic } from '../../lib/native.js';
import { formatIpv4, formatPrefix, ipv4Number, samePrefix } from '../../model/ip.js';
import { kernelPort, type TunnelPeer } from '../../model/plan.js';
import type { DatapathConfig, PeerMeasurement } from '../datapath.js';
import { KernelDevices, type LinkIndexes } from './kernel-devices.js';
import { askPair, describePair, isQuestionDue, lookAtPair, type PairEvidence } from './pair.js';
import { PairQuestions } from './pair-questions.js';
import { readPairs, writePairs, type KernelPairs } from './pairs-file.js';
import { PublishedPairs, type PublishedPair } from './published-pairs.js';

/** Nanoseconds have 64 bits. */
const deadlineMaxMs = 2 ** 43;
/** Data that is so old makes a pair active no more. */
const activeMs = 10_000;
/** Questions of one second; pairs beyond them wait for the next one. */
const questionsMax = 200;

export interface KernelPathOptions {
  readonly runDir: string;
  /** The name of the tun. */
  readonly device: string;
  readonly config: DatapathConfig;
  readonly clock: Clock;
  readonly log: Log;
  readonly setPersistent: (on: boolean) => boolean;
}

export class KernelPath {
  readonly #runDir: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #programs: NativeKernelPath;
  readonly #devices: KernelDevices;
  readonly #pairs: PublishedPairs;
  readonly #questions: PairQuestions;
  #config: DatapathConfig;
  #indexes: LinkIndexes = { tunIndex: 0, linkIndex: 0 };
  /** In the place of an earlier daemon's, programs without peers or past their deadline would lose packets. */
  #isInstalled = false;
  #hasPeers = false;
  #deadlineMs = 0;
  #isFenced = false;
  #problem: string | undefined;
  /** Pairs that data passes between, or that are being asked. */
  readonly #moving = new Set<PublishedPair>();
  #isFileDue = false;

  /** @throws an Error that names what the kernel lacks, or what stands in the place of the kernel link */
  constructor({ config, ...options }: KernelPathOptions) {
    this.#runDir = options.runDir;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#config = config;
    this.#programs = native().loadKernelPath();
    this.#devices = new KernelDevices({
      device: options.device,
      port: kernelPort,
      programs: this.#programs,
      setPersistent: options.setPersistent,
      onIndexes: indexes => {
        this.#indexes = indexes;
        this.#configure();
      },
    });
    const random = (): number => randomInt(2 ** 32);
    const resumed = readPairs(options.runDir)?.pairs ?? new Map();
    this.#pairs = new PublishedPairs({ maps: this.#programs, local: config.bindAddress, resumed, random });
    this.#questions = new PairQuestions(config.subnet);
    try {
      this.#devices.ensureLink();
    } catch (error) {
      this.#programs.close();
      throw error;
    }
  }

  /** Why nothing goes by the kernel; undefined when all is well. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Peers whose packets go by the kernel. */
  get peers(): number {
    return this.#pairs.inKernel;
  }

  /** Whether `look` and `check` may find something each second: a pair that moves, or the end of a problem. */
  get isBusy(): boolean {
    return this.#pairs.size > 0 || this.#problem !== undefined;
  }

  /** Whether it can go on with this configuration; else another path takes its place. */
  fits(config: DatapathConfig): boolean {
    const [a, b] = [this.#config, config];
    return samePrefix(a.subnet, b.subnet) && samePrefix(a.network, b.network) && a.bindAddress === b.bindAddress;
  }

  setConfig(config: DatapathConfig): void {
    this.#config = config;
    if (this.#isInstalled) this.#configure();
  }

  setDeadline(bootMs: number): void {
    this.#deadlineMs = bootMs;
    this.#programs.setDeadline(BigInt(Math.trunc(Math.min(bootMs, deadlineMaxMs))) * 1_000_000n);
    this.#installWhenReady();
  }

  setFence(lost: boolean): void {
    this.#isFenced = lost;
    this.#programs.setFence(lost);
    // The programs of an earlier daemon do not know of it.
    if (lost && !this.#isInstalled) this.#install();
  }

  publish(peers: readonly TunnelPeer[], numbers: ReadonlyMap<string, number>): void {
    const lengths = this.#pairs.lengths.join();
    this.#pairs.publish(peers, numbers);
    for (const one of this.#pairs.all()) if (one.pair.mustAnswer) this.#moving.add(one);
    for (const one of this.#moving) if (one.isGone) this.#moving.delete(one);
    this.#hasPeers = true;
    if (this.#isInstalled && this.#pairs.lengths.join() !== lengths) this.#configure();
    this.#installWhenReady();
  }

  /** Makes again what is missing of filters and links. */
  check(): void {
    if (!this.#isInstalled) return;
    try {
      const made = this.#devices.ensure();
      if (made.length > 0) this.#log.warn('kernel-path.repaired', `made again: ${made.join(', ')}`);
      if (this.#problem !== undefined) this.#log.info('kernel-path.on', `UDP ${kernelPort} receives again`);
      this.#problem = undefined;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whatever link that is: packets do not wait for `check`, which makes it again. */
  linkDown(index: number): void {
    this.#devices.linkDown(index);
  }

  /** @param measured what user space measured; the same objects for peers of which nothing has changed */
  look(measured: readonly PeerMeasurement[]): void {
    const nowMs = this.#clock.now();
    this.#takeTraffic(nowMs);
    for (const [place, base] of measured.entries()) this.#takeMeasurement(place, base, nowMs);
    // What may not send is not answered, and that says nothing of the path.
    if (!this.#isInstalled || this.#problem !== undefined || this.#isFenced || this.#deadlineMs <= nowMs) return;
    const due: { readonly one: PublishedPair; readonly evidence: PairEvidence }[] = [];
    for (const one of this.#moving) {
      const evidence = evidenceOf(one, nowMs);
      if (one.peer.kernel) this.#move(one, evidence);
      if (!one.peer.kernel || (!evidence.isActive && !one.pair.mustAnswer)) this.#moving.delete(one);
      else if (isQuestionDue(one.pair, evidence)) due.push({ one, evidence });
    }
    if (due.length > 0 && this.#questions.ready()) this.#ask(due, nowMs);
    this.#keepPairs();
  }

  /** What both engines measured, as one. */
  merge(measured: readonly PeerMeasurement[]): readonly PeerMeasurement[] {
    const nowMs = this.#clock.now();
    return measured.map((base, place) => {
      const one = this.#pairs.at(place, base.identity);
      return one?.peer.kernel ? mergeOnce(base, one, this.#reasonOf(one, nowMs)) : base;
    });
  }

  counters(): Readonly<Record<string, number>> {
    return this.#programs.counters();
  }

  /** The devices stay, and the programs go on. */
  close(): void {
    this.#questions.close();
    this.#programs.close();
  }

  #installWhenReady(): void {
    if (!this.#isInstalled && this.#hasPeers && this.#deadlineMs > this.#clock.now()) this.#install();
  }

  #install(): void {
    this.#isInstalled = true;
    this.#isFileDue = true;
    try {
      this.#devices.ensure();
      this.#log.info('kernel-path.on', `the kernel engine receives on UDP ${kernelPort}`);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#problem === undefined)
      this.#log.warn('kernel-path.failed', `${messageOf(error)}; packets go by user space`);
    this.#problem = messageOf(error);
    this.#pairs.toUser();
  }

  #configure(): void {
    const { network, subnet, bindAddress, vni, checkSource, checkDestination } = this.#config;
    const bits = native().limits;
    this.#programs.configure({
      network: ipv4Number(network.base),
      networkLength: network.length,
      subnet: ipv4Number(subnet.base),
      subnetLength: subnet.length,
      vni,
      ...this.#indexes,
      local: ipv4Number(bindAddress),
      flags: (checkSource ? 0 : bits.flagNoSourceCheck) | (checkDestination ? 0 : bits.flagNoDestinationCheck),
      lengths: this.#pairs.lengths,
    });
  }

  #takeTraffic(nowMs: number): void {
    for (const row of this.#programs.traffic()) {
      const one = this.#pairs.numbered(row.peer);
      if (!one || isSameTraffic(row, one.traffic)) continue;
      one.traffic = row;
      this.#noteData(one, nowMs);
    }
  }

  #takeMeasurement(place: number, base: PeerMeasurement, nowMs: number): void {
    const one = this.#pairs.at(place, base.identity);
    if (!one || one.base === base) return;
    const isFirst = one.base === undefined;
    one.base = base;
    // What was counted before this daemon came says nothing of now.
    if (isFirst) one.packets = packetsOf(one);
    this.#noteData(one, isFirst ? (base.sentMs ?? -Infinity) : nowMs, isFirst);
  }

  #noteData(one: PublishedPair, atMs: number, isNews = false): void {
    const packets = packetsOf(one);
    if (packets === one.packets && !isNews) return;
    one.packets = packets;
    one.activeMs = Math.max(one.activeMs, atMs);
    this.#moving.add(one);
  }

  #move(one: PublishedPair, evidence: PairEvidence): void {
    const before = one.pair;
    this.#pairs.setPair(one, lookAtPair(before, evidence));
    const { engine } = one.pair;
    if (engine === before.engine) return;
    this.#isFileDue = true;
    const reason = this.#reasonOf(one, evidence.nowMs);
    const how = reason === undefined ? 'by the kernel' : `by user space: ${reason}`;
    const text = `packets to ${formatPrefix(one.prefix)} via ${formatIpv4(one.peer.endpoint)} go ${how}`;
    this.#log.info('kernel-path.pair', text, { peer: one.peer.identity, engine });
  }

  #ask(due: readonly { readonly one: PublishedPair }[], nowMs: number): void {
    const first = [...due].sort((a, b) => a.one.pair.askedMs - b.one.pair.askedMs).slice(0, questionsMax);
    for (const { one } of first) {
      this.#pairs.setMtu(one, routeMtu(ipv4Number(one.peer.endpoint)));
      this.#pairs.setPair(one, askPair(one.pair, nowMs));
      this.#questions.send({ sequence: one.pair.sequence, opaque: one.opaque }, one.prefix.base);
    }
  }

  #reasonOf({ pair }: PublishedPair, nowMs: number): string | undefined {
    return pair.engine === 'kernel' ? undefined : (this.#problem ?? describePair(pair, kernelPort, nowMs));
  }

  #keepPairs(): void {
    if (!this.#isFileDue) return;
    this.#isFileDue = false;
    try {
      writePairs(this.#runDir, { vni: this.#config.vni, pairs: kernelPairsOf(this.#pairs.all()) });
    } catch (error) {
      this.#log.warn('kernel-path.file', `the next start asks each pair anew: ${messageOf(error)}`);
    }
  }
}

function kernelPairsOf(pairs: Iterable<PublishedPair>): KernelPairs {
  const found = new Map<string, number>();
  for (const { peer, pair, mtu } of pairs) if (pair.engine === 'kernel') found.set(peer.identity, mtu);
  return found;
}

function evidenceOf({ opaque, activeMs: sinceMs, base, traffic }: PublishedPair, nowMs: number): PairEvidence {
  const isAnswered = traffic !== undefined && traffic.answeredNs > 0n && traffic.answeredOpaque === opaque;
  return {
    nowMs,
    isActive: nowMs - sinceMs <= activeMs,
    answeredSequence: isAnswered ? traffic.answeredSequence : undefined,
    userHeardMs: base?.heardMs,
  };
}

/** Bytes of the longest packet to the address by the MTU of its route, or what was learnt of its path. */
function routeMtu(address: number): number {
  try {
    return native().pathMtu(address);
  } catch {
    return 0;
  }
}

function isSameTraffic(a: NativeKernelTraffic, b: NativeKernelTraffic | undefined): boolean {
  return (
    a.sentPackets === b?.sentPackets &&
    a.receivedPackets === b.receivedPackets &&
    a.heardNs === b.heardNs &&
    a.answeredNs === b.answeredNs
  );
}

function packetsOf({ base, traffic }: PublishedPair): number {
  const ofUser = base ? base.sent.packets + base.received.packets : 0;
  return ofUser + (traffic ? traffic.sentPackets + traffic.receivedPackets : 0);
}

/** @returns the same object as before while nothing has changed */
function mergeOnce(base: PeerMeasurement, one: PublishedPair, reason: string | undefined): PeerMeasurement {
  const { merged, traffic, pair } = one;
  if (merged?.base === base && merged.traffic === traffic && merged.pair === pair && merged.reason === reason)
    return merged.result;
  const result = mergeMeasurement(base, one, reason);
  one.merged = { base, traffic, pair, reason, result };
  return result;
}

function mergeMeasurement(base: PeerMeasurement, one: PublishedPair, reason: string | undefined): PeerMeasurement {
  const { traffic } = one;
  const { engine } = one.pair;
  return {
    ...base,
    engine,
    ...(reason !== undefined && { engineReason: reason }),
    ...(traffic && {
      heardByKernelMs: later(undefined, traffic.heardNs),
      sentMs: later(base.sentMs, traffic.sentNs),
      sent: sum(base.sent, traffic.sentPackets, traffic.sentBytes),
      received: sum(base.received, traffic.receivedPackets, traffic.receivedBytes),
    }),
  };
}

type Amount = PeerMeasurement['sent'];

function sum({ packets, bytes }: Amount, morePackets: number, moreBytes: number): Amount {
  return { packets: packets + morePackets, bytes: bytes + moreBytes };
}

function later(ms: number | undefined, ns: bigint): number | undefined {
  return ns === 0n ? ms : Math.max(ms ?? 0, Math.floor(Number(ns / 1000n) / 1000));
}
