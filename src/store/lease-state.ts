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
import { formatPrefix } from '../model/ip.js';
import { leaseValueOf, type Lease } from '../model/lease.js';
import { addAlteration, endAlteration, noAlterations, putRight, type Alterations } from './alterations.js';
import type { Claim, OwnLeaseValue } from './claim.js';
import type { LeaseChange, LeaseStatus } from './store.js';

/**
 * observe  the etcd lease is gone, and the key must be read
 * create   the key is absent and must be created again
 * rewrite  the key is ours, but not as we wrote it; it must be written again with our etcd lease
 */
export type NextAction = 'none' | 'observe' | 'create' | 'rewrite';

export interface LeaseState {
  /** What the key must say. */
  readonly wanted: OwnLeaseValue;
  readonly ttlSeconds: number;
  readonly status: LeaseStatus;
  readonly nextAction: NextAction;
  /** The key as last read or written. */
  readonly lease: Lease;
  /** The revision at which the key was read last. */
  readonly seenRevision: bigint;
  /** The etcd lease that we renew; undefined when it is known to be gone, '0' for a reservation. */
  readonly leaseId: string | undefined;
  /** The etcd lease of the tombstone, which is renewed together with `leaseId`. */
  readonly tombstoneLeaseId: string;
  /** Every value that we have wanted to publish: our own writes are recognised by them. */
  readonly published: readonly OwnLeaseValue[];
  readonly alterations: Alterations;
  readonly deadlineMs: number;
  readonly renewedAtMs: number;
  readonly renewAtMs: number;
  readonly failures: number;
  readonly lostReason: string;
  /** What a store that is not ours says against our lease: it counts only when nothing else does, at the deadline. */
  readonly strangerReason: string | undefined;
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
  | { readonly kind: 'stranger'; readonly reason: string }
  /** We want the key to say something else. */
  | { readonly kind: 'changed'; readonly change: LeaseChange }
  /** We have written the key. */
  | { readonly kind: 'claimed'; readonly claim: Claim };

/** The delays after a call that the store did not answer. */
export const unansweredRetry = { firstMs: 200, capMs: 5_000 };
const longestRenewSeconds = 300;

/** Returns the interval between two renewals of a lease. */
export function renewSeconds(ttlSeconds: number): number {
  return Math.min(ttlSeconds / 3, longestRenewSeconds);
}

export function initialLeaseState(wanted: OwnLeaseValue, ttlSeconds: number, claim: Claim): LeaseState {
  const blank: LeaseState = {
    wanted,
    ttlSeconds,
    status: 'held',
    nextAction: 'none',
    lease: claim.lease,
    seenRevision: 0n,
    leaseId: claim.lease.leaseId,
    tombstoneLeaseId: claim.tombstoneLeaseId,
    published: [wanted],
    alterations: noAlterations,
    deadlineMs: 0,
    renewedAtMs: claim.sentAtMs,
    renewAtMs: 0,
    failures: 0,
    lostReason: '',
    strangerReason: undefined,
  };
  return applyClaim(blank, claim, claim.sentAtMs);
}

/** Whether the key must be read or written now. An altered key may have to wait, but not for our etcd lease. */
export function isRepairDue(state: LeaseState, nowMs: number): boolean {
  if (state.nextAction !== 'rewrite' || state.leaseId === undefined) return state.nextAction !== 'none';
  return nowMs >= state.alterations.writeAtMs;
}

/**
 * Returns when the etcd lease is to be renewed. A reservation has none, although after a call without an answer it has a
 * time for the next attempt.
 */
export function renewalAtMs({ leaseId, renewAtMs }: LeaseState): number {
  return leaseId === undefined || leaseId === '0' ? Infinity : renewAtMs;
}

/** Returns when there is something to do unless an event comes first, in CLOCK_BOOTTIME ms. */
export function nextWorkAtMs(state: LeaseState): number {
  const { nextAction, alterations, deadlineMs, status, strangerReason } = state;
  const repairAtMs = nextAction === 'none' ? Infinity : alterations.writeAtMs;
  return Math.min(
    repairAtMs,
    renewalAtMs(state),
    status === 'held' || strangerReason !== undefined ? deadlineMs : Infinity,
  );
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
      if (nowMs < state.deadlineMs) return state;
      if (state.strangerReason !== undefined) return asLost(state, state.strangerReason);
      return state.status === 'held' ? { ...state, status: 'unknown' } : state;
    case 'stranger':
      return event.reason === state.strangerReason ? state : { ...state, strangerReason: event.reason };
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
      return applyClaim(state, event.claim, nowMs);
    case 'changed':
      return applyChange(state, event.change);
    default:
      return applyObservation(state, event, nowMs);
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

function applyChange(state: LeaseState, change: LeaseChange): LeaseState {
  const wanted = leaseValueOf({ ...state.wanted, ...change });
  if (wanted.text === state.wanted.text) return state;
  const published = [...state.published.filter(({ text }) => text !== wanted.text), wanted];
  const nextAction = state.nextAction === 'none' ? 'rewrite' : state.nextAction;
  return { ...state, wanted, published, nextAction, alterations: { ...state.alterations, writeAtMs: 0 } };
}

function applyClaim(state: LeaseState, { lease, tombstoneLeaseId, sentAtMs }: Claim, nowMs: number): LeaseState {
  const nextAction = actionAfter(state, lease);
  const alterations = putRight(state.alterations, nowMs);
  const { leaseId } = lease;
  const claimed: LeaseState = { ...state, lease, leaseId, tombstoneLeaseId, status: 'held', nextAction, alterations };
  return lease.leaseId === '0' ? asReservation(claimed) : applyRenewal(claimed, sentAtMs, state.ttlSeconds);
}

/** What comes after our own write. */
function actionAfter({ seenRevision, wanted }: LeaseState, { revision, text }: Lease): NextAction {
  // An event of somebody else's later write came before the answer.
  if (revision < seenRevision) return 'observe';
  // What we want may have changed during the write.
  return text === wanted.text ? 'none' : 'rewrite';
}

function asReservation(state: LeaseState): LeaseState {
  return { ...state, leaseId: '0', failures: 0, deadlineMs: Infinity, renewAtMs: Infinity };
}

function applyObservation(before: LeaseState, observation: KeyObservation, nowMs: number): LeaseState {
  const known = before.strangerReason === undefined ? before : { ...before, strangerReason: undefined };
  // An event that is older than our own last write tells nothing new.
  if (!observation.rewound && observation.revision < known.lease.revision) return known;
  const state = { ...known, seenRevision: observation.revision };
  if (observation.kind === 'absent')
    return { ...state, status: 'gone', nextAction: 'create', alterations: endAlteration(state.alterations) };
  if (observation.kind === 'foreign') return asLost(state, observation.reason);
  const { lease, rewound } = observation;
  const isSame = isSameVersion(state.lease, lease);
  const owner = ownership(state, lease, rewound || isSame);
  if (owner === 'foreign')
    return asLost(state, `it belongs to ${lease.nodeId === undefined ? 'another host' : `node ${lease.nodeId}`}`);
  const status = state.status === 'gone' ? 'held' : state.status;
  const nextAction = owner === 'ours' ? 'none' : 'rewrite';
  const alterations = isSame && !rewound ? state.alterations : judgeAlteration(state, lease, rewound, nowMs);
  const observed: LeaseState = { ...state, status, lease, nextAction, alterations };
  if (lease.leaseId !== '0') return lease.leaseId === state.leaseId ? observed : { ...observed, nextAction: 'rewrite' };
  // The tombstone of a reservation does not expire either.
  const toReserve = state.tombstoneLeaseId === '0' ? nextAction : 'rewrite';
  return { ...asReservation(observed), status: 'held', nextAction: toReserve };
}

/**
 * A text under our identity that we never wrote is an alteration; in a store that went back it is our own past. Our own
 * write may be seen before it is answered.
 */
function judgeAlteration(state: LeaseState, lease: Lease, rewound: boolean, nowMs: number): Alterations {
  const { wanted, published, alterations } = state;
  if (lease.text === wanted.text) return putRight(alterations, nowMs);
  if (rewound || lease.nodeId !== wanted.nodeId || lease.bootId !== wanted.bootId) return endAlteration(alterations);
  return published.some(({ text }) => text === lease.text) ? alterations : addAlteration(alterations, nowMs);
}

/**
 * Tells who wrote the entry at our key. `altered` has our node id and boot id, whatever else it says, or no node id
 * and our address, as flannel or an operator writes it. Our node id with another boot id is another host.
 * @param past the entry was read before, or the store went back in time: with our node id it is our own older entry
 */
function ownership(state: LeaseState, lease: Lease, past: boolean): 'ours' | 'altered' | 'foreign' {
  const { wanted, published } = state;
  if (lease.text === wanted.text) return 'ours';
  const isNode = lease.nodeId === wanted.nodeId;
  if (isNode && (past || lease.bootId === wanted.bootId)) return 'altered';
  const isHere = published.some(({ publicIp }) => publicIp === lease.publicIp);
  return isHere && (lease.nodeId === undefined || (isNode && lease.bootId === undefined)) ? 'altered' : 'foreign';
}

function isSameVersion(a: Lease, b: Lease): boolean {
  return a.revision === b.revision && a.createRevision === b.createRevision && a.leaseId === b.leaseId;
}

function asLost(state: LeaseState, reason: string): LeaseState {
  const lostReason = `subnet ${formatPrefix(state.lease.subnet)} is not ours any more: ${reason}`;
  return { ...state, status: 'lost', nextAction: 'none', lostReason };
}
