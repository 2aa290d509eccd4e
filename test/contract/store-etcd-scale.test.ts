/**
 * Many hosts on one real etcd: what each start asks of it, and that a cluster at rest writes nothing at all.
 * TARTAN_HOSTS sets how many.
 */
import { setMaxListeners } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import type { KeyRange, Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { all, networkOf, nodeOf, prefix, requestOf, until } from '../support/store.js';

const hosts = Number(process.env['TARTAN_HOSTS'] ?? 300);
const ttlSeconds = hosts > 1000 ? 60 : 9;
const network = networkOf('10.32.0.0/11', { SubnetLen: 24 });
const life = new AbortController();
setMaxListeners(0, life.signal);
const o = { signal: life.signal };
const stores: LeaseStore[] = [];
let server: EtcdServer;
let kv: Kv;

beforeAll(async () => {
  server = await EtcdServer.start();
  kv = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
});
afterAll(async () => {
  life.abort();
  await Promise.all(stores.map(store => store.close()));
  await kv.close();
  await server.stop();
});

interface Calls {
  /** Of whole ranges. */
  list: number;
  commit: number;
  keepAlive: number;
}

/** What the keeper looks at costs the same however many hosts there are. */
function isOneKey({ start, end }: KeyRange): boolean {
  return end.equals(Buffer.concat([start, Buffer.from([0])]));
}

/** One connection for all, counted for each. */
function counted(calls: Calls): Kv {
  return {
    list: (range, options) => {
      if (!isOneKey(range)) calls.list++;
      return kv.list(range, options);
    },
    commit: (...given) => (calls.commit++, kv.commit(...given)),
    keepAlive: (...given) => (calls.keepAlive++, kv.keepAlive(...given)),
    grantLease: (...given) => kv.grantLease(...given),
    revokeLease: (...given) => kv.revokeLease(...given),
    timeToLive: (...given) => kv.timeToLive(...given),
    watch: (...given) => kv.watch(...given),
    close: async () => {},
  };
}

it(
  `${hosts} hosts start with at most two range reads and one transaction each, and then none writes`,
  async () => {
    const totals: Calls = { list: 0, commit: 0, keepAlive: 0 };
    const begun = performance.now();
    for (let number = 1; number <= hosts; number++) {
      const calls: Calls = { list: 0, commit: 0, keepAlive: 0 };
      const store = openLeaseStore(counted(calls), { prefix, log: silentLog, clock: bootClock, sweepMs: 600_000 });
      stores.push(store);
      const listed = store
        .acquire(requestOf(nodeOf(number), { network, ttlSeconds }), o)
        .then(held => ({ held, ...calls }));
      const { list, commit, keepAlive } = await listed;
      expect({ list, commit, keepAlive }, `host ${number}`).toEqual({ list: 2, commit: 1, keepAlive: 0 });
      totals.keepAlive += calls.keepAlive;
    }
    console.log(`${hosts} hosts one after another: ${Math.round(performance.now() - begun)} ms`);
    expect((await all(kv, `${prefix}/subnets/`)).length).toBe(hosts);
    const revision = (await kv.list({ start: Buffer.from('/'), end: Buffer.from('/0') }, o)).revision;
    const from = performance.now();
    await until('renewed for longer than a lease lives', () => performance.now() - from > ttlSeconds * 1100, 120_000);
    expect((await kv.list({ start: Buffer.from('/'), end: Buffer.from('/0') }, o)).revision).toBe(revision);
    expect((await all(kv, `${prefix}/subnets/`)).length).toBe(hosts);
  },
  60_000 + hosts * 150,
);
