/**
 * Many hosts on one real etcd: what each start asks of it, and that a cluster at rest writes nothing at all.
 * TARTAN_HOSTS sets how many.
 */
import { setMaxListeners } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { samePrefix } from '../../src/model/ipv4.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Keys } from '../../src/store/keys.js';
import type { KeyRange, Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { all, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const hosts = Number(process.env['TARTAN_HOSTS'] ?? 300);
/** So long that one process can renew the leases of all, on a machine that others use too. */
const ttlSeconds = Math.max(9, Math.round(hosts / 15));
/** On one connection: a call of one that is not answered in time ends the watches of these. */
const hostsTogether = 100;
const keys = new Keys(prefix);
const life = new AbortController();
setMaxListeners(0, life.signal);
const o = { signal: life.signal };
const stores: LeaseStore[] = [];
const connections: Kv[] = [];
let server: EtcdServer;
let kv: Kv;

beforeAll(async () => {
  server = await EtcdServer.start();
  kv = connect();
  await put(kv, `${prefix}/config`, '{"Network":"10.32.0.0/11","SubnetLen":24}');
});
afterAll(async () => {
  life.abort();
  await Promise.all(stores.map(store => store.close()));
  await Promise.all(connections.map(connection => connection.close()));
  await server.stop();
});

function connect(): Kv {
  const connection = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
  connections.push(connection);
  return connection;
}

const ranges: readonly (readonly [string, KeyRange])[] = [
  ['list subnets/', keys.subnets],
  ['list held/', keys.held],
];

function nameOfRead({ start, end }: KeyRange): string {
  const [whole] = ranges.find(([, range]) => range.start.equals(start) && range.end.equals(end)) ?? [];
  return whole ?? `read ${start.toString().slice(prefix.length + 1)}`;
}

/** @param calls get the name of each call, in order */
function counted(inner: Kv, calls: string[]): Kv {
  return {
    list: (...given) => (calls.push(nameOfRead(given[0])), inner.list(...given)),
    commit: (...given) => (calls.push('commit'), inner.commit(...given)),
    keepAlive: (...given) => inner.keepAlive(...given),
    grantLease: (...given) => (calls.push('grant'), inner.grantLease(...given)),
    revokeLease: (...given) => (calls.push('revoke'), inner.revokeLease(...given)),
    timeToLive: (...given) => (calls.push('time to live'), inner.timeToLive(...given)),
    watch: (...given) => (calls.push('watch'), inner.watch(...given)),
    close: async () => {},
  };
}

/** What a daemon does at its start. @returns what it asked for until it saw itself among the others */
async function start(number: number): Promise<readonly string[]> {
  if (number % hostsTogether === 0) kv = connect();
  const calls: string[] = [];
  const store = openLeaseStore(counted(kv, calls), { prefix, log: silentLog, clock: bootClock, sweepMs: 3_600_000 });
  stores.push(store);
  const network = await store.network(o);
  const { lease } = await store.acquire(requestOf(nodeOf(number), { network, ttlSeconds }), o);
  const changes = store.networkChanges(network, o)[Symbol.asyncIterator]();
  void changes.next().catch(() => {});
  for await (const { leases } of store.watch(o)) {
    if (!leases.some(({ subnet }) => samePrefix(subnet, lease.subnet))) continue;
    expect(leases.length).toBe(number);
    break;
  }
  return calls;
}

it(
  `${hosts} hosts start with two reads of a range, one of a key and one transaction each, and then none writes`,
  async () => {
    const begun = performance.now();
    const reads = ['read config', 'list held/', 'list subnets/'];
    const writes = ['grant', 'grant', 'commit'];
    const watches = ['watch', 'watch', 'watch'];
    for (let number = 1; number <= hosts; number++)
      expect(await start(number), `host ${number}`).toEqual([...reads, ...writes, ...watches]);
    console.log(`${hosts} hosts one after another: ${Math.round(performance.now() - begun)} ms`);
    const revision = await revisionNow();
    const from = performance.now();
    await until(
      'renewed for longer than a lease lives',
      () => performance.now() - from > ttlSeconds * 1100,
      ttlSeconds * 2_000,
    );
    expect(await revisionNow()).toBe(revision);
    expect((await all(kv, `${prefix}/subnets/`)).length).toBe(hosts);
  },
  60_000 + hosts * 600,
);

async function revisionNow(): Promise<bigint> {
  return (await kv.list({ start: Buffer.from('/'), end: Buffer.from('/0') }, o)).revision;
}
