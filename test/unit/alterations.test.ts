/** Our own lease altered by others: put right by one guarded write, told, and not in a fight at full speed. */
import { setMaxListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Log } from '../../src/lib/log.js';
import { formatLeaseKey } from '../../src/model/lease.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { addAlteration, endAlteration, noAlterations, putRight } from '../../src/store/alterations.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore, OwnLease } from '../../src/store/store.js';
import { MemoryKv } from '../support/memory-kv.js';
import { all, nodeOf, prefix, put, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

const ours = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-1"}';
const ids = '"nodeId":"node-1","bootId":"boot-1"';

let clock: TestClock;
let kv: MemoryKv;
let life: AbortController;
let store: LeaseStore;
let own: OwnLease;
let told: string[];

beforeEach(async () => {
  clock = new TestClock();
  kv = new MemoryKv(clock);
  life = new AbortController();
  setMaxListeners(0, life.signal);
  told = [];
  const warn: Log['warn'] = (event, text) => void told.push(`${event} ${text}`);
  const log = { debug() {}, info() {}, error() {}, warn };
  store = openLeaseStore(kv, { prefix, log, clock });
  own = await store.acquire(requestOf(nodeOf(1)), { signal: life.signal });
});
afterEach(async () => {
  life.abort();
  await store.close();
});

const key = (): string => `${prefix}/subnets/${formatLeaseKey(own.lease.subnet)}`;
const now = async () => (await all(kv, key()))[0];

async function alter(value: string): Promise<void> {
  await put(kv, key(), Buffer.from(value, 'latin1'), own.lease.leaseId);
  await clock.advance(100);
}

describe('put right at once and told once', () => {
  it.each([
    ['a member that we would not write', ours.replace('}', ',"features":{"kernel":{"port":4790,"vni":1}}}')],
    ['another form', ours.replace(',', ' ,')],
    ['a duplicate that counts for nobody', ours.replace('{', '{"PublicIP":"192.0.2.66",')],
    ['another address', ours.replace('192.0.2.1', '192.0.2.66')],
    ['the mark of a release', ours.replace('}', ',"released":true}')],
    [
      'another backend',
      ours.replace(',"node', ',"BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01"},"node'),
    ],
    ['bytes that are no UTF-8', ours.replace('}', ',"x":"\xff"}')],
    ['no sound address', `{"PublicIP":null,${ids}}`],
    ['no sound backend', `{"PublicIP":"192.0.2.1","BackendType":"vxlan",${ids}}`],
  ])('%s', async (_, value) => {
    const { leaseId, createRevision, revision } = own.lease;
    await alter(value);
    expect(await now()).toMatchObject({ value: ours, leaseId, modRevision: revision + 2n });
    expect(told).toEqual([
      expect.stringMatching(/^lease\.altered our lease of 10\.5\.\d+\.0\/24 was changed in etcd and is put right$/),
    ]);
    expect(own).toMatchObject({ status: 'held', lease: { text: ours, createRevision } });
    await clock.advance(120_000);
    expect((await now())?.modRevision).toBe(revision + 2n);
  });

  it('also what was altered before a restart', async () => {
    await own.close();
    const altered = ours.replace('}', ',"features":{"probe":1}}');
    await put(kv, key(), altered, own.lease.leaseId);
    own = await store.acquire(requestOf(nodeOf(1)), { signal: life.signal });
    expect(await now()).toMatchObject({ value: ours, leaseId: own.lease.leaseId });
  });
});

it.each([
  ['of another boot', ours.replace('boot-1', 'boot-2')],
  ['of another node', ours.replace('node-1', 'node-2')],
  ['of nobody at another address', '{"PublicIP":"192.0.2.66"}'],
  ['that cannot be read', `{"PublicIP":"192.0.2.1",${ids}`],
  ['that cannot be read, of another boot', '{"PublicIP":null,"nodeId":"node-1","bootId":"boot-2"}'],
])('a value %s is lost', async (_, value) => {
  await alter(value);
  expect(own.status).toBe('lost');
  expect(await now()).toMatchObject({ value });
  expect(told).toEqual([]);
});

it('what flannel writes for us is put right as before, and not told', async () => {
  for (let round = 0; round < 6; round++) {
    await alter('{"PublicIP":"192.0.2.1","PublicIPv6":null}');
    expect(await now()).toMatchObject({ value: ours });
  }
  expect(told).toEqual([]);
});

describe('more than three in 10 s', () => {
  const other = ours.replace('}', ',"x":1}');
  beforeEach(async () => {
    for (let round = 0; round < 3; round++) {
      await alter(other);
      expect(await now()).toMatchObject({ value: ours });
    }
    await alter(other);
  });

  it('then one a minute, until a minute passes in peace', async () => {
    for (let round = 0; round < 2; round++) {
      expect(await now()).toMatchObject({ value: other });
      await clock.advance(58_000);
      expect(await now()).toMatchObject({ value: other });
      await clock.advance(2_000);
      expect(await now()).toMatchObject({ value: ours });
      await alter(other);
    }
    expect(told).toHaveLength(5);
    expect(told.at(-1)).toMatch(/is put right; it is changed often, so this is done once a minute at most$/);
    await clock.advance(120_000);
    await alter(other);
    expect(await now()).toMatchObject({ value: ours });
    expect(own.status).toBe('held');
  });

  it('the lease is renewed meanwhile, and made again at once when it is gone', async () => {
    await clock.advance(40_000);
    expect(own.renewedAtMs).toBeGreaterThan(clock.now() - 25_000);
    await kv.revokeLease(own.lease.leaseId, { signal: life.signal });
    await clock.advance(200);
    expect(await now()).toMatchObject({ value: ours });
    expect(own.status).toBe('held');
  });

  it('a change of ours is written at once', async () => {
    const publicIp = parseIpv4('198.51.100.1');
    const updating = own.update({ publicIp });
    await clock.advance(100);
    await updating;
    expect(await now()).toMatchObject({ value: ours.replace('192.0.2.1', '198.51.100.1') });
  });

  it('another owner is lost at once', async () => {
    await alter('{"PublicIP":"192.0.2.66"}');
    expect(own.status).toBe('lost');
  });
});

it('three in 10 s are three, four in 40 s too', () => {
  const after = (...atMs: number[]) =>
    atMs.reduce((before, ms) => putRight(addAlteration(before, ms), ms), noAlterations);
  expect(addAlteration(after(0, 1_000, 2_000), 9_999)).toMatchObject({ often: true, writeAtMs: 62_000 });
  expect(addAlteration(after(0, 1_000, 2_000), 10_000)).toMatchObject({ often: false, writeAtMs: 0 });
  expect(addAlteration(after(0, 11_000, 22_000), 22_001)).toMatchObject({ often: false });
  const pending = addAlteration(after(0, 1, 2), 3);
  expect(addAlteration(pending, 50_000)).toBe(pending);
  expect(endAlteration(pending)).toMatchObject({ pending: false, often: true, putRightAtMs: [0, 1, 2] });
});
