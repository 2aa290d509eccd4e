/**
 * The state of one held lease as a pure function of what is learnt. Nothing here waits or writes; `need` says what the
 * keeper must do next.
 *
 *            renewed                      key absent
 *   held <------------ unknown      held, unknown ----> gone ----> held (re-created)
 *    |   deadline past    ^           any of them: another owner ----> lost, for good
 *    +--------------------+
 */
import { backoffMs } from '../lib/backoff.js';
import { formatPrefix, type Ipv4 } from '../model/ipv4.js';
import { formatLeaseValue, type Lease } from '../model/lease.js';
import type { Node } from '../model/node.js';
import type { Claim } from './claim.js';
import { renewSeconds } from './identity.js';
import type { LeaseState } from './store.js';

/**
 * look     the etcd lease is gone: read what became of the key
 * create   the key is absent: make it again
 * attach   the key is ours but not as we wrote it: write it again, with our etcd lease
 */
export type Need = 'nothing' | 'look' | 'create' | 'attach';

export interface Tenure {
  readonly node: Node;
  readonly ttlSeconds: number;
  readonly state: LeaseState;
  readonly need: Need;
  /** The key as last seen or written. */
  readonly lease: Lease;
  /** The etcd lease that we renew, undefined once it is known to be gone; '0' for a reservation. */
  readonly leaseId: string | undefined;
  /** That of the entry under `held/`, renewed together with it. */
  readonly heldLeaseId: string;
  /** Every public address we have published: our own writes are known by them. */
  readonly addresses: readonly Ipv4[];
  readonly deadlineMs: number;
  readonly renewedAtMs: number;
  readonly renewAtMs: number;
  readonly failures: number;
  readonly lostReason: string;
}

/** What stands at our key; `rewound` when the store went back in time and revisions do not order any more. */
export type Sight = { readonly revision: bigint; readonly rewound: boolean } & (
  | { readonly kind: 'absent' }
  | { readonly kind: 'present'; readonly lease: Lease }
  | { readonly kind: 'foreign'; readonly reason: string }
);

export type News =
  | Sight
  | { readonly kind: 'tick' }
  | { readonly kind: 'renewed'; readonly sentAtMs: number; readonly ttlSeconds: number }
  | { readonly kind: 'lease-gone'; readonly leaseId: string }
  | { readonly kind: 'unanswered' }
  /** Our peers must send to another address from now on. */
  | { readonly kind: 'moved'; readonly publicIp: Ipv4 }
  /** We wrote the key. */
  | { readonly kind: 'claimed'; readonly claim: Claim };

const retry = { firstMs: 200, capMs: 5_000 };

export function beginTenure(node: Node, ttlSeconds: number, claim: Claim): Tenure {
  const blank: Tenure = {
    node,
    ttlSeconds,
    state: 'held',
    need: 'nothing',
    lease: claim.lease,
    leaseId: claim.lease.leaseId,
    heldLeaseId: claim.heldLeaseId,
    addresses: [node.publicIp],
    deadlineMs: 0,
    renewedAtMs: claim.sentAtMs,
    renewAtMs: 0,
    failures: 0,
    lostReason: '',
  };
  return claimed(blank, claim);
}

/** @param random for the jitter of retries, 0 <= random() < 1 */
export function step(tenure: Tenure, news: News, nowMs: number, random: () => number = Math.random): Tenure {
  if (tenure.state === 'lost') return tenure;
  switch (news.kind) {
    case 'tick':
      return tenure.state === 'held' && nowMs >= tenure.deadlineMs ? { ...tenure, state: 'unknown' } : tenure;
    case 'renewed':
      return renewed(tenure, news.sentAtMs, news.ttlSeconds);
    case 'lease-gone':
      return news.leaseId === tenure.leaseId ? { ...tenure, leaseId: undefined, need: 'look' } : tenure;
    case 'unanswered': {
      const failures = tenure.failures + 1;
      const capMs = Math.min(retry.capMs, tenure.ttlSeconds * 100);
      return { ...tenure, failures, renewAtMs: nowMs + backoffMs(failures, { ...retry, capMs }, random) };
    }
    case 'claimed':
      return claimed(tenure, news.claim);
    case 'moved':
      return moved(tenure, news.publicIp);
    default:
      return seen(tenure, news);
  }
}

function renewed(tenure: Tenure, sentAtMs: number, ttlSeconds: number): Tenure {
  if (tenure.leaseId === '0') return tenure;
  return {
    ...tenure,
    state: tenure.state === 'unknown' ? 'held' : tenure.state,
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

function moved(tenure: Tenure, publicIp: Ipv4): Tenure {
  if (publicIp === tenure.node.publicIp) return tenure;
  const addresses = [...tenure.addresses.filter(address => address !== publicIp), publicIp];
  const need = tenure.need === 'nothing' ? 'attach' : tenure.need;
  return { ...tenure, node: { ...tenure.node, publicIp }, addresses, need };
}

function claimed(tenure: Tenure, { lease, heldLeaseId, sentAtMs }: Claim): Tenure {
  // While it was being written we may have moved on.
  const need = lease.publicIp === tenure.node.publicIp ? 'nothing' : 'attach';
  const reached: Tenure = { ...tenure, lease, leaseId: lease.leaseId, heldLeaseId, state: 'held', need };
  return lease.leaseId === '0' ? reserved(reached) : renewed(reached, sentAtMs, tenure.ttlSeconds);
}

function reserved(tenure: Tenure): Tenure {
  return { ...tenure, leaseId: '0', failures: 0, deadlineMs: Infinity, renewAtMs: Infinity };
}

function seen(tenure: Tenure, sight: Sight): Tenure {
  // An event from before our own last write says nothing new.
  if (!sight.rewound && sight.revision < tenure.lease.revision) return tenure;
  if (sight.kind === 'absent') return { ...tenure, state: 'gone', need: 'create' };
  if (sight.kind === 'foreign') return lose(tenure, sight.reason);
  const { lease } = sight;
  const whose = ownership(tenure, lease, sight.rewound || isSameVersion(tenure.lease, lease));
  if (whose === 'foreign')
    return lose(tenure, `it belongs to ${lease.nodeId === undefined ? 'another host' : `node ${lease.nodeId}`}`);
  const state = tenure.state === 'gone' ? 'held' : tenure.state;
  const here: Tenure = { ...tenure, state, lease, need: whose === 'ours' ? 'nothing' : 'attach' };
  if (lease.leaseId !== '0') return lease.leaseId === tenure.leaseId ? here : { ...here, need: 'attach' };
  // A reservation's entry under `held/` does not expire either.
  const need = tenure.heldLeaseId === '0' ? here.need : 'attach';
  return { ...reserved(here), state: 'held', need };
}

/**
 * `altered`: our identity or, where none is named, our address, as flannel or an operator would write it. Our identity
 * in another boot or at an address that we never had is another host that took over.
 * @param past seen before, or in a store that went back in time: what bears our name there is our own past
 */
function ownership(tenure: Tenure, lease: Lease, past: boolean): 'ours' | 'altered' | 'foreign' {
  const { node, addresses, lease: last } = tenure;
  const wanted = { ...last, publicIp: node.publicIp, nodeId: node.id, bootId: node.bootId, released: false };
  if (formatLeaseValue(lease) === formatLeaseValue(wanted)) return 'ours';
  if (past && lease.nodeId === node.id) return 'altered';
  if (!addresses.includes(lease.publicIp)) return 'foreign';
  if (lease.nodeId === undefined) return 'altered';
  return lease.nodeId === node.id && (lease.bootId ?? node.bootId) === node.bootId ? 'altered' : 'foreign';
}

function isSameVersion(a: Lease, b: Lease): boolean {
  return a.revision === b.revision && a.createRevision === b.createRevision && a.leaseId === b.leaseId;
}

function lose(tenure: Tenure, reason: string): Tenure {
  const lostReason = `subnet ${formatPrefix(tenure.lease.subnet)} is not ours any more: ${reason}`;
  return { ...tenure, state: 'lost', need: 'nothing', lostReason };
}
