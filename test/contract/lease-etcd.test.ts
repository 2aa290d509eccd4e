/**
 * Lease safety on a real etcd: pools that just suffice, replies that are lost, keys and leases that an operator takes
 * away, stores that were wiped or went back in time. TARTAN_REPEAT=N does what is a matter of timing N times.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isTartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Keys } from '../../src/store/keys.js';
import type { Kv } from '../../src/store/kv.js';
import { reserve } from '../../src/store/reservation.js';
import type { OwnLease, LeaseRequest } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { Relay } from '../support/relay.js';
import { useStores } from '../support/store-bed.js';
import { all, before, networkOf, nodeOf, prefix, put, requestOf, udp, until, withCommit } from '../support/store.js';

const rounds = Math.max(1, Number(process.env['TARTAN_REPEAT'] ?? 1));
const each = Array.from({ length: rounds }, (_, index) => index + 1);
const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const tombstoneKey = (subnet: string): string => `${prefix}/held/${subnet}`;
const seven = '10.5.7.0-24';
const elsewhere = { publicIp: parseIpv4('198.51.100.1') };

let server: EtcdServer;
beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

const stores = useStores(async () => {
  await server.ctl('del', '--prefix', '');
  return { open: () => openEtcd({ endpoints: [server.endpoint], prefix }, silentLog), close: async () => {} };
});
const acquireSeven = async (more: Partial<LeaseRequest> = {}): Promise<OwnLease> =>
  stores().acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')], ...more }));
/** Those of earlier tests go one by one: a number of them says nothing. */
const leaseIds = async (): Promise<readonly string[]> =>
  (await server.ctl('lease', 'list')).trim().split('\n').slice(1);
const leasesBeside = async (earlier: readonly string[]): Promise<number> =>
  (await leaseIds()).filter(id => !earlier.includes(id)).length;

describe('a pool', () => {
  it.each(each)(
    'that just suffices gives every host one, and the next host the first that is given back (%i)',
    async () => {
      const hosts = 63;
      const network = networkOf('10.5.0.0/24', { SubnetLen: 30 });
      const { open, acquire, o, kv } = stores();
      const leases = await Promise.all(
        Array.from({ length: hosts }, async (_, index) => acquire(requestOf(nodeOf(index + 1), { network }))),
      );
      expect(new Set(leases.map(({ lease }) => lease.subnet.base)).size).toBe(hosts);
      const store = open();
      const late = requestOf(nodeOf(hosts + 1), { network });
      await expect(store.acquire(late, o())).rejects.toMatchObject({ code: 'NO_FREE_SUBNET' });
      let got: OwnLease | undefined;
      const waiting = until('the late host has one', async () => {
        try {
          got = await store.acquire(late, o());
        } catch (error) {
          if (!isTartanError(error, 'NO_FREE_SUBNET')) throw error;
        }
        return got !== undefined;
      });
      if (leases[20]) await stores().leave(leases[20]);
      expect(await waiting).toBeLessThan(5_000);
      expect(got?.lease.subnet).toEqual(leases[20]?.lease.subnet);
      expect((await all(kv, key(''))).length).toBe(hosts);
    },
  );

  it('gives away a subnet seven TTLs after its owner was last heard of, and not before', async () => {
    const network = networkOf('10.5.0.0/22', { SubnetLen: 24, SubnetMin: '10.5.2.0', SubnetMax: '10.5.2.0' });
    const { open, acquire, o } = stores();
    await (await acquire(requestOf(nodeOf(1), { network, ttlSeconds: 2 }))).close();
    const silent = performance.now();
    const store = open();
    let got: OwnLease | undefined;
    await until(
      'the other host has it',
      async () => {
        got = await store.acquire(requestOf(nodeOf(2), { network, ttlSeconds: 2 }), o()).catch(() => undefined);
        return got !== undefined;
      },
      40_000,
    );
    expect(performance.now() - silent).toBeGreaterThan(14_000);
    expect(got?.status).toBe('held');
  });
});

describe('a lost reply', () => {
  let relay: Relay;
  /** The next commit is done, and its answer is lost. */
  let lose = false;
  const losing = (): Kv => {
    const inner = openEtcd({ endpoints: [relay.endpoint], prefix }, silentLog);
    const commit: Kv['commit'] = async (...given) => {
      if (!lose) return inner.commit(...given);
      lose = false;
      relay.mute = true;
      return inner.commit(...given).finally(() => (relay.mute = false));
    };
    return withCommit(inner, commit);
  };
  beforeAll(async () => {
    relay = await Relay.open(server.port);
  });
  afterAll(async () => relay.close());

  it.each(each)('of a lease made again leaves one key and no lease behind (%i)', async () => {
    const { open, acquire, kv, o } = stores();
    const earlier = await leaseIds();
    const lease = await acquire(requestOf(nodeOf(1)), open({}, losing()));
    lose = true;
    await kv.revokeLease(lease.lease.leaseId, o());
    await until('made again', () => !lose && lease.status === 'held');
    await until('settled', async () => {
      const [entry] = await all(kv, key(''));
      return entry?.leaseId === lease.lease.leaseId && (await leasesBeside(earlier)) === 2;
    });
    expect((await all(kv, key(''))).length).toBe(1);
    expect(lease.lost.aborted).toBe(false);
  });

  it.each(each)('of a changed address is found out (%i)', async () => {
    const { open, acquire, kv } = stores();
    const lease = await acquire(requestOf(nodeOf(1)), open({}, losing()));
    const { leaseId } = lease.lease;
    lose = true;
    await lease.update(elsewhere);
    expect(lose).toBe(false);
    expect((await all(kv, key('')))[0]).toMatchObject({ leaseId, value: expect.stringContaining('198.51.100.1') });
    expect(lease).toMatchObject({ status: 'held', lease: elsewhere });
  });
});

describe('an operator', () => {
  it.each(each)(
    'who puts another address over a key sees it put right, and one who puts another boot there makes its owner stop (%i)',
    async () => {
      const { kv } = stores();
      const lease = await acquireSeven();
      const { text, leaseId } = lease.lease;
      await put(kv, key(seven), text.replace('192.0.2.1', '192.0.2.66'), leaseId);
      const ms = await until('put right', async () => (await all(kv, key(seven)))[0]?.value === text);
      expect(ms).toBeLessThan(1_000);
      expect((await all(kv, key(seven)))[0]?.leaseId).toBe(leaseId);
      expect(lease.status).toBe('held');
      const value = text.replace('boot-1', 'boot-9');
      await put(kv, key(seven), value, leaseId);
      expect(await until('lost', () => lease.lost.aborted)).toBeLessThan(1_000);
      await lease.close();
      expect((await all(kv, key(seven)))[0]?.value).toBe(value);
    },
  );

  it.each(each)('who revokes both leases sees the same subnet a second later, with two new ones (%i)', async () => {
    const { kv, o } = stores();
    const earlier = await leaseIds();
    const lease = await acquireSeven();
    const old = (await all(kv, `${prefix}/`)).map(({ leaseId }) => leaseId);
    for (const leaseId of old) await kv.revokeLease(leaseId, o());
    expect(await until('again', () => lease.status === 'held' && !old.includes(lease.lease.leaseId))).toBeLessThan(
      1_000,
    );
    const entries = await all(kv, `${prefix}/`);
    expect(entries.map(entry => entry.key)).toEqual([tombstoneKey(seven), key(seven)]);
    for (const { leaseId } of entries) expect([...old, '0']).not.toContain(leaseId);
    expect(await leasesBeside(earlier)).toBe(2);
  });

  it('who revokes the lease of a tombstone sees it back at the next renewal', async () => {
    const { kv, o } = stores();
    const lease = await acquireSeven({ ttlSeconds: 3 });
    const [tombstone] = await all(kv, tombstoneKey(''));
    await kv.revokeLease(tombstone?.leaseId ?? '', o());
    await until('back', async () => (await all(kv, tombstoneKey('')))[0]?.value === 'node-1', 5_000);
    await until('one pair', async () => (await all(kv, key('')))[0]?.leaseId === lease.lease.leaseId);
    expect(lease.status).toBe('held');
  });
});

describe('a store that', () => {
  /** Before what is forgotten, so that what is written again has an older revision for good. */
  const filler = async (): Promise<void> => {
    for (let count = 0; count < 20; count++) await put(stores().kv, '/filler', String(count));
  };
  it('lost everything gets a reservation back as one', async () => {
    const { tool, life, kv } = stores();
    const lease = await acquireSeven();
    await reserve(
      tool,
      { network: networkOf(), subnet: undefined, holder: { kind: 'node', nodeId: 'node-1' }, backend: udp },
      life.signal,
    );
    await until('reserved', async () => (await all(kv, `${prefix}/`)).every(({ leaseId }) => leaseId === '0'));
    // What the host has not heard of before the store is gone, nobody remembers.
    await until('the host knows', () => lease.lease.leaseId === '0');
    await filler();
    const { createRevision } = lease.lease;
    await server.restart({ wipe: true });
    await until('registered', () => lease.status === 'held' && lease.lease.createRevision < createRevision, 20_000);
    const entries = await all(kv, `${prefix}/`);
    expect(entries.map(entry => [entry.key, entry.leaseId])).toEqual([
      [tombstoneKey(seven), '0'],
      [key(seven), '0'],
    ]);
  });

  it.each(each)('went back to before a changed address is told the new one (%i)', async () => {
    const { kv } = stores();
    const lease = await acquireSeven();
    await server.backUp();
    await filler();
    await lease.update(elsewhere);
    const { revision } = lease.lease;
    await server.restore();
    await until('told', () => lease.status === 'held' && lease.lease.revision < revision, 20_000);
    await until('in etcd', async () => (await all(kv, key(seven)))[0]?.value.includes('198.51.100.1') === true);
    expect(lease.lost.aborted).toBe(false);
    expect(await kv.timeToLive(lease.lease.leaseId, stores().o())).toBeDefined();
  });

  it.each(each)('went back to before a reboot keeps the subnet for its node (%i)', async () => {
    const { kv, acquire } = stores();
    await (await acquireSeven()).close();
    await server.backUp();
    await filler();
    const lease = await acquire(requestOf(nodeOf(1, { bootId: 'boot-later' })));
    const { revision } = lease.lease;
    await server.restore();
    await until('told', () => lease.status === 'held' && lease.lease.revision < revision, 20_000);
    await until('in etcd', async () => (await all(kv, key(seven)))[0]?.value.includes('boot-later') === true);
    expect(lease).toMatchObject({ status: 'held', lease: { subnet: parsePrefix('10.5.7.0/24') } });
  });

  it('went back to when another had the subnet makes its present owner stop', async () => {
    const { kv, acquire } = stores();
    const network = networkOf('10.5.0.0/22', { SubnetLen: 24, SubnetMin: '10.5.2.0', SubnetMax: '10.5.2.0' });
    const first = await acquire(requestOf(nodeOf(2), { network }));
    await server.backUp();
    await stores().leave(first);
    const lease = await acquire(requestOf(nodeOf(1), { network }));
    await filler();
    await server.restore();
    await until('lost', () => lease.lost.aborted, 20_000);
    const [entry] = (await kv.list(new Keys(prefix).subnets, stores().o())).entries;
    expect(entry?.value.toString()).toContain('node-2');
    expect(formatPrefix(lease.lease.subnet)).toBe('10.5.2.0/24');
  });
});
