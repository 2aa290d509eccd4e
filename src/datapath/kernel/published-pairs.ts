/**
 * The pairs of this host: a row in the maps of the programs for each published peer that has a kernel engine. Rows are
 * told apart by identity and keep the number of the peer. What is the same as before is not written again.
 */
import type { NativeKernelPath, NativeKernelTraffic } from '../../lib/native.js';
import { familyOf, ipv4Number, samePrefix, type AnyPrefix, type Ipv4, type Prefix } from '../../model/ip.js';
import type { TunnelPeer } from '../../model/plan.js';
import type { PeerMeasurement } from '../datapath.js';
import { hashIdentity, identityWords } from '../tun/peer-numbers.js';
import { newPair, type Pair, type PairEngine } from './pair.js';
import type { KernelPairs } from './pairs-file.js';

/** The programs compare an address with so many lengths; peers of others go by user space. */
const lengthsMax = 4;

export type PairMaps = Pick<
  NativeKernelPath,
  'setPeer' | 'setState' | 'recordFlows' | 'clearPeer' | 'setPrefix' | 'removePrefix'
>;

export interface PublishedPair {
  readonly identity: string;
  readonly number: number;
  readonly prefix: Prefix;
  /** 64 random bits that come back in answers, so that nobody answers who heard no question. */
  readonly opaque: bigint;
  /** Its peer was published no more. */
  isGone: boolean;
  peer: TunnelPeer;
  pair: Pair;
  /** Bytes of the longest outer packet by the MTU of the route; 0: not known. */
  mtu: number;
  /** Data packets of both ways and engines, and when they became more. */
  packets: number;
  activeMs: number;
  /** What both engines know of it. */
  base: PeerMeasurement | undefined;
  traffic: NativeKernelTraffic | undefined;
  /** Both as one, and what it was made from. */
  merged: Merged | undefined;
}

export interface Merged {
  readonly base: PeerMeasurement;
  readonly traffic: NativeKernelTraffic | undefined;
  readonly pair: Pair;
  readonly reason: string | undefined;
  readonly result: PeerMeasurement;
}

export interface PublishedPairsOptions {
  readonly maps: PairMaps;
  /** The outer source. */
  readonly local: Ipv4;
  /** Pairs that an earlier daemon had in the kernel; they begin there. */
  readonly resumed: KernelPairs;
  /** Returns 32 random bits. */
  readonly random: () => number;
}

export class PublishedPairs {
  readonly #options: PublishedPairsOptions;
  #resumed: KernelPairs;
  #byIdentity = new Map<string, PublishedPair>();
  readonly #byNumber = new Map<number, PublishedPair>();
  readonly #places: PublishedPair[] = [];
  /** How many pairs have each prefix length. */
  readonly #lengths = new Map<number, number>();
  #numbers: ReadonlyMap<string, number> = new Map();
  #inKernel = 0;

  constructor(options: PublishedPairsOptions) {
    this.#options = options;
    this.#resumed = options.resumed;
  }

  /** Prefix lengths in use, the most frequent first. */
  get lengths(): readonly number[] {
    const sorted = [...this.#lengths].sort(([a, many], [b, more]) => more - many || a - b);
    return sorted.slice(0, lengthsMax).map(([length]) => length);
  }

  get inKernel(): number {
    return this.#inKernel;
  }

  get size(): number {
    return this.#byIdentity.size;
  }

  all(): Iterable<PublishedPair> {
    return this.#byIdentity.values();
  }

  /** @param place at which the identity is asked for again and again */
  at(place: number, identity: string): PublishedPair | undefined {
    const last = this.#places[place];
    if (last?.identity === identity && !last.isGone) return last;
    const found = this.#byIdentity.get(identity);
    if (found) this.#places[place] = found;
    return found;
  }

  numbered(number: number): PublishedPair | undefined {
    return this.#byNumber.get(number);
  }

  /** @param numbers of the peers, by identity; a peer without one has no row; the same map while none has changed */
  publish(peers: readonly TunnelPeer[], numbers: ReadonlyMap<string, number>): void {
    const before = this.#byIdentity;
    const isRenumbered = numbers !== this.#numbers;
    const next = new Map<string, PublishedPair>();
    const come: TunnelPeer[] = [];
    for (const peer of peers) {
      const old = before.get(peer.identity);
      if (!old || (isRenumbered && old.number !== numbers.get(peer.identity)) || !hasPrefix(peer, old)) {
        if (peer.kernel) come.push(peer);
        continue;
      }
      next.set(peer.identity, old);
      if (old.peer !== peer) this.#alter(old, peer);
    }
    // First: another peer may come with the prefix or the number of one that left.
    if (next.size < before.size) for (const [identity, old] of before) if (next.get(identity) !== old) this.#clear(old);
    for (const peer of come) {
      const number = numbers.get(peer.identity);
      const prefix = peer.prefixes.find(isIpv4Prefix);
      if (number !== undefined && prefix) next.set(peer.identity, this.#add(peer, number, prefix));
    }
    this.#byIdentity = next;
    this.#numbers = numbers;
    this.#resumed = new Map();
  }

  setPair(one: PublishedPair, pair: Pair): void {
    const { engine, movesMs } = one.pair;
    const { maps } = this.#options;
    one.pair = pair;
    if (pair.engine !== engine) this.#inKernel += pair.engine === 'kernel' ? 1 : -1;
    if (pair.movesMs !== undefined && movesMs === undefined) maps.recordFlows(one.number);
    // The same state ends the recording.
    else if (pair.engine !== engine || pair.movesMs !== movesMs) maps.setState(one.number, pair.engine);
  }

  setMtu(one: PublishedPair, mtu: number): void {
    if (one.mtu === mtu) return;
    one.mtu = mtu;
    this.#write(one);
  }

  /** Lets all packets go by user space; they are still received by either. */
  toUser(): void {
    for (const one of this.all())
      if (one.pair.engine === 'kernel' || one.pair.movesMs !== undefined) this.setPair(one, this.#begin('user'));
  }

  #begin(engine: PairEngine): Pair {
    return newPair(engine, this.#options.random());
  }

  #alter(one: PublishedPair, peer: TunnelPeer): void {
    const old = one.peer;
    one.peer = peer;
    const isMoved = old.endpoint !== peer.endpoint;
    // By another path, or without an engine there. What comes from it is still taken.
    if (isMoved || !peer.kernel || !old.kernel) this.setPair(one, this.#begin('user'));
    if (isMoved) {
      one.mtu = 0;
      this.#write(one);
    }
  }

  #add(peer: TunnelPeer, number: number, prefix: Prefix): PublishedPair {
    const mtu = this.#resumed.get(peer.identity);
    const pair = this.#begin(mtu === undefined ? 'user' : 'kernel');
    const { random } = this.#options;
    const opaque = (BigInt(random()) << 32n) | BigInt(random());
    const added: PublishedPair = {
      identity: peer.identity,
      number,
      prefix,
      opaque,
      isGone: false,
      peer,
      pair,
      mtu: mtu ?? 0,
      packets: 0,
      activeMs: -Infinity,
      base: undefined,
      traffic: undefined,
      merged: undefined,
    };
    if (pair.engine === 'kernel') this.#inKernel++;
    this.#count(prefix, 1);
    this.#byNumber.set(number, added);
    this.#write(added);
    this.#options.maps.setPrefix(ipv4Number(prefix.base), prefix.length, number);
    return added;
  }

  #write({ number, peer, mtu, pair }: PublishedPair): void {
    const { maps, local } = this.#options;
    const identity = Uint32Array.from(identityWords(hashIdentity(peer.identity)));
    const [remote, state] = [ipv4Number(peer.endpoint), pair.engine];
    maps.setPeer(number, { remote, local: ipv4Number(local), state, mtu, identity });
  }

  #count({ length }: Prefix, more: 1 | -1): void {
    const count = (this.#lengths.get(length) ?? 0) + more;
    if (count > 0) this.#lengths.set(length, count);
    else this.#lengths.delete(length);
  }

  #clear(one: PublishedPair): void {
    const { number, prefix, pair } = one;
    one.isGone = true;
    if (pair.engine === 'kernel') this.#inKernel--;
    this.#count(prefix, -1);
    this.#byNumber.delete(number);
    this.#options.maps.removePrefix(ipv4Number(prefix.base), prefix.length);
    this.#options.maps.clearPeer(number);
  }
}

function isIpv4Prefix(prefix: AnyPrefix): prefix is Prefix {
  return familyOf(prefix.base) === 4;
}

function hasPrefix(peer: TunnelPeer, old: PublishedPair): boolean {
  return peer === old.peer || peer.prefixes.some(one => samePrefix(one, old.prefix));
}
