/** Things that are missing at the start: the daemon waits, says so at growing distances, and goes on by itself. */
import { expect, test } from 'vitest';
import { type Daemon } from '../support/daemon.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b', 'c'], etcd: false });

/** Lines about one wait: at the 1st, 2nd, 4th, 8th ... attempt for each reason, and no other. */
function expectGrowing(daemon: Daemon, event: string): void {
  const lines = daemon.events(event);
  expect(lines.length).toBeGreaterThan(0);
  let [reason, due]: [unknown, number] = [undefined, 1];
  for (const { code, attempt } of lines) {
    due = code === reason ? due * 2 : 1;
    reason = code;
    expect({ code, attempt }).toEqual({ code: reason, attempt: due });
  }
}

async function expectWaiting(daemon: Daemon, host: 'a' | 'b' | 'c'): Promise<void> {
  await daemon.waitForEvent('network.waiting', { attempt: 2 });
  expect(await lab().node(host).status()).toMatchObject({ phase: 'waiting-for-network', ready: false, lease: null });
}

test('etcd is down: waits, and goes on when it is there', async () => {
  const daemon = lab().node('a').startDaemon();
  await expectWaiting(daemon, 'a');
  await lab().etcd.start();
  await lab().setNetwork();
  await daemon.waitForEvent('daemon.ready');
  expectGrowing(daemon, 'network.waiting');
});

test('no network document: waits, and goes on when it is written', async () => {
  await lab().etcd.delete('/coreos.com/network/config');
  const daemon = lab().node('b').startDaemon();
  await expectWaiting(daemon, 'b');
  expect((await lab().node('b').status()).problems.join()).toContain('/coreos.com/network/config');
  await lab().setNetwork();
  await daemon.waitForEvent('daemon.ready');
  expectGrowing(daemon, 'network.waiting');
});

test('garbage in the network document: waits, names the field, and goes on when it is right', async () => {
  await lab().setNetwork('{"Network":"10.5.0.0/16","SubnetLen":"24"}');
  const daemon = lab().node('c').startDaemon();
  await expectWaiting(daemon, 'c');
  expect((await lab().node('c').status()).problems.join()).toContain('SubnetLen');
  await lab().setNetwork();
  await daemon.waitForEvent('daemon.ready');
  await lab().waitForRoutes();
});

test('etcd goes away while traffic flows: nothing is lost, and all is well when it is back', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  for (const host of [a, b]) await host.addressContainer();
  const flow = await lab().flow(a, b);
  await lab().etcd.kill();
  await until('traffic during the outage', async () => ((await b.counters())['rx_ok'] ?? 0) > 1500);
  await lab().etcd.start();
  expect(await flow.stop()).toMatchObject({ lost: 0 });
  await until('every host is ready', async () =>
    (await Promise.all(lab().hosts.map(host => host.status()))).every(({ ready }) => ready),
  );
});
