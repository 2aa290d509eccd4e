/**
 * Hosts that keep leases in one store in memory, on a clock that jumps from event to event, under pauses, partitions,
 * lost requests, lost and late replies. Everything random comes from one seed: the same seed is the same history.
 *
 *   [host: lease store + data plane] -- link that loses, delays, cuts --> [store]      time is World.now
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../src/lib/clock.js';
import { TartanError } from '../../src/lib/errors.js';
import { formatPrefix, prefixesOverlap, type Prefix } from '../../src/model/ip.js';
import { readLeaseKey } from '../../src/model/lease.js';
import { MemoryKv } from './memory-kv.js';
import type { KeyEvent } from '../../src/store/kv.js';
import type { SimulatedHost } from './lease-host.js';
import { prefix } from './store.js';

/** mulberry32: small, and good enough to choose faults. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Sleeper {
  readonly untilMs: number;
  readonly wake: () => void;
}

/** Time that stands still but for `runUntil`. */
export class JumpingClock implements Clock {
  #now = 1_000_000;
  /** By time, the latest first: the next one is at the end. */
  readonly #sleepers: Sleeper[] = [];

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise<void>((resolve, reject) => {
      const sleeper = {
        untilMs: this.#now + Math.max(0, ms),
        wake: (): void => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        const index = this.#sleepers.indexOf(sleeper);
        if (index >= 0) this.#sleepers.splice(index, 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#insert(sleeper);
    });
  }

  /** Wakes one after another, letting everyone work in between. */
  async runUntil(ms: number): Promise<void> {
    await turn();
    for (let next = this.#sleepers.at(-1); next && next.untilMs <= ms; next = this.#sleepers.at(-1)) {
      this.#now = Math.max(this.#now, next.untilMs);
      for (; next && next.untilMs <= this.#now; next = this.#sleepers.at(-1)) {
        this.#sleepers.pop();
        next.wake();
      }
      await turn();
    }
    this.#now = ms;
  }

  #insert(sleeper: Sleeper): void {
    let index = this.#sleepers.length;
    // Of equal times the first to come is the first to wake.
    for (; index > 0; index--) if ((this.#sleepers[index - 1]?.untilMs ?? 0) > sleeper.untilMs) break;
    this.#sleepers.splice(index, 0, sleeper);
  }
}

const never = new AbortController().signal;

/** The store, the clock, and what must never be seen. */
export class World {
  readonly clock = new JumpingClock();
  readonly kv = new MemoryKv(this.clock);
  readonly random: () => number;
  readonly hosts: SimulatedHost[] = [];
  readonly broken: string[] = [];
  /** Owner of each lease key. */
  readonly #owners = new Map<string, { readonly subnet: Prefix; readonly nodeId: string }>();
  readonly #life = new AbortController();

  constructor(seed: number) {
    this.random = seeded(seed);
    this.#follow(1n).catch((error: unknown) => {
      if (!this.#life.signal.aborted) this.breaks(String(error));
    });
  }

  /** The faults of a schedule end this watch too. */
  async #follow(first: bigint): Promise<never> {
    const range = { start: Buffer.from(`${prefix}/subnets/`), end: Buffer.from(`${prefix}/subnets0`) };
    for (let revision = first; ;) {
      const onEvents = (events: readonly KeyEvent[]): void => {
        for (const event of events) {
          this.#hear(event);
          revision = (event.kind === 'put' ? event.entry.modRevision : event.revision) + 1n;
        }
      };
      const request = { range, revision, clusterId: this.kv.clusterId, onEvents };
      const end = await this.kv.watch(request, { signal: this.#life.signal });
      if (end.kind === 'compacted') throw new Error('the world missed a change of its store');
    }
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  between(low: number, high: number): number {
    return low + this.random() * (high - low);
  }

  /** The owner of a lease key as the store has it this very moment. */
  ownerOf(key: Buffer): string | undefined {
    // Any call lets overdue leases end first.
    void this.kv.timeToLive('0', { signal: never });
    return this.#owners.get(key.toString('latin1'))?.nodeId;
  }

  breaks(what: string): void {
    this.broken.push(`at ${this.clock.now()} ms: ${what}`);
  }

  /** Lets time pass, and looks at every data plane as it does. */
  async pass(ms: number): Promise<void> {
    const end = this.clock.now() + ms;
    while (this.clock.now() < end) {
      await this.clock.runUntil(Math.min(end, this.clock.now() + 500));
      for (const host of this.hosts) host.tick();
      this.#compareForwarding();
    }
  }

  async close(): Promise<void> {
    for (const host of this.hosts) host.resume();
    const closing = Promise.all(this.hosts.map(host => host.stop()));
    await this.clock.runUntil(this.clock.now() + 60_000);
    await closing;
    this.#life.abort();
    await this.kv.close();
  }

  #hear(event: KeyEvent): void {
    const key = (event.kind === 'put' ? event.entry.key : event.key).toString('latin1');
    const subnet = readLeaseKey(key.slice(`${prefix}/subnets/`.length));
    if (!subnet) return;
    if (event.kind === 'delete') return void this.#owners.delete(key);
    const { nodeId } = JSON.parse(event.entry.value.toString('utf8')) as { nodeId: string };
    for (const other of this.#owners.values())
      if (other.nodeId !== nodeId && prefixesOverlap(other.subnet, subnet))
        this.breaks(`${formatPrefix(subnet)} of ${nodeId} overlaps ${formatPrefix(other.subnet)} of ${other.nodeId}`);
    this.#owners.set(key, { subnet, nodeId });
  }

  /** Quarantine protects a subnet for so long after its owner was last heard; beyond that nobody can tell. */
  #compareForwarding(): void {
    const forwarding = this.hosts.flatMap(host => host.forwarding() ?? []);
    for (const [index, one] of forwarding.entries())
      for (const other of forwarding.slice(index + 1))
        if (prefixesOverlap(one.subnet, other.subnet) && one.protected && other.protected)
          this.breaks(
            `${one.id} forwards for ${formatPrefix(one.subnet)}, ${other.id} for ${formatPrefix(other.subnet)}`,
          );
  }
}

export function unavailable(what: string): TartanError {
  return new TartanError('STORE_UNAVAILABLE', `${what} in this schedule`);
}
