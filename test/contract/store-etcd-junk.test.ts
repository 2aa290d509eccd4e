/** Megabytes of junk below subnets/ and held/: a few values beyond what a message may have, and very many. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { openLog } from '../../src/lib/log.js';
import { formatPrefix } from '../../src/model/ip.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore, WatchedSet } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { before, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const mebibyte = 1024 * 1024;
const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
const junk = (bytes: number): Buffer => Buffer.alloc(bytes, 'x');

let server: EtcdServer;
let kv: Kv;
let life: AbortController;
let lines: string[];
const opened: LeaseStore[] = [];

beforeAll(async () => {
  server = await EtcdServer.start({ args: ['--max-request-bytes', String(32 * mebibyte)] });
});
afterAll(async () => server.stop());
beforeEach(async () => {
  await server.ctl('del', '--prefix', '');
  lines = [];
  life = new AbortController();
  kv = openEtcd({ endpoints: [server.endpoint], prefix }, log());
  await put(kv, `${prefix}/config`, '{"Network":"10.5.0.0/16"}');
});
afterEach(async () => {
  life.abort();
  await Promise.all(opened.splice(0).map(store => store.close()));
  await kv.close();
});

const log = () => openLog('info', { write: line => void lines.push(line) });
const o = (): { signal: AbortSignal } => ({ signal: life.signal });

function open(): LeaseStore {
  const options = { prefix, log: log(), clock: bootClock, sweepMs: 2_000, proofMs: 1_000 };
  const store = openLeaseStore(openEtcd({ endpoints: [server.endpoint], prefix }, log()), options);
  opened.push(store);
  return store;
}

/** A running host and what it hears. */
async function start(number: number): Promise<{ names: () => readonly string[]; last: () => WatchedSet | undefined }> {
  const store = open();
  await store.network(o());
  await store.acquire(requestOf(nodeOf(number), { previous: [before(`10.5.${number}.0/24`)] }), o());
  const sets: WatchedSet[] = [];
  let failure: unknown;
  (async () => {
    for await (const set of store.watch(o())) sets.push(set);
  })().catch((error: unknown) => (failure = life.signal.aborted ? undefined : error));
  const names = (): readonly string[] => {
    if (failure) throw failure;
    return (sets.at(-1)?.leases ?? []).map(({ subnet }) => formatPrefix(subnet));
  };
  return { names, last: () => sets.at(-1) };
}

it.each([
  ['a few that no message can have', [5, 9], 1],
  ['values that fill a message together', Array.from({ length: 12 }, () => 1.4), 0],
  ['many that are too long to be a lease', Array.from({ length: 300 }, () => 0.02), 0],
  ['keys as long as values', [], 0],
])(
  'fault C8: junk (%s) is refused alone, and a running host and a start beside it hear of the next peer',
  async (_, sizes, skipped) => {
    const running = await start(1);
    await until('its own', () => running.names().length === 1);
    // A busy disk takes a few long values within the timeout of a call, not all of them at once.
    const atOnce = Math.max(...sizes) > 1 ? 1 : 32;
    const writes = sizes.flatMap((size, number) => [
      (): Promise<void> => put(kv, key(`junk-${number}`), junk(size * mebibyte)),
      (): Promise<void> =>
        put(kv, `${prefix}/held/10.6.${number % 250}.${4 * (number >> 8)}-30`, junk(size * mebibyte)),
    ]);
    for (let from = 0; from < writes.length; from += atOnce)
      await Promise.all(writes.slice(from, from + atOnce).map(write => write()));
    if (sizes.length === 0) await put(kv, key('k'.repeat(3 * mebibyte)), junk(2 * mebibyte));
    await put(kv, key('10.5.99.0-24'), flannel('192.0.2.99'));
    await until('the running host hears', () => running.names().includes('10.5.99.0/24'), 8_000);
    const beside = await start(2);
    await until('the other hears', () => beside.names().includes('10.5.99.0/24'), 8_000);
    await until('the running host hears again', () => running.names().includes('10.5.2.0/24'), 8_000);
    const rejected = beside.last()?.rejected ?? [];
    expect(rejected).toHaveLength(Math.max(1, sizes.length));
    for (const { key: name, reason } of rejected) expect(name.length + reason.length).toBeLessThan(600);
    const named = lines.filter(line => line.includes('store.skipped') && line.includes('junk-0'));
    // Once for each client that met it: ours, that of the running host and that beside it.
    if (skipped > 0) expect(named.length).toBeGreaterThan(0);
    expect(named.length).toBeLessThanOrEqual(3);
  },
);
