/**
 * The lease state: the state of the own lease as a pure reducer of events. Nothing here waits or writes. `nextAction`
 * tells the keeper what to do next.
 *
 *            renewed                      key absent
 *   held <------------ unknown      held, unknown ----> gone ----> held (created again)
 *    |   deadline passed  ^           any of them: another owner ----> lost, for ever
 *    +--------------------+
 */
import { backoffMs } from '../lib/retry.js';
import { formatPrefix, type Ipv4 } from '../model/ipv4.js';
import { formatLeaseValue, type Lease } from '../model/lease.js';
import type { Node } from '../model/node.js';
import type { Claim } from './claim.js';
import type { LeaseStatus } from './store.js';

/**
 * observe  the etcd lease is gone, and the key must be read
 * create   the key is absent and must be created again
 * rewrite  the key is ours, but not as we wrote it; it must be written again with our etcd lease
 */
export type NextAction = 'none' | 'observe' | 'create' | 'rewrite';

export interface LeaseState {
  readonly node: Node;
  readonly ttlSeconds: number;
  readonly status: LeaseStatus;
  readonly nextAction: NextAction;
  /** The key as last read or written. */
  readonly lease: Lease;
  /** The etcd lease that we renew; undefined when it is known to be gone, '0' for a reservation. */
  readonly leaseId: string | undefined;
  /** The etcd lease of the tombstone, which is renewed together with `leaseId`. */
  readonly tombstoneLeaseId: string;
  /** Every public address that we have published: our own writes are recognised by them. */
  readonly publishedAddresses: readonly Ipv4[];
  readonly deadlineMs: number;
  readonly renewedAtMs: number;
  readonly renewAtMs: number;
  readonly failures: number;
  readonly lostReason: string;
}

/** What the store has at our key. `rewound`: the store went back in time, so revisions have no order any more. */
export type KeyObservation = { readonly revision: bigint; readonly rewound: boolean } & (
  | { readonly kind: 'absent' }
  | { readonly kind: 'present'; readonly lease: Lease }
  | { readonly kind: 'foreign'; readonly reason: string }
);

export type LeaseEvent =
  | KeyObservation
  | { readonly kind: 'tick' }
  | { readonly kind: 'renewed'; readonly sentAtMs: number; readonly ttlSeconds: number }
  | { readonly kind: 'lease-gone'; readonly leaseId: string }
  | { readonly kind: 'unanswered' }
  /** Our public address has changed. */
  | { readonly kind: 'moved'; readonly publicIp: Ipv4 }
  /** We have written the key. */
  | { readonly kind: 'claimed'; readonly claim: Claim };

/** The delays after a call that the store did not answer. */
export const unansweredRetry = { firstMs: 200, capMs: 5_000 };
const longestRenewSeconds = 300;

/** Returns the interval between two renewals of a lease. */
export function renewSeconds(ttlSeconds: number): number {
  return Math.min(ttlSeconds / 3, longestRenewSeconds);
}

export function initialLeaseState(node: Node, ttlSeconds: number, claim: Claim): LeaseState {
  const blank: LeaseState = {
    node,
    ttlSeconds,
    status: 'held',
    nextAction: 'none',
    lease: claim.lease,
    leaseId: claim.lease.leaseId,
    tombstoneLeaseId: claim.tombstoneLeaseId,
    publishedAddresses: [node.publicIp],
    deadlineMs: 0,
    renewedAtMs: claim.sentAtMs,
    renewAtMs: 0,
    failures: 0,
    lostReason: '',
  };
  return applyClaim(blank, claim);
}

/** @param random draws the jitter of retries, 0 <= random() < 1 */
export function reduce(
  state: LeaseState,
  event: LeaseEvent,
  nowMs: number,
  random: () => number = Math.random,
): LeaseState {
  if (state.status === 'lost') return state;
  switch (event.kind) {
    case 'tick':
      return state.status === 'held' && nowMs >= state.deadlineMs ? { ...state, status: 'unknown' } : state;
    case 'renewed':
      return applyRenewal(state, event.sentAtMs, event.ttlSeconds);
    case 'lease-gone':
      return event.leaseId === state.leaseId ? { ...state, leaseId: undefined, nextAction: 'observe' } : state;
    case 'unanswered': {
      const failures = state.failures + 1;
      const capMs = Math.min(unansweredRetry.capMs, state.ttlSeconds * 100);
      return { ...state, failures, renewAtMs: nowMs + backoffMs(failures, { ...unansweredRetry, capMs }, random) };
    }
    case 'claimed':
      return applyClaim(state, event.claim);
    case 'moved':
      return applyMove(state, event.publicIp);
    default:
      return applyObservation(state, event);
  }
}

function applyRenewal(state: LeaseState, sentAtMs: number, ttlSeconds: number): LeaseState {
  if (state.leaseId === '0') return state;
  return {
    ...state,
    status: state.status === 'unknown' ? 'held' : state.status,
    failures: 0,
    deadlineMs: deadline(sentAtMs, ttlSeconds),
    renewedAtMs: sentAtMs,
    renewAtMs: sentAtMs + renewSeconds(ttlSeconds) * 1000,
  };
}

/** etcd counts from the arrival of the request. We count from its send, less a margin, to be never later. */
function deadline(sentAtMs: number, ttlSeconds: number): number {
  return sentAtMs + ttlSeconds * 1000 - Math.max(1000, ttlSeconds * 10);
}

function applyMove(state: LeaseState, publicIp: Ipv4): LeaseState {
  if (publicIp === state.node.publicIp) return state;
  const publishedAddresses = [...state.publishedAddresses.filter(address => address !== publicIp), publicIp];
  const nextAction = state.nextAction === 'none' ? 'rewrite' : state.nextAction;
  return { ...state, node: { ...state.node, publicIp }, publishedAddresses, nextAction };
}

function applyClaim(state: LeaseState, { lease, tombstoneLeaseId, sentAtMs }: Claim): LeaseState {
  // Our address may have changed during the write.
  const nextAction = lease.publicIp === state.node.publicIp ? 'none' : 'rewrite';
  const claimed: LeaseState = { ...state, lease, leaseId: lease.leaseId, tombstoneLeaseId, status: 'held', nextAction };
  return lease.leaseId === '0' ? asReservation(claimed) : applyRenewal(claimed, sentAtMs, state.ttlSeconds);
}

function asReservation(state: LeaseState): LeaseState {
  return { ...state, leaseId: '0', failures: 0, deadlineMs: Infinity, renewAtMs: Infinity };
}

function applyObservation(state: LeaseState, observation: KeyObservation): LeaseState {
  // An event that is older than our own last write tells nothing new.
  if (!observation.rewound && observation.revision < state.lease.revision) return state;
  if (observation.kind === 'absent') return { ...state, status: 'gone', nextAction: 'create' };
  if (observation.kind === 'foreign') return asLost(state, observation.reason);
  const { lease } = observation;
  const owner = ownership(state, lease, observation.rewound || isSameVersion(state.lease, lease));
  if (owner === 'foreign')
    return asLost(state, `it belongs to ${lease.nodeId === undefined ? 'another host' : `node ${lease.nodeId}`}`);
  const status = state.status === 'gone' ? 'held' : state.status;
  const observed: LeaseState = { ...state, status, lease, nextAction: owner === 'ours' ? 'none' : 'rewrite' };
  if (lease.leaseId !== '0') return lease.leaseId === state.leaseId ? observed : { ...observed, nextAction: 'rewrite' };
  // The tombstone of a reservation does not expire either.
  const nextAction = state.tombstoneLeaseId === '0' ? observed.nextAction : 'rewrite';
  return { ...asReservation(observed), status: 'held', nextAction };
}

/**
 * Tells who wrote the entry at our key. `altered` has our node id, or no node id and our address, as flannel or an
 * operator writes it. Our node id with another boot id or with an address that we never had is another host.
 * @param past the entry was read before, or the store went back in time: with our node id it is our own older entry
 */
function ownership(state: LeaseState, lease: Lease, past: boolean): 'ours' | 'altered' | 'foreign' {
  const { node, publishedAddresses, lease: last } = state;
  const wanted = { ...last, publicIp: node.publicIp, nodeId: node.id, bootId: node.bootId, released: false };
  if (formatLeaseValue(lease) === formatLeaseValue(wanted)) return 'ours';
  if (past && lease.nodeId === node.id) return 'altered';
  if (!publishedAddresses.includes(lease.publicIp)) return 'foreign';
  if (lease.nodeId === undefined) return 'altered';
  return lease.nodeId === node.id && (lease.bootId ?? node.bootId) === node.bootId ? 'altered' : 'foreign';
}

function isSameVersion(a: Lease, b: Lease): boolean {
  return a.revision === b.revision && a.createRevision === b.createRevision && a.leaseId === b.leaseId;
}

function asLost(state: LeaseState, reason: string): LeaseState {
  const lostReason = `subnet ${formatPrefix(state.lease.subnet)} is not ours any more: ${reason}`;
  return { ...state, status: 'lost', nextAction: 'none', lostReason };
}
