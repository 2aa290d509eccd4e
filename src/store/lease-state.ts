/**
 * The state of our own lease as a pure reducer of events. Nothing here waits or writes; `nextAction` says what the
 * keeper must do next.
 *
 *            renewed                      key absent
 *   held <------------ unknown      held, unknown ----> gone ----> held (re-created)
 *    |   deadline past    ^           any of them: another owner ----> lost, for good
 *    +--------------------+
 */
import { backoffMs } from '../lib/retry.js';
import { formatPrefix, type Ipv4 } from '../model/ipv4.js';
import { formatLeaseValue, type Lease } from '../model/lease.js';
import type { Node } from '../model/node.js';
import type { Claim } from './claim.js';
import { renewSeconds } from './duplicates.js';
import type { LeaseStatus } from './store.js';

/**
 * observe  the etcd lease is gone: the key must be read
 * create   the key is absent: it must be made again
 * rewrite  the key is ours but not as we wrote it: it must be written again, with our etcd lease
 */
export type NextAction = 'none' | 'observe' | 'create' | 'rewrite';

export interface LeaseState {
  readonly node: Node;
  readonly ttlSeconds: number;
  readonly status: LeaseStatus;
  readonly nextAction: NextAction;
  /** The key as last seen or written. */
  readonly lease: Lease;
  /** The etcd lease that we renew, undefined once it is known to be gone; '0' for a reservation. */
  readonly leaseId: string | undefined;
  /** That of the entry under `held/`, renewed together with it. */
  readonly tombstoneLeaseId: string;
  /** Every public address we have published: our own writes are known by them. */
  readonly publishedAddresses: readonly Ipv4[];
  readonly deadlineMs: number;
  readonly renewedAtMs: number;
  readonly renewAtMs: number;
  readonly failures: number;
  readonly lostReason: string;
}

/** What stands at our key; `rewound` when the store went back in time and revisions do not order any more. */
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
  /** Our peers must send to another address from now on. */
  | { readonly kind: 'moved'; readonly publicIp: Ipv4 }
  /** We wrote the key. */
  | { readonly kind: 'claimed'; readonly claim: Claim };

const retry = { firstMs: 200, capMs: 5_000 };

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

/** @param random for the jitter of retries, 0 <= random() < 1 */
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
      const capMs = Math.min(retry.capMs, state.ttlSeconds * 100);
      return { ...state, failures, renewAtMs: nowMs + backoffMs(failures, { ...retry, capMs }, random) };
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

/** etcd counts from the arrival of the request: counting from its send, less a margin, we never outlast it. */
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
  // While it was being written we may have moved on.
  const nextAction = lease.publicIp === state.node.publicIp ? 'none' : 'rewrite';
  const reached: LeaseState = { ...state, lease, leaseId: lease.leaseId, tombstoneLeaseId, status: 'held', nextAction };
  return lease.leaseId === '0' ? asReservation(reached) : applyRenewal(reached, sentAtMs, state.ttlSeconds);
}

function asReservation(state: LeaseState): LeaseState {
  return { ...state, leaseId: '0', failures: 0, deadlineMs: Infinity, renewAtMs: Infinity };
}

function applyObservation(state: LeaseState, observation: KeyObservation): LeaseState {
  // An event from before our own last write says nothing new.
  if (!observation.rewound && observation.revision < state.lease.revision) return state;
  if (observation.kind === 'absent') return { ...state, status: 'gone', nextAction: 'create' };
  if (observation.kind === 'foreign') return asLost(state, observation.reason);
  const { lease } = observation;
  const owner = ownership(state, lease, observation.rewound || isSameVersion(state.lease, lease));
  if (owner === 'foreign')
    return asLost(state, `it belongs to ${lease.nodeId === undefined ? 'another host' : `node ${lease.nodeId}`}`);
  const status = state.status === 'gone' ? 'held' : state.status;
  const here: LeaseState = { ...state, status, lease, nextAction: owner === 'ours' ? 'none' : 'rewrite' };
  if (lease.leaseId !== '0') return lease.leaseId === state.leaseId ? here : { ...here, nextAction: 'rewrite' };
  // A reservation's entry under `held/` does not expire either.
  const nextAction = state.tombstoneLeaseId === '0' ? here.nextAction : 'rewrite';
  return { ...asReservation(here), status: 'held', nextAction };
}

/**
 * `altered`: our identity or, where none is named, our address, as flannel or an operator would write it. Our identity
 * in another boot or at an address that we never had is another host that took over.
 * @param past seen before, or in a store that went back in time: what bears our name there is our own past
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
