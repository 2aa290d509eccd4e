/** How tombstones age, on a clock that only the test moves. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isTartanError, messageOf } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix } from '../../src/model/ip.js';
import type { TimeToLive } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from '../support/memory-kv.js';
import { Quarantine, tombstoneSeconds } from '../../src/store/quarantine.js';
import type { LeaseStore } from '../../src/store/store.js';
import { all, before, networkOf, nodeOf, prefix, put, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

const ttlSeconds = 60;
const quarantineMs = 7 * ttlSeconds * 1000;

const stepMs = 5_000;

describe('a node that waits for room', () => {
  // Two subnets in all.
  const network = networkOf('10.5.0.0/22', { SubnetLen: 24, SubnetMin: '10.5.1.0', SubnetMax: '10.5.2.0' });
  const life = new AbortController();
  let clock: TestClock;
  let kv: MemoryKv;
  let store: LeaseStore;
  let reusing: LeaseStore;
  beforeEach(() => {
    clock = new TestClock();
    kv = new MemoryKv(clock);
    store = openLeaseStore(kv, { prefix, log: silentLog, clock });
    reusing = openLeaseStore(kv, { prefix, log: silentLog, clock, reuseQuarantined: true });
  });
  afterEach(async () => {
    await store.close();
    await reusing.close();
  });

  const request = (number: number, subnet?: string) =>
    requestOf(nodeOf(number), { network, ttlSeconds, previous: subnet === undefined ? [] : [before(subnet)] });
  /** Takes the subnet and goes silent. */
  async function visit(number: number, subnet: string): Promise<void> {
    await (await store.acquire(request(number, subnet), life)).close();
  }
  async function tryAcquire(number: number): Promise<string> {
    try {
      const lease = await store.acquire(request(number), life);
      await lease.close();
      return formatPrefix(lease.lease.subnet);
    } catch (error) {
      if (isTartanError(error, 'NO_FREE_SUBNET')) return messageOf(error);
      throw error;
    }
  }

  it('is told how many are kept, which longest, and the flag', async () => {
    await visit(1, '10.5.1.0/24');
    await clock.advance(30_000, stepMs);
    await visit(2, '10.5.2.0/24');
    await clock.advance(90_000, stepMs);
    const message = await tryAcquire(3);
    expect(message).toMatch(/of 2 subnets 0 are leased, 0 reserved for nodes to come and 2 kept/);
    expect(message).toMatch(/10\.5\.1\.0\/24 of node node-1 \(unheard of for 120 s\), 10\.5\.2\.0\/24 of node node-2/);
    expect(message).toContain('--reuse-quarantined');
  });

  it('gets the one left longest ago after seven TTLs, not before, and only when it was found old twice', async () => {
    await visit(1, '10.5.1.0/24');
    await clock.advance(30_000, stepMs);
    await visit(2, '10.5.2.0/24');
    await clock.advance(quarantineMs - 35_000, stepMs);
    expect(await tryAcquire(3)).toContain('unheard of');
    await clock.advance(5_000, stepMs);
    expect(await tryAcquire(3)).toContain('unheard of for 420 s');
    await clock.advance(10_000, stepMs);
    expect(await tryAcquire(3)).toContain('unheard of for 420 s');
    await clock.advance(5_000, stepMs);
    expect(await tryAcquire(3)).toBe('10.5.1.0/24');
    expect((await all(kv, `${prefix}/held/`)).map(({ value }) => value)).toEqual(['node-3', 'node-2']);
    await clock.advance(ttlSeconds * 1000 + 5_000, stepMs);
    // The next one is another's, and its owner is not shut out by us.
    expect(await tryAcquire(2)).toBe('10.5.2.0/24');
  });

  it('does not get what its owner keeps, or took again meanwhile', async () => {
    const owner = await store.acquire(request(1, '10.5.1.0/24'), life);
    await visit(2, '10.5.2.0/24');
    await clock.advance(quarantineMs + 5_000, stepMs);
    expect(await tryAcquire(3)).toContain('10.5.2.0/24 of node node-2');
    await visit(2, '10.5.2.0/24');
    await clock.advance(15_000, stepMs);
    expect(await tryAcquire(3)).toContain('no free /24');
    expect(owner.status).toBe('held');
  });

  it('never gets an old tombstone while anything was never used', async () => {
    await visit(1, '10.5.1.0/24');
    await clock.advance(quarantineMs * 3, stepMs);
    expect(await tryAcquire(2)).toBe('10.5.2.0/24');
  });

  it('gets anything that was left four quarantines ago, and what was kept for good by the flag only', async () => {
    await visit(1, '10.5.1.0/24');
    await put(kv, `${prefix}/held/10.5.2.0-24`, 'node-2');
    await clock.advance(4 * quarantineMs + 5_000, stepMs);
    expect((await all(kv, `${prefix}/held/`)).map(({ value }) => value)).toEqual(['node-2']);
    expect(await tryAcquire(3)).toBe('10.5.1.0/24');
    expect(await tryAcquire(4)).toContain('10.5.2.0/24 of node node-2 (for good)');
    expect(formatPrefix((await reusing.acquire(request(4), life)).lease.subnet)).toBe('10.5.2.0/24');
  });

  it('an entry of before tombstones had leases gets one when its owner starts', async () => {
    const lease = await store.acquire(request(1, '10.5.1.0/24'), life);
    await lease.close();
    const [entry] = await all(kv, `${prefix}/subnets/`);
    await put(kv, `${prefix}/held/10.5.1.0-24`, 'node-1');
    await visit(1, '10.5.1.0/24');
    const [tombstone] = await all(kv, `${prefix}/held/`);
    expect(await kv.timeToLive(tombstone?.leaseId ?? '', life)).toMatchObject({ grantedSeconds: 28 * ttlSeconds });
    expect(await kv.timeToLive(entry?.leaseId ?? '', life)).toBeUndefined();
  });
});

describe('an etcd that slept', () => {
  const tombstone = { subnet: before('10.5.1.0/24').subnet, nodeId: 'a', revision: 1n, leaseId: '7', reserved: false };
  const life = new AbortController();

  class SleepyKv extends MemoryKv {
    time: TimeToLive = { ttlSeconds: 0, grantedSeconds: tombstoneSeconds(ttlSeconds) };
    asked = 0;
    override async timeToLive(): Promise<TimeToLive> {
      this.asked++;
      return this.time;
    }
  }

  it('does not give away what a living owner renews as soon as it can', async () => {
    const clock = new TestClock();
    const kv = new SleepyKv(clock);
    const quarantine = new Quarantine(kv, clock);
    const isOver = async (): Promise<boolean> => (await quarantine.judge([tombstone], life.signal))[0]?.over === true;
    expect(await isOver()).toBe(false);
    kv.time = { ...kv.time, ttlSeconds: kv.time.grantedSeconds };
    await clock.advance(15_000, stepMs);
    expect(await isOver()).toBe(false);
    const { asked } = kv;
    // Young now: there is nothing to ask for a quarantine.
    await clock.advance(quarantineMs - 5_000, stepMs);
    expect(await isOver()).toBe(false);
    expect(kv.asked).toBe(asked);
    kv.time = { ...kv.time, ttlSeconds: 0 };
    await clock.advance(5_000, stepMs);
    expect(await isOver()).toBe(false);
    await clock.advance(15_000, stepMs);
    expect(await isOver()).toBe(true);
    await kv.close();
  });
});
