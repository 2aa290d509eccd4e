/** The state of a held lease: the pure steps, and the keeper on a clock that only the test moves. */
import { setMaxListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { parseIpv4, parsePrefix } from '../../src/model/ipv4.js';
import type { Lease } from '../../src/model/lease.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from '../../src/store/memory/memory-kv.js';
import { beginTenure, step, type News, type Sight, type Tenure } from '../../src/store/tenure.js';
import { all, nodeOf, prefix, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

const node = nodeOf(1);
const lease: Lease = {
  publicIp: node.publicIp,
  backend: { type: 'udp' },
  nodeId: node.id,
  bootId: node.bootId,
  released: false,
  subnet: parsePrefix('10.5.1.0/24'),
  createRevision: 10n,
  revision: 10n,
  leaseId: '77',
};
const begun = beginTenure(node, 60, { lease, heldLeaseId: '88', sentAtMs: 1_000 });

function after(news: readonly News[], from: Tenure = begun, nowMs = 5_000): Tenure {
  return news.reduce((tenure, item) => step(tenure, item, nowMs, () => 1), from);
}
const present = (more: Partial<Lease>, revision = 11n): Sight => ({
  kind: 'present',
  lease: { ...lease, revision, ...more },
  revision,
  rewound: false,
});
const absent: Sight = { kind: 'absent', revision: 12n, rewound: false };

describe('deadlines', () => {
  it('count from the send, less a second or a hundredth', () => {
    expect(begun).toMatchObject({ state: 'held', deadlineMs: 60_000, renewAtMs: 21_000, renewedAtMs: 1_000 });
    const day = beginTenure(node, 86_400, { lease, heldLeaseId: '88', sentAtMs: 0 });
    expect(day).toMatchObject({ deadlineMs: 86_400_000 * 0.99, renewAtMs: 300_000 });
    expect(beginTenure(node, 30 * 86_400, { lease, heldLeaseId: '88', sentAtMs: 0 }).renewAtMs).toBe(300_000);
  });

  it('pass into unknown and come back with a renewal', () => {
    const unknown = after([{ kind: 'tick' }], begun, 60_000);
    expect(unknown.state).toBe('unknown');
    expect(after([{ kind: 'tick' }], begun, 59_999).state).toBe('held');
    const renewed = after([{ kind: 'renewed', sentAtMs: 61_000, ttlSeconds: 60 }], unknown);
    expect(renewed).toMatchObject({ state: 'held', deadlineMs: 120_000, renewedAtMs: 61_000 });
  });

  it('retry sooner than a renewal, at growing distances of at most 5 s', () => {
    const delays = Array.from({ length: 8 }, (_, index) => {
      const failed = after(Array.from({ length: index + 1 }, (): News => ({ kind: 'unanswered' })));
      return failed.renewAtMs - 5_000;
    });
    expect(delays).toEqual([200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  });
});

describe('what is seen at our key', () => {
  it.each<[string, Partial<Lease>, string, string]>([
    ['what we wrote', {}, 'held', 'nothing'],
    ['another node', { nodeId: 'node-2', publicIp: parseIpv4('192.0.2.2') }, 'lost', 'nothing'],
    ['another node at our address', { nodeId: 'node-2' }, 'lost', 'nothing'],
    ['another address without a node id', { nodeId: undefined, publicIp: parseIpv4('192.0.2.2') }, 'lost', 'nothing'],
    ['our id at another address', { publicIp: parseIpv4('192.0.2.2') }, 'lost', 'nothing'],
    ['our id in another boot', { bootId: 'boot-2' }, 'lost', 'nothing'],
    ['an entry of flannel for us', { nodeId: undefined, bootId: undefined, leaseId: '78' }, 'held', 'attach'],
    ['our value on another etcd lease', { leaseId: '78' }, 'held', 'attach'],
    ['our value marked released', { released: true }, 'held', 'attach'],
    ['our value without a lease', { leaseId: '0' }, 'held', 'attach'],
  ])('%s', (_, more, state, need) => {
    expect(after([present(more)])).toMatchObject({ state, need });
  });

  it('nothing: gone, until it is made again', () => {
    const gone = after([absent]);
    expect(gone).toMatchObject({ state: 'gone', need: 'create' });
    const again = { ...lease, createRevision: 13n, revision: 13n, leaseId: '79' };
    expect(
      after([{ kind: 'claimed', claim: { lease: again, heldLeaseId: '89', sentAtMs: 4_000 } }], gone),
    ).toMatchObject({
      state: 'held',
      need: 'nothing',
      leaseId: '79',
      deadlineMs: 63_000,
    });
  });

  it('news from before our own last write is no news, unless the store went back in time', () => {
    const written = after([
      { kind: 'claimed', claim: { lease: { ...lease, revision: 20n }, heldLeaseId: '88', sentAtMs: 4_000 } },
    ]);
    expect(after([absent], written)).toBe(written);
    expect(after([{ ...absent, rewound: true }], written).state).toBe('gone');
  });

  it('a reservation has no deadline and no renewal', () => {
    const reserved = after([present({ leaseId: '0' })]);
    expect(reserved).toMatchObject({ leaseId: '0', deadlineMs: Infinity, renewAtMs: Infinity });
    expect(after([{ kind: 'tick' }, { kind: 'lease-gone', leaseId: '77' }], reserved, 1e15)).toBe(reserved);
  });

  it('lost is for good', () => {
    const lost = after([{ kind: 'foreign', reason: 'junk', revision: 11n, rewound: false }]);
    expect(lost.lostReason).toContain('10.5.1.0/24');
    expect(after([present({}, 30n), { kind: 'renewed', sentAtMs: 9_000, ttlSeconds: 60 }, absent], lost)).toBe(lost);
  });

  it('our own past in a store that went back in time is ours, once and again, and another owner there is not', () => {
    const old = { bootId: 'boot-0', publicIp: parseIpv4('192.0.2.9'), revision: 3n, createRevision: 3n, leaseId: '5' };
    const back = after([{ ...present(old, 4n), rewound: true }]);
    expect(back).toMatchObject({ state: 'held', need: 'attach', lease: { revision: 3n } });
    expect(after([{ kind: 'lease-gone', leaseId: '77' }, present(old, 4n)], back)).toMatchObject({ need: 'attach' });
    expect(after([present({ ...old, revision: 5n }, 5n)], back).state).toBe('lost');
    expect(after([{ ...present({ ...old, nodeId: 'node-2' }, 4n), rewound: true }]).state).toBe('lost');
  });

  it('a dead etcd lease is a reason to look, not to give up', () => {
    expect(after([{ kind: 'lease-gone', leaseId: '77' }])).toMatchObject({
      state: 'held',
      need: 'look',
      leaseId: undefined,
    });
    expect(after([{ kind: 'lease-gone', leaseId: 'older' }])).toBe(begun);
  });
});

describe('a changed address', () => {
  const publicIp = parseIpv4('198.51.100.1');
  const moved = after([{ kind: 'moved', publicIp }]);

  it('is a reason to write, also when what stands there is what we wrote', () => {
    expect(moved).toMatchObject({ state: 'held', need: 'attach', node: { publicIp } });
    expect(after([present({})], moved)).toMatchObject({ state: 'held', need: 'attach' });
    expect(after([{ kind: 'moved', publicIp: node.publicIp }, present({})], moved).need).toBe('nothing');
    expect(after([absent, { kind: 'moved', publicIp }])).toMatchObject({ state: 'gone', need: 'create' });
  });

  it('is known as ours before the answer to our write comes, and the old one after', () => {
    const seen = after([present({ publicIp }, 11n)], moved);
    expect(seen).toMatchObject({ state: 'held', need: 'nothing', lease: { publicIp } });
    expect(after([present({}, 12n)], seen)).toMatchObject({ state: 'held', need: 'attach' });
    expect(after([present({ publicIp: parseIpv4('192.0.2.66') }, 12n)], seen).state).toBe('lost');
  });

  it('that changed again while it was written is written again', () => {
    const written = { ...lease, publicIp, revision: 12n };
    const news: News[] = [
      { kind: 'moved', publicIp: parseIpv4('198.51.100.2') },
      { kind: 'claimed', claim: { lease: written, heldLeaseId: '88', sentAtMs: 4_000 } },
    ];
    expect(after(news, moved)).toMatchObject({ state: 'held', need: 'attach', lease: { publicIp } });
  });
});

class FailingKv extends MemoryKv {
  #failing = false;
  renewals = 0;

  set failing(on: boolean) {
    this.#failing = on;
    if (on) this.breakWatches();
  }

  override async keepAlive(...given: Parameters<MemoryKv['keepAlive']>): ReturnType<MemoryKv['keepAlive']> {
    this.renewals++;
    this.#check();
    return super.keepAlive(...given);
  }

  override async list(...given: Parameters<MemoryKv['list']>): ReturnType<MemoryKv['list']> {
    this.#check();
    return super.list(...given);
  }

  override async watch(...given: Parameters<MemoryKv['watch']>): ReturnType<MemoryKv['watch']> {
    this.#check();
    return super.watch(...given);
  }

  #check(): void {
    if (this.#failing) throw new TartanError('STORE_UNAVAILABLE', 'failing for the test');
  }
}

describe('the keeper', () => {
  async function held(ttlSeconds: number) {
    const clock = new TestClock();
    const kv = new FailingKv(clock);
    const life = new AbortController();
    setMaxListeners(0, life.signal);
    const store = openLeaseStore(kv, { prefix, log: silentLog, clock });
    const keeping = await store.acquire(requestOf(node, { ttlSeconds }), { signal: life.signal });
    return { clock, kv, store, keeping };
  }

  it('renews a day-long lease every five minutes, without a write', async () => {
    const { clock, kv, store, keeping } = await held(86_400);
    const [before] = await all(kv, `${prefix}/subnets/`);
    await clock.advance(3_600_000);
    expect(kv.renewals).toBe(12);
    expect(await all(kv, `${prefix}/subnets/`)).toEqual([before]);
    expect(keeping.state).toBe('held');
    await store.close();
  });

  it('is unknown after the deadline, asks again at least every 5 s, and makes its lease again', async () => {
    const { clock, kv, store, keeping } = await held(60);
    const { subnet } = keeping.lease;
    const states: string[] = [];
    keeping.onChange(() => states.push(keeping.state));
    kv.failing = true;
    await clock.advance(58_000);
    expect(keeping.state).toBe('held');
    await clock.advance(3_000);
    expect(keeping.state).toBe('unknown');
    const { renewals } = kv;
    await clock.advance(60_000);
    expect(kv.renewals - renewals).toBeGreaterThanOrEqual(11);
    expect(kv.renewals - renewals).toBeLessThanOrEqual(60);
    kv.failing = false;
    await clock.advance(6_000);
    expect(keeping).toMatchObject({ state: 'held', lease: { subnet } });
    expect(states).toEqual(expect.arrayContaining(['unknown', 'gone', 'held']));
    expect(await all(kv, `${prefix}/subnets/`)).toHaveLength(1);
    await store.close();
  });

  it('publishes a changed address as soon as the store is back', async () => {
    const { clock, kv, store, keeping } = await held(60);
    const publicIp = parseIpv4('198.51.100.1');
    kv.failing = true;
    let written = false;
    const updating = keeping.update({ publicIp }).then(() => (written = true));
    await clock.advance(100_000);
    expect([keeping.state, written, keeping.lease.publicIp]).toEqual(['unknown', false, node.publicIp]);
    kv.failing = false;
    await clock.advance(6_000);
    await updating;
    expect(keeping).toMatchObject({ state: 'held', lease: { publicIp } });
    const [entry] = await all(kv, `${prefix}/subnets/`);
    expect(entry?.value).toContain('198.51.100.1');
    await store.close();
  });

  it('ends all its work when the lease is lost, also while a renewal is due', async () => {
    const { clock, kv, store, keeping } = await held(60);
    kv.failing = true;
    await clock.advance(100_000);
    const [key] = [`${prefix}/subnets/${'10.5.'}`];
    kv.failing = false;
    await kv.commit(
      [],
      [
        {
          kind: 'put',
          key: Buffer.from(`${key}${(keeping.lease.subnet.base >>> 8) & 255}.0-24`),
          value: Buffer.from('{"PublicIP":"192.0.2.66"}'),
          leaseId: '0',
        },
      ],
      { signal: new AbortController().signal },
    );
    await clock.advance(6_000);
    expect(keeping.state).toBe('lost');
    expect(keeping.lost.aborted).toBe(true);
    const { renewals } = kv;
    await clock.advance(60_000);
    expect(kv.renewals).toBe(renewals);
    await keeping.release();
    expect(await all(kv, `${prefix}/subnets/`)).toMatchObject([{ value: '{"PublicIP":"192.0.2.66"}' }]);
    await store.close();
  });
});
