/**
 * Watches the peers: reads what the data process has measured, asks those who answer no probes by ICMP echo, looks at the
 * kernel's neighbours and at ICMP errors for the cause of a silence, and judges. Only a peer of which something new is
 * known, or that owes an answer, is judged at each look; of the others, those of whom time alone changes the verdict, in turn.
 */
import type { Clock } from '../lib/clock.js';
import { pauseUntilRung, Wake } from '../lib/wake.js';
import type { Datapath, Stranger } from '../datapath/datapath.js';
import { messageOf } from '../lib/errors.js';
import type { HostNetwork } from '../host/host.js';
import type { Log } from '../lib/log.js';
import { prefixKey, type Ipv4, type PrefixKey } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import type { Node } from '../model/node.js';
import type { TunnelPeer } from '../model/plan.js';
import { PeerLog } from './peer-log.js';
import { describeStranger, problemsOfPeers } from './peer-problems.js';
import type { OpenPeerIcmp, PeerIcmp, PeerIcmpListener } from './ports.js';
import type { PeerWatched } from './status.js';
import type { PeerCounts } from './summary.js';
import { WatchedPeer, type Others } from './watched-peer.js';

export interface PeerWatchPorts {
  readonly datapath: Pick<Datapath, 'measure' | 'strangers'>;
  readonly host: Pick<HostNetwork, 'deadNeighbour'>;
  readonly openIcmp: OpenPeerIcmp;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is watched; equal parts are the same objects. */
export interface WatchScope {
  readonly tunnel: readonly TunnelPeer[];
  readonly leases: readonly Lease[];
  readonly node: Node;
  /** Bytes of the longest inner packet of the tunnel. */
  readonly mtu: number;
}

const firstLookMs = 1_000;
/** Without a peer there are only strangers to see. */
const aloneMs = 10_000;
/**
 * A look that takes long is followed by a rest of so many times that, `mostMs` at most: 0.1 % of the time, and 2 % while a
 * peer owes an answer, whose silence is told by looks that follow each other.
 */
const rest = { factor: 1_000, owingFactor: 50, mostMs: 4_000 } as const;
/** Peers of whom time alone can change what is said: so many are judged at each look. */
const turn = 100;
/** At most so many neighbours are looked up at each look, each once in this time. */
const neighbours = { most: 10, everyMs: 3_000 } as const;
/** Who answers no probes and was not heard for so long is asked by echo. */
const quietMs = 3_000;
/** Without a need for so long the ICMP socket is closed. */
const icmpIdleMs = 60_000;
/** A stranger is told for so long. */
const strangerMs = 60_000;

type States = Record<PeerWatched['state'], number>;

interface Census {
  /** Peers heard lately, and active ones that owe an answer and were not. */
  heard: number;
  unheard: number;
  readonly pending: WatchedPeer[];
  readonly active: WatchedPeer[];
  /** How many answer no probes and were not heard just now, and of how many of them time can change what is said. */
  quiet: number;
  fading: number;
  /** Those that are asked by echo before the other quiet ones. */
  readonly owing: WatchedPeer[];
}

export class PeerWatch {
  readonly #ports: PeerWatchPorts;
  readonly #scope: () => WatchScope | undefined;
  readonly #log: PeerLog;
  #seen: WatchScope | undefined;
  #peers: readonly WatchedPeer[] = [];
  /** In the order of the measurements. */
  #measured: (WatchedPeer | undefined)[] = [];
  #lookedMs = -Infinity;
  #byIdentity: ReadonlyMap<string, WatchedPeer> = new Map();
  #bySubnet: ReadonlyMap<PrefixKey, WatchedPeer> = new Map();
  /** By the address of the host and by the first one behind it. */
  #byAddress = new Map<Ipv4, readonly WatchedPeer[]>();
  #states: States | undefined;
  #strangers: readonly Stranger[] = [];
  #problems: readonly string[] = [];
  /** Ends the long rest without peers. */
  readonly #peersCame = new Wake();
  readonly #judged = new Round<WatchedPeer>();
  readonly #askedHosts = new Round<WatchedPeer>();
  readonly #askedOwing = new Round<WatchedPeer>();
  readonly #askedQuiet = new Round<WatchedPeer>();
  #icmp: PeerIcmp | undefined;
  #icmpNeededMs = -Infinity;
  /** Since the last look. */
  readonly #answeredEcho = new Set<WatchedPeer>();

  /** @param scope undefined while nothing can be watched */
  constructor(ports: PeerWatchPorts, scope: () => WatchScope | undefined) {
    this.#ports = ports;
    this.#scope = scope;
    this.#log = new PeerLog(ports.log);
  }

  /** By state; undefined before the first look. */
  get states(): PeerCounts['states'] {
    return this.#states;
  }

  /** Silent peers that matter now, narrow paths, and strangers while somebody is silent. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Strangers while nobody is silent: scanners come by. */
  get warnings(): readonly string[] {
    if (this.#states === undefined || this.#states.silent > 0) return [];
    return this.#strangers.map(stranger => describeStranger(stranger, []));
  }

  describe(lease: Lease): PeerWatched | null {
    return this.#bySubnet.get(prefixKey(lease.subnet))?.describe(this.#ports.clock.now()) ?? null;
  }

  /** Ends by abort only. */
  async run(signal: AbortSignal): Promise<never> {
    try {
      for (;;) {
        const beganMs = performance.now();
        const isOwing = await this.look();
        const longMs = (performance.now() - beganMs) * (isOwing ? rest.owingFactor : rest.factor);
        const restMs = this.#peers.length === 0 ? aloneMs : Math.max(firstLookMs, Math.min(rest.mostMs, longMs));
        await pauseUntilRung(this.#ports.clock, restMs, this.#peersCame, signal);
      }
    } finally {
      this.#icmp?.close();
      this.#icmp = undefined;
    }
  }

  /** There may be other peers. */
  ring(): void {
    if (this.#peers.length === 0) this.#peersCame.ring();
  }

  /** @returns whether a peer owes an answer */
  async look(): Promise<boolean> {
    const scope = this.#scope();
    if (!scope) return false;
    const nowMs = this.#ports.clock.now();
    if (scope.tunnel !== this.#seen?.tunnel || scope.leases !== this.#seen.leases) this.#take(scope, nowMs);
    this.#seen = scope;
    const due = this.#measure(nowMs);
    const census = this.#census(nowMs);
    for (const peer of [...census.pending, ...this.#answeredEcho]) due.add(peer);
    this.#answeredEcho.clear();
    this.#openIcmpWhenNeeded(census, nowMs);
    await this.#lookAtNeighbours(census.pending, nowMs);
    this.#askEchoes(census, nowMs);
    const fading = Math.min(turn, census.fading);
    for (const peer of this.#judged.next(this.#peers, fading, peer => isFading(peer, nowMs))) due.add(peer);
    this.#judge(due, census, scope, nowMs);
    // A host that sent before its lease was known here is none.
    this.#strangers = this.#ports.datapath
      .strangers()
      .filter(({ address, lastMs }) => nowMs - lastMs <= strangerMs && !this.#byAddress.has(address));
    this.#problems = problemsOfPeers(census.active, census.pending, this.#strangers, { mtu: scope.mtu, nowMs });
    return census.pending.length > 0;
  }

  /** A peer of the same identity stays what it was, wherever its host is now. */
  #take({ tunnel, leases }: WatchScope, nowMs: number): void {
    const bySubnet = new Map(leases.map(lease => [prefixKey(lease.subnet), lease]));
    const found = new Map<PrefixKey, WatchedPeer>();
    this.#peers = tunnel.flatMap(row => {
      const [prefix] = row.prefixes;
      const key = prefix && prefixKey(prefix);
      const lease = key && bySubnet.get(key);
      if (!lease) return [];
      const before = this.#byIdentity.get(row.identity);
      const stays = before?.tunnel.endpoint === row.endpoint && before.tunnel.features === row.features;
      const peer = stays ? before : new WatchedPeer(row, lease, nowMs);
      peer.lease = lease;
      found.set(key, peer);
      return [peer];
    });
    this.#bySubnet = found;
    this.#answeredEcho.clear();
    this.#measured = [];
    this.#states = undefined;
    this.#byAddress = new Map();
    for (const peer of this.#peers)
      for (const address of [peer.tunnel.endpoint, peer.inside])
        this.#byAddress.set(address, [...(this.#byAddress.get(address) ?? []), peer]);
    this.#byIdentity = new Map(this.#peers.map(peer => [peer.tunnel.identity, peer]));
  }

  /** @returns the peers of which something new is known */
  #measure(nowMs: number): Set<WatchedPeer> {
    const due = new Set<WatchedPeer>();
    const tookMs = nowMs - this.#lookedMs;
    this.#lookedMs = nowMs;
    let i = 0;
    for (const one of this.#ports.datapath.measure()) {
      const last = this.#measured[i];
      const peer = last?.tunnel.identity === one.identity ? last : this.#byIdentity.get(one.identity);
      this.#measured[i++] = peer;
      if (peer?.take(one, nowMs, tookMs)) due.add(peer);
    }
    return due;
  }

  /** The only pass over all peers of a look besides reading the measurements; it makes no object for who is at rest. */
  #census(nowMs: number): Census {
    const census: Census = { heard: 0, unheard: 0, pending: [], active: [], quiet: 0, fading: 0, owing: [] };
    for (const peer of this.#peers) {
      const isHeard = peer.isHeard(nowMs);
      const isActive = peer.isActive(nowMs);
      if (isHeard) census.heard++;
      else if (isActive && peer.isUnheard(nowMs)) census.unheard++;
      if (isActive) census.active.push(peer);
      if (peer.isPending(nowMs)) census.pending.push(peer);
      if (!isQuiet(peer, nowMs)) continue;
      census.quiet++;
      if (isFading(peer, nowMs)) census.fading++;
      if (peer.owesEcho(nowMs)) census.owing.push(peer);
    }
    return census;
  }

  #judge(due: ReadonlySet<WatchedPeer>, { heard, unheard }: Census, { node }: WatchScope, nowMs: number): void {
    const states = this.#states ?? this.#count();
    const self = { address: node.interface.address, device: node.interface.name };
    for (const peer of due) {
      const others: Others = {
        self,
        othersHeard: heard - (peer.isHeard(nowMs) ? 1 : 0),
        othersSilent: unheard - (peer.isUnheard(nowMs) && peer.isActive(nowMs) ? 1 : 0),
      };
      const before = peer.verdict;
      const isNews = peer.judge(nowMs, others);
      states[before.state]--;
      states[peer.verdict.state]++;
      if (isNews) this.#log.changed(peer, before, nowMs);
    }
    this.#log.tick(nowMs);
    this.#states = states;
  }

  #count(): States {
    const states: States = { up: 0, silent: 0, unknown: 0, unwatched: 0 };
    for (const { verdict } of this.#peers) states[verdict.state]++;
    return states;
  }

  async #lookAtNeighbours(pending: readonly WatchedPeer[], nowMs: number): Promise<void> {
    const due = pending.filter(peer => nowMs - peer.neighbourAskedMs >= neighbours.everyMs && !peer.isHeard(nowMs));
    for (const peer of due.slice(0, neighbours.most)) {
      peer.neighbourAskedMs = nowMs;
      try {
        peer.neighbour = await this.#ports.host.deadNeighbour(peer.tunnel.endpoint);
      } catch (error) {
        peer.neighbour = undefined;
        this.#ports.log.debug('peer.neighbour', messageOf(error));
      }
    }
  }

  /** Its errors are heard while a peer owes an answer, and echoes are sent where probes are not answered. */
  #openIcmpWhenNeeded({ pending, quiet }: Census, nowMs: number): void {
    if (pending.length + quiet > 0) {
      this.#icmpNeededMs = nowMs;
      this.#icmp ??= this.#ports.openIcmp({
        refused: (to, port, refusal) => this.#onRefusal(to, port, refusal),
        answered: from => this.#onEcho(from),
      });
    } else if (nowMs - this.#icmpNeededMs > icmpIdleMs) {
      this.#icmp?.close();
      this.#icmp = undefined;
    }
  }

  #onRefusal(...[to, port, refusal]: Parameters<PeerIcmpListener['refused']>): void {
    const atMs = this.#ports.clock.now();
    for (const peer of this.#byAddress.get(to) ?? []) if (peer.tunnel.port === port) peer.icmp = { ...refusal, atMs };
  }

  #onEcho(from: Ipv4): void {
    const nowMs = this.#ports.clock.now();
    for (const peer of this.#byAddress.get(from) ?? []) {
      if (peer.tunnel.endpoint === from) peer.hostAnswered(nowMs);
      else peer.echoAnswered(nowMs);
      this.#answeredEcho.add(peer);
    }
  }

  /**
   * One a look at most: through the tunnel to who answers no probes, first where it matters; else to the host of one that is not
   * heard, outside the tunnel.
   */
  #askEchoes({ owing, quiet, pending }: Census, nowMs: number): void {
    const [inside] =
      owing.length > 0
        ? this.#askedOwing.next(owing, 1)
        : this.#askedQuiet.next(this.#peers, Math.min(1, quiet), peer => isQuiet(peer, nowMs));
    if (inside) {
      if (this.#icmp?.ask(inside.inside)) inside.askedEcho(nowMs);
      return;
    }
    const unheard = pending.filter(peer => peer.isUnheard(nowMs));
    const [host] = this.#askedHosts.next(unheard, 1);
    if (host && this.#icmp?.ask(host.tunnel.endpoint)) host.askedHost();
  }
}

/** Answers no probes and was not heard just now. */
function isQuiet(peer: WatchedPeer, nowMs: number): boolean {
  return !peer.probed && !peer.isHeard(nowMs, quietMs);
}

/** A quiet peer that was up, or of which there is evidence: both grow old. */
function isFading(peer: WatchedPeer, nowMs: number): boolean {
  const { state, reason } = peer.verdict;
  return (state === 'up' || reason !== null) && isQuiet(peer, nowMs);
}

/** Goes round a list that may change, some places at each call. */
class Round<T> {
  #at = 0;

  /** @returns the next items that fit, at most so many and none twice */
  next(items: readonly T[], most: number, fits: (item: T) => boolean = () => true): readonly T[] {
    const found: T[] = [];
    for (let seen = 0; found.length < most && seen < items.length; seen++) {
      const item = items[this.#at++ % items.length];
      if (item !== undefined && fits(item)) found.push(item);
    }
    return found;
  }
}
