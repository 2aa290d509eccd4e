/** A start reads each thing once: what the watches go on from, and what makes them read anew all the same. */
import { setMaxListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatPrefix } from '../../src/model/ip.js';
import type { KeyRange } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from '../support/memory-kv.js';
import type { LeaseStore, WatchedSet } from '../../src/store/store.js';
import { del, networkOf, nodeOf, prefix, put, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
const document = '{"Network":"10.5.0.0/16"}';

class CountingKv extends MemoryKv {
  readonly lists: string[] = [];
  silent = false;

  override async list(range: KeyRange, o: { readonly signal: AbortSignal }): ReturnType<MemoryKv['list']> {
    if (this.silent) throw new TartanError('STORE_UNAVAILABLE', 'silent');
    this.lists.push(range.start.toString().slice(prefix.length + 1));
    return super.list(range, o);
  }
}

let clock: TestClock;
let kv: CountingKv;
let store: LeaseStore;
let life: AbortController;

beforeEach(async () => {
  clock = new TestClock();
  kv = new CountingKv(clock);
  life = new AbortController();
  setMaxListeners(0, life.signal);
  // The proof that etcd answers, which comes at a time of chance, reads too.
  store = openLeaseStore(kv, { prefix, log: silentLog, clock, proofMs: Number.MAX_SAFE_INTEGER });
  await put(kv, `${prefix}/config`, document);
  await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
  await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
});
afterEach(async () => {
  life.abort();
  await store.close();
});

const o = (): { signal: AbortSignal } => ({ signal: life.signal });

async function acquire(): Promise<string> {
  const { lease } = await store.acquire(requestOf(nodeOf(1)), o());
  return formatPrefix(lease.subnet);
}

/** All that is told, as it comes. */
function collect<T, U>(told: AsyncIterable<T>, show: (item: T) => U): U[] {
  const shown: U[] = [];
  void (async () => {
    for await (const item of told) shown.push(show(item));
  })().catch(() => {});
  return shown;
}

const subnetsOf = ({ leases }: WatchedSet): readonly string[] => leases.map(lease => formatPrefix(lease.subnet)).sort();

describe('the first watch after an acquisition', () => {
  it('reads nothing again, and tells what happened since', async () => {
    const own = await acquire();
    const later = own === '10.5.4.0/24' ? '10.5.5.0/24' : '10.5.4.0/24';
    await put(kv, key(later.replace('/', '-')), flannel('192.0.2.4'));
    await del(kv, key('10.5.2.0-24'));
    const sets = collect(store.watch(o()), subnetsOf);
    await clock.advance(200);
    expect(sets[0]).toEqual([own, '10.5.2.0/24', '10.5.3.0/24'].sort());
    expect(sets.at(-1)).toEqual([own, '10.5.3.0/24', later].sort());
    expect(kv.lists).toEqual(['held/', 'subnets/']);
  });

  it('reads anew when the history since is compacted', async () => {
    const own = await acquire();
    await del(kv, key('10.5.2.0-24'));
    kv.compact();
    kv.lists.length = 0;
    const sets = collect(store.watch(o()), subnetsOf);
    await clock.advance(1_000);
    expect(sets.at(-1)).toEqual([own, '10.5.3.0/24'].sort());
    expect(kv.lists).toContain('subnets/');
  });

  it('is the only one that goes on from it', async () => {
    const own = await acquire();
    const sets = [collect(store.watch(o()), subnetsOf), collect(store.watch(o()), subnetsOf)];
    await clock.advance(200);
    for (const told of sets) expect(told.at(-1)).toEqual([own, '10.5.2.0/24', '10.5.3.0/24'].sort());
    expect(kv.lists).toEqual(['held/', 'subnets/', 'subnets/']);
  });

  it('reads the whole range again on the timer', async () => {
    await acquire();
    collect(store.watch(o()), subnetsOf);
    await clock.advance(61_000);
    expect(kv.lists.filter(name => name === 'subnets/')).toHaveLength(2);
  });
});

it('a watch that breaks just after a long silence is made again soon', async () => {
  kv.silent = true;
  collect(store.watch(o()), subnetsOf);
  await clock.advance(120_000);
  kv.silent = false;
  await clock.advance(5_000);
  expect(kv.lists).toEqual(['subnets/']);
  kv.breakWatches();
  await clock.advance(200);
  expect(kv.lists).toEqual(['subnets/', 'subnets/']);
});

describe('the keeper', () => {
  it('begins without a read and sees what became of its key at once', async () => {
    const lease = await store.acquire(requestOf(nodeOf(1)), o());
    await put(kv, key(formatPrefix(lease.lease.subnet).replace('/', '-')), flannel('192.0.2.66'));
    await clock.advance(100);
    expect(lease.status).toBe('lost');
    expect(kv.lists).toEqual(['held/', 'subnets/']);
  });
});

describe('the network document', () => {
  it('is watched from where it was read, and rings after each change', async () => {
    const network = await store.network(o());
    await put(kv, `${prefix}/config`, '{"Network":"10.77.0.0/16"}');
    const rings = collect(store.networkChanges(network, o()), () => 'ring');
    await clock.advance(100);
    expect(rings).toHaveLength(1);
    await del(kv, `${prefix}/config`);
    await clock.advance(100);
    expect(rings).toHaveLength(2);
    expect(kv.lists).toEqual(['config']);
  });

  it('does not ring when nothing changed, until the timer', async () => {
    const rings = collect(store.networkChanges(await store.network(o()), o()), () => 'ring');
    await clock.advance(50_000);
    expect(rings).toHaveLength(0);
    await clock.advance(20_000);
    expect(rings).toHaveLength(1);
  });

  it('rings at once for a host that runs on another than was read', async () => {
    await store.network(o());
    const rings = collect(store.networkChanges(networkOf('10.77.0.0/16'), o()), () => 'ring');
    await clock.advance(100);
    expect(rings).toHaveLength(1);
  });
});

it('a watch from a point that the store has not reached ends: the store is another than it was', async () => {
  const range = { start: Buffer.from('a'), end: Buffer.from('b') };
  const { revision, clusterId } = await kv.list(range, o());
  const request = { range, revision: revision + 2n, clusterId, onEvents: () => {} };
  expect(await kv.watch(request, o())).toMatchObject({ kind: 'broken' });
});
