/** What the daemon writes and shows on a host, and that `tartan cleanup` takes all of it away. */
import { existsSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { isAlive } from '../support/lab-host.js';
import { attempt, toolProgram, until } from '../support/tools.js';
import { notifySocket } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  opened.node('a').preferSubnet('10.5.1.0/24');
  opened.node('b').preferSubnet('10.5.2.0/24');
  await opened.bringUp();
});

test("subnet.env is flannel's, byte for byte", () => {
  const text = readFileSync(lab().node('a').subnetFile, 'latin1');
  expect(text).toBe(
    'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1464\nFLANNEL_IPMASQ=false\n',
  );
  expect(statSync(lab().node('a').subnetFile).mode & 0o777).toBe(0o644);
});

test('docker.env has the variables of the usual units', async () => {
  const { dockerEnvFile } = lab().node('a');
  // As a shell reads it, which is what the units do.
  const names = ['DOCKER_OPT_BIP', 'DOCKER_OPT_MTU', 'DOCKER_OPT_IPMASQ', 'DOCKER_OPTS', 'DOCKER_NETWORK_OPTIONS'];
  const script = `. "$1"; ${names.map(name => `echo "$${name}"`).join('; ')}`;
  const { stdout } = await attempt(['sh', '-c', script, 'sh', dockerEnvFile]);
  const all = ' --bip=10.5.1.1/24 --ip-masq=false --mtu=1464';
  expect(stdout.split('\n')).toEqual(['--bip=10.5.1.1/24', '--mtu=1464', '--ip-masq=false', all, all, '']);
});

test('the tunnel link, its address and the routes', async () => {
  const a = lab().node('a');
  expect(await a.run('ip', '-br', '-4', 'address', 'show', 'tartan0')).toMatch(/10\.5\.1\.0\/32/);
  expect(await a.run('ip', 'link', 'show', 'tartan0')).toContain('mtu 1464');
  const routes = await a.run('ip', 'route', 'show', 'table', 'all');
  expect(routes).toMatch(/^10\.5\.0\.0\/16 dev tartan0/m);
  expect(routes).toMatch(/^unreachable 10\.5\.0\.0\/16 .*metric 4096/m);
  expect(await a.run('sysctl', '-n', 'net.ipv4.conf.tartan0.forwarding')).toBe('1\n');
});

test('the private directories are private', async () => {
  const a = lab().node('a');
  // It is written beside its name first.
  await until('the pairs are written', () => existsSync(`${a.runDir}/kernel-pairs.json`));
  expect(statSync(a.stateDir).mode & 0o777).toBe(0o700);
  expect(statSync(`${a.runDir}/datapath.sock`).mode & 0o777).toBe(0o600);
  // What both programs share has no name that anybody could open.
  expect(readdirSync(a.runDir).filter(name => !/\.(sock|lock)$|^kernel-pairs\.json$/.test(name))).toEqual([]);
});

test('tartan status -o json is the document of the socket', async () => {
  const a = lab().node('a');
  // A pass, or the end of a second, may be between the two.
  await vi.waitFor(async () => {
    const { status, stdout, stderr } = await a.tool('status', '-o', 'json');
    expect(status, stderr).toBe(0);
    const document: unknown = JSON.parse(stdout);
    const { datapath, ...own } = await a.status();
    expect(document).toMatchObject({ ...own, lease: expect.anything() as unknown });
    expect(document).toMatchObject({
      apiVersion: 'tartan/v1',
      kind: 'Status',
      ready: true,
      datapath: { pid: datapath?.pid },
    });
  }, 10_000);
  expect((await a.tool('status')).stdout).toContain('10.5.1.0/24');
});

test('tartan leases and subnet-lease ls', async () => {
  const { status, stdout, stderr } = await lab().node('a').tool('leases', '-o', 'json');
  expect(status, stderr).toBe(0);
  const { kind, items } = JSON.parse(stdout) as { kind: string; items: Record<string, unknown>[] };
  expect(kind).toBe('LeaseList');
  expect(items.map(({ subnet, publicIp, self, backend }) => ({ subnet, publicIp, self, backend }))).toEqual([
    { subnet: '10.5.1.0/24', publicIp: '192.0.2.1', self: true, backend: 'udp' },
    { subnet: '10.5.2.0/24', publicIp: '192.0.2.2', self: false, backend: 'udp' },
  ]);
});

test('exit statuses of the tool', async () => {
  const a = lab().node('a');
  const silent = a.inside([process.execPath, toolProgram, 'leases', '--etcd-endpoints', 'http://192.0.2.254:9']);
  expect((await attempt(a.inside([process.execPath, toolProgram, 'status', '--run-dir', '/nowhere']))).status).toBe(4);
  expect((await attempt(silent)).status).toBe(5);
  expect((await a.tool('no-such-command')).status).toBe(64);
  expect((await a.tool('config', 'get')).stdout).toContain('10.5.0.0/16');
  expect((await a.tool('config', 'set', '{"Network":"nonsense"}')).status).toBe(2);
});

test('READY is said after both files are written', async () => {
  const a = lab().node('a');
  await a.stopDaemon();
  for (const path of [a.subnetFile, a.dockerEnvFile]) rmSync(path);
  const path = join(lab().spaces.directory, 'notify.sock');
  const { first } = await notifySocket(path);
  a.startDaemon({}, { NOTIFY_SOCKET: path });
  expect(await first).toBe('READY=1');
  expect([a.subnetFile, a.dockerEnvFile].map(file => existsSync(file))).toEqual([true, true]);
  await a.daemon.waitForEvent('daemon.ready');
});

test('cleanup leaves nothing', async () => {
  const a = lab().node('a');
  const pid = await a.datapathPid();
  await a.stopDaemon();
  expect(isAlive(pid)).toBe(true);
  const { status, stdout, stderr } = await a.tool('cleanup');
  expect(status, stdout + stderr).toBe(0);
  expect(isAlive(pid)).toBe(false);
  expect(await a.run('ip', '-br', 'link')).not.toContain('tartan');
  expect(await a.run('ip', 'route', 'show', 'table', 'all')).not.toContain('10.5.0.0/16');
  expect(await a.run('nft', 'list', 'ruleset')).not.toMatch(/tartan|10\.5\.0\.0/i);
  expect(existsSync(a.runDir) ? readdirSync(a.runDir) : []).toEqual([]);
});
