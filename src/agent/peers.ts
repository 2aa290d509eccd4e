/**
 * The current peers: the store provides whole lease sets, and the reconciler reads the result. peer-table.ts decides;
 * this class adds the clock and the log. Each refused entry is logged once.
 */
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import { formatPrefix, prefixKey } from '../model/ip.js';
import type { Lease, RejectedEntry } from '../model/lease.js';
import type { LocalView } from '../model/lease-set.js';
import type { Node } from '../model/node.js';
import type { WatchedSet } from '../store/store.js';
import { holdDownsHere, type HoldDown, type SavedState } from './saved-state.js';
import {
  emptyPeerTable,
  expirePeers,
  routedUntilMs,
  applyLeaseSet,
  sameItems,
  savedPeerTable,
  type PeerTable,
  type RoutedPeer,
} from './peer-table.js';

export interface PeersOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** The hold-down: how long a peer that vanished without a goodbye stays routed. */
  readonly holdMs: number;
}

export interface ShownPeer {
  readonly lease: Lease;
  /** `remembered`: the peer is of the saved state, and the store has not confirmed it; `forgotten`: the store went back. */
  readonly state: 'live' | 'held-down' | 'forgotten' | 'remembered';
  /** The rest of a hold-down. */
  readonly secondsLeft: number | null;
}

const forgottenText =
  'kept, forgotten by the store, which went back in time; each is live again once its host has written its lease ' +
  '(a restart of flanneld does that at once)';
/** The number of subnets that a log line names at most. */
const maxNamed = 10;

export class Peers {
  readonly #options: PeersOptions;
  #loggedRejections: ReadonlySet<string> = new Set();
  #table: PeerTable = emptyPeerTable;
  #current: readonly Lease[] = [];
  /** Counts the changes of `current`. */
  changes = 0;
  /** False until the first lease set arrives or the saved peers are used: until then `current` means nothing. */
  known = false;
  #hasSavedPeers = false;

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  get current(): readonly Lease[] {
    return this.#current;
  }

  get rejected(): readonly RejectedEntry[] {
    return this.#table.rejected;
  }

  get shown(): readonly ShownPeer[] {
    const nowMs = this.#options.clock.now();
    return [...this.#table.routed.values()].map(peer => this.#show(peer, nowMs));
  }

  #show(peer: RoutedPeer, nowMs: number): ShownPeer {
    const { lease, missing, epoch } = peer;
    if (!missing) return { lease, state: epoch === undefined ? 'remembered' : 'live', secondsLeft: null };
    const secondsLeft = Math.max(0, Math.round((routedUntilMs(this.#table, peer) - nowMs) / 1000));
    return { lease, state: missing.forgotten ? 'forgotten' : 'held-down', secondsLeft };
  }

  /** The peers that are routed although the store does not have them. */
  get holdDowns(): readonly HoldDown[] {
    return this.#table.missing.map(peer => ({
      subnet: peer.lease.subnet,
      untilMs: routedUntilMs(this.#table, peer),
    }));
  }

  /** What is wrong with the peers, for people. */
  get problems(): readonly string[] {
    const frozen = this.#options.clock.now() < this.#table.frozenUntilMs;
    const vanished = frozen ? 'most peers vanished together, no route is removed' : 'vanished without a goodbye';
    return [...this.#stayProblem('held-down', vanished), ...this.#stayProblem('forgotten', forgottenText)];
  }

  #stayProblem(kind: ShownPeer['state'], what: string): readonly string[] {
    const left = this.#table.missing.flatMap(peer => {
      const { state, secondsLeft } = this.#show(peer, this.#options.clock.now());
      return state === kind ? (secondsLeft ?? 0) : [];
    });
    if (left.length === 0) return [];
    return [
      `${left.length} of ${this.#table.routed.size} peers: ${what}; their routes stay for ${Math.max(...left)} s`,
    ];
  }

  /** Loads the peers of the saved state. A running data process may have routes to more peers than that. */
  loadSavedPeers(
    saved: Pick<SavedState, 'lease' | 'peers' | 'holdDowns'>,
    self: LocalView,
    node: Pick<Node, 'bootId'>,
  ): void {
    this.#setTable(savedPeerTable(saved.peers, self, holdDownsHere(saved, node)));
    this.#hasSavedPeers = true;
  }

  /** Uses the saved peers, if there are any, until the store answers. @returns whether `current` means something new */
  useSavedPeers(): boolean {
    if (this.known || !this.#hasSavedPeers) return false;
    this.known = true;
    return true;
  }

  applyLeaseSet(set: WatchedSet, self: LocalView): void {
    const { clock, holdMs } = this.#options;
    const before = this.#table;
    this.#setTable(applyLeaseSet(before, set, { self, nowMs: clock.now(), holdMs }));
    this.known = true;
    this.#logRejected();
    this.#logHeldDown(before);
  }

  /** Drops the peers whose hold-down is over; the agent calls this once per tick. @returns whether `current` changed */
  expire(): boolean {
    const before = this.#table;
    const after = expirePeers(before, this.#options.clock.now());
    if (after === before) return false;
    this.#setTable(after);
    const gone = [...before.routed].flatMap(([key, { lease }]) => (after.routed.has(key) ? [] : [lease]));
    this.#options.log.warn('peers.dropped', `${gone.length} peers did not come back: their routes are removed`, {
      subnets: namesOf(gone),
    });
    return true;
  }

  #setTable(table: PeerTable): void {
    this.#table = table;
    if (sameItems(this.#current, table.leases)) return;
    this.#current = table.leases;
    this.changes++;
  }

  #logRejected(): void {
    const nameOf = ({ key, revision }: RejectedEntry): string => `${key}@${revision}`;
    for (const entry of this.rejected) {
      if (this.#loggedRejections.has(nameOf(entry))) continue;
      const { key, revision, reason } = entry;
      const text = `lease ${key} is ignored: ${reason}`;
      this.#options.log.warn('peer.rejected', text, { key, revision: String(revision) });
    }
    // Only the entries of this set are kept, so that the names cannot grow without bound.
    this.#loggedRejections = new Set(this.rejected.map(nameOf));
  }

  #logHeldDown(before: PeerTable): void {
    const { log, holdMs } = this.#options;
    const { frozenUntilMs } = this.#table;
    const missing = this.#table.missing.filter(({ lease }) => !before.routed.get(prefixKey(lease.subnet))?.missing);
    const forgotten = missing.filter(peer => peer.missing?.forgotten);
    if (forgotten.length > 0)
      log.warn('peers.forgotten', `${forgotten.length} peers: ${forgottenText}`, {
        subnets: namesOf(forgotten.map(({ lease }) => lease)),
      });
    const fresh = missing.filter(peer => !peer.missing?.forgotten);
    if (fresh.length === 0) return;
    const seconds = holdMs / 1000;
    const fields = { subnets: namesOf(fresh.map(({ lease }) => lease)), seconds };
    log.warn(
      'peers.held-down',
      `${fresh.length} peers vanished without a goodbye: routed for ${seconds} s more`,
      fields,
    );
    if (frozenUntilMs === before.frozenUntilMs) return;
    const advice = 'is etcd well? --peer-hold-down=0 obeys at once';
    log.error('peers.frozen', `most peers vanished together: no route is removed for ${seconds} s; ${advice}`, fields);
  }
}

function namesOf(leases: readonly Lease[]): readonly string[] {
  return leases.slice(0, maxNamed).map(({ subnet }) => formatPrefix(subnet));
}
