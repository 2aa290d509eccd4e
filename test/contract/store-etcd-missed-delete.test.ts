/** A fault of etcd 3.4: a delete at the very revision that was compacted is not delivered to a watch that begins there. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Keys } from '../../src/store/keys.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { EtcdServer } from '../support/etcd.js';
import { del, prefix, put, until } from '../support/store.js';

const sweepMs = 2_000;
let server: EtcdServer;

beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

it('the route of a missed delete is gone within the sweep, and nobody else notices', async () => {
  const life = new AbortController();
  const kv = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
  const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
  for (const number of [2, 3, 4]) await put(kv, key(`10.5.${number}.0-24`), `{"PublicIP":"192.0.2.${number}"}`);
  let missed = false;
  // Between the list and the watch that follows it.
  const between = async (): Promise<void> => {
    if (missed) return;
    missed = true;
    await del(kv, key('10.5.3.0-24'));
    const { revision } = await kv.list(new Keys(prefix).subnets, { signal: life.signal });
    await server.ctl('compact', String(revision));
  };
  const late: Kv = {
    list: (...given) => kv.list(...given),
    read: (...given) => kv.read(...given),
    commit: (...given) => kv.commit(...given),
    grantLease: (...given) => kv.grantLease(...given),
    keepAlive: (...given) => kv.keepAlive(...given),
    revokeLease: (...given) => kv.revokeLease(...given),
    timeToLive: (...given) => kv.timeToLive(...given),
    watch: (...given) => between().then(() => kv.watch(...given)),
    close: () => kv.close(),
  };
  const store = openLeaseStore(late, { prefix, log: silentLog, clock: bootClock, sweepMs });
  const sets: (readonly string[])[] = [];
  const watching = (async () => {
    for await (const { leases } of store.watch({ signal: life.signal }))
      sets.push(leases.map(({ subnet }) => formatPrefix(subnet)).sort());
  })();
  watching.catch(() => {});
  const ms = await until('the route is gone', () => !(sets.at(-1) ?? ['10.5.3.0/24']).includes('10.5.3.0/24'), 10_000);
  console.log(`the missed delete was found after ${Math.round(ms)} ms, in ${sets.length} sets`);
  expect(ms).toBeLessThan(sweepMs + 1_500);
  expect(sets).toEqual([
    ['10.5.2.0/24', '10.5.3.0/24', '10.5.4.0/24'],
    ['10.5.2.0/24', '10.5.4.0/24'],
  ]);
  life.abort();
  await store.close();
});
