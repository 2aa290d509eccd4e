/** Lease stores over one bed per test: opened for it, closed after it, also when it fails. */
import { setMaxListeners } from 'node:events';
import { afterEach, beforeEach } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { Keys } from '../../src/store/keys.js';
import type { Kv } from '../../src/store/kv.js';
import { openLeaseStore, type LeaseStoreOptions } from '../../src/store/leases.js';
import { releaseSubnet, type ReleaseContext } from '../../src/store/release.js';
import type { OwnLease, LeaseRequest, LeaseStore } from '../../src/store/store.js';
import { prefix } from './store.js';

export interface Bed {
  /** A connection of its own to the same, empty store. */
  open(): Kv;
  close(): Promise<void>;
}

export interface Stores {
  /** For what the test itself looks at and changes. */
  readonly kv: Kv;
  readonly life: AbortController;
  /** As the operator's tool has it. */
  readonly tool: ReleaseContext;
  o(): { readonly signal: AbortSignal };
  open(more?: Partial<LeaseStoreOptions>, kv?: Kv): LeaseStore;
  acquire(want: LeaseRequest, store?: LeaseStore): Promise<OwnLease>;
  /** Stops the daemon and then leaves, as `tartan leave` does. */
  leave(lease: OwnLease): Promise<void>;
}

export function useStores(make: () => Promise<Bed>): () => Stores {
  let present: { readonly stores: Stores; readonly close: () => Promise<void> } | undefined;
  beforeEach(async () => {
    const bed = await make();
    const kv = bed.open();
    const life = new AbortController();
    setMaxListeners(0, life.signal);
    const opened: LeaseStore[] = [];
    const stores: Stores = {
      kv,
      life,
      tool: { kv, keys: new Keys(prefix), clock: bootClock },
      o: () => ({ signal: life.signal }),
      open(more = {}, own = bed.open()) {
        const store = openLeaseStore(own, { prefix, log: silentLog, clock: bootClock, ...more });
        opened.push(store);
        return store;
      },
      acquire: async (want, store = stores.open()) => store.acquire(want, stores.o()),
      async leave(lease) {
        await lease.close();
        await releaseSubnet(stores.tool, lease.lease.nodeId ?? '', lease.lease.subnet);
      },
    };
    const close = async (): Promise<void> => {
      life.abort();
      await Promise.all(opened.map(async store => store.close()));
      await kv.close();
      await bed.close();
    };
    present = { stores, close };
  });
  afterEach(async () => present?.close());
  return () => {
    if (!present) throw new Error('the stores of a test exist only while it runs');
    return present.stores;
  };
}
