/**
 * A lease being kept: renewed by KeepAlive (no write, no event), watched, made again when its key vanishes, given up at
 * once when another node owns it. The decisions are tenure.ts; here is what waits and what talks to the store.
 */
import { Wake } from '../lib/wake.js';
import { backoffMs } from '../lib/backoff.js';
import { isTartanError, TartanError } from '../lib/errors.js';
import { Repeated } from '../lib/log.js';
import { isFree } from '../model/allocation.js';
import { formatPrefix, samePrefix } from '../model/ipv4.js';
import type { Lease } from '../model/lease.js';
import { Inner } from './abort.js';
import { valueOf } from './acquire.js';
import { createKey, dropGrant, grantLease, rewriteKey, type Claim, type Grant } from './claim.js';
import type { StoreContext } from './context.js';
import { readEntry } from './entries.js';
import { follow } from './follow.js';
import { onlyKey } from './keys.js';
import type { KeyEvent, KeyValue } from './kv.js';
import { releaseLease } from './release.js';
import type { HeldLease, LeaseRequest, LeaseState } from './store.js';
import { Surveyor } from './survey.js';
import { beginTenure, step, type News, type Sight, type Tenure } from './tenure.js';

const repair = { firstMs: 30, capMs: 1_000 };
const longestTimeoutMs = 3_000;

export class Keeper implements HeldLease {
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #listeners: (() => void)[] = [];
  readonly #lost = new AbortController();
  readonly #life = new Inner();
  readonly #wake = new Wake();
  readonly #said = new Repeated();
  #tenure: Tenure;
  #loops: Promise<unknown> = Promise.resolve();

  constructor(context: StoreContext, want: LeaseRequest, claim: Claim) {
    this.#context = context;
    this.#want = want;
    this.#tenure = beginTenure(want.node, want.ttlSeconds, claim);
  }

  start(): this {
    const ended = (error: unknown): void => {
      // Ours ends them by abort; anything else is a fault of the program and must not pass in silence.
      if (!this.#life.signal.aborted && this.state !== 'lost') throw error;
    };
    this.#loops = Promise.all([this.#keep().catch(ended), this.#watch().catch(ended)]);
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

  async release(): Promise<void> {
    await this.close();
    if (this.state !== 'lost') await releaseLease(this.#context, this.#want.node, this.lease.subnet);
  }

  /** The one place where the state changes. */
  #learn(news: News): void {
    const before = this.#tenure;
    const after = step(before, news, this.#context.clock.now());
    if (after === before) return;
    this.#tenure = after;
    if (after.leaseId === '0' && before.leaseId !== '0' && before.leaseId !== undefined)
      void dropGrant(this.#context, before.leaseId, this.#life.signal).catch(() => {});
    if (after.state === 'lost') this.#life.end(this.#lose(after));
    if (after.need !== before.need || after.renewAtMs < before.renewAtMs) this.#wake.ring();
    if (after.state !== before.state || after.lease !== before.lease)
      for (const listener of this.#listeners) listener();
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
    const { leaseId, ttlSeconds } = this.#tenure;
    if (leaseId === undefined || leaseId === '0') return true;
    const sentAtMs = clock.now();
    const timeoutMs = Math.min(longestTimeoutMs, Math.max(300, ttlSeconds * 150));
    const granted = await kv.keepAlive(leaseId, timeoutMs, { signal: this.#life.signal });
    if (granted > 0) this.#learn({ kind: 'renewed', sentAtMs, ttlSeconds: granted });
    else this.#learn({ kind: 'lease-gone', leaseId });
    return true;
  }

  /** @returns false when a race was lost and it must be tried again */
  async #repair(): Promise<boolean> {
    const { network, node } = this.#want;
    const { signal } = this.#life;
    const survey = await new Surveyor(this.#context).take(network, signal);
    const { subnet, revision } = this.#tenure.lease;
    const rewound = survey.revision < revision;
    const entry = survey.entries.find(({ key }) => key && samePrefix(key, subnet));
    this.#learn(sightOf(entry, survey.revision, rewound));
    const { need, lease } = this.#tenure;
    if (need === 'nothing') return true;
    const grant = await this.#grant();
    if (need === 'attach')
      return this.#settle(await rewriteKey(this.#context, lease, valueOf(this.#want), grant, signal), grant);
    const { taken, tombstones } = survey;
    if (!isFree({ network, taken, tombstones, nodeId: node.id }, subnet)) {
      const reason = `${formatPrefix(subnet)} is taken, in whole or part, by another node`;
      this.#learn({ kind: 'foreign', reason, revision: survey.revision, rewound });
      return true;
    }
    const request = { subnet, value: valueOf(this.#want), grant, survey };
    return this.#settle(await createKey(this.#context, request, signal), grant);
  }

  /** The etcd lease we have, as long as it is alive; else a new one. */
  async #grant(): Promise<Grant> {
    const { leaseId, renewedAtMs, ttlSeconds } = this.#tenure;
    if (leaseId !== undefined && leaseId !== '0') return { leaseId, sentAtMs: renewedAtMs };
    return grantLease(this.#context, ttlSeconds, this.#life.signal);
  }

  #settle(result: Claim | 'refused' | 'lease-gone', grant: Grant): boolean {
    if (typeof result !== 'string') {
      this.#learn({ kind: 'claimed', claim: result });
      return true;
    }
    const { leaseId } = this.#tenure;
    if (result === 'lease-gone') this.#learn({ kind: 'lease-gone', leaseId: grant.leaseId });
    else if (grant.leaseId !== leaseId) void dropGrant(this.#context, grant.leaseId, this.#life.signal).catch(() => {});
    return false;
  }

  async #watch(): Promise<void> {
    const { keys } = this.#context;
    const see = (kv: KeyValue | undefined, revision: bigint, rewound: boolean): void =>
      this.#learn(sightOf(kv && readEntry(keys, kv), revision, rewound));
    await follow({
      ...this.#context,
      range: onlyKey(keys.subnet(this.lease.subnet)),
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

function sightOf(entry: ReturnType<typeof readEntry> | undefined, revision: bigint, rewound: boolean): Sight {
  if (!entry) return { kind: 'absent', revision, rewound };
  if (entry.kind === 'rejected')
    return { kind: 'foreign', reason: `its value ${entry.rejected.reason}`, revision, rewound };
  return { kind: 'present', lease: entry.lease, revision: entry.revision, rewound };
}
