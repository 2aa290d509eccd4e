/** The current peers: fed by whole sets from the store, read by the reconciler. Bad entries are named once each. */
import type { Log } from '../lib/log.js';
import type { Lease, LeaseSet, RejectedEntry } from '../model/lease.js';
import { vetLeases, type Vantage } from '../model/lease-set.js';

export class Peers {
  readonly #log: Log;
  readonly #named = new Set<string>();
  #current: readonly Lease[] = [];
  #rejected: readonly RejectedEntry[] = [];
  /** False until the first set arrived: an empty table then means "not known yet". */
  known = false;

  constructor(log: Log) {
    this.#log = log;
  }

  get current(): readonly Lease[] {
    return this.#current;
  }

  get rejected(): readonly RejectedEntry[] {
    return this.#rejected;
  }

  accept(set: LeaseSet, self: Vantage): void {
    const vetted = vetLeases(set, self);
    this.#current = vetted.peers;
    this.#rejected = vetted.rejected;
    this.known = true;
    const names = new Set(vetted.rejected.map(entry => `${entry.key}@${entry.revision}`));
    for (const entry of vetted.rejected) {
      const name = `${entry.key}@${entry.revision}`;
      if (!this.#named.has(name))
        this.#log.warn('peer.rejected', `lease ${entry.key} is ignored: ${entry.reason}`, {
          key: entry.key,
          revision: String(entry.revision),
        });
    }
    // Only what is still there is remembered: the set cannot grow without bound.
    this.#named.clear();
    for (const name of names) this.#named.add(name);
  }
}
