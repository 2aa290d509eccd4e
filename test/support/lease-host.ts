/**
 * One host of a simulated world: its lease store behind a link that fails, the daemon's life around it, and the rules
 * by which its data plane forwards (agent.ts): while the lease is not lost, and without a living daemon up to six TTLs
 * after the last sign of life from the store.
 */
import { isTartanError } from '../../src/lib/errors.js';
import type { Clock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import type { Prefix } from '../../src/model/ip.js';
import type { Kv, WatchEnd, WatchRequest } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { AbortOptions, OwnLease, LeaseRequest, LeaseStore } from '../../src/store/store.js';
import { unavailable, type World } from './lease-world.js';
import { prefix } from './store.js';

const orphanTtls = 6;
const quarantineTtls = 7;
const aheadMs = 15_000;
const timeoutMs = 2_500;
const never = new AbortController().signal;

export class SimulatedHost {
  readonly id: string;
  partitioned = false;
  readonly #world: World;
  readonly #want: LeaseRequest;
  readonly #clock: Clock;
  readonly #resumed: (() => void)[] = [];
  readonly #watches = new Set<AbortController>();
  #paused = false;
  #store: LeaseStore | undefined;
  #life = new AbortController();
  #ownLease: OwnLease | undefined;
  /** What the data plane was started with: it outlives the daemon. */
  #plane: { readonly subnet: Prefix; forwardUntilMs: number; renewedAtMs: number } | undefined;

  constructor(world: World, want: LeaseRequest) {
    this.#world = world;
    this.#want = want;
    this.id = want.node.id;
    this.#clock = {
      now: () => world.clock.now(),
      // Nothing happens in a stopped process, however long its timers are over.
      sleep: async (ms, signal) => world.clock.sleep(ms, signal).then(() => this.#awake()),
    };
  }

  get state(): string {
    return this.#ownLease?.status ?? 'none';
  }

  get paused(): boolean {
    return this.#paused;
  }

  start(): void {
    this.#life = new AbortController();
    const { signal } = this.#life;
    const options = { prefix, log: silentLog, clock: this.#clock, sweepMs: 20_000 };
    const store = openLeaseStore(new Link(this, this.#world), options);
    this.#store = store;
    this.#acquire(store, signal).catch((error: unknown) => {
      if (!signal.aborted) this.#world.breaks(`${this.id} gave up: ${String(error)}`);
    });
  }

  /** Ends the daemon with nothing said; the data plane goes on. */
  async stop(): Promise<void> {
    this.#life.abort(unavailable('stopped'));
    this.#ownLease = undefined;
    await this.#store?.close();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    for (const go of this.#resumed.splice(0)) go();
  }

  cut(): void {
    this.partitioned = true;
    for (const watch of this.#watches) watch.abort();
  }

  /** What a living daemon does every second. */
  tick(): void {
    const plane = this.#plane;
    const ownLease = this.#ownLease;
    if (!plane || !ownLease || this.#paused) return;
    plane.renewedAtMs = ownLease.renewedAtMs;
    const orphanMs = ownLease.renewedAtMs + orphanTtls * this.#ttlMs;
    plane.forwardUntilMs = Math.max(orphanMs, this.#world.clock.now() + aheadMs);
  }

  /** Undefined while nothing is forwarded. `protected`: the store heard of it within the quarantine. */
  forwarding(): { readonly id: string; readonly subnet: Prefix; readonly protected: boolean } | undefined {
    const now = this.#world.clock.now();
    if (!this.#plane || now >= this.#plane.forwardUntilMs) return undefined;
    const { subnet, renewedAtMs } = this.#plane;
    return { id: this.id, subnet, protected: now - renewedAtMs < quarantineTtls * this.#ttlMs };
  }

  async #acquire(store: LeaseStore, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const previous = this.#plane ? [{ subnet: this.#plane.subnet, source: 'state' as const }] : [];
      const ownLease = await this.#tryAcquire(store, { ...this.#want, previous }, signal);
      if (!ownLease) continue;
      this.#ownLease = ownLease;
      const { subnet } = ownLease.lease;
      this.#plane = { subnet, forwardUntilMs: 0, renewedAtMs: ownLease.renewedAtMs };
      this.tick();
      if (!ownLease.lost.aborted) await new Promise<void>(resolve => onAbort(ownLease.lost, signal, resolve));
      if (signal.aborted) return;
      // Fenced at once, whatever else; then the daemon ends and its service manager starts another.
      this.#plane = undefined;
      this.#ownLease = undefined;
      await ownLease.close();
      await this.#clock.sleep(1000, signal);
    }
  }

  async #tryAcquire(store: LeaseStore, want: LeaseRequest, signal: AbortSignal): Promise<OwnLease | undefined> {
    try {
      return await store.acquire(want, { signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!isTartanError(error, 'NO_FREE_SUBNET') && !isTartanError(error, 'STORE_UNAVAILABLE')) throw error;
      await this.#clock.sleep(2000, signal);
      return undefined;
    }
  }

  get #ttlMs(): number {
    return this.#want.ttlSeconds * 1000;
  }

  async #awake(): Promise<void> {
    while (this.#paused) await new Promise<void>(resolve => this.#resumed.push(resolve));
  }

  /** A request and its reply over the link. */
  async call<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const world = this.#world;
    await this.#awake();
    signal.throwIfAborted();
    const fate = this.partitioned ? 0 : world.random();
    if (fate < 0.02) {
      await this.#clock.sleep(timeoutMs, signal);
      throw unavailable('the request was lost');
    }
    if (fate < 0.04) {
      // The store gets to it long after the host has stopped waiting.
      void world.clock
        .sleep(world.between(0, 8_000), never)
        .then(ask)
        .catch(() => {});
      await this.#clock.sleep(timeoutMs, signal);
      throw unavailable('the reply was late');
    }
    if (fate < 0.3) await world.clock.sleep(world.between(0, 800), never);
    const answer = await ask();
    if (fate < 0.06 || this.partitioned) {
      await this.#clock.sleep(timeoutMs, signal);
      throw unavailable('the reply was lost');
    }
    if (fate < 0.15) await this.#clock.sleep(world.between(0, 800), signal);
    await this.#awake();
    return answer;
  }

  async watch(request: WatchRequest, { signal }: AbortOptions): Promise<WatchEnd> {
    await this.#awake();
    const cut = new AbortController();
    this.#watches.add(cut);
    let told: Promise<unknown> = Promise.resolve();
    let ended = this.partitioned;
    if (ended) cut.abort();
    // In order, each when the host runs and after a while.
    const onEvents: WatchRequest['onEvents'] = events => {
      const ms = this.#world.chance(0.3) ? this.#world.between(0, 1500) : 0;
      told = told.then(() => this.#clock.sleep(ms, signal)).then(() => ended || request.onEvents(events));
      told.catch(() => {});
    };
    try {
      return await this.#world.kv.watch({ ...request, onEvents }, { signal: AbortSignal.any([signal, cut.signal]) });
    } catch {
      signal.throwIfAborted();
      await this.#clock.sleep(3_000, signal);
      return { kind: 'broken', reason: 'the link was cut' };
    } finally {
      ended = true;
      this.#watches.delete(cut);
    }
  }
}

/** The inner port of one host, over its link; each done write is held against what the store had. */
class Link implements Kv {
  readonly #host: SimulatedHost;
  readonly #world: World;

  constructor(host: SimulatedHost, world: World) {
    this.#host = host;
    this.#world = world;
  }

  list: Kv['list'] = (range, o) => this.#host.call(() => this.#world.kv.list(range, { signal: never }), o.signal);
  read: Kv['read'] = (keys, o) => this.#host.call(() => this.#world.kv.read(keys, { signal: never }), o.signal);
  grantLease: Kv['grantLease'] = (ttl, o) =>
    this.#host.call(() => this.#world.kv.grantLease(ttl, { signal: never }), o.signal);
  keepAlive: Kv['keepAlive'] = (ids, ms, o) =>
    this.#host.call(() => this.#world.kv.keepAlive(ids, ms, { signal: never }), o.signal);
  revokeLease: Kv['revokeLease'] = (id, o) =>
    this.#host.call(() => this.#world.kv.revokeLease(id, { signal: never }), o.signal);
  timeToLive: Kv['timeToLive'] = (id, o) =>
    this.#host.call(() => this.#world.kv.timeToLive(id, { signal: never }), o.signal);
  commit: Kv['commit'] = (compares, writes, o) =>
    this.#host.call(async () => {
      const owners = writes.map(({ key }) => this.#world.ownerOf(key));
      const done = await this.#world.kv.commit(compares, writes, { signal: never });
      for (const [index, owner] of owners.entries())
        if (done.outcome === 'done' && owner !== undefined && owner !== this.#host.id)
          this.#world.breaks(`${this.#host.id} wrote ${writes[index]?.key.toString()} of ${owner}`);
      return done;
    }, o.signal);
  watch: Kv['watch'] = (request, o) => this.#host.watch(request, o);
  async close(): Promise<void> {}
}

function onAbort(one: AbortSignal, other: AbortSignal, act: () => void): void {
  for (const signal of [one, other]) {
    if (signal.aborted) return act();
    signal.addEventListener('abort', act, { once: true });
  }
}
