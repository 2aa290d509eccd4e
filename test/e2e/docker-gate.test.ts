/**
 * Docker's gate under a real systemd: Docker has the overlay while tartand is enabled or runs, and waits for it; else it
 * starts as it did before tartan (fault U7). The tests are one life of host s, in order. With the real package, and every
 * state over a reboot: test/long/docker-gate.test.ts.
 */
import { existsSync } from 'node:fs';
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import { asBefore, daemonJson, gateFile, GateHost, off } from '../support/gate-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

let host: GateHost;
const unit = '/etc/systemd/system/tartand.service';
useLab({ nodes: [] }, async opened => {
  host = await GateHost.open(opened);
});
beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await host.lastWords()}\n`));
});

test('installed: Docker is as before', async () => {
  await host.run(['cp', '/usr/local/lib/node_modules/tartan/config/systemd/tartand.service', unit]);
  await host.systemctl('daemon-reload');
  expect(await host.restartDocker()).toEqual(asBefore);
  expect(await host.show('tartand', 'ActiveState')).toBe('inactive');
});

test('joined: Docker has the lease from its next start on, and after a reboot', async () => {
  const before = await host.mainPid('docker');
  await host.join();
  expect(await host.mainPid('docker')).toBe(before);
  expect(await host.restartDocker()).toEqual(host.joined());
  expect(await host.rebootAndLook()).toEqual(host.joined());
  expect(host.joined().flags).toContain(`--bip=${await host.bridge()}`);
});

test('enabled and stopped: a restart of Docker brings tartand back; docker.env outlives a tartand that cannot start', async () => {
  await host.systemctl('stop', 'tartand');
  expect(await host.restartDocker()).toEqual(host.joined());
  expect(await host.show('tartand', 'ActiveState')).toBe('active');
  await host.systemctl('stop', 'tartand');
  host.breakSettings();
  expect(await host.restartDocker()).toEqual(host.joined());
  expect(await host.show('tartand', 'ActiveState')).not.toBe('active');
});

test('enabled and failing after a reboot: Docker waits, and says for what, until tartand is disabled', async () => {
  await host.reboot();
  await until('the word', async () => (await host.gateSaid()) === 'waits', 30_000);
  expect(await host.show('docker', 'SubState')).toBe('start-pre');
  expect(await host.mainPid('docker')).toBe(0);
  await host.systemctl('disable', '--now', 'tartand');
  await host.untilActive('docker');
  expect(existsSync(host.path(gateFile))).toBe(false);
});

test('fault U7: disabled: Docker starts by itself, at once, and does not start tartand', async () => {
  expect(await host.restartDocker()).toEqual(off);
  expect(await host.show('tartand', 'ActiveState')).toBe('inactive');
  expect(await host.gateTime()).toBeLessThan(5_000_000);
});

test('disabled and running: Docker has the lease; masked or gone: it has nothing of it', async () => {
  host.repairSettings();
  await host.systemctl('start', 'tartand');
  expect(await host.restartDocker()).toEqual(host.joined());
  await host.systemctl('stop', 'tartand');
  // docker.env outlives it, and is not for this start.
  expect(existsSync(host.path('/run/tartan/docker.env'))).toBe(true);
  expect(await host.restartDocker()).toEqual(off);
  await host.systemctl('mask', '--runtime', 'tartand');
  expect(await host.restartDocker()).toEqual(off);
  await host.systemctl('unmask', '--runtime', 'tartand');
  await host.systemctl('enable', '--now', 'tartand');
  expect(await host.restartDocker()).toEqual(host.joined());
  await host.systemctl('stop', 'tartand');
  await host.run(['rm', unit]);
  await host.systemctl('daemon-reload');
  expect(await host.restartDocker()).toEqual(off);
  expect(existsSync(host.path(gateFile))).toBe(false);
});

test('fault U8: docker0 keeps its address without tartan, and what cleanup says changes that', async () => {
  await host.removeDropIn();
  const { stderr } = await host.attempt(['tartan', 'cleanup']);
  expect(await host.restartDocker()).toEqual(asBefore);
  expect(await host.bridge()).toMatch(/^10\.5\./);
  const [, member = '', command = ''] = /put (".*?": ".*?") into .* run: (.*)$/m.exec(stderr) ?? [];
  host.write('/etc/docker/daemon.json', daemonJson(`${member}, `));
  await host.run(['sh', '-c', command]);
  expect(await host.bridge()).toBe('172.17.0.1/16');
});
