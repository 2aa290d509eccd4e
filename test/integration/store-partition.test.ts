/**
 * A host whose etcd member is cut off from the other members, but not from the host: its watches go on and tell
 * nothing. Three members in a namespace; the store reaches each by a relay.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { FaultEtcd } from '../e2e/faults/etcd.js';
import { Namespaces } from '../support/namespaces.js';
import { Relay } from '../support/relay.js';
import { before, nodeOf, prefix, requestOf, until } from '../support/store.js';

/** TARTAN_PROOF_MS=25000 is the daemon's own pace. */
const proofMs = Number(process.env['TARTAN_PROOF_MS'] ?? 2_000);
const life = new AbortController();
let spaces: Namespaces;
let etcd: FaultEtcd;
let relays: readonly Relay[];

beforeAll(async () => {
  spaces = new Namespaces();
  await spaces.openUnderlay(1500);
  await spaces.openHost('e', '192.0.2.254', 1500);
  etcd = new FaultEtcd(spaces, 3);
  await etcd.start();
  relays = await Promise.all(etcd.members.map(member => Relay.open(member.socket)));
});
afterAll(async () => {
  life.abort();
  await Promise.all(relays.map(relay => relay.close()));
  await etcd.close();
  await etcd.kill();
  await spaces.close();
});

it('fault C9, fault K1: a partitioned member is left for another, which tells that the lease is LOST; none left is told', async () => {
  await etcd.write({ [`${prefix}/config`]: '{"Network":"10.5.0.0/16"}' });
  // The member of the host comes first, whatever the client begins with.
  const [own, ...rest] = relays;
  for (const relay of rest) relay.cut();
  const store = openLeaseStore(openEtcd({ endpoints: relays.map(({ endpoint }) => endpoint), prefix }, silentLog), {
    prefix,
    log: silentLog,
    clock: bootClock,
    proofMs,
  });
  const o = { signal: life.signal };
  await store.network(o);
  const lease = await store.acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')], ttlSeconds: 600 }), o);
  expect(own?.accepted).toBeGreaterThan(0);
  await etcd.members[0]?.partition();
  const begun = performance.now();
  await until('told', () => store.problems.length > 0, proofMs + 12_000);
  console.log(`no quorum was told after ${Math.round(performance.now() - begun)} ms, at a proof each ${proofMs} ms`);
  expect(store.problems.join()).toContain('etcd does not answer');
  expect(lease.status).toBe('held');
  const key = `${prefix}/subnets/10.5.7.0-24`;
  await etcd.members[1]?.connection().etcd.delete().key(key);
  await etcd.members[1]?.connection().etcd.put(key).value('{"PublicIP":"192.0.2.66"}');
  for (const relay of rest) relay.restore();
  const ms = await until('lost', () => lease.lost.aborted, 12_000);
  console.log(`LOST ${Math.round(ms)} ms after another member could be reached`);
  await store.close();
}, 90_000);
