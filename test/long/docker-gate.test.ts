/**
 * The states of a host {installed, joined, upgraded, disabled, removed, purged}, made by dpkg with the real package, each
 * over a restart of Docker and over a reboot, under a real systemd: what Docker has then. One life of host s, in order.
 * TARTAN_DEB is the package, below the tree.
 */
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import { asBefore, GateHost, off, type DockerSeen } from '../support/gate-host.js';
import { useLab } from '../support/use-lab.js';

const tree = '/usr/local/lib/node_modules/tartan';
let host: GateHost;
let namedBefore: readonly string[];
useLab({ nodes: [] }, async opened => {
  host = await GateHost.open(opened);
  // An image for containers forbids dpkg to restart a service, and this is a whole host.
  await host.run(['rm', '-f', '/usr/local/bin/tartan', '/usr/local/bin/tartand', '/usr/sbin/policy-rc.d']);
  namedBefore = await named();
});
beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await host.lastWords()}\n`));
});

/** What this machine lacks of its dependencies is another test's. */
async function install(): Promise<void> {
  const deb = process.env['TARTAN_DEB'];
  if (deb === undefined) throw new Error('TARTAN_DEB is not set: npm run test:long -- package');
  await host.run(['dpkg', '--force-depends', '-i', `${tree}/${deb}`]);
}

async function overBoth(seen: () => DockerSeen, unit: 'active' | 'inactive'): Promise<void> {
  for (const look of [() => host.restartDocker(), () => host.rebootAndLook()]) {
    expect(await look()).toEqual(seen());
    expect(await host.show('tartand', 'ActiveState')).toBe(unit);
    // Nobody waited: the gate, where there is one, takes a few calls of systemctl.
    expect(await host.gateTime()).toBeLessThan(5_000_000);
  }
}

/** Everything on the disks that has our name, but for the tree of the tests. */
async function named(): Promise<readonly string[]> {
  const text = await host.run(['find', '/etc', '/usr', '/var', '/run', '/root', '-xdev', '-name', '*tartan*']);
  return text.split('\n').filter(path => path !== '' && !path.startsWith(tree));
}

test('installed: nothing is started, and Docker is as before', async () => {
  const before = await host.mainPid('docker');
  await install();
  expect(await host.mainPid('docker')).toBe(before);
  expect(await host.run(['tartan', '--version'])).toMatch(/\d/);
  await overBoth(() => asBefore, 'inactive');
});

test('joined: Docker has the lease', async () => {
  await host.join();
  await overBoth(() => host.joined(), 'active');
});

test('upgraded: Docker is left alone, and has the lease; a stopped tartand stays stopped', async () => {
  const before = [await host.mainPid('docker'), await host.mainPid('tartand')];
  await install();
  expect(await host.mainPid('docker')).toBe(before[0]);
  expect(await host.mainPid('tartand')).not.toBe(before[1]);
  expect(await host.show('tartand', 'ActiveState')).toBe('active');
  await host.systemctl('stop', 'tartand');
  await install();
  expect(await host.show('tartand', 'ActiveState')).toBe('inactive');
  await overBoth(() => host.joined(), 'active');
});

test('fault U7: disabled: Docker starts by itself, also after an upgrade', async () => {
  await host.systemctl('disable', '--now', 'tartand');
  await overBoth(() => off, 'inactive');
  await install();
  await overBoth(() => off, 'inactive');
});

test('fault U8: removed: Docker starts as before, with the address of docker0 that dpkg has told of', async () => {
  await host.systemctl('enable', '--now', 'tartand');
  expect(await host.restartDocker()).toEqual(host.joined());
  const before = await host.mainPid('docker');
  const bridge = await host.bridge();
  const { status, stdout, stderr } = await host.attempt(['dpkg', '-r', 'tartan']);
  expect({ status, said: stdout + stderr }).toEqual({
    status: 0,
    said: expect.stringContaining(`docker0 has ${bridge} and keeps it`),
  });
  expect(await host.mainPid('docker')).toBe(before);
  expect(host.hasDropIn()).toBe(false);
  expect((await host.attempt(['pgrep', '-x', 'tartan-datapath'])).status).toBe(1);
  expect(await host.run(['iptables-save'])).not.toContain('tartan');
  await overBoth(() => asBefore, 'inactive');
  expect(await host.bridge()).toBe(bridge);
  expect(await host.run(['ls', '/var/lib/tartan'])).toContain('node-id');
});

test('purged: nothing of tartan is left', async () => {
  await host.run(['dpkg', '-P', 'tartan']);
  expect(await named()).toEqual(namedBefore);
  await overBoth(() => asBefore, 'inactive');
});
