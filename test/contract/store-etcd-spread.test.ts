/** Sixty clients of three members that are restarted one after another. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Endpoints } from '../../src/store/etcd/endpoints.js';
import { EtcdServer } from '../support/etcd.js';
import { Relay } from '../support/relay.js';
import { prefix, until } from '../support/store.js';

const homeMs = 600;
const { signal } = new AbortController();
let server: EtcdServer;
let relays: readonly Relay[];
beforeAll(async () => {
  server = await EtcdServer.start();
  relays = await Promise.all([1, 2, 3].map(() => Relay.open(server.port)));
});
afterAll(async () => {
  await Promise.all(relays.map(relay => relay.close()));
  await server.stop();
});

it('fault C19: all end on the member that was restarted last, and spread again', async () => {
  const options = { endpoints: relays.map(({ endpoint }) => endpoint), prefix };
  const clients = Array.from({ length: 60 }, () => new Endpoints(options, { homeMs }));
  const ask = async (): Promise<void> => {
    await Promise.all(
      clients.map(client =>
        client.call(({ etcd }) => etcd.kv.range({ key: Buffer.from('key') }), { signal }).catch(() => {}),
      ),
    );
  };
  const onEach = (): readonly number[] =>
    options.endpoints.map(endpoint => clients.filter(client => client.connection().endpoint === endpoint).length);
  const spread = (): boolean => Math.min(...onEach()) >= 5;
  try {
    await ask();
    const before = onEach();
    expect(spread()).toBe(true);
    for (const relay of relays.slice(1)) relay.cut();
    await ask();
    await ask();
    expect(onEach()).toEqual([60, 0, 0]);
    for (const relay of relays) relay.restore();
    const ms = await until('spread', async () => (await ask(), spread()));
    console.log(
      `60 clients on ${before.join(', ')}; after the restarts on one; after ${Math.round(ms)} ms on ${onEach().join(', ')}`,
    );
    await until('as before', async () => (await ask(), onEach().join() === before.join()));
  } finally {
    for (const client of clients) client.close();
  }
});
