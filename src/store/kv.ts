/**
 * The inner port: the operations of a versioned key-value store (etcd v3's model) that the lease logic needs. Keys and
 * values are bytes, revisions are bigint, lease ids are decimal text. Reads are linearizable. Every call ends within
 * its own deadline. It throws STORE_UNAVAILABLE when no endpoint answered; the result of a write is unknown then.
 */
import type { AbortOptions, StoreSigns } from './store.js';

/** The keys from `start` up to `end`, which is not included. */
export interface KeyRange {
  readonly start: Buffer;
  readonly end: Buffer;
}

export interface KeyValue {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  /** '0' when no lease is attached. */
  readonly leaseId: string;
  /** The value is longer than any of ours may be, and is left out: its bytes, Infinity for more than a message has. */
  readonly omittedBytes?: number;
}

/** A point in the history of one cluster. */
export interface Position {
  readonly revision: bigint;
  readonly clusterId: string;
}

/** All entries of a range at one revision. */
export interface Listing extends Position {
  readonly entries: readonly KeyValue[];
}

export type Compare =
  /** Holds if no key of the range was created or changed after the revision. */
  | { readonly kind: 'unchanged-since'; readonly range: KeyRange; readonly revision: bigint }
  | { readonly kind: 'absent'; readonly key: Buffer }
  | { readonly kind: 'modified-at'; readonly key: Buffer; readonly revision: bigint }
  | { readonly kind: 'lease'; readonly key: Buffer; readonly leaseId: string };

/** The delete of an absent key is no error. */
export type Write =
  | { readonly kind: 'put'; readonly key: Buffer; readonly value: Buffer; readonly leaseId: string }
  | { readonly kind: 'delete'; readonly key: Buffer };

export interface Commit {
  /** `lease-gone`: a put named a lease that the store does not have any more, and nothing was written. */
  readonly outcome: 'done' | 'refused' | 'lease-gone';
  /** The revision of the store after the commit, which is the mod_revision of each key that was put. */
  readonly revision: bigint;
}

export interface TimeToLive {
  readonly ttlSeconds: number;
  readonly grantedSeconds: number;
}

export type KeyEvent =
  | { readonly kind: 'put'; readonly entry: KeyValue }
  | { readonly kind: 'delete'; readonly key: Buffer; readonly revision: bigint };

export interface WatchRequest {
  readonly range: KeyRange;
  /** The first revision whose changes are reported. */
  readonly revision: bigint;
  /** The watch ends at once if another cluster answers, or one that has not reached the revision before `revision`. */
  readonly clusterId: string;
  /** Receives each change once and in order until the watch ends. */
  readonly onEvents: (events: readonly KeyEvent[]) => void;
}

/** `compacted`: the store does not keep the revision any more. The reason is for people. */
export interface WatchEnd {
  readonly kind: 'compacted' | 'broken';
  readonly reason: string;
}

export interface Kv {
  list(range: KeyRange, o: AbortOptions): Promise<Listing>;
  /** Reads single keys in one linearizable call; those that are absent are left out. */
  read(keys: readonly Buffer[], o: AbortOptions): Promise<Listing>;
  /** Does all writes if all compares hold, else none. It is never sent twice, unless it compares nothing. */
  commit(compares: readonly Compare[], writes: readonly Write[], o: AbortOptions): Promise<Commit>;
  /** @returns the lease id */
  grantLease(ttlSeconds: number, o: AbortOptions): Promise<string>;
  /** Renews all leases on one stream. @returns the granted seconds for each lease, 0 when it is gone */
  keepAlive(leaseIds: readonly string[], timeoutMs: number, o: AbortOptions): Promise<readonly number[]>;
  /** Revokes the lease and deletes its keys. A lease that is gone is no error. */
  revokeLease(leaseId: string, o: AbortOptions): Promise<void>;
  /** @returns undefined when the lease is gone */
  timeToLive(leaseId: string, o: AbortOptions): Promise<TimeToLive | undefined>;
  /** Resolves when the watch has ended for any reason; rejects only by abort. */
  watch(request: WatchRequest, o: AbortOptions): Promise<WatchEnd>;
  /** Tells people where else an absent key was found, undefined for nowhere. */
  findElsewhere?(key: Buffer): Promise<string | undefined>;
  /** Of the connections; absent in a store without any. */
  readonly signs?: Pick<StoreSigns, 'answeredMs' | 'endpoints'>;
  /** Makes new connections: the old ones may be dead without an error. Absent in a store without connections. */
  reconnect?(): void;
  close(): Promise<void>;
}
