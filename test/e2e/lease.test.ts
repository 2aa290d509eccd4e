/** The own lease in etcd: what the daemon does when somebody deletes it, takes it, or restarts it elsewhere. */
import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const subnets = '/coreos.com/network/subnets';
const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

function ownKey(subnet: string): string {
  return `${subnets}/${subnet.replace('/', '-')}`;
}

test("the lease value is flannel's with our members beside", async () => {
  const a = lab().node('a');
  // The data plane offers its engine after the first lease.
  const value = await until('the features', async () => {
    const published = JSON.parse((await lab().etcd.get(ownKey(a.subnet))) ?? '') as { features?: { kernel?: object } };
    return published.features?.kernel && published;
  });
  const { id, bootId } = (await a.status()).node;
  const ours = { hostName: hostname(), features: { probe: 1, kernel: { port: 4790, vni: 1 } } };
  // flannel's udp backend publishes no type and no port.
  expect(value).toEqual({ PublicIP: a.address, PublicIPv6: null, nodeId: id, bootId, ...ours });
  for (const key of await lab().etcd.keys(`${subnets}/`)) expect(key).toMatch(/\/10\.5\.\d+\.0-24$/);
  expect(await lab().etcd.keys('/coreos.com/network/held/')).toHaveLength(2);
});

test('deleted by an operator: made again within a second, and traffic goes on', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const key = ownKey(a.subnet);
  const flow = await lab().flow(b, a);
  const deleted = performance.now();
  await lab().etcd.delete(key);
  await until('the key is there again', () => lab().etcd.get(key), 5000);
  expect(performance.now() - deleted).toBeLessThan(1000 + 200); // and what two etcdctl calls cost
  await until('held again', async () => (await a.status()).lease?.state === 'held');
  await lab().waitForRoutes();
  await until('traffic', () => b.pingFromContainer(a.containerAddress));
  expect((await flow.stop()).longestGapMs).toBeLessThan(1000);
  expect(a.daemon.running).toBe(true);
});

test('altered under our own identity: put right and told, and traffic goes on', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const key = ownKey(a.subnet);
  const ours = (await lab().etcd.get(key)) ?? '';
  const flow = await lab().flow(b, a);
  const altered = ours.replace(a.address, '192.0.2.66').replace('"probe":1', '"inner6":1');
  await lab().etcd.ctl(['put', '--ignore-lease', '--', key, altered]);
  await until('put right', async () => (await lab().etcd.get(key)) === ours, 5000);
  await lab().waitForRoutes();
  await until('traffic', () => b.pingFromContainer(a.containerAddress));
  expect((await flow.stop()).longestGapMs).toBeLessThan(1000);
  expect(a.daemon.events('lease.altered')).toMatchObject([{ subnet: a.subnet }]);
  expect((await a.status()).lease?.state).toBe('held');
});

test('features are not withdrawn beside a daemon, and after it the data plane goes on', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const key = ownKey(a.subnet);
  const ours = (await lab().etcd.get(key)) ?? '';
  const refused = await a.tool('features', 'withdraw');
  expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining('would write its features again') });
  await a.stopDaemon();
  const removed = await a.tool('features', 'withdraw');
  expect(removed).toMatchObject({
    status: 0,
    stdout: `removed from the lease of ${a.subnet}: probe, kernel (port 4790, VNI 1)\n`,
  });
  expect(await lab().etcd.get(key)).toBe(ours.replace(',"features":{"probe":1,"kernel":{"port":4790,"vni":1}}', ''));
  expect(await b.pingFromContainer(a.containerAddress)).toBe(true);
  await a.startDaemon().waitForEvent('daemon.ready');
  await until('the features', async () => (await lab().etcd.get(key)) === ours);
});

test('renewal writes nothing', async () => {
  const a = lab().node('a');
  const key = ownKey(a.subnet);
  await a.stopDaemon();
  await a.startDaemon({ 'lease-ttl': '6' }).waitForEvent('daemon.ready');
  const revision = async (): Promise<unknown> => {
    const { kvs } = JSON.parse(await lab().etcd.ctl(['get', key, '-w', 'json'])) as {
      kvs: { mod_revision: number; version: number }[];
    };
    return kvs[0];
  };
  const before = await revision();
  await until('renewed for longer than the lease lasts', async () => (await uptime(a)) > 8, 20_000);
  expect(await revision()).toEqual(before);
  expect((await a.status()).lease?.state).toBe('held');
});

async function uptime(host: {
  readonly daemon: { readonly pid: number };
  run(...words: string[]): Promise<string>;
}): Promise<number> {
  return Number(await host.run('ps', '-o', 'etimes=', '-p', String(host.daemon.pid)));
}

test('overwritten with another owner: stops within a second with 75, and never writes over it', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const key = ownKey(b.subnet);
  const theirs = JSON.stringify({ PublicIP: '192.0.2.66', BackendType: 'udp' });
  const pid = await b.datapathPid();
  const taken = performance.now();
  await lab().etcd.put(key, theirs);
  await b.daemon.waitForEvent('lease.lost', {}, 5000);
  expect(performance.now() - taken).toBeLessThan(1000 + 100);
  expect(await b.daemon.end()).toBe(75);
  expect(await lab().etcd.get(key)).toBe(theirs);
  // The data process lives, fenced: nothing of the lost subnet leaves any more.
  const wire = await lab().captureUnderlay(`(udp port 8285 or udp port 4790) and src host ${b.address}`);
  expect(await b.pingFromContainer(a.containerAddress)).toBe(false);
  expect(await wire.stop()).toEqual([]);
  expect(pid).toBeGreaterThan(0);
});
