/** The lease store's contract on a real etcd, each test on an empty one. */
import { afterAll, beforeAll } from 'vitest';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { EtcdServer } from '../support/etcd.js';
import { prefix } from '../support/store.js';
import type { Bed } from '../support/store-bed.js';
import { reservationContract } from './reservation-contract.js';
import { leaseStoreContract } from './store-contract.js';

let server: EtcdServer;
beforeAll(async () => {
  server = await EtcdServer.start();
});
afterAll(async () => server.stop());

const make = async (): Promise<Bed> => {
  await server.ctl('del', '--prefix', '');
  return { open: () => openEtcd({ endpoints: [server.endpoint], prefix }, silentLog), close: async () => {} };
};

leaseStoreContract('etcd', make);
reservationContract('etcd', make);
