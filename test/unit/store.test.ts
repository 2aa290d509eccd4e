/** The lease store's contract in memory. */
import { bootClock } from '../../src/lib/clock.js';
import { MemoryKv } from '../support/memory-kv.js';
import { featuresContract } from '../contract/features-contract.js';
import { reservationContract } from '../contract/reservation-contract.js';
import { leaseStoreContract } from '../contract/store-contract.js';
import type { Bed } from '../support/store-bed.js';

const make = async (): Promise<Bed> => {
  const shared = new MemoryKv(bootClock);
  // Each store closes what it opened; the cluster stays.
  const open = (): MemoryKv =>
    new Proxy(shared, { get: (kv, name) => (name === 'close' ? async () => {} : bound(kv, name)) });
  return { open, close: async () => shared.close() };
};

leaseStoreContract('memory', make);
reservationContract('memory', make);
featuresContract('memory', make);

function bound(kv: MemoryKv, name: string | symbol): unknown {
  const member: unknown = Reflect.get(kv, name, kv);
  return typeof member === 'function' ? member.bind(kv) : member;
}
