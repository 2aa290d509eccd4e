/** The inner port on etcd: pages that fit gRPC's limit, own lease ids, deadlines, rotation over the endpoints. */
import { randomBytes } from 'node:crypto';
import type { IRangeResponse } from 'etcd3';
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
import { callTimeoutMs, type Connection } from './connection.js';
import { Endpoints, type CallOptions } from './endpoints.js';
import { checkEtcdOptions, type EtcdOptions } from './options.js';
import { errorKindOf, NoAnswer, permissionError, plainMessage } from './errors.js';
import { keepAliveAll, watchStream } from './streams.js';
import { readKeyValue, writeCompare, writeOperation } from './wire.js';

/**
 * Keys of one page, a good megabyte of leases: a cluster of five thousand hosts is one call. Halved as long as a page
 * exceeds the 4 MiB that grpc-js takes.
 */
const pageKeys = 5_000;
/** From the first read on that was not answered in time: it may have been too much for the way. */
const carefulPageKeys = 500;

/** @throws TartanError CONFIG_INVALID for an unusable file, USAGE for options that do not go together */
export function openEtcd(options: EtcdOptions, log: Log): Kv {
  checkEtcdOptions(options);
  return new EtcdKv(options, log);
}

class EtcdKv implements Kv {
  readonly #options: EtcdOptions;
  readonly #endpoints: Endpoints;
  readonly #log: Log;
  #versionAsked: boolean;
  #pageKeys = pageKeys;

  constructor(options: EtcdOptions, log: Log) {
    this.#options = options;
    this.#endpoints = new Endpoints(options);
    this.#log = log;
    this.#versionAsked = options.username === undefined;
  }

  async list(range: KeyRange, { signal }: AbortOptions): Promise<Listing> {
    const entries: KeyValue[] = [];
    let first: IRangeResponse['header'] | undefined;
    let start = range.start;
    for (let limit = this.#pageKeys; ;) {
      const page = await this.#page({ start, end: range.end }, limit, first?.revision, signal);
      if (page === 'too-large') {
        limit = Math.max(1, limit >> 1);
        continue;
      }
      if (page === 'compacted') {
        entries.length = 0;
        first = undefined;
        start = range.start;
        continue;
      }
      first ??= page.header;
      entries.push(...page.kvs.map(readKeyValue));
      const last = entries.at(-1);
      if (!page.more || !last) break;
      start = Buffer.concat([last.key, Buffer.from([0])]);
      // One huge value does not make the rest of the list slow.
      limit = Math.min(this.#pageKeys, limit * 2);
    }
    return { entries, revision: BigInt(first.revision), clusterId: first.cluster_id };
  }

  async commit(compares: readonly Compare[], writes: readonly Write[], { signal }: AbortOptions): Promise<Commit> {
    const request = { compare: compares.map(writeCompare), success: writes.map(writeOperation) };
    const what = `write of ${writes.map(({ key }) => printable(key.toString('latin1'))).join(' and ')}`;
    try {
      const reply = await this.#call(what, connection => connection.etcd.kv.txn(request), { signal, once: true });
      return { outcome: reply.succeeded ? 'done' : 'refused', revision: BigInt(reply.header.revision) };
    } catch (error) {
      if (errorKindOf(error) === 'lease-gone') return { outcome: 'lease-gone', revision: 0n };
      throw error;
    }
  }

  async grantLease(ttlSeconds: number, { signal }: AbortOptions): Promise<string> {
    // With an id of our own a repeated grant finds the first one instead of leaking it.
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

  async keepAlive(
    leaseIds: readonly string[],
    timeoutMs: number,
    { signal }: AbortOptions,
  ): Promise<readonly number[]> {
    const renew = (connection: Connection): Promise<readonly number[]> => keepAliveAll(connection, leaseIds, timeoutMs);
    try {
      return await this.#call('renewal of a lease', renew, { signal, timeoutMs });
    } catch (error) {
      if (errorKindOf(error) === 'lease-gone') return leaseIds.map(() => 0);
      throw error;
    }
  }

  async revokeLease(leaseId: string, { signal }: AbortOptions): Promise<void> {
    try {
      await this.#call('end of a lease', ({ etcd }) => etcd.leaseClient.leaseRevoke({ ID: leaseId }), { signal });
    } catch (error) {
      if (errorKindOf(error) !== 'lease-gone') throw error;
    }
  }

  async timeToLive(leaseId: string, { signal }: AbortOptions): Promise<TimeToLive | undefined> {
    try {
      const ask = ({ etcd }: Connection) => etcd.leaseClient.leaseTimeToLive({ ID: leaseId });
      const reply = await this.#call('look at a lease', ask, { signal });
      const ttlSeconds = Number(reply.TTL);
      return ttlSeconds < 0 ? undefined : { ttlSeconds, grantedSeconds: Number(reply.grantedTTL) };
    } catch (error) {
      if (errorKindOf(error) === 'lease-gone') return undefined;
      throw error;
    }
  }

  async watch(request: WatchRequest, { signal }: AbortOptions): Promise<WatchEnd> {
    signal.throwIfAborted();
    const connection = this.#endpoints.connection();
    const end = await watchStream(connection, request, signal);
    signal.throwIfAborted();
    // A new connection brings a new login too. A compaction is an answer, not a fault.
    if (end.kind === 'broken') this.#endpoints.leave(connection);
    return end;
  }

  reconnect(): void {
    this.#endpoints.reconnect();
  }

  async close(): Promise<void> {
    this.#endpoints.close();
  }

  async #page(
    range: KeyRange,
    limit: number,
    revision: string | undefined,
    signal: AbortSignal,
  ): Promise<IRangeResponse | 'too-large' | 'compacted'> {
    const request = { key: range.start, range_end: range.end, limit, ...(revision === undefined ? {} : { revision }) };
    const what = `read of ${printable(range.start.toString('latin1'))}`;
    try {
      return await this.#call(what, ({ etcd }) => etcd.kv.range(request), { signal });
    } catch (error) {
      const kind = errorKindOf(error);
      if (kind === 'too-large' && limit > 1) return 'too-large';
      if (kind === 'compacted') return 'compacted';
      if (error instanceof TartanError && error.cause instanceof NoAnswer) this.#pageKeys = carefulPageKeys;
      throw error;
    }
  }

  async #call<T>(what: string, attempt: (connection: Connection) => Promise<T>, options: CallOptions): Promise<T> {
    try {
      const answer = await this.#endpoints.call(attempt, options);
      this.#askVersion();
      return answer;
    } catch (error) {
      const kind = errorKindOf(error);
      if (error instanceof TartanError || options.signal.aborted) throw error;
      if (kind === 'denied' || kind === 'login-needed') throw permissionError(this.#options, what, error);
      if (kind === 'login-unknown')
        throw new TartanError('STORE_UNAVAILABLE', `etcd: ${plainMessage(error)}`, { cause: error });
      throw error;
    }
  }

  /** Once, beside the first answer; nothing waits for it. */
  #askVersion(): void {
    if (this.#versionAsked) return;
    this.#versionAsked = true;
    const options = { signal: AbortSignal.timeout(2 * callTimeoutMs) };
    const ask = this.#endpoints.call(({ etcd }) => etcd.maintenance.status(), options);
    ask.then(
      ({ version }) => {
        const fixed = authFixFor(version);
        if (fixed === undefined) return;
        this.#log.info('store.version', `etcd ${version} has known faults in its authentication, fixed in ${fixed}`);
      },
      () => {},
    );
  }
}

/** etcd releases with known holes in authentication (CVE-2026-44283 and older): worth one line to the operator. */
const fixedPatch: ReadonlyMap<string, number> = new Map([
  ['3.4', 44],
  ['3.5', 30],
  ['3.6', 11],
]);

/** @returns the release to upgrade to, undefined when the version is not known to be affected */
export function authFixFor(version: string): string | undefined {
  const [, minor, patch] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const fixed = fixedPatch.get(minor ?? '');
  return fixed !== undefined && Number(patch) < fixed ? `${minor}.${fixed}` : undefined;
}
