/** Two hundred hosts that want subnets of unequal lengths start at once. TARTAN_RACES sets how often. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { comparePrefixes, formatPrefix, prefixesOverlap } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { EtcdServer } from '../support/etcd.js';
import { networkOf, nodeOf, requestOf } from '../support/store.js';

const hosts = 200;
const races = Number(process.env['TARTAN_RACES'] ?? 1);
const lengths = [24, 25, 22, 26] as const;
let server: EtcdServer;

beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

it.each(Array.from({ length: races }, (_, index) => index + 1))(
  'race %i: 200 hosts with /22, /24, /25 and /26, and no two overlap',
  async race => {
    const prefix = `/race-${race}`;
    const options = { endpoints: [server.endpoint], prefix };
    const stores = Array.from({ length: hosts }, () =>
      openLeaseStore(openEtcd(options, silentLog), { prefix, log: silentLog, clock: bootClock }),
    );
    try {
      const begin = performance.now();
      const leases = await Promise.all(
        stores.map(async (store, index) => {
          const network = networkOf('10.0.0.0/14', {
            SubnetMin: '10.0.4.0',
            SubnetLen: lengths[index % lengths.length],
          });
          return store.acquire(requestOf(nodeOf(index + 1), { network }), { signal: new AbortController().signal });
        }),
      );
      console.log(`race ${race}: ${Math.round(performance.now() - begin)} ms`);
      const subnets = leases.map(({ lease }) => lease.subnet).sort(comparePrefixes);
      for (const [index, subnet] of subnets.entries())
        for (const other of subnets.slice(index + 1))
          expect(prefixesOverlap(subnet, other), `${formatPrefix(subnet)} and ${formatPrefix(other)}`).toBe(false);
    } finally {
      await Promise.all(stores.map(async store => store.close()));
    }
  },
);
