/**
 * The port to the cluster's store of leases. An implementation retries lost races and lost connections itself, so a
 * caller sees only whole sets and final results.
 */
import type { Features } from '../model/features.js';
import type { BackendInfo, Lease, LeaseMembers, LeaseSet } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { Prefix } from '../model/ip.js';

export interface AbortOptions {
  readonly signal: AbortSignal;
}

/** A subnet that this node had before, and the file that says so. */
export interface PreviousSubnet {
  readonly subnet: Prefix;
  readonly source: 'state' | 'subnet-env';
}

export interface LeaseRequest {
  readonly node: Node;
  readonly network: NetworkConfig;
  /** What the backend announces. */
  readonly backend: BackendInfo;
  /** What this host can receive; the lease has the member when something is in it. */
  readonly features: Features;
  /** In order of preference. The own entry in the store comes after the state file and before `subnet.env`. */
  readonly previous: readonly PreviousSubnet[];
  readonly ttlSeconds: number;
}

/**
 * HELD     the deadline is in the future                                   forward
 * UNKNOWN  the deadline has passed, and the store does not answer          forward
 * GONE     the key is absent in the store, and the node creates it again   forward
 * LOST     another node owns the key, and `lost` is aborted                stop within 1 s
 */
export type LeaseStatus = 'held' | 'unknown' | 'gone' | 'lost';

/** The members of an own lease that its node can change; what is absent stays. */
export type LeaseChange = Partial<Pick<LeaseMembers, 'publicIp' | 'features'>>;

export interface OwnLease {
  readonly lease: Lease;
  readonly status: LeaseStatus;
  /** The CLOCK_BOOTTIME millisecond until which the lease lives without a KeepAlive; Infinity for a reservation. */
  readonly deadlineMs: number;
  /** CLOCK_BOOTTIME milliseconds at the send of the last KeepAlive (or grant) that was answered. */
  readonly renewedAtMs: number;
  /** Renewals and repairs that the store did not do, since this lease was taken. */
  readonly renewFailures: number;
  /** Aborted with a TartanError LEASE_LOST when another node owns the subnet. */
  readonly lost: AbortSignal;
  /** Adds a listener that is called without a value after each change of `status` or `lease`. */
  onChange(listener: () => void): void;
  /**
   * Publishes another address or other features of this host by a guarded write. It waits through an outage and
   * resolves when the store has them. A later call replaces what an earlier one wanted.
   * @throws TartanError LEASE_LOST; STORE_UNAVAILABLE when the lease is closed before
   */
  update(change: LeaseChange): Promise<void>;
  /** Stops the renewal. The etcd lease stays until its TTL ends, so that a restart finds it. */
  close(): Promise<void>;
}

/** A whole set of leases, as a watch yields it. */
export interface WatchedSet extends LeaseSet {
  /** Grows when the store went back in time (restored, wiped, replaced): revisions of two epochs have no order. */
  readonly epoch: number;
}

/** What an endpoint did when it was asked last; `unknown`: it was not asked yet. */
export interface EndpointSign {
  /** Without a user name and password. */
  readonly url: string;
  readonly state: 'answers' | 'silent' | 'refused' | 'unknown';
  /** What it said instead of an answer. */
  readonly reason: string | null;
}

/** Signs of life, in CLOCK_BOOTTIME milliseconds; undefined: never, or not now. */
export interface StoreSigns {
  /** The last answer that was no refusal. */
  readonly answeredMs: number | undefined;
  /** Since when the watch of the leases is alive. */
  readonly watchSinceMs: number | undefined;
  /** Why the store refuses this host, or its role a key. */
  readonly refused: string | undefined;
  readonly endpoints: readonly EndpointSign[];
}

export interface LeaseStore {
  /** What the store does not give us now, for people; empty when all is well. */
  readonly problems: readonly string[];
  readonly signs: StoreSigns;
  /**
   * Reads the network document once.
   * @throws TartanError CONFIG_INVALID when it is absent or bad, STORE_UNAVAILABLE, PERMISSION
   */
  network(o: AbortOptions): Promise<NetworkConfig>;
  /**
   * Acquires a subnet by guarded transactions. It retries lost races and waits for an unreachable store.
   * @throws TartanError NO_FREE_SUBNET, DUPLICATE_NODE, PERMISSION
   */
  acquire(want: LeaseRequest, o: AbortOptions): Promise<OwnLease>;
  /**
   * Yields the whole set at first and after every change. It lists and watches, and lists again after a compaction,
   * after a reconnect and on a timer. A consumer cannot tell how a set was read. Ends only by abort.
   */
  watch(o: AbortOptions): AsyncIterable<WatchedSet>;
  /**
   * Yields without a value after each change of the network document and on a timer. It also yields at first, unless
   * `since` is the document that `network` returned last. Ends only by abort.
   */
  networkChanges(since: NetworkConfig, o: AbortOptions): AsyncIterable<void>;
  /** Makes new connections after a change of this host's addresses: the old ones may be dead without an error. */
  reconnect(): void;
  close(): Promise<void>;
}
