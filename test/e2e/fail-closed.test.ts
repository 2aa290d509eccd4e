/** Both processes dead at once: nothing of the overlay leaves in clear, and the next start works, whatever it finds. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { isAlive } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

async function killBoth(host: LabHost): Promise<void> {
  const pid = await host.datapathPid();
  host.daemon.signal('SIGKILL');
  process.kill(pid, 'SIGKILL');
  await host.daemon.end();
  await until('the data process is gone', () => !isAlive(pid));
}

async function startAgain(host: LabHost): Promise<void> {
  await host.startDaemon().waitForEvent('daemon.ready');
  await lab().waitForRoutes();
}

async function expectTraffic(): Promise<void> {
  const [a, b] = [lab().node('a'), lab().node('b')];
  expect(await a.pingFromContainer(b.containerAddress)).toBe(true);
  expect(await b.pingFromContainer(a.containerAddress)).toBe(true);
}

test('nothing of the overlay leaves by the default route', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const subnet = a.subnet;
  await killBoth(a);
  const overlay = await lab().captureUnderlay('ip and dst net 10.5.0.0/16');
  // Shows that the capture would have seen it: an address outside the overlay does leave by the default route.
  const control = await lab().captureUnderlay('ip and dst host 198.51.100.7');
  for (const address of [b.containerAddress, b.tunnelAddress, '10.5.250.9']) {
    const { stdout, stderr, status } = await a.inContainer('busybox', 'ping', '-c', '1', '-W', '1', address);
    expect(status, `${stdout}${stderr}`).not.toBe(0);
    await expect(a.run('busybox', 'ping', '-c', '1', '-W', '1', address)).rejects.toThrow();
  }
  await a.inContainer('busybox', 'ping', '-c', '2', '-W', '1', '198.51.100.7');
  expect((await control.stop()).length).toBeGreaterThan(0);
  expect(await overlay.stop()).toEqual([]);
  await startAgain(a);
  expect(a.subnet).toBe(subnet);
  await expectTraffic();
});

const garbage = 'not what was here before \u0000\u0001';
const damages: readonly (readonly [string, (host: LabHost) => void])[] = [
  ['files of an older version', host => writeFileSync(join(host.runDir, 'routes'), garbage)],
  [
    'a directory in the place of the next socket',
    host => mkdirSync(join(host.runDir, 'datapath.next/inside'), { recursive: true }),
  ],
  [
    'a file where the socket was',
    host => {
      rmSync(join(host.runDir, 'datapath.sock'), { force: true });
      writeFileSync(join(host.runDir, 'datapath.sock'), garbage);
    },
  ],
  ['garbage in the state file', host => writeFileSync(join(host.stateDir, 'state.json'), garbage)],
  ['half a state file', host => truncateSync(join(host.stateDir, 'state.json'), 20)],
  ['garbage in subnet.env', host => writeFileSync(host.subnetFile, garbage)],
  ['no run directory', host => rmSync(host.runDir, { recursive: true })],
];

test.each(damages)('starts over %s', async (_name, damage) => {
  const a = lab().node('a');
  const subnet = a.subnet;
  await killBoth(a);
  damage(a);
  await startAgain(a);
  expect(a.subnet).toBe(subnet);
  await expectTraffic();
});

test('takes over from a data process whose socket file was lost', async () => {
  const a = lab().node('a');
  const pid = await a.datapathPid();
  await a.stopDaemon('SIGKILL');
  rmSync(join(a.runDir, 'datapath.sock'));
  await startAgain(a);
  expect(isAlive(pid)).toBe(false);
  await expectTraffic();
});
