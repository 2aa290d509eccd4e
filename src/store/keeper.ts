/**
 * A lease being kept: renewed by KeepAlive (no write, no event), watched, made again when its key vanishes, given up at
 * once when another node owns it. The decisions are tenure.ts; here is what waits and what talks to the store.
 */
import { once } from 'node:events';
import { Wake } from '../lib/wake.js';
import { backoffMs } from '../lib/backoff.js';
import { isTartanError, TartanError } from '../lib/errors.js';
import { Repeated } from '../lib/log.js';
import { isFree } from '../model/allocation.js';
import { formatPrefix, samePrefix } from '../model/ipv4.js';
import type { Lease } from '../model/lease.js';
import { Inner } from './abort.js';
import { valueOf } from './acquire.js';
import {
  createKey,
  dropLeases,
  grantLease,
  idsOf,
  reservationAt,
  rewriteKey,
  tombstoneOf,
  type Claim,
  type Grant,
} from './claim.js';
import type { StoreContext } from './context.js';
import { readEntry } from './entries.js';
import { follow } from './follow.js';
import { onlyKey } from './keys.js';
import type { KeyEvent, KeyValue, Position } from './kv.js';
import { releaseLease } from './release.js';
import type { HeldLease, LeaseChange, LeaseRequest, LeaseState } from './store.js';
import { Surveyor } from './survey.js';
import { beginTenure, step, type News, type Sight, type Tenure } from './tenure.js';

const repair = { firstMs: 30, capMs: 1_000 };
const longestTimeoutMs = 3_000;

export class Keeper implements HeldLease {
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #listeners: (() => void)[] = [];
  /** Of those who wait for a change to be written. */
  readonly #checks = new Set<() => void>();
  readonly #lost = new AbortController();
  readonly #life = new Inner();
  readonly #wake = new Wake();
  readonly #said = new Repeated();
  #tenure: Tenure;
  /** The etcd leases that are ours to revoke. */
  #ours: readonly string[];
  #loops: Promise<unknown> = Promise.resolve();

  constructor(context: StoreContext, want: LeaseRequest, claim: Claim) {
    this.#context = context;
    this.#want = want;
    this.#tenure = beginTenure(want.node, want.ttlSeconds, claim);
    this.#ours = [claim.lease.leaseId, claim.heldLeaseId];
  }

  /** @param after where the claim was decided: what became of the key since is told from there */
  start(after: Position): this {
    const ended = (error: unknown): void => {
      // Ours ends them by abort; anything else is a fault of the program and must not pass in silence.
      if (!this.#life.signal.aborted && this.state !== 'lost') throw error;
    };
    this.#loops = Promise.all([this.#keep().catch(ended), this.#watch(after).catch(ended)]);
    return this;
  }

  get lease(): Lease {
    return this.#tenure.lease;
  }

  get state(): LeaseState {
    return this.#tenure.state;
  }

  get deadlineMs(): number {
    return this.#tenure.deadlineMs;
  }

  get renewedAtMs(): number {
    return this.#tenure.renewedAtMs;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    this.#life.end();
    await this.#loops;
  }

  async update({ publicIp }: LeaseChange): Promise<void> {
    this.#learn({ kind: 'moved', publicIp });
    const waiting = new Inner(this.#life.signal);
    const check = (): void => {
      const { need, node, lease, state } = this.#tenure;
      if (need === 'nothing' && state !== 'lost' && lease.publicIp === node.publicIp) waiting.end('written');
    };
    this.#checks.add(check);
    check();
    await aborted(waiting.signal);
    this.#checks.delete(check);
    if (waiting.signal.reason === 'written') return;
    if (this.#lost.signal.aborted) throw this.#lost.signal.reason;
    throw new TartanError('STORE_UNAVAILABLE', 'the lease is not kept any more: its address stays as it was');
  }

  async release(): Promise<void> {
    await this.close();
    if (this.state !== 'lost') await releaseLease(this.#context, this.#want.node.id, this.lease.subnet);
  }

  /** The one place where the state changes. */
  #learn(news: News): void {
    const before = this.#tenure;
    const after = step(before, news, this.#context.clock.now());
    if (after === before) return;
    this.#tenure = after;
    if (after.state === 'lost') this.#life.end(this.#lose(after));
    if (after.need !== before.need || after.renewAtMs < before.renewAtMs) this.#wake.ring();
    if (after.state !== before.state || after.lease !== before.lease)
      for (const listener of this.#listeners) listener();
    for (const check of this.#checks) check();
  }

  #lose(tenure: Tenure): TartanError {
    const error = new TartanError(
      'LEASE_LOST',
      `${tenure.lostReason}. The next start takes another subnet; see who owns it with: tartan leases`,
    );
    this.#lost.abort(error);
    return error;
  }

  async #keep(): Promise<void> {
    const { clock } = this.#context;
    for (let races = 0; ;) {
      this.#life.signal.throwIfAborted();
      this.#learn({ kind: 'tick' });
      const { need, renewAtMs, deadlineMs, state } = this.#tenure;
      const now = clock.now();
      if (need !== 'nothing') {
        const settled = await this.#attempt(() => this.#repair());
        races = settled ? 0 : races + 1;
        if (races > 0) await clock.sleep(backoffMs(races, repair), this.#life.signal);
      } else if (now >= renewAtMs) {
        await this.#attempt(() => this.#renew());
      } else {
        await this.#pause(Math.min(renewAtMs, state === 'held' ? deadlineMs : Infinity) - now);
      }
    }
  }

  /** @returns what `act` returned; false when the store did not answer, after the due delay */
  async #attempt(act: () => Promise<boolean>): Promise<boolean> {
    const { clock, log } = this.#context;
    try {
      const done = await act();
      this.#said.reset();
      return done;
    } catch (error) {
      this.#life.signal.throwIfAborted();
      if (!isTartanError(error) || error.code === 'INVARIANT') throw error;
      this.#learn({ kind: 'unanswered' });
      if (this.#said.due()) log.warn('lease.unanswered', error.message, { state: this.state });
      this.#learn({ kind: 'tick' });
      if (this.#tenure.need !== 'nothing') await this.#pause(this.#tenure.renewAtMs - clock.now());
      return false;
    }
  }

  async #renew(): Promise<boolean> {
    const { kv, clock } = this.#context;
    const { leaseId, heldLeaseId, ttlSeconds } = this.#tenure;
    if (leaseId === undefined || leaseId === '0') return true;
    const sentAtMs = clock.now();
    const timeoutMs = Math.min(longestTimeoutMs, Math.max(300, ttlSeconds * 150));
    const both = await kv.keepAlive([leaseId, heldLeaseId], timeoutMs, { signal: this.#life.signal });
    const [granted = 0, heldGranted = 0] = both;
    // Not renewed unless the quarantine is: a data process alone forwards until shortly before its end.
    if (granted > 0 && heldGranted > 0) this.#learn({ kind: 'renewed', sentAtMs, ttlSeconds: granted });
    else this.#learn({ kind: 'lease-gone', leaseId });
    return true;
  }

  /** @returns false when a race was lost and it must be tried again */
  async #repair(): Promise<boolean> {
    const { network } = this.#want;
    const { signal } = this.#life;
    const survey = await new Surveyor(this.#context).take(network, signal);
    const { subnet, revision } = this.#tenure.lease;
    const rewound = survey.revision < revision;
    const entry = survey.entries.find(({ key }) => key && samePrefix(key, subnet));
    this.#learn(sightOf(entry, survey.revision, rewound));
    const { need, lease, node } = this.#tenure;
    if (need === 'nothing') return true;
    // A reservation whose key was deleted is none any more, unless the whole store forgot it or it was made anew.
    const pending = tombstoneOf(survey, subnet)?.reserved === true;
    const grant = await this.#grant(pending || (rewound && this.#tenure.leaseId === '0'));
    const value = valueOf({ node });
    if (need === 'attach') return this.#settle(await rewriteKey(this.#context, lease, value, grant, signal), grant);
    const { taken, tombstones } = survey;
    if (!isFree({ network, taken, tombstones, nodeId: node.id }, subnet)) {
      const reason = `${formatPrefix(subnet)} is taken, in whole or part, by another node`;
      this.#learn({ kind: 'foreign', reason, revision: survey.revision, rewound });
      return true;
    }
    const request = { subnet, value, grant, survey };
    return this.#settle(await createKey(this.#context, request, signal), grant);
  }

  /** The etcd leases we have, as long as they are alive; else new ones. */
  async #grant(forEver: boolean): Promise<Grant> {
    const { need, lease, leaseId, heldLeaseId, renewedAtMs, ttlSeconds } = this.#tenure;
    if (need === 'attach' ? lease.leaseId === '0' : forEver) return reservationAt(this.#context.clock.now());
    if (leaseId !== undefined && leaseId !== '0') return { leaseId, heldLeaseId, sentAtMs: renewedAtMs };
    const grant = await grantLease(this.#context, ttlSeconds, this.#life.signal);
    this.#ours = [...this.#ours, ...idsOf(grant)];
    return grant;
  }

  #settle(result: Claim | 'refused' | 'lease-gone', grant: Grant): boolean {
    const done = typeof result !== 'string';
    if (done) this.#learn({ kind: 'claimed', claim: result });
    if (result === 'lease-gone') this.#learn({ kind: 'lease-gone', leaseId: grant.leaseId });
    // An unanswered write may have used what was granted for it: that is dropped once we know better, not before.
    const { leaseId, heldLeaseId } = this.#tenure;
    const spent = done ? this.#ours : idsOf(grant);
    this.#drop(spent.filter(id => id !== leaseId && id !== heldLeaseId));
    return done;
  }

  #drop(leaseIds: readonly string[]): void {
    this.#ours = this.#ours.filter(id => !leaseIds.includes(id));
    void dropLeases(this.#context, leaseIds, this.#life.signal).catch(() => {});
  }

  async #watch(after: Position): Promise<void> {
    const { keys } = this.#context;
    const see = (kv: KeyValue | undefined, revision: bigint, rewound: boolean): void =>
      this.#learn(sightOf(kv && readEntry(keys, kv), revision, rewound));
    await follow({
      ...this.#context,
      range: onlyKey(keys.subnet(this.lease.subnet)),
      after,
      signal: this.#life.signal,
      known: () => this.lease.revision,
      onListing: ({ entries, revision }, rewound) => see(entries[0], revision, rewound),
      onEvents: events => {
        const last: KeyEvent | undefined = events.at(-1);
        if (last?.kind === 'put') see(last.entry, last.entry.modRevision, false);
        if (last?.kind === 'delete') see(undefined, last.revision, false);
      },
    });
  }

  async #pause(ms: number): Promise<void> {
    const inner = new Inner(this.#life.signal);
    const timer = this.#context.clock.sleep(ms, inner.signal);
    const bell = this.#wake.wait(Infinity, inner.signal);
    try {
      await Promise.race([timer, bell]);
    } finally {
      inner.end();
      await Promise.allSettled([timer, bell]);
    }
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}

function sightOf(entry: ReturnType<typeof readEntry> | undefined, revision: bigint, rewound: boolean): Sight {
  if (!entry) return { kind: 'absent', revision, rewound };
  if (entry.kind === 'rejected')
    return { kind: 'foreign', reason: `its value ${entry.rejected.reason}`, revision, rewound };
  return { kind: 'present', lease: entry.lease, revision: entry.revision, rewound };
}
