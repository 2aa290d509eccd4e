/**
 * The inner port: what lease logic needs of a versioned key-value store (etcd v3's model). Keys and values are bytes,
 * revisions bigint, lease ids decimal text. Reads are linearizable. Every call ends within its own deadline, by
 * STORE_UNAVAILABLE when no endpoint answered: the result of a write is then unknown.
 */
import type { AbortOptions } from './store.js';

/** From `start` up to and without `end`. */
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
}

/** A point in the history of one cluster. */
export interface Position {
  readonly revision: bigint;
  readonly clusterId: string;
}

/** The whole range at one revision. */
export interface Listing extends Position {
  readonly entries: readonly KeyValue[];
}

export type Compare =
  /** No key of the range was created or changed after the revision. */
  | { readonly kind: 'unchanged-since'; readonly range: KeyRange; readonly revision: bigint }
  | { readonly kind: 'absent'; readonly key: Buffer }
  | { readonly kind: 'value'; readonly key: Buffer; readonly value: Buffer }
  | { readonly kind: 'modified-at'; readonly key: Buffer; readonly revision: bigint }
  | { readonly kind: 'lease'; readonly key: Buffer; readonly leaseId: string };

/** A delete of an absent key is no error. */
export type Write =
  | { readonly kind: 'put'; readonly key: Buffer; readonly value: Buffer; readonly leaseId: string }
  | { readonly kind: 'delete'; readonly key: Buffer };

export interface Commit {
  /** `lease-gone`: a put named a lease that the store no longer has; nothing was written. */
  readonly outcome: 'done' | 'refused' | 'lease-gone';
  /** Of the store after the commit: the mod_revision of what was put. */
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
  /** First revision to be told about. */
  readonly revision: bigint;
  /** A watch answered by another cluster, or by one that is not even just before that revision, ends at once. */
  readonly clusterId: string;
  /** Each change once and in order, up to the end of the watch. */
  readonly onEvents: (events: readonly KeyEvent[]) => void;
}

/** The reason for people; `compacted` when the revision is no longer kept. */
export interface WatchEnd {
  readonly kind: 'compacted' | 'broken';
  readonly reason: string;
}

export interface Kv {
  list(range: KeyRange, o: AbortOptions): Promise<Listing>;
  /** All writes or none, if all compares hold. Never sent twice. */
  commit(compares: readonly Compare[], writes: readonly Write[], o: AbortOptions): Promise<Commit>;
  /** @returns the lease id */
  grantLease(ttlSeconds: number, o: AbortOptions): Promise<string>;
  /** All on one stream. @returns for each the seconds granted anew, 0 when the lease is gone */
  keepAlive(leaseIds: readonly string[], timeoutMs: number, o: AbortOptions): Promise<readonly number[]>;
  /** Deletes its keys too; a lease that is gone is no error. */
  revokeLease(leaseId: string, o: AbortOptions): Promise<void>;
  /** @returns undefined when the lease is gone */
  timeToLive(leaseId: string, o: AbortOptions): Promise<TimeToLive | undefined>;
  /** Resolves when the watch has ended, whatever the reason; rejects only by abort. */
  watch(request: WatchRequest, o: AbortOptions): Promise<WatchEnd>;
  /** Makes new connections: those in use may be dead without a sign. Absent where there is none. */
  reconnect?(): void;
  close(): Promise<void>;
}
