/** The inner port on etcd. It reads in pages that fit gRPC's limit, and chooses the ids of leases itself. */
import { randomBytes } from 'node:crypto';
import type { IKeyValue, IRangeResponse } from 'etcd3';
import { bootClock, type Clock } from '../../lib/clock.js';
import { TartanError } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import type {
  Commit,
  Compare,
  KeyRange,
  KeyValue,
  Kv,
  Listing,
  TimeToLive,
  WatchEnd,
  WatchRequest,
  Write,
} from '../kv.js';
import { printable } from '../keys.js';
import type { AbortOptions } from '../store.js';
import { isInV2Store } from './advice.js';
import { callTimeoutMs, type Connection } from './connection.js';
import { Endpoints, type CallOptions } from './endpoints.js';
import { checkEtcdOptions, type EtcdOptions } from './options.js';
import { errorKindOf, NoAnswer, permissionError, plainMessage } from './errors.js';
import { hearLibrary } from './library-log.js';
import { keepAliveAll, watchStream } from './streams.js';
import { readKeyValue, writeCompare, writeOperation } from './wire.js';

/**
 * The keys of one page, about one megabyte of leases: one call reads a cluster of five thousand hosts. The number is
 * halved while a page exceeds the 4 MiB that grpc-js accepts.
 */
const pageKeys = 5_000;
/** The keys of one page after a read that was not answered in time, because its page may have been too large. */
const carefulPageKeys = 500;

/** The bytes of a key that a message shows. */
const longestShown = 200;
const mostSkipped = 1_000;
/** All endpoints together have this time to answer the read of single keys, which tells the loss of a quorum. */
const readMs = 4_500;

/** @throws TartanError CONFIG_INVALID for an unusable file, USAGE for options that do not go together */
export function openEtcd(options: EtcdOptions, log: Log, clock: Clock = bootClock): Kv {
  checkEtcdOptions(options);
  hearLibrary(log);
  return new EtcdKv(options, log, clock);
}

class EtcdKv implements Kv {
  readonly #options: EtcdOptions;
  readonly #endpoints: Endpoints;
  readonly #log: Log;
  #versionAsked: boolean;
  #pageKeys = pageKeys;
  /** The keys whose values were too large, with the revision that was named. */
  readonly #named = new Map<string, bigint>();

  constructor(options: EtcdOptions, log: Log, clock: Clock) {
    this.#options = options;
    this.#endpoints = new Endpoints(options, { clock });
    this.#log = log;
    this.#versionAsked = options.username === undefined;
  }

  get signs(): NonNullable<Kv['signs']> {
    const { answeredMs, current } = this.#endpoints.signs;
    return { answeredMs, endpoints: current };
  }

  async list(range: KeyRange, { signal }: AbortOptions): Promise<Listing> {
    const entries: KeyValue[] = [];
    let first: IRangeResponse['header'] | undefined;
    let start = range.start;
    let keysOnly = false;
    for (let limit = this.#pageKeys; ;) {
      const page = await this.#page({ start, end: range.end }, { limit, keysOnly }, first?.revision, signal);
      if (page === 'too-large') {
        if (limit > 1) limit >>= 1;
        else keysOnly = true;
        continue;
      }
      if (page === 'compacted') {
        entries.length = 0;
        first = undefined;
        start = range.start;
        keysOnly = false;
        continue;
      }
      first ??= page.header;
      for (const kv of page.kvs) entries.push(keysOnly ? this.#skipped(kv) : readKeyValue(kv));
      const last = entries.at(-1);
      if (!page.more || !last) break;
      start = Buffer.concat([last.key, Buffer.from([0])]);
      // The limit grows again, so that one huge value does not slow down the rest of the list.
      limit = keysOnly ? 1 : Math.min(this.#pageKeys, limit * 2);
      keysOnly = false;
    }
    return { entries, revision: BigInt(first.revision), clusterId: first.cluster_id };
  }

  async read(keys: readonly Buffer[], { signal }: AbortOptions): Promise<Listing> {
    // A transaction without a write is as linearizable as a range, and proves the permission for each key.
    const request = { success: keys.map(key => ({ request_range: { key } })) };
    const what = `read of ${keys.map(key => printable(key.toString('latin1'))).join(' and ')}`;
    const { header, responses } = await this.#call(what, ({ etcd }) => etcd.kv.txn(request), {
      signal,
      timeoutMs: Math.min(callTimeoutMs, readMs / this.#options.endpoints.length),
    });
    const entries = responses.flatMap(response => (response.response_range?.kvs ?? []).map(readKeyValue));
    return { entries, revision: BigInt(header.revision), clusterId: header.cluster_id };
  }

  async commit(compares: readonly Compare[], writes: readonly Write[], { signal }: AbortOptions): Promise<Commit> {
    const request = { compare: compares.map(writeCompare), success: writes.map(writeOperation) };
    const what = `write of ${writes.map(({ key }) => printable(key.toString('latin1'))).join(' and ')}`;
    // What compares nothing has the same effect when it is done again.
    const once = compares.length > 0;
    const call = this.#call(what, ({ etcd }) => etcd.kv.txn(request), { signal, once });
    const reply = await undefinedIfLeaseGone(call);
    if (!reply) return { outcome: 'lease-gone', revision: 0n };
    return { outcome: reply.succeeded ? 'done' : 'refused', revision: BigInt(reply.header.revision) };
  }

  async grantLease(ttlSeconds: number, { signal }: AbortOptions): Promise<string> {
    // The id is our own, so that a repeated grant finds the first one instead of leaking it.
    const id = String((randomBytes(8).readBigUInt64BE() >> 2n) + 1n);
    const grant = (connection: Connection): Promise<unknown> =>
      connection.etcd.leaseClient.leaseGrant({ TTL: ttlSeconds, ID: id });
    try {
      await this.#call('grant of a lease', grant, { signal });
    } catch (error) {
      if (errorKindOf(error) !== 'lease-exists') throw error;
    }
    return id;
  }

  async keepAlive(leaseIds: readonly string[], timeoutMs: number, o: AbortOptions): Promise<readonly number[]> {
    const renew = (connection: Connection) => keepAliveAll(connection, leaseIds, timeoutMs);
    const call = this.#call('renewal of a lease', renew, { signal: o.signal, timeoutMs });
    const granted = await undefinedIfLeaseGone(call);
    return granted ?? leaseIds.map(() => 0);
  }

  async revokeLease(leaseId: string, { signal }: AbortOptions): Promise<void> {
    const revoke = ({ etcd }: Connection) => etcd.leaseClient.leaseRevoke({ ID: leaseId });
    await undefinedIfLeaseGone(this.#call('end of a lease', revoke, { signal }));
  }

  async timeToLive(leaseId: string, { signal }: AbortOptions): Promise<TimeToLive | undefined> {
    const read = ({ etcd }: Connection) => etcd.leaseClient.leaseTimeToLive({ ID: leaseId });
    const reply = await undefinedIfLeaseGone(this.#call('look at a lease', read, { signal }));
    if (!reply || Number(reply.TTL) < 0) return undefined;
    return { ttlSeconds: Number(reply.TTL), grantedSeconds: Number(reply.grantedTTL) };
  }

  async watch(request: WatchRequest, { signal }: AbortOptions): Promise<WatchEnd> {
    signal.throwIfAborted();
    const connection = this.#endpoints.connection();
    const end = await watchStream(connection, request, signal);
    signal.throwIfAborted();
    // A new connection logs in anew. A compaction is an answer of etcd and no fault of the connection; nor is a value
    // that is too large, which the next list skips.
    if (end.kind === 'broken' && errorKindOf(new Error(end.reason)) !== 'too-large')
      this.#endpoints.abandon(connection);
    return { ...end, reason: plainMessage(new Error(end.reason)) };
  }

  async findElsewhere(key: Buffer): Promise<string | undefined> {
    const name = key.toString();
    const { endpoint } = this.#endpoints.connection();
    if (!(await isInV2Store(this.#options, endpoint, name))) return undefined;
    return (
      `it is in the v2 store of etcd only, which is not read: copy it with ETCDCTL_API=2 etcdctl get ${name} | ` +
      `ETCDCTL_API=3 etcdctl put ${name}`
    );
  }

  reconnect(): void {
    this.#endpoints.reconnect();
  }

  async close(): Promise<void> {
    this.#endpoints.close();
  }

  /** @returns `too-large` never for a page of keys alone: there is nothing less to ask for */
  async #page(
    range: KeyRange,
    { limit, keysOnly }: { readonly limit: number; readonly keysOnly: boolean },
    revision: string | undefined,
    signal: AbortSignal,
  ): Promise<IRangeResponse | 'too-large' | 'compacted'> {
    const at = revision === undefined ? {} : { revision };
    const request = { key: range.start, range_end: range.end, limit, keys_only: keysOnly, ...at };
    const what = `read of ${keysOnly ? 'a key below ' : ''}${shortName(range.start)}`;
    try {
      return await this.#call(what, ({ etcd }) => etcd.kv.range(request), { signal, maySplit: !keysOnly });
    } catch (error) {
      const kind = errorKindOf(error);
      if (kind === 'too-large' && !keysOnly) return 'too-large';
      if (kind === 'compacted') return 'compacted';
      if (error instanceof TartanError && error.cause instanceof NoAnswer) this.#pageKeys = carefulPageKeys;
      throw error;
    }
  }

  /** Returns an entry whose value is larger than a message may be. It is named once. */
  #skipped(kv: IKeyValue): KeyValue {
    const skipped = { ...readKeyValue(kv), omittedBytes: Infinity };
    const name = shortName(skipped.key);
    if (this.#named.get(name) === skipped.modRevision) return skipped;
    if (this.#named.size >= mostSkipped) this.#named.clear();
    this.#named.set(name, skipped.modRevision);
    this.#log.warn('store.skipped', `the value of ${name} is larger than a message of etcd may be: it is not read`);
    return skipped;
  }

  async #call<T>(what: string, attempt: (connection: Connection) => Promise<T>, options: CallOptions): Promise<T> {
    try {
      const answer = await this.#endpoints.call(attempt, options);
      this.#askVersion();
      return answer;
    } catch (error) {
      const kind = errorKindOf(error);
      if (error instanceof TartanError || options.signal.aborted) throw error;
      if (kind === 'too-large' && !options.maySplit) throw tooLarge(what, error);
      if (kind === 'no-space') throw noSpace(what, error);
      if (kind === 'denied' || kind === 'login-needed') throw permissionError(this.#options, what, error);
      if (kind === 'login-unknown')
        throw new TartanError('STORE_UNAVAILABLE', `etcd: ${plainMessage(error)}`, { cause: error });
      throw error;
    }
  }

  /** Reads the version of etcd once, after the first answer; no caller waits for it. */
  #askVersion(): void {
    if (this.#versionAsked) return;
    this.#versionAsked = true;
    const options = { signal: AbortSignal.timeout(2 * callTimeoutMs) };
    const ask = this.#endpoints.call(({ etcd }) => etcd.maintenance.status(), options);
    ask.then(
      ({ version }) => {
        const fixed = authFixFor(version);
        if (fixed === undefined) return;
        this.#log.warn(
          'store.version',
          `etcd ${version} has known faults in its authentication: update it to ${fixed} or later`,
        );
      },
      () => {},
    );
  }
}

function noSpace(what: string, cause: unknown): TartanError {
  return new TartanError(
    'STORE_UNAVAILABLE',
    `etcd is out of space and refuses the ${what} (alarm NOSPACE): make room on it with etcdctl compact REVISION and ` +
      'etcdctl defrag, then etcdctl alarm disarm',
    { cause },
  );
}

function tooLarge(what: string, cause: unknown): TartanError {
  return new TartanError(
    'STORE_UNAVAILABLE',
    `the ${what} gives more than a message of etcd may have: delete the key`,
    {
      cause,
    },
  );
}

function shortName(key: Buffer): string {
  return printable(key.toString('latin1').slice(0, longestShown));
}

/** Resolves with undefined where etcd does not have the lease of the call. */
async function undefinedIfLeaseGone<T>(call: Promise<T>): Promise<T | undefined> {
  return call.catch((error: unknown) => {
    if (errorKindOf(error) === 'lease-gone') return undefined;
    throw error;
  });
}

/** The first etcd patch releases without the known faults in authentication (CVE-2026-44283 and older). */
const fixedPatch: ReadonlyMap<string, number> = new Map([
  ['3.4', 44],
  ['3.5', 30],
  ['3.6', 11],
]);

/** @returns the release that has the fixes, undefined when the version is not known to be affected */
export function authFixFor(version: string): string | undefined {
  const [, minor, patch] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const fixed = fixedPatch.get(minor ?? '');
  return fixed !== undefined && Number(patch) < fixed ? `${minor}.${fixed}` : undefined;
}
