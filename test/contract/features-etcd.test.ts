/** Features on a real etcd: the contract, and the tool's commands beside the lock of a daemon. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { lockRunDir } from '../../src/cli/lock.js';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { withoutDaemon } from '../../src/tool/cleanup.js';
import { openToolPorts } from '../../src/tool/open-ports.js';
import { runTool } from '../../src/tool/tool.js';
import { EtcdServer } from '../support/etcd.js';
import { unexpected } from '../support/samples.js';
import { useStores, type Bed } from '../support/store-bed.js';
import { all, before, nodeOf, prefix, requestOf } from '../support/store.js';
import { featuresContract } from './features-contract.js';

let server: EtcdServer;
let directory: string;
beforeAll(async () => {
  server = await EtcdServer.start();
  directory = mkdtempSync(join(tmpdir(), `tartan-features-${process.pid}-`));
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await server.stop();
});

const make = async (): Promise<Bed> => {
  await server.ctl('del', '--prefix', '');
  return { open: () => openEtcd({ endpoints: [server.endpoint], prefix }, silentLog), close: async () => {} };
};

featuresContract('etcd', make);
const stores = useStores(make);

async function run(line: string): Promise<string> {
  let said = '';
  const ports = { ...openToolPorts(), cleanup: unexpected, withoutForwarding: unexpected, withoutDaemon };
  const status = await runTool(
    ['node', 'tartan', 'features', ...line.split(' '), '--etcd-endpoints', server.endpoint],
    {
      env: { TARTAN_STATE_DIR: directory, TARTAN_RUN_DIR: join(directory, 'run'), TARTAN_NODE_ID: 'node-1' },
      stdout: text => void (said += text),
      stderr: text => void (said += text),
      stdin: unexpected,
      isTty: false,
      ports,
    },
  );
  return `${status} ${said}`;
}

it('the tool shows them, refuses to withdraw them beside a daemon, and withdraws them after it', async () => {
  const { kv, acquire } = stores();
  const request = requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')], features: { probe: 1, inner6: 1 } });
  await (await acquire(request)).close();
  await (await acquire(requestOf(nodeOf(2), { previous: [before('10.5.8.0/24')] }))).close();
  const shown = (features: string): string =>
    `0 SUBNET       NODE    FEATURES\n10.5.7.0/24  node-1  ${features}\n10.5.8.0/24  node-2  -\n`;
  expect(await run('show')).toBe(shown('probe, inner6'));
  mkdirSync(join(directory, 'run'));
  const unlock = lockRunDir(join(directory, 'run'));
  expect(await run('withdraw')).toMatch(/^1 error: .*would write its features again.*\nnext: stop it first/);
  expect(await run('show')).toBe(shown('probe, inner6'));
  unlock();
  const [{ leaseId } = { leaseId: '' }] = await all(kv, `${prefix}/subnets/`);
  expect(await run('withdraw')).toBe('0 removed from the lease of 10.5.7.0/24: probe, inner6\n');
  expect(await run('show')).toBe(shown('-'));
  expect((await all(kv, `${prefix}/subnets/`))[0]).toMatchObject({
    value: '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-1"}',
    leaseId,
  });
  expect(await run('withdraw')).toBe('0 the lease of 10.5.7.0/24 announces no features\n');
  expect(await run('withdraw --node-id node-9')).toBe('0 this host has no lease\n');
});
