/** What two readings of the daemon's Status say of the time between them: rates for each peer and each reason of a drop. */
import { noteCounters } from '../admin/counter-metrics.js';
import { apiVersion, type Status, type StatusPeer } from '../agent/status.js';
import { stateOf, type PeerState } from './peer-view.js';

export interface TrafficRate {
  readonly packetsPerSecond: number;
  readonly bitsPerSecond: number;
}

export interface PeerRate {
  readonly subnet: string;
  readonly hostName: string | null;
  readonly state: PeerState;
  readonly received: TrafficRate;
  readonly sent: TrafficRate;
  /** Median of the last round trips. */
  readonly rttMs: number | null;
  readonly loss: number | null;
}

export interface DropRate {
  /** As native/shared/counters.h names it. */
  readonly counter: string;
  readonly perSecond: number;
  readonly total: number;
}

export interface Rates {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'Rates';
  readonly time: string;
  /** Between the two readings. */
  readonly seconds: number;
  /** Of inner packets, over all peers. */
  readonly received: TrafficRate;
  readonly sent: TrafficRate;
  /** Those that count now, the most first. */
  readonly drops: readonly DropRate[];
  /** All peers, the most traffic first. */
  readonly peers: readonly PeerRate[];
}

interface Traffic {
  readonly packets: number;
  readonly bytes: number;
}

/** @param seconds between the readings, above 0 */
export function ratesOf(before: Status, now: Status, seconds: number, time: Date): Rates {
  const [then, counters] = [before.datapath?.counters ?? {}, now.datapath?.counters ?? {}];
  const sums = (direction: 'rx' | 'tx', from: Readonly<Record<string, number>>): Traffic => {
    return { packets: from[`${direction}_ok`] ?? 0, bytes: from[`${direction}_bytes`] ?? 0 };
  };
  const earlier = new Map(before.peers.map(peer => [keyOf(peer), peer]));
  const peers = now.peers.map(peer => peerRate(earlier.get(keyOf(peer)), peer, seconds));
  return {
    apiVersion,
    kind: 'Rates',
    time: time.toISOString(),
    seconds,
    received: rateOf(sums('rx', then), sums('rx', counters), seconds),
    sent: rateOf(sums('tx', then), sums('tx', counters), seconds),
    drops: Object.entries(counters)
      .filter(([name]) => isDrop(name))
      .map(([counter, total]) => ({ counter, perSecond: grown(then[counter], total) / seconds, total }))
      .filter(({ perSecond }) => perSecond > 0)
      .sort((a, b) => b.perSecond - a.perSecond),
    peers: peers.sort((a, b) => trafficOf(b) - trafficOf(a)),
  };
}

/** Whether a counter counts packets that were not passed on. */
export function isDrop(counter: string): boolean {
  return /^[rt]x_/.test(counter) && !/_(ok|bytes)$/.test(counter) && !noteCounters.has(counter);
}

function keyOf({ subnet, nodeId }: StatusPeer): string {
  return `${subnet} ${nodeId ?? ''}`;
}

function trafficOf({ sent, received }: PeerRate): number {
  return sent.bitsPerSecond + received.bitsPerSecond;
}

function peerRate(before: StatusPeer | undefined, peer: StatusPeer, seconds: number): PeerRate {
  const { subnet, hostName, watched } = peer;
  const none: Traffic = { packets: 0, bytes: 0 };
  // What a new peer has sent before the first look is no rate.
  const rate = (direction: 'sent' | 'received'): TrafficRate =>
    rateOf(before?.watched?.[direction] ?? watched?.[direction] ?? none, watched?.[direction] ?? none, seconds);
  return {
    subnet,
    hostName,
    state: stateOf(peer),
    received: rate('received'),
    sent: rate('sent'),
    rttMs: watched?.roundTripMs?.p50 ?? null,
    loss: watched?.loss ?? null,
  };
}

function rateOf(before: Traffic, now: Traffic, seconds: number): TrafficRate {
  return {
    packetsPerSecond: grown(before.packets, now.packets) / seconds,
    bitsPerSecond: (8 * grown(before.bytes, now.bytes)) / seconds,
  };
}

/** A new data process counts from zero. */
function grown(before: number | undefined, now: number): number {
  return before === undefined ? 0 : before > now ? now : now - before;
}
