/** The lease store's contract in memory. */
import { bootClock } from '../../src/lib/clock.js';
import { MemoryKv } from '../../src/store/memory/memory-kv.js';
import { leaseStoreContract } from '../contract/store-contract.js';

leaseStoreContract('memory', async () => {
  const shared = new MemoryKv(bootClock);
  // Each store closes what it opened; the cluster stays.
  const open = (): MemoryKv =>
    new Proxy(shared, { get: (kv, name) => (name === 'close' ? async () => {} : bound(kv, name)) });
  return { open, close: async () => shared.close() };
});

function bound(kv: MemoryKv, name: string | symbol): unknown {
  const member: unknown = Reflect.get(kv, name, kv);
  return typeof member === 'function' ? member.bind(kv) : member;
}
