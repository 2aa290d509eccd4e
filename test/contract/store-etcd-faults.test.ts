/** What only a real etcd can do to us: compaction, pauses, restarts, lost replies, huge values, dead endpoints. */
import { createServer, type AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix, samePrefix } from '../../src/model/ip.js';
import type { LeaseSet } from '../../src/model/lease.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Keys } from '../../src/store/keys.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { getNetworkText, putNetworkText } from '../../src/store/operator.js';
import type { LeaseStore } from '../../src/store/store.js';
import { deadEndpoint, EtcdServer } from '../support/etcd.js';
import { Relay } from '../support/relay.js';
import { all, before, del, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;

let server: EtcdServer;
let relay: Relay;
let kv: Kv;
let life: AbortController;
const opened: LeaseStore[] = [];

beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());
beforeEach(async () => {
  await server.ctl('del', '--prefix', '');
  relay = await Relay.open(server.port);
  kv = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
  life = new AbortController();
});
afterEach(async () => {
  life.abort();
  await Promise.all(opened.splice(0).map(async store => store.close()));
  await kv.close();
  await relay.close();
});

function open(endpoints: readonly string[] = [relay.endpoint], wrap = (inner: Kv): Kv => inner): LeaseStore {
  const inner = wrap(openEtcd({ endpoints, prefix }, silentLog));
  const store = openLeaseStore(inner, { prefix, log: silentLog, clock: bootClock });
  opened.push(store);
  return store;
}

function collect(store: LeaseStore): LeaseSet[] {
  const sets: LeaseSet[] = [];
  void (async () => {
    for await (const set of store.watch({ signal: life.signal })) sets.push(set);
  })().catch(() => {});
  return sets;
}

const names = (set: LeaseSet | undefined): readonly string[] =>
  (set?.leases ?? []).map(lease => formatPrefix(lease.subnet)).sort();
const o = (): { signal: AbortSignal } => ({ signal: life.signal });

describe('the watch', () => {
  it('learns what happened while it was away and the history was compacted', async () => {
    await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
    await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
    const sets = collect(open());
    await until('the first set', () => sets.length > 0);
    relay.cut();
    await del(kv, key('10.5.3.0-24'));
    await put(kv, key('10.5.4.0-24'), flannel('192.0.2.4'));
    const { revision } = await kv.list(new Keys(prefix).subnets, o());
    await server.ctl('compact', String(revision), '--physical');
    relay.restore();
    await until('the present set', () => names(sets.at(-1)).join() === '10.5.2.0/24,10.5.4.0/24', 5000);
    for (const set of sets) expect(names(set)).toContain('10.5.2.0/24');
  });

  it('tells a compaction of its start revision', async () => {
    await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
    await put(kv, key('10.5.2.0-24'), flannel('192.0.2.3'));
    const listing = await kv.list(new Keys(prefix).subnets, o());
    await server.ctl('compact', String(listing.revision));
    const request = { range: new Keys(prefix).subnets, revision: 1n, clusterId: listing.clusterId, onEvents: () => {} };
    expect(await kv.watch(request, o())).toMatchObject({ kind: 'compacted' });
  });

  it('ends at a point that etcd has not reached: it is another than it was', async () => {
    const { revision, clusterId } = await kv.list(new Keys(prefix).subnets, o());
    const request = { range: new Keys(prefix).subnets, revision: revision + 1n, clusterId, onEvents: () => {} };
    expect(await kv.watch({ ...request, revision: revision + 2n }, o())).toMatchObject({ kind: 'broken' });
    const end = new AbortController();
    const present = kv.watch(request, { signal: end.signal });
    end.abort('over');
    await expect(present).rejects.toBe('over');
  });

  it('of one reader ends without harm to the connection of the others', async () => {
    const shared = openEtcd({ endpoints: [relay.endpoint], prefix }, silentLog);
    const { revision, clusterId } = await shared.list(new Keys(prefix).subnets, o());
    for (let turn = 0; turn < 3; turn++) {
      const sweep = new AbortController();
      const watching = shared.watch(
        { range: new Keys(prefix).subnets, revision: revision + 1n, clusterId, onEvents: () => sweep.abort('over') },
        { signal: sweep.signal },
      );
      // What was written in the turn before may come before this is answered.
      const over = expect(watching).rejects.toBe('over');
      await put(kv, key('10.5.2.0-24'), flannel(`192.0.2.${turn + 2}`));
      await over;
      await shared.list(new Keys(prefix).subnets, o());
    }
    expect(relay.accepted).toBe(1);
    await shared.close();
  });

  it('yields nothing at all because of an outage', async () => {
    await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
    const sets = collect(open());
    await until('the first set', () => sets.length > 0);
    relay.cut();
    await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
    relay.restore();
    await until('the new set', () => sets.length > 1, 5000);
    expect(sets.map(names)).toEqual([['10.5.2.0/24'], ['10.5.2.0/24', '10.5.3.0/24']]);
  });

  it('converges with values larger together than a gRPC message', async () => {
    await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
    for (const name of ['1', '2', '3']) await put(kv, key(`junk/${name}`), 'A'.repeat(1_500_000));
    const sets = collect(open());
    await until('the set', () => sets.length > 0);
    expect(names(sets[0])).toEqual(['10.5.2.0/24']);
    expect(sets[0]?.rejected.map(entry => entry.key)).toEqual(['junk/1', 'junk/2', 'junk/3']);
    for (const name of ['4', '5', '6']) await put(kv, key(`junk/${name}`), 'A'.repeat(1_500_000));
    await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
    await until('the next set', () => names(sets.at(-1)).length === 2);
  });

  it('reads several pages as one set, and small ones where large ones are not answered in time', async () => {
    for (let page = 0; page < 52; page++) {
      const writes = Array.from({ length: 100 }, (_, index) => ({
        kind: 'put' as const,
        key: Buffer.from(key(`10.5.${page}.${index * 2}-31`)),
        value: Buffer.from(flannel('192.0.2.2')),
        leaseId: '0',
      }));
      await kv.commit([], writes, o());
    }
    const sets = collect(open());
    await until('the set', () => sets.length > 0);
    expect(new Set(names(sets[0])).size).toBe(5200);
    relay.bytesPerSecond = 150_000;
    const slow = collect(open());
    await until('the set over a narrow way', () => slow.length > 0, 20_000);
    expect(names(slow[0])).toEqual(names(sets[0]));
  });
});

describe('an own lease', () => {
  it('is unknown while etcd is stopped, and held again with the same subnet after', async () => {
    const lease = await open([server.endpoint]).acquire(requestOf(nodeOf(1), { ttlSeconds: 4 }), o());
    const { subnet } = lease.lease;
    server.signal('SIGSTOP');
    try {
      await until('unknown', () => lease.status === 'unknown');
      expect(lease.renewFailures).toBeGreaterThan(0);
    } finally {
      server.signal('SIGCONT');
    }
    await until('held', () => lease.status === 'held' && lease.deadlineMs > bootClock.now());
    await until('in etcd', async () => (await all(kv, key(''))).length === 1);
    expect(samePrefix(lease.lease.subnet, subnet)).toBe(true);
    expect(lease.lost.aborted).toBe(false);
  });

  it('survives a restart of etcd', async () => {
    const lease = await open([server.endpoint]).acquire(requestOf(nodeOf(1), { ttlSeconds: 6 }), o());
    const { leaseId } = lease.lease;
    await server.restart();
    const { renewedAtMs } = lease;
    await until('renewed', () => lease.renewedAtMs > renewedAtMs);
    expect(lease).toMatchObject({ status: 'held', lease: { leaseId } });
  });

  it('registers the same subnet in an etcd that lost everything', async () => {
    for (let filler = 0; filler < 20; filler++) await put(kv, '/filler', String(filler));
    const lease = await open([server.endpoint]).acquire(
      requestOf(nodeOf(1), { previous: [before('10.5.77.0/24')] }),
      o(),
    );
    const old = lease.lease;
    await server.restart({ wipe: true });
    await until('registered', () => lease.status === 'held' && lease.lease.leaseId !== old.leaseId);
    expect((await all(kv, prefix)).map(entry => entry.key)).toEqual([
      `${prefix}/held/10.5.77.0-24`,
      key('10.5.77.0-24'),
    ]);
  });

  it('finds its lease again when the reply of the transaction was lost', async () => {
    const leases = async (): Promise<number> => (await server.ctl('lease', 'list')).trim().split('\n').length;
    const earlier = await leases();
    let lose = true;
    const losing = (inner: Kv): Kv => ({
      ...bound(inner),
      async commit(...given) {
        if (!lose) return inner.commit(...given);
        lose = false;
        relay.mute = true;
        return inner.commit(...given).finally(() => (relay.mute = false));
      },
    });
    const lease = await open([relay.endpoint], losing).acquire(requestOf(nodeOf(1)), o());
    expect(lose).toBe(false);
    const entries = await all(kv, key(''));
    expect(entries).toMatchObject([{ leaseId: lease.lease.leaseId, modRevision: lease.lease.revision }]);
    expect(await leases()).toBe(earlier + 2);
  });

  it('is lost, not taken back, when the host slept while another took the subnet', async () => {
    const want = requestOf(nodeOf(1), { ttlSeconds: 2, previous: [before('10.5.7.0/24')] });
    const lease = await open().acquire(want, o());
    relay.cut();
    await until('expired', async () => (await all(kv, key(''))).length === 0);
    await put(kv, key('10.5.7.0-24'), flannel('192.0.2.66'));
    relay.restore();
    await until('lost', () => lease.lost.aborted, 5000);
    expect((await all(kv, key('10.5.7.0-24')))[0]?.value).toBe(flannel('192.0.2.66'));
  });
});

describe('endpoints', () => {
  it('are left when they refuse, or accept and say nothing', async () => {
    const silent = createServer(() => {});
    await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve));
    const hole = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    try {
      const stores = Array.from({ length: 6 }, () => open([hole, deadEndpoint, server.endpoint]));
      const leases = await Promise.all(
        stores.map(async (store, index) => store.acquire(requestOf(nodeOf(index + 1)), o())),
      );
      expect(leases.map(lease => lease.status)).toEqual(leases.map(() => 'held'));
    } finally {
      silent.close();
      silent.unref();
    }
  });

  it('are left by a first call that writes what may be written twice', async () => {
    const clients = Array.from({ length: 12 }, () =>
      openEtcd({ endpoints: [deadEndpoint, server.endpoint], prefix }, silentLog),
    );
    try {
      const texts = clients.map((_, index) => `{"Network":"10.${index}.0.0/16"}`);
      await Promise.all(clients.map(async (client, index) => putNetworkText(client, prefix, texts[index] ?? '', o())));
      expect(texts).toContain(await getNetworkText(kv, prefix, o()));
    } finally {
      await Promise.all(clients.map(async client => client.close()));
    }
  });

  it('that do not answer are named', async () => {
    await expect(open([deadEndpoint]).network(o())).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining(deadEndpoint),
    });
  });
});

function bound(inner: Kv): Kv {
  return {
    list: (...given) => inner.list(...given),
    read: (...given) => inner.read(...given),
    commit: (...given) => inner.commit(...given),
    grantLease: (...given) => inner.grantLease(...given),
    keepAlive: (...given) => inner.keepAlive(...given),
    revokeLease: (...given) => inner.revokeLease(...given),
    timeToLive: (...given) => inner.timeToLive(...given),
    watch: (...given) => inner.watch(...given),
    close: () => inner.close(),
  };
}
