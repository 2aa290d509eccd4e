/**
 * Many hosts on one real etcd: what each start asks of it, and that a cluster at rest writes nothing at all.
 * TARTAN_HOSTS sets how many.
 */
import { setMaxListeners } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { Keys } from '../../src/store/keys.js';
import type { KeyRange, Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { all, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const hosts = Number(process.env['TARTAN_HOSTS'] ?? 120);
/** So long that one process can renew the leases of all, on a machine that others use too. */
const ttlSeconds = Math.max(9, Math.round(hosts / 15));
/** On one connection: a call of one that is not answered in time ends the watches of these. */
const hostsTogether = 10;
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
  ['list held/', keys.tombstones],
];

function nameOfRead({ start, end }: KeyRange): string {
  const [whole] = ranges.find(([, range]) => range.start.equals(start) && range.end.equals(end)) ?? [];
  return whole ?? `read ${start.toString().slice(prefix.length + 1)}`;
}

/** @param calls get the name of each call, in order, and 'unanswered' for what had to be repeated */
function counted(inner: Kv, calls: string[]): Kv {
  const unanswered = (): unknown => calls.push('unanswered');
  const called = <T>(name: string, answer: Promise<T>): Promise<T> => {
    calls.push(name);
    answer.catch(unanswered);
    return answer;
  };
  return {
    list: (...given) => called(nameOfRead(given[0]), inner.list(...given)),
    // The proofs come at random phases and are no part of a start.
    read: (...given) => inner.read(...given),
    commit: (...given) => called('commit', inner.commit(...given)),
    keepAlive: (...given) => inner.keepAlive(...given),
    grantLease: (...given) => called('grant', inner.grantLease(...given)),
    revokeLease: (...given) => called('revoke', inner.revokeLease(...given)),
    timeToLive: (...given) => called('time to live', inner.timeToLive(...given)),
    watch: (...given) => {
      calls.push('watch');
      const end = inner.watch(...given);
      end.then(unanswered, () => {});
      return end;
    },
    close: async () => {},
  };
}

/** What a daemon does at its start. @returns what it asked for until it followed all there is to follow */
async function start(number: number): Promise<readonly string[]> {
  if (number % hostsTogether === 0) kv = connect();
  const calls: string[] = [];
  const store = openLeaseStore(counted(kv, calls), { prefix, log: silentLog, clock: bootClock, sweepMs: 3_600_000 });
  stores.push(store);
  // Tried again by the daemon, not by the store.
  const network = await store.network(o).catch(() => store.network(o));
  await store.acquire(requestOf(nodeOf(number), { network, ttlSeconds }), o);
  const changes = store.networkChanges(network, o)[Symbol.asyncIterator]();
  void changes.next().catch(() => {});
  const sets = store.watch(o)[Symbol.asyncIterator]();
  await sets.next();
  // The second one, after the watch has told our own write too.
  expect((await sets.next()).value.leases).toHaveLength(number);
  await sets.return?.();
  return calls;
}

it(
  `${hosts} hosts start with two reads of a range, one of a key and one transaction each, and then none writes`,
  async () => {
    const begun = performance.now();
    const reads = ['read config', 'list held/', 'list subnets/'];
    const writes = ['grant', 'grant', 'commit'];
    const watches = ['watch', 'watch', 'watch'];
    let disturbed = 0;
    for (let number = 1; number <= hosts; number++) {
      const calls = await start(number);
      if (calls.includes('unanswered')) disturbed++;
      else expect(calls, `host ${number}`).toEqual([...reads, ...writes, ...watches]);
    }
    console.log(
      `${hosts} hosts one after another: ${Math.round(performance.now() - begun)} ms; ${disturbed} had to repeat a call`,
    );
    expect(disturbed).toBeLessThan(hosts / 20);
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
