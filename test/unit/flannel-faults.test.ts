/**
 * Faults F1 to F10 found in flannel's source: for each the test in which this program differs. Most stand elsewhere
 * under their own names and are listed here, so that none can vanish unnoticed; what no other test shows is shown here.
 */
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix, prefixesOverlap } from '../../src/model/ip.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from '../support/memory-kv.js';
import type { OwnLease, LeaseStore } from '../../src/store/store.js';
import { JumpingClock } from '../support/lease-world.js';
import { all, before, del, networkOf, nodeOf, prefix, put, requestOf } from '../support/store.js';

const elsewhere: readonly [fault: string, file: string, title: string][] = [
  [
    'F1 renewal by an unguarded put',
    'unit/keeper.test.ts',
    'renews a day-long lease every five minutes, without a write',
  ],
  [
    'F1 the new owner overwritten',
    'e2e/lease.test.ts',
    'overwritten with another owner: stops within a second with 75',
  ],
  ['F1 after a pause', 'e2e/faults/lease-faults.ts', 'longer than its lease lives, the subnet taken by another'],
  [
    'F2 keys of two families',
    'contract/store-contract.ts',
    'avoids whatever overlaps: other lengths, junk values, dual',
  ],
  ['F4 a lost race ends the daemon', 'contract/store-etcd-race.test.ts', 'hosts that start at once a subnet each'],
  ['F5 one bad key removes all routes', 'contract/store-contract.ts', 'refuses bad entries alone'],
  ['F5 the same with a real etcd', 'e2e/bad-leases.test.ts', 'the route between the two hosts worked all the time'],
  ['F8 exit 0 when the key is deleted', 'e2e/lease.test.ts', 'deleted by an operator: made again within a second'],
  ['F9 a reservation gets a lifetime', 'contract/store-contract.ts', 'stays a reservation over restarts'],
];

it.each(elsewhere)('%s: %s has "%s"', (_, file, title) => {
  expect(readFileSync(new URL(`../${file}`, import.meta.url), 'utf8')).toContain(title);
});

const life = new AbortController();
setMaxListeners(0, life.signal);
const o = { signal: life.signal };
const stores: LeaseStore[] = [];
const clock = new JumpingClock();

function open(kv: MemoryKv): LeaseStore {
  const store = openLeaseStore(kv, { prefix, log: silentLog, clock });
  stores.push(store);
  return store;
}

/** Time passes until the promise is settled. */
async function after<T>(promise: Promise<T>): Promise<T> {
  const progress = { settled: false };
  void promise.finally(() => (progress.settled = true)).catch(() => {});
  while (!progress.settled) await clock.runUntil(clock.now() + 100);
  return promise;
}

/** The subnets of the next set that is watched. */
async function nextSet(store: LeaseStore): Promise<readonly string[]> {
  for await (const { leases } of store.watch(o)) return leases.map(({ subnet }) => formatPrefix(subnet)).sort();
  return [];
}

afterEach(async () => {
  await after(Promise.all(stores.splice(0).map(store => store.close())));
});

/** Fails in what a test names, as often as it says. */
class StubbornKv extends MemoryKv {
  failures = { list: 0, watch: 0, timeToLive: 0 };

  override async list(...given: Parameters<MemoryKv['list']>): ReturnType<MemoryKv['list']> {
    this.#fail('list');
    return super.list(...given);
  }

  override async watch(...given: Parameters<MemoryKv['watch']>): ReturnType<MemoryKv['watch']> {
    this.#fail('watch');
    return super.watch(...given);
  }

  override async timeToLive(...given: Parameters<MemoryKv['timeToLive']>): ReturnType<MemoryKv['timeToLive']> {
    this.#fail('timeToLive');
    return super.timeToLive(...given);
  }

  #fail(what: keyof StubbornKv['failures']): void {
    if (this.failures[what]-- > 0) throw new TartanError('STORE_UNAVAILABLE', `${what} fails for the test`);
  }
}

describe('F3 overlap of unequal lengths', () => {
  it('hosts that start at once with /24, /25 and /22 never overlap', async () => {
    const kv = new MemoryKv(clock);
    const lengths = [24, 25, 22] as const;
    const leases = await after(
      Promise.all(
        Array.from({ length: 18 }, (_, index) =>
          open(kv).acquire(
            requestOf(nodeOf(index + 1), {
              // Twelve short subnets may lie in as many /22s, and six of 31 are needed.
              network: networkOf('10.5.0.0/17', { SubnetMin: '10.5.4.0', SubnetLen: lengths[index % lengths.length] }),
            }),
            o,
          ),
        ),
      ),
    );
    const subnets = leases.map(({ lease }) => lease.subnet);
    for (const [index, one] of subnets.entries())
      for (const other of subnets.slice(index + 1))
        expect(prefixesOverlap(one, other), `${formatPrefix(one)} and ${formatPrefix(other)}`).toBe(false);
  });
});

describe('F6 a failed look at the time to live removes a route', () => {
  it('the set is whole though no time to live can be read', async () => {
    const kv = new StubbornKv(clock);
    kv.failures.timeToLive = Infinity;
    await put(kv, `${prefix}/subnets/10.5.2.0-24`, '{"PublicIP":"192.0.2.2"}', await kv.grantLease(60, o));
    await put(kv, `${prefix}/subnets/10.5.3.0-24`, '{"PublicIP":"192.0.2.3"}', await kv.grantLease(60, o));
    expect(await after(nextSet(open(kv)))).toEqual(['10.5.2.0/24', '10.5.3.0/24']);
  });
});

describe('F7 a failed first read makes a zombie', () => {
  async function acquired(kv: MemoryKv): Promise<OwnLease> {
    return after(open(kv).acquire(requestOf(nodeOf(1), { ttlSeconds: 60 }), o));
  }

  it('the own lease is watched and renewed all the same', async () => {
    const kv = new StubbornKv(clock);
    const lease = await acquired(kv);
    kv.failures = { list: 3, watch: 3, timeToLive: 0 };
    kv.breakWatches();
    await clock.runUntil(clock.now() + 200_000);
    expect(lease.status).toBe('held');
    expect(lease.renewedAtMs).toBeGreaterThan(clock.now() - 60_000);
  });

  it('the peers are learnt all the same', async () => {
    const kv = new StubbornKv(clock);
    await put(kv, `${prefix}/subnets/10.5.2.0-24`, '{"PublicIP":"192.0.2.2"}');
    kv.failures = { list: 5, watch: 5, timeToLive: 0 };
    expect(await after(nextSet(open(kv)))).toEqual(['10.5.2.0/24']);
  });
});

describe('F10 the watch of the own key is a watch of a prefix', () => {
  it('a key that only begins like ours comes and goes, and nothing happens', async () => {
    const kv = new MemoryKv(clock);
    const lease = await after(open(kv).acquire(requestOf(nodeOf(1), { previous: [before('10.5.1.0/24')] }), o));
    const states: string[] = [];
    lease.onChange(() => states.push(lease.status));
    const longer = `${prefix}/subnets/10.5.1.0-24&fd00:5::-64`;
    await put(kv, longer, '{"PublicIP":"192.0.2.9"}');
    await del(kv, longer);
    await clock.runUntil(clock.now() + 5_000);
    expect(states).toEqual([]);
    expect(await all(kv, `${prefix}/subnets/`)).toMatchObject([{ key: `${prefix}/subnets/10.5.1.0-24` }]);
  });
});
