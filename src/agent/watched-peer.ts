/** What the watch keeps of one peer: the evidence as it comes, and the verdict. */
import type { PeerMeasurement } from '../datapath/datapath.js';
import { bridgeAddress, formatIpv4, type Ipv4 } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import { probeFeature, type TunnelPeer } from '../model/plan.js';
import { judgePeer, type DeadNeighbour, type IcmpRefusal, type PeerEvidence, type Verdict } from './judge-peer.js';
import type { PeerWatched } from './status.js';

/** A peer that something was sent to within this time is one that matters now. */
const activeMs = 60_000;
/** Who answered no echo so far: causes of that are looked for from this question on, for so long after it. */
const neverAnswered = { questions: 3, ms: 15_000 } as const;
/** A search for the path MTU tries a length for one second: a value that stays longer is its result. */
const searchMs = 3_000;
/** A host that leaves so many echo requests without an answer does not answer. */
const hostQuestions = 3;
/** Another cause of the same silence is told after so long. */
const anewMs = 30_000;
/** Who was heard within this time, and after a question without an answer, is heard. */
const heardLatelyMs = 15_000;
/** A rate is shown for so long after the last look that found traffic. */
const rateMs = 5_000;
const unknownPath: PeerWatched['pathMtu'] = { out: null, in: null };
const nothing = { packets: 0, bytes: 0 };
const none: Verdict = { state: 'unknown', kind: undefined, reason: null, nextStep: null };

interface Rates {
  readonly atMs: number;
  readonly sent: number;
  readonly received: number;
}

/** What is known of the others when one is judged. */
export type Others = Pick<PeerEvidence, 'othersHeard' | 'othersSilent' | 'self'>;

export class WatchedPeer {
  readonly tunnel: TunnelPeer;
  readonly probed: boolean;
  /** The first host address behind it. */
  readonly inside: Ipv4;
  verdict: Verdict = none;
  /** CLOCK_BOOTTIME ms, as all times here. */
  sinceMs: number;
  neighbour: DeadNeighbour | undefined;
  neighbourAskedMs = -Infinity;
  icmp: IcmpRefusal | undefined;
  /** Of the host, by echo outside the tunnel: the last answer, and questions since without one. */
  #hostAnsweredMs = -Infinity;
  #hostAsked = 0;
  /** The last answer to an echo through the tunnel. */
  echoAnsweredMs: number | undefined;
  /** Its lease as it is now. */
  lease: Lease;
  #measured: PeerMeasurement | undefined;
  #rates: Rates | undefined;
  /** When a packet of others than the watch went to it. */
  #sentMs = -Infinity;
  /** Echo requests that count as sent packets and have not been seen in the measurement. */
  #ownPackets = 0;
  #askedEchoMs = -Infinity;
  #changedMs = -Infinity;
  #pathChangedMs = -Infinity;
  #unanswered = 0;
  #unansweredSinceMs: number | undefined;
  /** Questions that had been asked at the last answer. */
  #askedAtAnswer = 0;

  constructor(tunnel: TunnelPeer, lease: Lease, nowMs: number) {
    this.tunnel = tunnel;
    this.probed = (tunnel.features & probeFeature) !== 0;
    this.inside = bridgeAddress(lease.subnet);
    this.lease = lease;
    this.sinceMs = nowMs;
    if (!this.probed) this.verdict = { ...none, state: 'unwatched' };
  }

  get measured(): PeerMeasurement | undefined {
    return this.#measured;
  }

  /** Bytes of the longest inner packet that reaches the peer, when that is less than the tunnel carries. */
  narrowTo(mtu: number, nowMs: number): number | undefined {
    const out = this.#measured?.pathMtuOut;
    const isSettled = nowMs - this.#pathChangedMs >= searchMs;
    const isNarrow = out !== undefined && out < mtu && isSettled;
    return isNarrow && this.verdict.state === 'up' && this.isActive(nowMs) ? out : undefined;
  }

  /** Owes an answer, so that time alone can change the verdict. Who never answered an echo owes none for long. */
  isPending(nowMs: number): boolean {
    if (this.verdict.state === 'silent') return true;
    if (this.#unanswered === 0) return false;
    if (this.probed || this.owesEcho(nowMs)) return true;
    return this.#unanswered >= neverAnswered.questions && nowMs - this.#askedEchoMs <= neverAnswered.ms;
  }

  /** Is to be asked by echo before others: it matters now, or answered before and does not. */
  owesEcho(nowMs: number): boolean {
    return this.isActive(nowMs) || (this.#unanswered > 0 && this.echoAnsweredMs !== undefined);
  }

  isActive(nowMs: number): boolean {
    return nowMs - this.#sentMs <= activeMs;
  }

  isHeard(nowMs: number, withinMs: number = heardLatelyMs): boolean {
    const lastMs = this.#lastHeardMs;
    if (lastMs === undefined || nowMs - lastMs > withinMs) return false;
    return this.#unansweredSinceMs === undefined || lastMs > this.#unansweredSinceMs;
  }

  /** Something waits for an answer, nothing was heard lately, and nobody has said why. */
  isUnheard(nowMs: number): boolean {
    return this.#unanswered > 0 && !this.isHeard(nowMs) && !this.isExplained;
  }

  /** The kernel or a router has told the cause, which therefore is not this host. */
  get isExplained(): boolean {
    const { kind } = this.verdict;
    return kind === 'no-arp' || kind === 'refused' || kind === 'icmp';
  }

  get #lastHeardMs(): number | undefined {
    const heardMs = this.#measured?.heardMs;
    const answeredMs = this.#answeredMs;
    return heardMs === undefined || (answeredMs !== undefined && answeredMs > heardMs) ? answeredMs : heardMs;
  }

  get #answeredMs(): number | undefined {
    return this.probed ? this.#measured?.answeredMs : this.echoAnsweredMs;
  }

  /**
   * Takes a measurement.
   * @param tookMs since the look before, which found the last one, or nothing new
   * @returns whether it says anything new
   */
  take(now: PeerMeasurement, nowMs: number, tookMs: number): boolean {
    const before = this.#measured;
    if (now === before) return false;
    if (before && isSame(now, before)) {
      // Its engine may be another one.
      this.#measured = now;
      return false;
    }
    if (now.pathMtuOut !== before?.pathMtuOut) this.#pathChangedMs = nowMs;
    this.#measured = now;
    this.#takeTraffic(now, before, nowMs, tookMs);
    if (this.probed) this.#takeQuestions(now, before);
    return true;
  }

  #takeTraffic(now: PeerMeasurement, before: PeerMeasurement | undefined, nowMs: number, tookMs: number): void {
    const sent = now.sent.packets - (before?.sent.packets ?? 0);
    // Another data process counts from zero.
    const isContinued = before !== undefined && sent >= 0 && now.received.packets >= before.received.packets;
    const others = (isContinued ? sent : now.sent.packets) - this.#ownPackets;
    this.#ownPackets = 0;
    if (others > 0 && now.sentMs !== undefined) this.#sentMs = now.sentMs;
    if (!isContinued || tookMs <= 0) return;
    const seconds = tookMs / 1000;
    this.#rates = {
      atMs: nowMs,
      sent: ((now.sent.bytes - before.sent.bytes) * 8) / seconds,
      received: ((now.received.bytes - before.received.bytes) * 8) / seconds,
    };
  }

  #takeQuestions(now: PeerMeasurement, before: PeerMeasurement | undefined): void {
    const isContinued = before !== undefined && now.asked >= before.asked;
    if (!isContinued || now.answeredMs !== before.answeredMs) {
      const isAnswered = now.answeredMs !== undefined && now.answeredMs >= (now.askedMs ?? 0);
      // An answer between two looks is that to the question before the last one.
      this.#askedAtAnswer = now.answeredMs === undefined ? 0 : isAnswered ? now.asked : now.asked - 1;
      this.#unansweredSinceMs = undefined;
    }
    this.#unanswered = now.asked - this.#askedAtAnswer;
    if (this.#unanswered <= 0) this.#unansweredSinceMs = undefined;
    else this.#unansweredSinceMs ??= now.askedMs;
  }

  /** An echo request is sent through the tunnel now. */
  askedEcho(nowMs: number): void {
    this.#ownPackets++;
    this.#unanswered++;
    this.#askedEchoMs = nowMs;
    this.#unansweredSinceMs ??= nowMs;
  }

  echoAnswered(nowMs: number): void {
    this.echoAnsweredMs = nowMs;
    this.#unanswered = 0;
    this.#unansweredSinceMs = undefined;
  }

  /** An echo request is sent to its host, outside the tunnel. */
  askedHost(): void {
    this.#hostAsked++;
  }

  hostAnswered(nowMs: number): void {
    this.#hostAnsweredMs = nowMs;
    this.#hostAsked = 0;
  }

  #hostAnswers(nowMs: number): boolean | undefined {
    // Answers of before the silence say nothing.
    const silentMs = this.#unansweredSinceMs ?? nowMs;
    if (this.#hostAnsweredMs > silentMs && nowMs - this.#hostAnsweredMs <= heardLatelyMs) return true;
    return this.#hostAsked >= hostQuestions ? false : undefined;
  }

  /** @returns whether this is to be told: another state, or another cause of a silence */
  judge(nowMs: number, others: Others): boolean {
    const before = this.verdict;
    this.verdict = judgePeer(this.#evidence(nowMs, others));
    const { state, kind } = this.verdict;
    if (state !== before.state) this.sinceMs = nowMs;
    if (state === before.state && (kind === before.kind || nowMs - this.#changedMs < anewMs)) return false;
    this.#changedMs = nowMs;
    return true;
  }

  #evidence(nowMs: number, others: Others): PeerEvidence {
    const { tunnel, lease, neighbour, icmp } = this;
    return {
      ...others,
      nowMs,
      address: tunnel.endpoint,
      port: tunnel.port,
      hostName: lease.hostName,
      inside: this.inside,
      probed: this.probed,
      heardMs: this.#measured?.heardMs,
      heardByKernelMs: this.#measured?.heardByKernelMs,
      answeredMs: this.#answeredMs,
      unanswered: { count: this.#unanswered, sinceMs: this.#unansweredSinceMs },
      neighbour,
      icmp,
      hostAnswers: this.#hostAnswers(nowMs),
    };
  }

  describe(nowMs: number): PeerWatched {
    const { state, reason, nextStep } = this.verdict;
    const m = this.#measured;
    const heardMs = Math.max(m?.heardMs ?? -Infinity, m?.heardByKernelMs ?? -Infinity);
    const rates = this.#rates && nowMs - this.#rates.atMs <= rateMs ? this.#rates : undefined;
    const seen = m?.addressSeen;
    // Nobody asks for the path of a pair without traffic, so what is known of it grows old.
    const out = this.isActive(nowMs) ? (m?.pathMtuOut ?? null) : null;
    return {
      state,
      stateSeconds: Math.round((nowMs - this.sinceMs) / 1000),
      reason,
      nextStep,
      heardSeconds: heardMs === -Infinity ? null : Math.max(0, Math.round((nowMs - heardMs) / 1000)),
      roundTripMs: m?.roundTripUs
        ? { p50: m.roundTripUs.p50 / 1000, p99: m.roundTripUs.p99 === undefined ? null : m.roundTripUs.p99 / 1000 }
        : null,
      loss: m?.loss ?? null,
      pathMtu: out === null && m?.pathMtuIn === undefined ? unknownPath : { out, in: m?.pathMtuIn ?? null },
      addressSeen: seen ? `${formatIpv4(seen.address)}:${seen.port}` : null,
      sent: m?.sent ?? nothing,
      received: m?.received ?? nothing,
      sentBitsPerSecond: rates ? Math.round(rates.sent) : m ? 0 : null,
      receivedBitsPerSecond: rates ? Math.round(rates.received) : m ? 0 : null,
      engine: m?.engine ?? 'user',
      engineReason: m?.engineReason ?? null,
    };
  }
}

function isSame(a: PeerMeasurement, b: PeerMeasurement): boolean {
  return (
    a.heardMs === b.heardMs &&
    a.heardByKernelMs === b.heardByKernelMs &&
    a.sentMs === b.sentMs &&
    a.askedMs === b.askedMs &&
    a.answeredMs === b.answeredMs &&
    a.sent.packets === b.sent.packets &&
    a.received.packets === b.received.packets &&
    a.loss === b.loss &&
    a.pathMtuOut === b.pathMtuOut &&
    a.pathMtuIn === b.pathMtuIn
  );
}
