/**
 * An etcd whose history is not the one that a host has seen: restored and overtaken by other writers, wiped, or another
 * cluster behind the same name. Each test cuts the host off, changes the store and lets the host come back.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { formatIpv4, formatPrefix } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore, OwnLease, WatchedSet } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { Relay } from '../support/relay.js';
import { all, before, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
const document = '{"Network":"10.5.0.0/16"}';
/** A restarted etcd leads itself sooner. */
const quick = ['--heartbeat-interval', '20', '--election-timeout', '200'];
const [ours, theirs, kept] = ['10.5.7.0-24', '10.5.8.0-24', '10.5.9.0-24'];

let server: EtcdServer;
let relay: Relay;
let kv: Kv;
let store: LeaseStore;
let life: AbortController;
let sets: WatchedSet[];

beforeAll(async () => {
  server = await EtcdServer.start({ args: quick });
});
afterAll(async () => server.stop());
beforeEach(async () => {
  await server.restart({ wipe: true });
  relay = await Relay.open(server.port);
  kv = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
  store = openLeaseStore(openEtcd({ endpoints: [relay.endpoint], prefix }, silentLog), {
    prefix,
    log: silentLog,
    clock: bootClock,
  });
  life = new AbortController();
  sets = [];
});
afterEach(async () => {
  life.abort();
  await store.close();
  await kv.close();
  await relay.close();
});

async function filler(count = 20, to = kv): Promise<void> {
  for (let number = 0; number < count; number++) await put(to, '/filler', String(number));
}

async function start(ttlSeconds = 60): Promise<OwnLease> {
  await store.network({ signal: life.signal });
  const lease = await store.acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')], ttlSeconds }), {
    signal: life.signal,
  });
  void (async () => {
    for await (const set of store.watch({ signal: life.signal })) sets.push(set);
  })().catch(() => {});
  await until('the first set', () => sets.length > 0);
  return lease;
}

/** The document and a lease of flannel that a backup has, the backup, then a peer and the own lease that it has not. */
async function backedUp(): Promise<OwnLease> {
  await put(kv, `${prefix}/config`, document);
  await put(kv, key(kept), flannel('192.0.2.9'));
  await server.backUp();
  await filler();
  await put(kv, key(theirs), flannel('192.0.2.8'));
  return start();
}

const addressOf = (subnet: string): string | undefined => {
  const lease = sets.at(-1)?.leases.find(entry => formatPrefix(entry.subnet) === subnet);
  return lease && formatIpv4(lease.publicIp);
};

/** Other writers go on where the backup ended, and beyond what the host has seen. */
async function overtake(subnets: readonly string[]): Promise<void> {
  for (const [index, subnet] of subnets.entries()) await put(kv, key(subnet), flannel(`192.0.2.${20 + index}`));
  await filler(60);
}

describe('etcd restored from a backup and overtaken', () => {
  it("fault C6: a subnet of another's in the meantime is LOST, and a peer follows etcd", async () => {
    const lease = await backedUp();
    expect(addressOf('10.5.8.0/24')).toBe('192.0.2.8');
    relay.cut();
    await server.restore();
    await overtake([ours, theirs]);
    relay.restore();
    await until('the peer is followed', () => addressOf('10.5.8.0/24') === '192.0.2.21', 8_000);
    expect(sets.at(-1)?.epoch).toBe(1);
    await until('lost', () => lease.lost.aborted, 1_000);
  });

  it('fault C6: a peer made anew elsewhere at the same revisions is followed, and our own key is told as it is', async () => {
    const lease = await backedUp();
    const before = lease.lease.text;
    relay.cut();
    await server.restore();
    // The same number of writes: each key has the revision of before and another content.
    await filler();
    await put(kv, key(theirs), flannel('192.0.2.28'));
    await put(kv, key(ours), before.replace('192.0.2.1', '192.0.2.77'));
    await filler();
    relay.restore();
    await until('the peer is followed', () => addressOf('10.5.8.0/24') === '192.0.2.28', 8_000);
    expect(sets.at(-1)?.epoch).toBe(1);
    await until('put right', async () => (await all(kv, key(ours)))[0]?.value === before, 8_000);
    expect(lease.lost.aborted).toBe(false);
  });

  it('fault C15: a restore with another token is a restore, whatever the cluster id', async () => {
    const lease = await backedUp();
    relay.cut();
    await server.restore('another');
    await overtake([ours, theirs]);
    relay.restore();
    await until('lost', () => lease.lost.aborted, 8_000);
  });
});

describe('an etcd without our history', () => {
  let other: EtcdServer;
  let there: Kv;
  beforeAll(async () => {
    other = await EtcdServer.start({ args: quick });
    there = openEtcd({ endpoints: [other.endpoint], prefix }, silentLog);
  });
  afterAll(async () => {
    await there.close();
    await other.stop();
  });

  it('fault C15: wiped, our subnet free there: written again at once', async () => {
    const lease = await backedUp();
    relay.cut();
    await server.restart({ wipe: true });
    await put(kv, `${prefix}/config`, document);
    relay.restore();
    await until('again', async () => (await all(kv, key(ours))).length === 1, 8_000);
    await until('held', () => lease.status === 'held');
    expect(lease.lost.aborted).toBe(false);
  });

  it.each([
    ['another cluster', false],
    ['the same cluster id, wiped and overtaken', true],
  ])(
    "fault C15: foreign (%s), our subnet another's there: told at once, kept until the deadline, then LOST",
    async (_, wiped) => {
      await put(kv, `${prefix}/config`, document);
      await put(kv, key(kept), flannel('192.0.2.9'));
      await put(kv, key(theirs), flannel('192.0.2.8'));
      const lease = await start(8);
      const { deadlineMs } = lease;
      relay.cut();
      if (wiped) await server.restart({ wipe: true });
      const elsewhere = wiped ? kv : there;
      await filler(3, elsewhere);
      await put(elsewhere, `${prefix}/config`, document);
      await put(elsewhere, key(ours), flannel('198.51.100.66'));
      await filler(40, elsewhere);
      if (!wiped) relay.target = other.port;
      relay.restore();
      await until('told', () => store.problems.some(problem => problem.includes('198.51.100.66')), 4_000);
      expect(store.problems.join()).toMatch(/another etcd answers.*cluster [0-9a-f]+.*10\.5\.7\.0\/24/);
      expect(lease.lost.aborted).toBe(false);
      expect(addressOf('10.5.8.0/24')).toBe('192.0.2.8');
      await until('lost', () => lease.lost.aborted, 10_000);
      expect(bootClock.now()).toBeGreaterThanOrEqual(deadlineMs);
    },
  );

  it('fault C15: the own cluster again before the deadline: as if nothing had been', async () => {
    await there.commit([], [{ kind: 'delete', key: Buffer.from(key(kept)) }], { signal: life.signal });
    await put(kv, `${prefix}/config`, document);
    await put(kv, key(theirs), flannel('192.0.2.8'));
    const lease = await start();
    relay.cut();
    await put(there, `${prefix}/config`, document);
    await put(there, key(ours), flannel('198.51.100.66'));
    relay.target = other.port;
    relay.restore();
    await until('told', () => store.problems.length > 0, 4_000);
    relay.target = server.port;
    relay.cut();
    relay.restore();
    await until('well again', () => store.problems.length === 0, 8_000);
    expect(lease.status).toBe('held');
    expect(sets.at(-1)?.epoch).toBe(0);
  });
});
