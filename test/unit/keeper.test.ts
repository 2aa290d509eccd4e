/** The lease state: the pure reducer, and the keeper on a clock that only the test moves. */
import { setMaxListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatIpv4, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { leaseValueOf, type Lease } from '../../src/model/lease.js';
import { ownLeaseValue } from '../../src/store/acquire.js';
import { Keys } from '../../src/store/keys.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { releaseSubnet } from '../../src/store/release.js';
import { MemoryKv } from '../support/memory-kv.js';
import {
  initialLeaseState,
  reduce,
  type LeaseEvent,
  type KeyObservation,
  type LeaseState,
  nextWorkAtMs,
  renewalAtMs,
} from '../../src/store/lease-state.js';
import { all, nodeOf, prefix, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

const node = nodeOf(1);
const wanted = ownLeaseValue(requestOf(node));
const lease: Lease = {
  ...wanted,
  subnet: parsePrefix('10.5.1.0/24'),
  createRevision: 10n,
  revision: 10n,
  leaseId: '77',
};
const begun = initialLeaseState(wanted, 60, { lease, tombstoneLeaseId: '88', sentAtMs: 1_000 });

function after(events: readonly LeaseEvent[], from: LeaseState = begun, nowMs = 5_000): LeaseState {
  return events.reduce((state, item) => reduce(state, item, nowMs, () => 1), from);
}
const present = (more: Partial<Lease>, revision = 11n): KeyObservation => ({
  kind: 'present',
  lease: leaseValueOf({ ...lease, revision, ...more }),
  revision,
  rewound: false,
});
const absent: KeyObservation = { kind: 'absent', revision: 12n, rewound: false };

describe('deadlines', () => {
  it('count from the send, less a second or a hundredth', () => {
    expect(begun).toMatchObject({ status: 'held', deadlineMs: 60_000, renewAtMs: 21_000, renewedAtMs: 1_000 });
    const day = initialLeaseState(wanted, 86_400, { lease, tombstoneLeaseId: '88', sentAtMs: 0 });
    expect(day).toMatchObject({ deadlineMs: 86_400_000 * 0.99, renewAtMs: 300_000 });
    expect(initialLeaseState(wanted, 30 * 86_400, { lease, tombstoneLeaseId: '88', sentAtMs: 0 }).renewAtMs).toBe(
      300_000,
    );
  });

  it('pass into unknown and come back with a renewal', () => {
    const unknown = after([{ kind: 'tick' }], begun, 60_000);
    expect(unknown.status).toBe('unknown');
    expect(after([{ kind: 'tick' }], begun, 59_999).status).toBe('held');
    const renewed = after([{ kind: 'renewed', sentAtMs: 61_000, ttlSeconds: 60 }], unknown);
    expect(renewed).toMatchObject({ status: 'held', deadlineMs: 120_000, renewedAtMs: 61_000 });
  });

  it('retry sooner than a renewal, at growing distances of at most 5 s', () => {
    const delays = Array.from({ length: 8 }, (_, index) => {
      const failed = after(Array.from({ length: index + 1 }, (): LeaseEvent => ({ kind: 'unanswered' })));
      return failed.renewAtMs - 5_000;
    });
    expect(delays).toEqual([200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  });
});

describe('what is seen at our key', () => {
  it.each<[string, Partial<Lease>, string, string]>([
    ['what we wrote', {}, 'held', 'none'],
    ['another node', { nodeId: 'node-2', publicIp: parseIpv4('192.0.2.2') }, 'lost', 'none'],
    ['another node at our address', { nodeId: 'node-2' }, 'lost', 'none'],
    ['another address without a node id', { nodeId: undefined, publicIp: parseIpv4('192.0.2.2') }, 'lost', 'none'],
    ['our id at another address', { publicIp: parseIpv4('192.0.2.2') }, 'held', 'rewrite'],
    ['our id without a boot id', { bootId: undefined }, 'held', 'rewrite'],
    ['our id without a boot id elsewhere', { bootId: undefined, publicIp: parseIpv4('192.0.2.2') }, 'lost', 'none'],
    ['our id in another boot', { bootId: 'boot-2' }, 'lost', 'none'],
    ['an entry of flannel for us', { nodeId: undefined, bootId: undefined, leaseId: '78' }, 'held', 'rewrite'],
    ['our value on another etcd lease', { leaseId: '78' }, 'held', 'rewrite'],
    ['our value marked released', { released: true }, 'held', 'rewrite'],
    ['our value without a lease', { leaseId: '0' }, 'held', 'rewrite'],
  ])('%s', (_, more, status, nextAction) => {
    expect(after([present(more)])).toMatchObject({ status, nextAction });
  });

  it('nothing: gone, until it is made again', () => {
    const gone = after([absent]);
    expect(gone).toMatchObject({ status: 'gone', nextAction: 'create' });
    const again = { ...lease, createRevision: 13n, revision: 13n, leaseId: '79' };
    expect(
      after([{ kind: 'claimed', claim: { lease: again, tombstoneLeaseId: '89', sentAtMs: 4_000 } }], gone),
    ).toMatchObject({
      status: 'held',
      nextAction: 'none',
      leaseId: '79',
      deadlineMs: 63_000,
    });
  });

  it('an event from before our own last write changes nothing, unless the store went back in time', () => {
    const written = after([
      { kind: 'claimed', claim: { lease: { ...lease, revision: 20n }, tombstoneLeaseId: '88', sentAtMs: 4_000 } },
    ]);
    expect(after([absent], written)).toBe(written);
    expect(after([{ ...absent, rewound: true }], written).status).toBe('gone');
  });

  it.each<[string, KeyObservation]>([
    ['its end', absent],
    ['an alteration', present({ publicIp: parseIpv4('192.0.2.2') }, 12n)],
  ])('%s that is seen before the answer to our own earlier write is read again', (_, later) => {
    const claim = { lease: { ...lease, revision: 11n }, tombstoneLeaseId: '88', sentAtMs: 4_000 };
    const written = after([later, { kind: 'claimed', claim }]);
    expect(written).toMatchObject({ status: 'held', nextAction: 'observe' });
    expect(after([present({}, 11n)], written).nextAction).toBe('none');
    expect(after([{ ...absent, revision: 13n }], written)).toMatchObject({ status: 'gone', nextAction: 'create' });
  });

  it('a reservation has no deadline and no renewal', () => {
    const reserved = after([present({ leaseId: '0' })]);
    expect(reserved).toMatchObject({ leaseId: '0', deadlineMs: Infinity, renewAtMs: Infinity });
    expect(after([{ kind: 'tick' }, { kind: 'lease-gone', leaseId: '77' }], reserved, 1e15)).toBe(reserved);
  });

  it('a reservation whose repair was not answered has work at its next repair alone', () => {
    const reserved = after([present({ leaseId: '0' })]);
    const waiting = after([{ kind: 'unanswered' }], reserved);
    expect(renewalAtMs(waiting)).toBe(Infinity);
    expect(nextWorkAtMs({ ...waiting, nextAction: 'none' })).toBe(Infinity);
    expect(renewalAtMs(after([{ kind: 'unanswered' }]))).toBe(5_200);
  });

  it('lost is for good', () => {
    const lost = after([{ kind: 'foreign', reason: 'junk', revision: 11n, rewound: false }]);
    expect(lost.lostReason).toContain('10.5.1.0/24');
    expect(after([present({}, 30n), { kind: 'renewed', sentAtMs: 9_000, ttlSeconds: 60 }, absent], lost)).toBe(lost);
  });

  it('our own past in a store that went back in time is ours, once and again, and another owner there is not', () => {
    const old = { bootId: 'boot-0', publicIp: parseIpv4('192.0.2.9'), revision: 3n, createRevision: 3n, leaseId: '5' };
    const back = after([{ ...present(old, 4n), rewound: true }]);
    expect(back).toMatchObject({ status: 'held', nextAction: 'rewrite', lease: { revision: 3n } });
    expect(after([{ kind: 'lease-gone', leaseId: '77' }, present(old, 4n)], back)).toMatchObject({
      nextAction: 'rewrite',
    });
    expect(after([present({ ...old, revision: 5n }, 5n)], back).status).toBe('lost');
    expect(after([{ ...present({ ...old, nodeId: 'node-2' }, 4n), rewound: true }]).status).toBe('lost');
  });

  it('a dead etcd lease is a reason to look, not to give up', () => {
    expect(after([{ kind: 'lease-gone', leaseId: '77' }])).toMatchObject({
      status: 'held',
      nextAction: 'observe',
      leaseId: undefined,
    });
    expect(after([{ kind: 'lease-gone', leaseId: 'older' }])).toBe(begun);
  });
});

describe('a changed address', () => {
  const publicIp = parseIpv4('198.51.100.1');
  const moved = after([{ kind: 'changed', change: { publicIp } }]);

  it('is a reason to write, also when what stands there is what we wrote', () => {
    expect(moved).toMatchObject({ status: 'held', nextAction: 'rewrite', wanted: { publicIp } });
    expect(after([present({})], moved)).toMatchObject({ status: 'held', nextAction: 'rewrite' });
    expect(after([{ kind: 'changed', change: { publicIp: node.publicIp } }, present({})], moved).nextAction).toBe(
      'none',
    );
    expect(after([absent, { kind: 'changed', change: { publicIp } }])).toMatchObject({
      status: 'gone',
      nextAction: 'create',
    });
  });

  it('is known as ours before the answer to our write comes, and the old one after', () => {
    const seen = after([present({ publicIp }, 11n)], moved);
    expect(seen).toMatchObject({ status: 'held', nextAction: 'none', lease: { publicIp } });
    expect(after([present({}, 12n)], seen)).toMatchObject({ status: 'held', nextAction: 'rewrite' });
    expect(after([present({ publicIp: parseIpv4('192.0.2.66') }, 12n)], seen)).toMatchObject({ nextAction: 'rewrite' });
  });

  it('that changed again while it was written is written again', () => {
    const written = leaseValueOf({ ...lease, publicIp, revision: 12n });
    const events: LeaseEvent[] = [
      { kind: 'changed', change: { publicIp: parseIpv4('198.51.100.2') } },
      { kind: 'claimed', claim: { lease: written, tombstoneLeaseId: '88', sentAtMs: 4_000 } },
    ];
    expect(after(events, moved)).toMatchObject({ status: 'held', nextAction: 'rewrite', lease: { publicIp } });
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
  async function keepLease(ttlSeconds: number) {
    const clock = new TestClock();
    const kv = new FailingKv(clock);
    const life = new AbortController();
    setMaxListeners(0, life.signal);
    const store = openLeaseStore(kv, { prefix, log: silentLog, clock });
    const keeping = await store.acquire(requestOf(node, { ttlSeconds }), { signal: life.signal });
    return { clock, kv, store, keeping };
  }

  it('renews a day-long lease every five minutes, without a write', async () => {
    const { clock, kv, store, keeping } = await keepLease(86_400);
    const [before] = await all(kv, `${prefix}/subnets/`);
    await clock.advance(3_600_000);
    expect(kv.renewals).toBe(12);
    expect(await all(kv, `${prefix}/subnets/`)).toEqual([before]);
    expect(keeping.status).toBe('held');
    await store.close();
  });

  it('is unknown after the deadline, asks again at least every 5 s, and makes its lease again', async () => {
    const { clock, kv, store, keeping } = await keepLease(60);
    const { subnet } = keeping.lease;
    const states: string[] = [];
    keeping.onChange(() => states.push(keeping.status));
    kv.failing = true;
    await clock.advance(58_000);
    expect(keeping.status).toBe('held');
    await clock.advance(3_000);
    expect(keeping.status).toBe('unknown');
    const { renewals } = kv;
    await clock.advance(60_000);
    expect(kv.renewals - renewals).toBeGreaterThanOrEqual(11);
    expect(kv.renewals - renewals).toBeLessThanOrEqual(60);
    kv.failing = false;
    await clock.advance(6_000);
    expect(keeping).toMatchObject({ status: 'held', lease: { subnet } });
    expect(states).toEqual(expect.arrayContaining(['unknown', 'gone', 'held']));
    expect(await all(kv, `${prefix}/subnets/`)).toHaveLength(1);
    await store.close();
  });

  it('publishes a changed address as soon as the store is back', async () => {
    const { clock, kv, store, keeping } = await keepLease(60);
    const publicIp = parseIpv4('198.51.100.1');
    kv.failing = true;
    let written = false;
    const updating = keeping.update({ publicIp }).then(() => (written = true));
    await clock.advance(100_000);
    expect([keeping.status, written, keeping.lease.publicIp]).toEqual(['unknown', false, node.publicIp]);
    kv.failing = false;
    await clock.advance(6_000);
    await updating;
    expect(keeping).toMatchObject({ status: 'held', lease: { publicIp } });
    const [entry] = await all(kv, `${prefix}/subnets/`);
    expect(entry?.value).toContain('198.51.100.1');
    await store.close();
  });

  it('ends all its work when the lease is lost, also while a renewal is due', async () => {
    const { clock, kv, store, keeping } = await keepLease(60);
    kv.failing = true;
    await clock.advance(100_000);
    const [key] = [`${prefix}/subnets/${'10.5.'}`];
    kv.failing = false;
    await kv.commit(
      [],
      [
        {
          kind: 'put',
          key: Buffer.from(`${key}${formatIpv4(keeping.lease.subnet.base).split('.')[2]}.0-24`),
          value: Buffer.from('{"PublicIP":"192.0.2.66"}'),
          leaseId: '0',
        },
      ],
      { signal: new AbortController().signal },
    );
    await clock.advance(6_000);
    expect(keeping.status).toBe('lost');
    expect(keeping.lost.aborted).toBe(true);
    const { renewals } = kv;
    await clock.advance(60_000);
    expect(kv.renewals).toBe(renewals);
    await keeping.close();
    const tool = { kv, keys: new Keys(prefix), clock };
    await releaseSubnet(tool, 'node-1', keeping.lease.subnet);
    expect(await all(kv, `${prefix}/subnets/`)).toMatchObject([{ value: '{"PublicIP":"192.0.2.66"}' }]);
    await store.close();
  });
});
