/**
 * The inner port in memory, for unit tests: one history of revisions, leases on the
 * given clock, watches from any revision that was not compacted. Several stores share one `MemoryKv`.
 */
import { setMaxListeners } from 'node:events';
import type { Clock } from '../../src/lib/clock.js';
import type {
  Commit,
  Compare,
  KeyEvent,
  KeyRange,
  KeyValue,
  Kv,
  Listing,
  TimeToLive,
  WatchEnd,
  WatchRequest,
  Write,
} from '../../src/store/kv.js';
import type { AbortOptions } from '../../src/store/store.js';

interface MemoryLease {
  readonly grantedSeconds: number;
  readonly endsMs: number;
}

interface Watcher {
  readonly request: WatchRequest;
  readonly end: (reason: WatchEnd) => void;
}

export class MemoryKv implements Kv {
  readonly clusterId: string;
  readonly #clock: Clock;
  readonly #entries = new Map<string, KeyValue>();
  readonly #leases = new Map<string, MemoryLease>();
  readonly #watchers = new Set<Watcher>();
  readonly #life = new AbortController();
  #history: { readonly revision: bigint; readonly event: KeyEvent }[] = [];
  #revision = 1n;
  #compacted = 0n;
  #lastLease = 0;

  constructor(clock: Clock, clusterId = 'memory') {
    this.#clock = clock;
    // One sleep for each lease hangs on it.
    setMaxListeners(0, this.#life.signal);
    this.clusterId = clusterId;
  }

  async list(range: KeyRange, { signal }: AbortOptions): Promise<Listing> {
    this.#enter(signal);
    const entries = [...this.#entries.values()]
      .filter(({ key }) => isWithin(range, key))
      .sort((a, b) => a.key.compare(b.key));
    return { entries, revision: this.#revision, clusterId: this.clusterId };
  }

  async read(keys: readonly Buffer[], o: AbortOptions): Promise<Listing> {
    const { entries, ...position } = await this.list({ start: Buffer.alloc(0), end: Buffer.from([255]) }, o);
    return { ...position, entries: entries.filter(({ key }) => keys.some(wanted => wanted.equals(key))) };
  }

  async commit(compares: readonly Compare[], writes: readonly Write[], { signal }: AbortOptions): Promise<Commit> {
    this.#enter(signal);
    if (!compares.every(compare => this.#holds(compare))) return { outcome: 'refused', revision: this.#revision };
    const unleased = writes.some(
      write => write.kind === 'put' && write.leaseId !== '0' && !this.#leases.has(write.leaseId),
    );
    if (unleased) return { outcome: 'lease-gone', revision: this.#revision };
    this.#apply(writes);
    return { outcome: 'done', revision: this.#revision };
  }

  async grantLease(ttlSeconds: number, { signal }: AbortOptions): Promise<string> {
    this.#enter(signal);
    const id = String(++this.#lastLease);
    this.#lend(id, ttlSeconds);
    return id;
  }

  async keepAlive(
    leaseIds: readonly string[],
    _timeoutMs: number,
    { signal }: AbortOptions,
  ): Promise<readonly number[]> {
    this.#enter(signal);
    return leaseIds.map(leaseId => {
      const lease = this.#leases.get(leaseId);
      if (!lease) return 0;
      this.#lend(leaseId, lease.grantedSeconds);
      return lease.grantedSeconds;
    });
  }

  async revokeLease(leaseId: string, { signal }: AbortOptions): Promise<void> {
    this.#enter(signal);
    this.#revoke(leaseId);
  }

  async timeToLive(leaseId: string, { signal }: AbortOptions): Promise<TimeToLive | undefined> {
    this.#enter(signal);
    const lease = this.#leases.get(leaseId);
    if (!lease) return undefined;
    const ttlSeconds = Math.floor((lease.endsMs - this.#clock.now()) / 1000);
    return { ttlSeconds, grantedSeconds: lease.grantedSeconds };
  }

  async watch(request: WatchRequest, { signal }: AbortOptions): Promise<WatchEnd> {
    this.#enter(signal);
    if (request.clusterId !== this.clusterId) return { kind: 'broken', reason: 'another cluster answers' };
    if (request.revision <= this.#compacted) return { kind: 'compacted', reason: 'the revision is compacted' };
    if (request.revision > this.#revision + 1n) return { kind: 'broken', reason: 'the store has not come so far' };
    const backlog = this.#history.filter(({ revision }) => revision >= request.revision).map(({ event }) => event);
    this.#tell(request, backlog);
    return new Promise<WatchEnd>((resolve, reject) => {
      const watcher: Watcher = {
        request,
        end: reason => {
          this.#watchers.delete(watcher);
          signal.removeEventListener('abort', onAbort);
          resolve(reason);
        },
      };
      const onAbort = (): void => {
        this.#watchers.delete(watcher);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#watchers.add(watcher);
    });
  }

  /** Forgets all history, as etcd's compaction does. */
  compact(): void {
    this.#compacted = this.#revision;
    this.#history = [];
  }

  /** Ends every watch, as a lost connection does. */
  breakWatches(): void {
    for (const watcher of this.#watchers) watcher.end({ kind: 'broken', reason: 'broken by a test' });
  }

  async close(): Promise<void> {
    this.breakWatches();
    this.#life.abort();
  }

  #enter(signal: AbortSignal): void {
    signal.throwIfAborted();
    this.#expire();
  }

  #holds(compare: Compare): boolean {
    if (compare.kind === 'unchanged-since')
      return [...this.#entries.values()].every(
        ({ key, modRevision }) => !isWithin(compare.range, key) || modRevision <= compare.revision,
      );
    const entry = this.#entries.get(nameOf(compare.key));
    switch (compare.kind) {
      case 'absent':
        return entry === undefined;
      case 'modified-at':
        return entry?.modRevision === compare.revision;
      case 'lease':
        return entry?.leaseId === compare.leaseId;
    }
  }

  #apply(writes: readonly Write[]): void {
    const events: KeyEvent[] = [];
    const revision = this.#revision + 1n;
    for (const write of writes) {
      const { key } = write;
      const old = this.#entries.get(nameOf(key));
      if (write.kind === 'put') {
        const { value, leaseId } = write;
        const entry = { key, value, createRevision: old?.createRevision ?? revision, modRevision: revision, leaseId };
        this.#entries.set(nameOf(key), entry);
        events.push({ kind: 'put', entry });
      } else if (old) {
        this.#entries.delete(nameOf(key));
        events.push({ kind: 'delete', key, revision });
      }
    }
    if (events.length === 0) return;
    this.#revision = revision;
    this.#history.push(...events.map(event => ({ revision, event })));
    for (const { request } of this.#watchers) this.#tell(request, events);
  }

  #tell(request: WatchRequest, events: readonly KeyEvent[]): void {
    const wanted = events.filter(event => isWithin(request.range, event.kind === 'put' ? event.entry.key : event.key));
    if (wanted.length > 0) request.onEvents(wanted);
  }

  #lend(leaseId: string, seconds: number): void {
    const ms = seconds * 1000;
    this.#leases.set(leaseId, { grantedSeconds: seconds, endsMs: this.#clock.now() + ms });
    // Also when nobody asks: watchers must hear of the end. Renewed leases are found alive then.
    this.#clock.sleep(ms, this.#life.signal).then(
      () => this.#expire(),
      () => {},
    );
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const [id, lease] of this.#leases) if (lease.endsMs <= now) this.#revoke(id);
  }

  #revoke(leaseId: string): void {
    if (!this.#leases.delete(leaseId)) return;
    const attached = [...this.#entries.values()].filter(entry => entry.leaseId === leaseId);
    this.#apply(attached.map(({ key }) => ({ kind: 'delete', key })));
  }
}

function nameOf(key: Buffer): string {
  return key.toString('latin1');
}

function isWithin({ start, end }: KeyRange, key: Buffer): boolean {
  return key.compare(start) >= 0 && key.compare(end) < 0;
}
