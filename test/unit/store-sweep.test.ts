import { expect, test } from 'vitest';
import { silentLog } from '../../src/lib/log.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { MemoryKv } from '../support/memory-kv.js';
import { prefix } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

/** @returns how often the leases of so many hosts were listed in twenty minutes */
async function listsOf(hosts: number): Promise<number> {
  const [clock, life] = [new TestClock(), new AbortController()];
  const inner = new MemoryKv(clock);
  const writes = Array.from({ length: hosts }, (_, i) => ({
    kind: 'put' as const,
    key: Buffer.from(`${prefix}/subnets/10.${i >> 8}.${i & 255}.0-24`),
    value: Buffer.from('{"PublicIP":"192.0.2.9"}'),
    leaseId: '0',
  }));
  await inner.commit([], writes, { signal: life.signal });
  let lists = 0;
  const kv: Kv = Object.create(inner, {
    list: {
      value: (...given: Parameters<Kv['list']>) => {
        lists++;
        return inner.list(...given);
      },
    },
    watch: { value: (...given: Parameters<Kv['watch']>) => inner.watch(...given) },
    close: { value: () => inner.close() },
  });
  const store = openLeaseStore(kv, { prefix, log: silentLog, clock });
  const sets = store.watch({ signal: life.signal })[Symbol.asyncIterator]();
  expect((await sets.next()).value.leases).toHaveLength(hosts);
  void sets.next().catch(() => {});
  await clock.advance(20 * 60_000, 5_000);
  life.abort();
  await store.close();
  return lists;
}

test('fault C17: the leases of many hosts are listed more rarely, so that all hosts together do not read them all the time', async () => {
  expect(await listsOf(900)).toBe(21);
  expect(await listsOf(5_000)).toBe(5);
});
