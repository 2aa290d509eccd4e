/**
 * The port to the cluster's store of leases. Implementations retry lost races and lost connections inside; a caller
 * sees whole sets and settled facts only.
 */
import type { Lease, LeaseSet } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { Ipv4, Prefix } from '../model/ipv4.js';

export interface AbortOptions {
  readonly signal: AbortSignal;
}

/** A subnet held before and where that is known from. */
export interface PreviousSubnet {
  readonly subnet: Prefix;
  readonly source: 'state' | 'subnet-env';
}

export interface LeaseRequest {
  readonly node: Node;
  readonly network: NetworkConfig;
  /** In order of preference; our own entry in the store comes after the state file and before `subnet.env`. */
  readonly previous: readonly PreviousSubnet[];
  readonly ttlSeconds: number;
}

/**
 * HELD     deadline ahead                                        forward
 * UNKNOWN  deadline passed, the store does not answer            forward (reliability.md section 3)
 * GONE     the store says the key is absent: being re-created    forward
 * LOST     another node owns the key: `lost` is aborted          stop within 1 s
 */
export type LeaseStatus = 'held' | 'unknown' | 'gone' | 'lost';

/** What of a held lease can change while it is held. */
export interface LeaseChange {
  readonly publicIp: Ipv4;
}

export interface OwnLease {
  readonly lease: Lease;
  readonly status: LeaseStatus;
  /** CLOCK_BOOTTIME milliseconds until which the store keeps the lease without hearing from us; Infinity for a reservation. */
  readonly deadlineMs: number;
  /** CLOCK_BOOTTIME milliseconds at the send of the last KeepAlive (or grant) that was answered. */
  readonly renewedAtMs: number;
  /** Aborted with a TartanError LEASE_LOST when another node owns the subnet. */
  readonly lost: AbortSignal;
  /** Called after each change of `state` or `lease`; carries no value. */
  onChange(listener: () => void): void;
  /**
   * Publishes another address of this host, by a write that is guarded against every other. Resolves when the store
   * has it; an outage is waited for. A later call has the last word.
   * @throws TartanError LEASE_LOST, or STORE_UNAVAILABLE when the lease is closed before
   */
  update(change: LeaseChange): Promise<void>;
  /** Planned leave: says goodbye to the peers, deletes the key, revokes the lease. */
  release(): Promise<void>;
  /** Stops renewing; the lease stays until its TTL, so that a restart finds it. */
  close(): Promise<void>;
}

/** A whole set as it is watched. */
export interface WatchedSet extends LeaseSet {
  /** Grows when the store went back in time (restored, wiped, another cluster): revisions of two epochs do not order. */
  readonly epoch: number;
}

export interface LeaseStore {
  /**
   * The network document, once.
   * @throws TartanError CONFIG_INVALID when absent or bad, STORE_UNAVAILABLE, PERMISSION
   */
  network(o: AbortOptions): Promise<NetworkConfig>;
  /**
   * Guarded transactions; races are retried inside, an unreachable store is waited for.
   * @throws TartanError NO_FREE_SUBNET, DUPLICATE_NODE, PERMISSION
   */
  acquire(want: LeaseRequest, o: AbortOptions): Promise<OwnLease>;
  /**
   * The whole set first, then again after every change: list + watch, list again after compaction or reconnect and on
   * a timer. Ends only by abort. Consumers cannot tell how a set was learnt.
   */
  watch(o: AbortOptions): AsyncIterable<WatchedSet>;
  /**
   * Rings after each change of the network document and on a timer, and first of all unless `since` is what `network`
   * returned last; carries no value. Ends only by abort.
   */
  networkChanges(since: NetworkConfig, o: AbortOptions): AsyncIterable<void>;
  /** This host's addresses changed: connections may be dead without a sign, and new ones are made. */
  reconnect(): void;
  close(): Promise<void>;
}
