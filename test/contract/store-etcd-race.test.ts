/** Two hundred hosts start at once against one real etcd. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { comparePrefixes, formatPrefix, prefixesOverlap } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { EtcdServer } from '../support/etcd.js';
import { all, nodeOf, prefix, requestOf } from '../support/store.js';

const hosts = 200;
let server: EtcdServer;

beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

it(`gives ${hosts} hosts that start at once a subnet each, and no two overlap`, async () => {
  const options = { endpoints: [server.endpoint], prefix };
  const stores = Array.from({ length: hosts }, () =>
    openLeaseStore(openEtcd(options, silentLog), { prefix, log: silentLog, clock: bootClock }),
  );
  try {
    const begin = performance.now();
    const leases = await Promise.all(
      stores.map(async (store, index) =>
        store.acquire(requestOf(nodeOf(index + 1)), { signal: new AbortController().signal }),
      ),
    );
    const ms = Math.round(performance.now() - begin);
    console.log(`${hosts} hosts, one client each: ${ms} ms`);
    const subnets = leases.map(({ lease }) => lease.subnet).sort(comparePrefixes);
    for (const [index, subnet] of subnets.entries())
      for (const other of subnets.slice(index + 1))
        expect(prefixesOverlap(subnet, other), `${formatPrefix(subnet)} and ${formatPrefix(other)}`).toBe(false);
    const kv = openEtcd(options, silentLog);
    expect((await all(kv, `${prefix}/subnets`)).map(({ key }) => key).sort()).toEqual(
      subnets.map(subnet => `${prefix}/subnets/${formatPrefix(subnet).replace('/', '-')}`).sort(),
    );
    expect((await all(kv, `${prefix}/held/`)).length).toBe(hosts);
    // One for the subnet and one for its tombstone each: none was left over from a lost race.
    expect((await server.ctl('lease', 'list')).trim().split('\n').length).toBe(2 * hosts + 1);
    await kv.close();
    // Ten seconds at most on a machine that does nothing else; the figure is said above.
    expect(ms).toBeLessThan(30_000);
  } finally {
    await Promise.all(stores.map(async store => store.close()));
  }
});
