/** Peers that vanish from etcd: held while they may come back, gone at once with a goodbye or another owner. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { StatusPeer } from '../../src/agent/status.js';
import type { LabHost } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const subnets = '/coreos.com/network/subnets';
const lab = useLab({ nodes: ['a', 'b', 'c'] }, opened => opened.bringUp());

function keyOf(host: LabHost): string {
  return `${subnets}/${host.subnet.replace('/', '-')}`;
}

/** What host a knows of a peer. */
async function seen(host: LabHost): Promise<StatusPeer | undefined> {
  return (await lab().node('a').status()).peers.find(({ subnet }) => subnet === host.subnet);
}

async function untilSeen(host: LabHost, state: StatusPeer['state'] | undefined, timeoutMs?: number): Promise<void> {
  const what = `host ${host.letter} is ${state ?? 'no peer any more'}`;
  await until(what, async () => (await seen(host))?.state === state, timeoutMs);
}

async function traffic(count: number): Promise<void> {
  const b = lab().node('b');
  const received = async (): Promise<number> => (await b.counters())['rx_ok'] ?? 0;
  const enough = (await received()) + count;
  await until(`${count} packets`, async () => (await received()) > enough);
}

/** The daemon cannot repair its key; its data process goes on. */
async function whileStopped(hosts: readonly LabHost[], work: () => Promise<void>): Promise<void> {
  for (const host of hosts) process.kill(host.daemon.pid, 'SIGSTOP');
  try {
    await work();
  } finally {
    for (const host of hosts) process.kill(host.daemon.pid, 'SIGCONT');
  }
}

async function backToNormal(): Promise<void> {
  for (const host of lab().hosts) await until(`${host.letter} is ready`, async () => (await host.status()).ready);
  for (const host of lab().hosts.slice(1)) await untilSeen(host, 'live');
}

test("a peer's key deleted by hand: none of 1000 packets a second is lost", async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await traffic(200);
  await lab().etcd.delete(keyOf(b));
  await until('the key is there again', () => lab().etcd.get(keyOf(b)));
  await traffic(1000);
  for (const flow of flows) expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
});

test('a peer whose lease is gone for a while is held down, shown as such, and nothing is lost', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flow = await lab().flow(a, b);
  await whileStopped([b], async () => {
    await lab().etcd.delete(keyOf(b));
    await untilSeen(b, 'held-down');
    expect((await seen(b))?.secondsLeft).toBeGreaterThan(50);
    const { problems, ready } = await a.status();
    expect(problems.join()).toMatch(/1 of 2 peers: vanished without a goodbye; their routes stay for \d+ s/);
    expect(ready).toBe(true);
    expect((await a.tool('status', '-o', 'wide')).stdout).toMatch(/held-down .*vanished from etcd, (1m|\d+s) left/);
    await until('two seconds', async () => ((await seen(b))?.secondsLeft ?? 99) < 57);
  });
  await untilSeen(b, 'live');
  await traffic(500);
  expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
});

test('all leases deleted together: every route stays, the alarm is raised, nothing is lost', async () => {
  const [a, b, c] = [lab().node('a'), lab().node('b'), lab().node('c')];
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await whileStopped([b, c], async () => {
    await lab().etcd.ctl(['del', '--prefix', `${subnets}/`]);
    await a.daemon.waitForEvent('peers.frozen');
    expect((await a.status()).problems.join()).toContain('most peers vanished together, no route is removed');
  });
  await backToNormal();
  await traffic(500);
  for (const flow of flows) expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
});

test('etcd wiped: the same subnets are registered again, and nothing is lost meanwhile', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const keys = await lab().etcd.keys(`${subnets}/`);
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await lab().etcd.kill();
  rmSync(join(lab().spaces.directory, 'etcd'), { recursive: true });
  await lab().etcd.start();
  await lab().setNetwork();
  await a.daemon.waitForEvent('store.rewound');
  await until('the same keys', async () => (await lab().etcd.keys(`${subnets}/`)).join() === keys.join());
  await backToNormal();
  await traffic(500);
  for (const flow of flows) expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
});

test('a goodbye: the route is gone within a second', async () => {
  const b = lab().node('b');
  await whileStopped([b], async () => {
    const key = keyOf(b);
    const value = JSON.parse((await lab().etcd.get(key)) ?? '') as object;
    await lab().etcd.put(key, JSON.stringify({ ...value, released: true }));
    try {
      await untilSeen(b, undefined, 1000);
    } finally {
      // The next test needs a key that is b's.
      await lab().etcd.delete(key);
    }
  });
  await untilSeen(b, 'live');
});

test('a key written over keeps its owner; deleted and created by another it changes hands within a second', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const theirs = JSON.stringify({ PublicIP: '192.0.2.66', nodeId: 'another' });
  await whileStopped([b], async () => {
    await lab().etcd.put(keyOf(b), theirs);
    await until('refused', async () => (await a.status()).rejected.length === 1);
    expect(await seen(b)).toMatchObject({ publicIp: b.address, state: 'live' });
    await lab().etcd.delete(keyOf(b));
    await untilSeen(b, 'held-down');
    await lab().etcd.put(keyOf(b), theirs);
    await until('the new owner', async () => (await seen(b))?.publicIp === '192.0.2.66', 1000);
    expect((await a.status()).rejected).toEqual([]);
  });
  expect(await b.daemon.end()).toBe(75);
});

test('without a hold-down a delete is obeyed at once', async () => {
  const [a, c] = [lab().node('a'), lab().node('c')];
  await a.stopDaemon();
  await a.startDaemon({ 'peer-hold-down': '0' }).waitForEvent('daemon.ready');
  await untilSeen(c, 'live');
  await whileStopped([c], async () => {
    await lab().etcd.delete(keyOf(c));
    await untilSeen(c, undefined, 1000);
  });
  await untilSeen(c, 'live');
});
