/** What stays in memory of the calls of the store. TARTAN_CALLS sets how many real ones are made. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { silentLog } from '../../src/lib/log.js';
import { Endpoints } from '../../src/store/etcd/endpoints.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { EtcdServer } from '../support/etcd.js';
import { prefix } from '../support/store.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const calls = Number(process.env['TARTAN_CALLS'] ?? 1_000);
/** As long as the daemon lives. */
const { signal } = new AbortController();
let server: EtcdServer;
beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

async function bytesPerCall(count: number, call: () => Promise<unknown>): Promise<number> {
  const many = async (times: number): Promise<void> => {
    for (let done = 0; done < times; done += 20) await Promise.all(Array.from({ length: 20 }, call));
  };
  const used = async (): Promise<number> => {
    for (let turn = 0; turn < 3; turn++) {
      collect();
      await new Promise(resolve => setImmediate(resolve));
    }
    return process.memoryUsage().heapUsed;
  };
  await many(count / 4);
  const before = await used();
  await many(count);
  return ((await used()) - before) / count;
}

it('fault C20: nothing stays of 100,000 calls', async () => {
  const endpoints = new Endpoints({ endpoints: [server.endpoint], prefix });
  const bytes = await bytesPerCall(100_000, () => endpoints.call(async () => 'answer', { signal }));
  console.log(`${bytes.toFixed(1)} bytes stay of each call, Node ${process.version}`);
  expect(bytes).toBeLessThan(10);
  endpoints.close();
});

it('fault C20: nothing stays of real calls', async () => {
  const kv = openEtcd({ endpoints: [server.endpoint], prefix }, silentLog);
  const key = Buffer.from('/key');
  const bytes = await bytesPerCall(calls, () => kv.read([key], { signal }));
  console.log(`${bytes.toFixed(1)} bytes stay of each of ${calls} reads`);
  // A fixed sum: what a client keeps for itself weighs on few calls, and a leak on many.
  expect(bytes * calls).toBeLessThan(3_000_000);
  await kv.close();
});
