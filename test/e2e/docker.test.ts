/** Real Docker engines on two hosts, started with the options that the daemon wrote for them. */
import { expect, test } from 'vitest';
import { DockerEngine } from '../support/docker-engine.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'], docker: true }, async opened => {
  if (!DockerEngine.available()) throw new Error('no dockerd: run test/support/setup.sh');
  await opened.bringUp();
});

test("containers have addresses of their host's subnet", async () => {
  for (const host of lab().hosts) {
    const address = await host.engine?.docker('inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'box');
    expect(address).toBe(host.containerAddress);
  }
});

test('a container reaches a container on the other host', async () => {
  for (const [from, to] of lab().pairs) {
    expect(await from.engine?.docker('exec', 'box', 'ping', '-c', '3', '-W', '2', to.containerAddress)).toContain(
      ' 0% packet loss',
    );
  }
});

test("datagrams and a stream arrive with the container's own address", async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flow = await lab().flow(a, b);
  const { sent, received } = await lab().transfer(b, a, 100_000_000);
  expect(received).toEqual({ ...sent, source: b.containerAddress });
  expect(await flow.stop()).toMatchObject({ lost: 0, source: a.containerAddress, oneSource: true });
});

test('kill -9 of tartand does not touch the containers', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flow = await lab().flow(a, b);
  await a.stopDaemon('SIGKILL');
  await a.startDaemon().waitForEvent('daemon.ready');
  expect(await flow.stop()).toMatchObject({ lost: 0, source: a.containerAddress });
});
