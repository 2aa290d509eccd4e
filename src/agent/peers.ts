/**
 * The current peers: fed by whole sets from the store, read by the reconciler. The decisions are peer-table.ts; here is
 * the clock, and what is said of them. Bad entries are named once each.
 */
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import { formatPrefix } from '../model/ipv4.js';
import type { Lease, RejectedEntry } from '../model/lease.js';
import type { LocalView } from '../model/lease-set.js';
import type { Node } from '../model/node.js';
import type { WatchedSet } from '../store/store.js';
import { holdDownsHere, type HoldDown, type SavedState } from './saved-state.js';
import {
  emptyPeerTable,
  expirePeers,
  heldUntilMs,
  applyLeaseSet,
  savedPeerTable,
  type PeerTable,
} from './peer-table.js';

export interface PeersOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** How long a peer that vanished without a goodbye stays routed. */
  readonly holdMs: number;
}

export interface ShownPeer {
  readonly lease: Lease;
  /** `remembered`: of an earlier run, not confirmed by the store since. */
  readonly state: 'live' | 'held-down' | 'remembered';
  /** Of a peer held down. */
  readonly secondsLeft: number | null;
}

/** A log line is no list of five thousand. */
const namedAtMost = 10;

export class Peers {
  readonly #options: PeersOptions;
  readonly #loggedRejections = new Set<string>();
  #table: PeerTable = emptyPeerTable;
  #current: readonly Lease[] = [];
  /** Grows whenever `current` differs from before. */
  changes = 0;
  /** False until the first set arrived or memory has to do: an empty table then means "not known yet". */
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
    return [...this.#table.routed.values()].map(peer => {
      const secondsLeft = Math.max(0, Math.round((heldUntilMs(this.#table, peer) - nowMs) / 1000));
      if (peer.missing) return { lease: peer.lease, state: 'held-down', secondsLeft };
      return { lease: peer.lease, state: peer.epoch === undefined ? 'remembered' : 'live', secondsLeft: null };
    });
  }

  /** Routed though the store does not have them. */
  get holdDowns(): readonly HoldDown[] {
    return [...this.#table.routed.values()].flatMap(peer =>
      peer.missing ? { subnet: peer.lease.subnet, untilMs: heldUntilMs(this.#table, peer) } : [],
    );
  }

  /** What is wrong with the set of peers, for people. */
  get problems(): readonly string[] {
    const ownLease = this.shown.filter(({ state }) => state === 'held-down');
    if (ownLease.length === 0) return [];
    const left = Math.max(...ownLease.map(({ secondsLeft }) => secondsLeft ?? 0));
    const frozen = this.#options.clock.now() < this.#table.frozenUntilMs;
    const what = frozen ? 'most peers vanished together, no route is removed' : 'vanished without a goodbye';
    return [`${ownLease.length} of ${this.#table.routed.size} peers: ${what}; their routes stay for ${left} s`];
  }

  /** The peers of an earlier run. A data process that still runs may know more of them than the last file did. */
  loadSavedPeers(
    saved: Pick<SavedState, 'lease' | 'peers' | 'holdDowns'>,
    self: LocalView,
    node: Pick<Node, 'bootId'>,
  ): void {
    this.#setTable(savedPeerTable(saved.peers, self, holdDownsHere(saved, node)));
    this.#hasSavedPeers = true;
  }

  /** The store is silent: memory, if there is any, has to do until it tells. @returns whether that is news */
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

  /** To be called now and then. @returns whether `current` changed */
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
    const { routed } = this.#table;
    this.#table = table;
    const current = [...table.routed.values()].map(({ lease }) => lease);
    const same =
      routed.size === table.routed.size &&
      [...table.routed].every(([key, { lease }]) => routed.get(key)?.lease === lease);
    if (same) return;
    this.#current = current;
    this.changes++;
  }

  #logRejected(): void {
    const names = new Set(this.rejected.map(entry => `${entry.key}@${entry.revision}`));
    for (const entry of this.rejected) {
      const name = `${entry.key}@${entry.revision}`;
      if (!this.#loggedRejections.has(name))
        this.#options.log.warn('peer.rejected', `lease ${entry.key} is ignored: ${entry.reason}`, {
          key: entry.key,
          revision: String(entry.revision),
        });
    }
    // Only what is still there is remembered: the set cannot grow without bound.
    this.#loggedRejections.clear();
    for (const name of names) this.#loggedRejections.add(name);
  }

  #logHeldDown(before: PeerTable): void {
    const { log, holdMs } = this.#options;
    const { routed, frozenUntilMs } = this.#table;
    const fresh = [...routed].filter(([key, { missing }]) => missing && !before.routed.get(key)?.missing);
    if (fresh.length === 0) return;
    const seconds = holdMs / 1000;
    const fields = { subnets: namesOf(fresh.map(([, { lease }]) => lease)), seconds };
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
  return leases.slice(0, namedAtMost).map(({ subnet }) => formatPrefix(subnet));
}
