/** The lease store over any implementation of the inner port: etcd, or the memory of the tests. */
import { TartanError } from '../lib/errors.js';
import { LinkedAbort } from '../lib/scope.js';
import { parseNetworkConfig, type NetworkConfig } from '../model/network.js';
import { acquireLease } from './acquire.js';
import type { StoreContext } from './context.js';
import { SnapshotReader, type LeaseTable } from './entries.js';
import { LeaseKeeper } from './keeper.js';
import { Keys } from './keys.js';
import type { Kv, Position } from './kv.js';
import { readNetworkText } from './operator.js';
import { History } from './history.js';
import { Problems } from './problems.js';
import { Quarantine } from './quarantine.js';
import { readSigns, WatchLife } from './signs.js';
import type { AbortOptions, OwnLease, LeaseRequest, LeaseStore, StoreSigns, WatchedSet } from './store.js';
import { watchLeases, watchNetworkDocument } from './watch.js';

export interface LeaseStoreOptions
  extends Pick<StoreContext, 'log' | 'clock'>, Partial<Pick<StoreContext, 'sweepMs' | 'proofMs' | 'reuseQuarantined'>> {
  readonly prefix: string;
}

/** Opens the store, which owns `kv` then. */
export function openLeaseStore(kv: Kv, options: LeaseStoreOptions): LeaseStore {
  const { prefix, log, clock, sweepMs = 60_000, proofMs = 25_000, reuseQuarantined = false } = options;
  const quarantine = new Quarantine(kv, clock);
  const keys = new Keys(prefix);
  const [history, problems] = [new History({ kv, keys }), new Problems(clock)];
  const watchLife = new WatchLife(clock);
  const settings = { log, clock, sweepMs, proofMs, reuseQuarantined };
  return new Leases({ kv, keys, ...settings, quarantine, history, problems, watchLife });
}

class Leases implements LeaseStore {
  readonly #context: StoreContext;
  readonly #keepers = new Set<LeaseKeeper>();
  readonly #life = new AbortController();
  /** The network document as last read, and the position at which it was read. */
  #document: { readonly network: NetworkConfig; readonly at: Position } | undefined;
  /** The leases as an acquisition listed them. The first watch begins with them, and later watches list anew. */
  #firstTable: LeaseTable | 'not-needed' | undefined;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  get problems(): readonly string[] {
    return this.#context.problems.current;
  }

  get signs(): StoreSigns {
    const { kv, watchLife, problems } = this.#context;
    return readSigns(kv, watchLife, problems);
  }

  async network({ signal }: AbortOptions): Promise<NetworkConfig> {
    const { kv, keys, history } = this.#context;
    const { text, at, entry } = await readNetworkText(kv, keys, signal);
    history.seeDocument(entry);
    if (text !== undefined) {
      this.#document = { network: parseNetworkConfig(text), at };
      return this.#document.network;
    }
    const key = keys.config.toString();
    const next =
      (await kv.findElsewhere?.(keys.config)) ??
      `write one, for example etcdctl put ${key} '{"Network":"10.5.0.0/16"}'`;
    throw new TartanError('CONFIG_INVALID', `there is no network document at ${key} in etcd: ${next}`);
  }

  async acquire(want: LeaseRequest, { signal }: AbortOptions): Promise<OwnLease> {
    const inner = new LinkedAbort(signal, this.#life.signal);
    try {
      const reader = new SnapshotReader(this.#context);
      const claim = await acquireLease(this.#context, reader, want, inner.signal);
      const { history } = this.#context;
      history.table ??= reader.table;
      history.own = claim.lease;
      history.clusterId = reader.table.position.clusterId;
      const keeper = new LeaseKeeper(this.#context, want, claim).start(reader.table.position);
      reader.table.add(claim.lease);
      if (this.#firstTable !== 'not-needed') this.#firstTable = reader.table;
      this.#keepers.add(keeper);
      return keeper;
    } finally {
      inner.end();
    }
  }

  watch(o: AbortOptions): AsyncIterable<WatchedSet> {
    return this.#watchWhileOpen(o, signal => {
      const listed = this.#firstTable === 'not-needed' ? undefined : this.#firstTable;
      this.#firstTable = 'not-needed';
      return watchLeases(this.#context, listed, signal);
    });
  }

  networkChanges(since: NetworkConfig, o: AbortOptions): AsyncIterable<void> {
    return this.#watchWhileOpen(o, signal => {
      const after = this.#document?.network === since ? this.#document.at : undefined;
      return watchNetworkDocument(this.#context, after, signal);
    });
  }

  /** Ends with the caller's signal and with the store. */
  async *#watchWhileOpen<T>(
    { signal }: AbortOptions,
    watch: (signal: AbortSignal) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    const inner = new LinkedAbort(signal, this.#life.signal);
    try {
      yield* watch(inner.signal);
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
