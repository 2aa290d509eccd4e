/**
 * Keeps the own lease. The keeper renews it by KeepAlive (no write, no event) and watches its key. It creates the key
 * again when it vanishes, and gives the lease up at once when another node owns it. lease-state.ts decides; the keeper
 * waits and calls the store.
 */
import { isTartanError, TartanError } from '../lib/errors.js';
import { Listeners } from '../lib/listeners.js';
import { LogThrottle } from '../lib/log.js';
import { backoffMs } from '../lib/retry.js';
import { aborted, LinkedAbort } from '../lib/scope.js';
import { pauseUntilRung, Wake } from '../lib/wake.js';
import { isFree } from '../model/allocation.js';
import { formatPrefix, samePrefix } from '../model/ip.js';
import { readOwner, type Lease } from '../model/lease.js';
import { ownLeaseValue } from './acquire.js';
import {
  createKey,
  dropLeases,
  grantLease,
  idsOf,
  reservationAt,
  rewriteKey,
  tombstoneOf,
  type Claim,
  type ClaimResult,
  type Grant,
} from './claim.js';
import type { StoreContext } from './context.js';
import { getEntry, isOlder, readEntry, revisionOf, SnapshotReader, type Entry } from './entries.js';
import { isStranger } from './history.js';
import { onlyKey } from './keys.js';
import type { KeyValue, Listing, Position } from './kv.js';
import { initialLeaseState, isRepairDue, nextWorkAtMs, reduce, renewalAtMs } from './lease-state.js';
import type { LeaseEvent, KeyObservation, LeaseState } from './lease-state.js';
import { proveAnswers } from './proof.js';
import type { OwnLease, LeaseChange, LeaseRequest, LeaseStatus } from './store.js';
import { listWatch } from './watch.js';

const lostRace = { firstMs: 30, capMs: 1_000 };
const longestTimeoutMs = 3_000;

export class LeaseKeeper implements OwnLease {
  renewFailures = 0;
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #listeners = new Listeners();
  /** The checks of the callers that wait until a change is written. */
  readonly #updateChecks = new Set<() => void>();
  readonly #lost = new AbortController();
  readonly #life = new LinkedAbort();
  readonly #wake = new Wake();
  readonly #throttle = new LogThrottle();
  #state: LeaseState;
  /** The etcd leases that this keeper must revoke when they are not in use any more. */
  #grantedLeaseIds: readonly string[];
  #loops: Promise<unknown> = Promise.resolve();

  constructor(context: StoreContext, want: LeaseRequest, claim: Claim) {
    this.#context = context;
    this.#want = want;
    this.#state = initialLeaseState(ownLeaseValue(want), want.ttlSeconds, claim);
    this.#grantedLeaseIds = [claim.lease.leaseId, claim.tombstoneLeaseId];
  }

  /** @param after the position that the claim was based on: the watch of the key begins after it */
  start(after: Position): this {
    const ended = (error: unknown): void => {
      // The end of this keeper aborts the loops; any other error is a fault of the program and is thrown.
      if (!this.#life.signal.aborted && this.status !== 'lost') throw error;
    };
    const { subnet } = this.lease;
    const loops = [this.#keep(), this.#watch(after), proveAnswers(this.#context, subnet, this.#life.signal)];
    this.#loops = Promise.all(loops.map(loop => loop.catch(ended)));
    return this;
  }

  get lease(): Lease {
    return this.#state.lease;
  }

  get status(): LeaseStatus {
    return this.#state.status;
  }

  get deadlineMs(): number {
    return this.#state.deadlineMs;
  }

  get renewedAtMs(): number {
    return this.#state.renewedAtMs;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#life.end();
    await this.#loops;
  }

  async update(change: LeaseChange): Promise<void> {
    this.#dispatch({ kind: 'changed', change });
    const waiting = new LinkedAbort(this.#life.signal);
    const check = (): void => {
      const { nextAction, wanted, lease, status } = this.#state;
      if (nextAction === 'none' && status !== 'lost' && lease.text === wanted.text) waiting.end('written');
    };
    this.#updateChecks.add(check);
    check();
    await aborted(waiting.signal).catch(() => {});
    this.#updateChecks.delete(check);
    if (waiting.signal.reason === 'written') return;
    if (this.#lost.signal.aborted) throw this.#lost.signal.reason;
    throw new TartanError('STORE_UNAVAILABLE', 'the lease is not kept any more: its address stays as it was');
  }

  /** Changes the state; no other method does. */
  #dispatch(event: LeaseEvent): void {
    const before = this.#state;
    const after = reduce(before, event, this.#context.clock.now());
    if (after === before) return;
    this.#state = after;
    if (after.status === 'lost') this.#life.end(this.#lose(after));
    if (after.alterations.putRightAtMs !== before.alterations.putRightAtMs) this.#logAlteration(after);
    if (after.nextAction !== before.nextAction || nextWorkAtMs(after) < nextWorkAtMs(before)) this.#wake.ring();
    if (after.status !== before.status || after.lease !== before.lease) this.#listeners.ring();
    for (const check of this.#updateChecks) check();
  }

  #logAlteration({ lease, alterations }: LeaseState): void {
    const subnet = formatPrefix(lease.subnet);
    const pace = alterations.often ? '; it is changed often, so this is done once a minute at most' : '';
    this.#context.log.warn('lease.altered', `our lease of ${subnet} was changed in etcd and is put right${pace}`, {
      subnet,
      revision: String(lease.revision),
    });
  }

  #lose(state: LeaseState): TartanError {
    const error = new TartanError(
      'LEASE_LOST',
      `${state.lostReason}. The next start takes another subnet; see who owns it with: tartan leases`,
    );
    this.#lost.abort(error);
    return error;
  }

  async #keep(): Promise<void> {
    const { clock } = this.#context;
    for (let races = 0; ;) {
      this.#life.signal.throwIfAborted();
      this.#dispatch({ kind: 'tick' });
      const now = clock.now();
      if (isRepairDue(this.#state, now)) {
        const settled = await this.#attempt('repair', () => this.#repair());
        races = settled ? 0 : races + 1;
        if (races > 0) await clock.sleep(backoffMs(races, lostRace), this.#life.signal);
      } else if (now >= renewalAtMs(this.#state)) {
        await this.#attempt('renewal', () => this.#renew());
      } else {
        await pauseUntilRung(clock, nextWorkAtMs(this.#state) - now, this.#wake, this.#life.signal);
      }
    }
  }

  /** @returns the result of `act`; false, after the retry delay, when the store did not answer */
  async #attempt(part: string, act: () => Promise<boolean>): Promise<boolean> {
    const { clock, log, problems } = this.#context;
    try {
      const done = await act();
      this.#throttle.reset();
      problems.ended(part);
      return done;
    } catch (error) {
      this.#life.signal.throwIfAborted();
      if (!isTartanError(error) || error.code === 'INVARIANT') throw error;
      this.renewFailures++;
      this.#dispatch({ kind: 'unanswered' });
      problems.failed(part, error);
      if (this.#throttle.due()) log.warn('lease.unanswered', error.message, { state: this.status });
      this.#dispatch({ kind: 'tick' });
      if (this.#state.nextAction !== 'none')
        await pauseUntilRung(clock, this.#state.renewAtMs - clock.now(), this.#wake, this.#life.signal);
      return false;
    }
  }

  async #renew(): Promise<boolean> {
    const { kv, clock } = this.#context;
    const { leaseId, tombstoneLeaseId, ttlSeconds } = this.#state;
    if (leaseId === undefined || leaseId === '0') return true;
    const sentAtMs = clock.now();
    const timeoutMs = Math.min(longestTimeoutMs, Math.max(300, ttlSeconds * 150));
    const { signal } = this.#life;
    const [granted = 0, tombstoneGranted = 0] = await kv.keepAlive([leaseId, tombstoneLeaseId], timeoutMs, { signal });
    // Both must be renewed: a data process without its daemon forwards until shortly before the quarantine ends.
    if (granted > 0 && tombstoneGranted > 0) this.#dispatch({ kind: 'renewed', sentAtMs, ttlSeconds: granted });
    else this.#dispatch({ kind: 'lease-gone', leaseId });
    return true;
  }

  /** @returns false when a race was lost and another attempt is needed */
  async #repair(): Promise<boolean> {
    const { network } = this.#want;
    const { signal } = this.#life;
    // What the watch hears during the read does not make the snapshot older than what was known before.
    const { subnet, revision } = this.#state.lease;
    const snapshot = await new SnapshotReader(this.#context).readSnapshot(network, signal);
    const listed = snapshot.entries.find(({ key }) => key && samePrefix(key, subnet));
    // The snapshot keeps no refused value, which may be our own lease that somebody altered.
    const entry = listed?.kind === 'rejected' ? await getEntry(this.#context, subnet, signal) : listed;
    const { taken, tombstones, clusterId } = snapshot;
    const free = isFree({ network, taken, tombstones, nodeId: this.#state.wanted.nodeId }, subnet);
    let rewound = snapshot.revision < revision || (entry?.revision ?? revision) < revision;
    if (rewound || clusterId !== this.#context.history.clusterId || (entry ? this.#isForeign(entry) : !free))
      rewound = await this.#examine(snapshot, rewound);
    this.#dispatch(observationOf(entry, snapshot.revision, rewound, this.#state));
    const { nextAction, lease, wanted } = this.#state;
    if (!isRepairDue(this.#state, this.#context.clock.now())) return true;
    // A reservation whose key was deleted has ended, unless it was reserved again or the whole store went back in time.
    const reserved = tombstoneOf(snapshot, subnet)?.reserved === true;
    const grant = await this.#grant(reserved || (rewound && this.#state.leaseId === '0'));
    if (nextAction === 'rewrite')
      return this.#settle(await rewriteKey(this.#context, lease, wanted, grant, signal), grant);
    if (!free) {
      const reason = `${formatPrefix(subnet)} is taken, in whole or part, by another node`;
      this.#dispatch({ kind: 'foreign', reason, revision: snapshot.revision, rewound });
      return true;
    }
    const request = { subnet, value: wanted, grant, snapshot };
    return this.#settle(await createKey(this.#context, request, signal), grant);
  }

  /** Returns the etcd leases that we have as long as they are alive, else new ones. */
  async #grant(asReservation: boolean): Promise<Grant> {
    const { nextAction, lease, leaseId, tombstoneLeaseId, renewedAtMs, ttlSeconds } = this.#state;
    if (nextAction === 'rewrite' ? lease.leaseId === '0' : asReservation)
      return reservationAt(this.#context.clock.now());
    if (leaseId !== undefined && leaseId !== '0') return { leaseId, tombstoneLeaseId, sentAtMs: renewedAtMs };
    const grant = await grantLease(this.#context, ttlSeconds, this.#life.signal);
    this.#grantedLeaseIds = [...this.#grantedLeaseIds, ...idsOf(grant)];
    return grant;
  }

  #settle(result: ClaimResult, grant: Grant): boolean {
    const done = typeof result !== 'string';
    if (done) this.#dispatch({ kind: 'claimed', claim: result });
    if (result === 'lease-gone') this.#dispatch({ kind: 'lease-gone', leaseId: grant.leaseId });
    // An unanswered write may have used its grant, so older grants are revoked only after a write that was done.
    const { leaseId, tombstoneLeaseId } = this.#state;
    const revocable = done ? this.#grantedLeaseIds : idsOf(grant);
    this.#drop(revocable.filter(id => id !== leaseId && id !== tombstoneLeaseId));
    return done;
  }

  #drop(leaseIds: readonly string[]): void {
    this.#grantedLeaseIds = this.#grantedLeaseIds.filter(id => !leaseIds.includes(id));
    void dropLeases(this.#context, leaseIds, this.#life.signal).catch(() => {});
  }

  async #watch(after: Position): Promise<void> {
    const { keys } = this.#context;
    const observe = (kv: KeyValue | undefined, revision: bigint, rewound: boolean): void =>
      this.#dispatch(observationOf(kv && readEntry(keys, kv), revision, rewound, this.#state));
    await listWatch({
      ...this.#context,
      range: onlyKey(keys.subnet(this.lease.subnet)),
      after,
      signal: this.#life.signal,
      part: 'own key',
      remember: () => {
        const { lease } = this.#state;
        return ({ entries: [kv], revision }) => revision < lease.revision || (kv !== undefined && isOlder(kv, lease));
      },
      isSuspect: ({ entries: [kv] }) => kv !== undefined && this.#isForeign(readEntry(keys, kv)),
      examine: (listing, rewound) => this.#examine(listing, rewound),
      onListing: ({ entries, revision }, rewound) => observe(entries[0], revision, rewound),
      onEvents: events => {
        const last = events.at(-1);
        if (last) observe(last.kind === 'put' ? last.entry : undefined, revisionOf(last), false);
      },
    });
  }

  /** Tells whether the entry at our key would end our lease. */
  #isForeign(entry: Entry): boolean {
    const observation = observationOf(entry, entry.revision, false, this.#state);
    return reduce(this.#state, observation, this.#context.clock.now()).status === 'lost';
  }

  /** @throws TartanError STORE_UNAVAILABLE when another store answers, which ends the lease at its deadline only */
  async #examine(listing: Pick<Listing, 'clusterId'>, rewound: boolean): Promise<boolean> {
    try {
      return await this.#context.history.examine(listing, rewound, this.#life.signal);
    } catch (error) {
      if (isStranger(error)) this.#dispatch({ kind: 'stranger', reason: error.message });
      throw error;
    }
  }
}

function observationOf(
  entry: Entry | undefined,
  revision: bigint,
  rewound: boolean,
  state: LeaseState,
): KeyObservation {
  if (!entry) return { kind: 'absent', revision, rewound };
  if (entry.kind !== 'rejected') return { kind: 'present', lease: entry.lease, revision: entry.revision, rewound };
  const altered = readAltered(entry.kv, state);
  if (altered) return { kind: 'present', lease: altered, revision: entry.revision, rewound };
  return { kind: 'foreign', reason: `its value ${entry.rejected.reason}`, revision, rewound };
}

/** Returns a lease of ours whose value is refused, with the members of before; undefined where it is not ours. */
function readAltered(kv: KeyValue, { lease, wanted }: LeaseState): Lease | undefined {
  const text = kv.value.toString('latin1');
  const { nodeId, bootId } = readOwner(text) ?? {};
  if (nodeId !== wanted.nodeId || bootId !== wanted.bootId) return undefined;
  const { createRevision, modRevision: revision, leaseId } = kv;
  return { ...lease, nodeId, bootId, text, createRevision, revision, leaseId };
}
