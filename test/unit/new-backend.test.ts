/** A backend is one file and one row: host-gw, as a later version may have it, from the network document to the plan. */
import { afterEach, expect, it } from 'vitest';
import { chooseBackend, type BackendRow } from '../../src/backend/all.js';
import type { Backend, BackendContext } from '../../src/backend/backend.js';
import { silentLog } from '../../src/lib/log.js';
import { formatNetworkConfig, parseNetworkConfig } from '../../src/model/network.js';
import { formatRoute } from '../../src/model/plan.js';
import { openLeaseStore } from '../../src/store/leases.js';
import type { LeaseStore, WatchedSet } from '../../src/store/store.js';
import { MemoryKv } from '../support/memory-kv.js';
import { all, before, nodeOf, prefix, requestOf } from '../support/store.js';
import { TestClock } from '../support/test-clock.js';

/** The file. It needs no data plane: the kernel forwards by gateway. */
function hostGwBackend({ node, network }: BackendContext): Backend {
  const mtu = network.backend.members.get('mtu');
  return {
    type: 'host-gw',
    mtu: typeof mtu === 'number' && mtu > 0 ? mtu : node.interface.mtu,
    announce: () => ({ type: 'host-gw', data: { Via: node.interface.name } }),
    plan: (_, peers) => ({
      tunnel: undefined,
      host: {
        links: [],
        routes: peers
          .filter(({ backend }) => backend.type === 'host-gw')
          .map(({ subnet, publicIp }) => ({ kind: 'gateway', destination: subnet, gateway: publicIp, metric: 0 })),
        sysctls: [],
        neighbours: [],
        forwarding: [],
        firewall: [],
      },
    }),
  };
}
/** The row. */
const table: readonly BackendRow[] = [{ type: 'host-gw', create: hostGwBackend }];

const document = '{"Network":"10.5.0.0/16","Backend":{"Type":"Host-GW","MTU":1400}}';
const clock = new TestClock();
const life = new AbortController();
const stores: LeaseStore[] = [];
afterEach(async () => {
  life.abort();
  await Promise.all(stores.map(store => store.close()));
});

function choose(number: number, text = document): Backend {
  const network = parseNetworkConfig(text);
  return chooseBackend(
    { network, node: nodeOf(number), ipMasquerade: 'off', forwardRules: true, engine: 'user' },
    table,
  );
}

async function acquire(kv: MemoryKv, number: number, subnet: string) {
  const store = openLeaseStore(kv, { prefix, log: silentLog, clock });
  stores.push(store);
  const request = requestOf(nodeOf(number), { backend: choose(number).announce(), previous: [before(subnet)] });
  const own = await store.acquire(request, { signal: life.signal });
  return { store, own };
}

async function firstSet(store: LeaseStore): Promise<WatchedSet> {
  for await (const set of store.watch({ signal: life.signal })) return set;
  throw new Error('no set');
}

it('a backend reads its members, is announced in the lease, and plans from what its peers announce', async () => {
  const kv = new MemoryKv(clock);
  const { own } = await acquire(kv, 1, '10.5.1.0/24');
  await acquire(kv, 2, '10.5.2.0/24');
  expect((await all(kv, `${prefix}/subnets/`)).map(({ value }) => value)).toEqual([
    '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw","BackendData":{"Via":"eth0"},"nodeId":"node-1","bootId":"boot-1"}',
    '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"host-gw","BackendData":{"Via":"eth0"},"nodeId":"node-2","bootId":"boot-2"}',
  ]);
  const { leases } = await firstSet(await acquire(kv, 3, '10.5.3.0/24').then(other => other.store));
  const backend = choose(1);
  expect(backend.mtu).toBe(1400);
  const plan = backend.plan(
    own.lease,
    leases.filter(({ nodeId }) => nodeId !== 'node-1'),
  );
  expect(plan.host.routes.map(formatRoute)).toEqual([
    '10.5.2.0/24 metric 0 via 192.0.2.2',
    '10.5.3.0/24 metric 0 via 192.0.2.3',
  ]);
});

it('what it reads of the network document is in the state file too', () => {
  const network = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"TYPE":"host-gw","Port":7,"mtu":9,"A":[1]}}');
  expect(parseNetworkConfig(formatNetworkConfig(network))).toEqual(network);
});

it('a table without its row refuses it, and names those that it has', () => {
  expect(() => choose(1, '{"Network":"10.5.0.0/16"}')).toThrow(
    `network document: Backend.Type is 'udp', this version runs "host-gw" only`,
  );
});
