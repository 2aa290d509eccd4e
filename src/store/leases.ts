/** The lease store over any inner port: the same logic on etcd and in memory. */
import type { Clock } from '../lib/clock.js';
import { TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { parseNetworkConfig, type NetworkConfig } from '../model/network.js';
import { LinkedAbort } from '../lib/scope.js';
import { acquireLease } from './acquire.js';
import { readNetworkText } from './operator.js';
import type { StoreContext } from './context.js';
import type { LeaseTable } from './entries.js';
import { LeaseKeeper } from './keeper.js';
import { Keys } from './keys.js';
import type { Kv, Position } from './kv.js';
import { Quarantine } from './quarantine.js';
import type { AbortOptions, OwnLease, LeaseRequest, LeaseStore, WatchedSet } from './store.js';
import { SnapshotReader } from './cluster-snapshot.js';
import { watchLeases, watchNetworkDocument } from './watch.js';

export interface LeaseStoreOptions {
  readonly prefix: string;
  readonly log: Log;
  readonly clock: Clock;
  /** How often everything is read again, whatever the watch says. */
  readonly sweepMs?: number;
  /** Hand out subnets of nodes that left without a goodbye, however lately, when no other is free. */
  readonly reuseQuarantined?: boolean;
}

/** The store owns `kv` from here on. */
export function openLeaseStore(kv: Kv, options: LeaseStoreOptions): LeaseStore {
  const { prefix, log, clock, sweepMs = 60_000, reuseQuarantined = false } = options;
  const quarantine = new Quarantine(kv, clock);
  return new Leases({ kv, keys: new Keys(prefix), log, clock, sweepMs, quarantine, reuseQuarantined });
}

class Leases implements LeaseStore {
  readonly #context: StoreContext;
  readonly #keepers = new Set<LeaseKeeper>();
  readonly #life = new AbortController();
  /** The network document as last read, and where. */
  #document: { readonly network: NetworkConfig; readonly at: Position } | undefined;
  /** As an acquisition listed them, for the first watch; later ones list for themselves. */
  #firstTable: LeaseTable | 'not-needed' | undefined;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  async network({ signal }: AbortOptions): Promise<NetworkConfig> {
    const { kv, keys } = this.#context;
    const { text, at } = await readNetworkText(kv, keys, signal);
    if (text !== undefined) {
      this.#document = { network: parseNetworkConfig(text), at };
      return this.#document.network;
    }
    const key = keys.config.toString();
    throw new TartanError(
      'CONFIG_INVALID',
      `there is no network document at ${key} in etcd: write one, for example etcdctl put ${key} '{"Network":"10.5.0.0/16"}'`,
    );
  }

  async acquire(want: LeaseRequest, { signal }: AbortOptions): Promise<OwnLease> {
    const inner = new LinkedAbort(signal, this.#life.signal);
    try {
      const reader = new SnapshotReader(this.#context);
      const claim = await acquireLease(this.#context, reader, want, inner.signal);
      const keeper = new LeaseKeeper(this.#context, want, claim).start(reader.table.position);
      reader.table.add(claim.lease);
      if (this.#firstTable !== 'not-needed') this.#firstTable = reader.table;
      this.#keepers.add(keeper);
      return keeper;
    } finally {
      inner.end();
    }
  }

  async *watch({ signal }: AbortOptions): AsyncIterable<WatchedSet> {
    const inner = new LinkedAbort(signal, this.#life.signal);
    const listed = this.#firstTable === 'not-needed' ? undefined : this.#firstTable;
    this.#firstTable = 'not-needed';
    try {
      yield* watchLeases(this.#context, listed, inner.signal);
    } finally {
      inner.end();
    }
  }

  async *networkChanges(since: NetworkConfig, { signal }: AbortOptions): AsyncIterable<void> {
    const inner = new LinkedAbort(signal, this.#life.signal);
    const after = this.#document?.network === since ? this.#document.at : undefined;
    try {
      yield* watchNetworkDocument(this.#context, after, inner.signal);
    } finally {
      inner.end();
    }
  }

  reconnect(): void {
    this.#context.kv.reconnect?.();
  }

  async close(): Promise<void> {
    this.#life.abort(new TartanError('STORE_UNAVAILABLE', 'the lease store is closed'));
    await Promise.all([...this.#keepers].map(keeper => keeper.close()));
    await this.#context.kv.close();
  }
}
