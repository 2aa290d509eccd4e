/** What is known of etcd's endpoints and of its watch, with members that are cut off and come back. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Endpoints } from '../../src/store/etcd/endpoints.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { deadEndpoint, EtcdServer } from '../support/etcd.js';
import { Relay } from '../support/relay.js';
import { prefix, until } from '../support/store.js';

const { signal } = new AbortController();
let server: EtcdServer;
let relays: readonly Relay[];
beforeAll(async () => {
  server = await EtcdServer.start();
  relays = await Promise.all([1, 2].map(() => Relay.open(server.port)));
});
afterAll(async () => {
  await Promise.all(relays.map(relay => relay.close()));
  await server.stop();
});

it('tells which endpoint answers, asks the others while one fails, and why it does not answer', async () => {
  const [first, second] = relays as [Relay, Relay];
  const endpoints = [first.endpoint, second.endpoint, deadEndpoint];
  const client = new Endpoints({ endpoints, prefix }, { firstLookMs: 200, lookMs: 300 });
  const ask = (): Promise<unknown> => client.call(({ etcd }) => etcd.kv.range({ key: Buffer.from('key') }), { signal });
  const states = (): readonly string[] => client.signs.current.map(({ state }) => state);
  try {
    await ask();
    const inUse = endpoints.indexOf(client.connection().endpoint);
    const relay = relays[inUse] ?? first;
    relay.cut();
    await until(
      'told',
      async () => (
        await ask(),
        states().join() ===
          endpoints.map(e => (e === relay.endpoint || e === deadEndpoint ? 'silent' : 'answers')).join()
      ),
    );
    expect(client.signs.current[2]?.reason).toBe('nothing listens there');
    expect(bootClock.now() - (client.signs.answeredMs ?? 0)).toBeLessThan(1_000);
    relay.restore();
    await until('seen again', () => states().join() === 'answers,answers,silent');
  } finally {
    client.close();
  }
});

it('tells since when the watch is alive: over sweeps, not over a break', async () => {
  const [relay] = relays as [Relay];
  relay.restore();
  const kv = openEtcd({ endpoints: [relay.endpoint], prefix }, silentLog);
  let lists = 0;
  const list = kv.list.bind(kv);
  kv.list = (...given) => (lists++, list(...given));
  const store = openLeaseStore(kv, { prefix, log: silentLog, clock: bootClock, sweepMs: 100 });
  const life = new AbortController();
  try {
    expect(store.signs).toMatchObject({
      answeredMs: undefined,
      watchSinceMs: undefined,
      endpoints: [{ state: 'unknown' }],
    });
    const sets = store.watch({ signal: life.signal })[Symbol.asyncIterator]();
    await sets.next();
    const since = store.signs.watchSinceMs ?? NaN;
    await until('three sweeps', () => lists > 3);
    expect(store.signs.watchSinceMs).toBe(since);
    relay.cut();
    await until('broken', () => store.signs.watchSinceMs === undefined && store.signs.endpoints[0]?.state === 'silent');
    relay.restore();
    await until('alive', () => (store.signs.watchSinceMs ?? 0) > since);
    expect(store.signs.endpoints).toEqual([{ url: relay.endpoint, state: 'answers', reason: null }]);
  } finally {
    life.abort();
    await store.close();
  }
});
