/** How Docker gets its settings: merged into a daemon.json that a real engine reads, handed over as flags, refused. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { DockerEngine } from '../support/docker-engine.js';
import type { Flags } from '../support/lab-host.js';
import { attempt, daemonProgram, toolProgram, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const before = '{\n\t"log-level": "warn",\n\t"max-concurrent-downloads" : 2\n}';

const readsMerged = { words: (ofTartand: readonly string[]) => [...ofTartand, '--config-file', daemonJson()] };
const lab = useLab({ nodes: ['a'], docker: readsMerged }, async opened => {
  if (!DockerEngine.available()) throw new Error('no dockerd: run test/support/setup.sh');
  opened.node('a').preferSubnet('10.5.1.0/24');
  writeFileSync(join(opened.spaces.directory, 'a.json'), before);
});

const daemonJson = (): string => join(lab().spaces.directory, 'a.json');
const merging = (): Flags => ({
  'docker-config': 'daemon-json',
  'docker-daemon-json': daemonJson(),
  'docker-subnet-len': '25',
});
const asFlags = (): Flags => ({ 'docker-daemon-json': daemonJson(), 'iptables-resync': '1' });
const text = (): string => readFileSync(daemonJson(), 'utf8');

/** Content and identity of every file that concerns Docker. */
function files(): readonly object[] {
  const { subnetFile, dockerEnvFile, stateDir } = lab().node('a');
  return [subnetFile, dockerEnvFile, daemonJson(), join(stateDir, 'docker-merge.json')]
    .filter(path => existsSync(path))
    .map(path => {
      const { ino, mtimeNs, ctimeNs, mode } = statSync(path, { bigint: true });
      return { path, ino, mtimeNs, ctimeNs, mode, content: readFileSync(path, 'utf8') };
    });
}

async function restarts(flags: Flags): Promise<void> {
  const a = lab().node('a');
  const seen = files();
  for (let count = 0; count < 5; count++) {
    await a.stopDaemon();
    await a.startDaemon(flags).waitForEvent('daemon.ready');
    expect(a.daemon.events('docker.written')).toEqual([]);
    expect(files()).toEqual(seen);
  }
}

test('merged into daemon.json, an engine takes bridge address, MTU and masquerade from there', async () => {
  const a = lab().node('a');
  await a.startDaemon(merging()).waitForEvent('daemon.ready');
  expect(text()).toBe(
    '{\n\t"log-level": "warn",\n\t"max-concurrent-downloads" : 2,\n' +
      '\t"bip" : "10.5.1.1/25",\n\t"ip-masq" : false,\n\t"mtu" : 1464\n}',
  );
  expect(readFileSync(a.dockerEnvFile, 'utf8')).toContain('DOCKER_NETWORK_OPTIONS=""\n');
  expect(readFileSync(a.subnetFile, 'utf8')).toContain('FLANNEL_SUBNET=10.5.1.1/24\n');
  await a.startEngine();
  expect(await a.run('ip', '-br', '-4', 'address', 'show', 'docker0')).toMatch(/ 10\.5\.1\.1\/25\s/);
  expect(await a.run('ip', 'link', 'show', 'docker0')).toContain('mtu 1464');
  expect(await a.engine?.docker('exec', 'box', 'cat', '/sys/class/net/eth0/mtu')).toBe('1464');
  const options = await a.engine?.docker('network', 'inspect', 'bridge', '-f', '{{json .Options}}');
  expect(options).toContain('"com.docker.network.bridge.enable_ip_masquerade":"false"');
  expect((await a.status()).problems).toEqual([]);
  const socket = `unix://${join(a.spaces.directory, a.letter, 'docker/docker.sock')}`;
  const report = await a.tool('docker', 'verify', '-o', 'json', '--docker-host', socket);
  const { plan, findings } = JSON.parse(report.stdout) as { plan: unknown; findings: { severity: string }[] };
  expect(plan).toMatchObject({ bip: '10.5.1.1/25', settingsFile: daemonJson() });
  expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
});

test('five restarts rewrite nothing, with a daemon.json', () => restarts(merging()));

test('cleanup gives the file back as it was', async () => {
  const a = lab().node('a');
  await a.stopDaemon();
  const { status, stdout, stderr } = await a.tool('cleanup');
  expect(status, stderr).toBe(0);
  expect(stdout).toContain(`removed settings of ${daemonJson()}`);
  expect(text()).toBe(before);
});

test('so does the way back to flags, where a rival in the file is reported and left alone', async () => {
  const a = lab().node('a');
  await a.startDaemon(merging()).waitForEvent('daemon.ready');
  expect(text()).toContain('"bip"');
  await a.stopDaemon();
  await a.startDaemon(asFlags()).waitForEvent('daemon.ready');
  expect(text()).toBe(before);
  expect(readFileSync(a.dockerEnvFile, 'utf8')).toContain('--bip=10.5.1.1/24');
  await a.untilConfirmed();
  writeFileSync(daemonJson(), '{"mtu": 1400}');
  const { msg } = await a.daemon.waitForEvent('docker.conflict');
  expect(msg).toContain(`${daemonJson()} has 'mtu', beside tartan's --mtu dockerd does not start`);
  expect(await a.status()).toMatchObject({ ready: true, problems: [msg] });
  writeFileSync(daemonJson(), before);
  await until('the conflict is over', async () => (await a.status()).problems.length === 0);
});

test('five restarts rewrite nothing, with flags', () => restarts(asFlags()));

test('a key among the flags of Docker is refused before it stands twice, until it is gone', async () => {
  const a = lab().node('a');
  await a.stopDaemon();
  const { directory } = lab().spaces;
  // The directory stands in for /etc/default, for this daemon only.
  const settings = join(directory, 'default');
  mkdirSync(settings);
  writeFileSync(join(settings, 'docker'), 'DOCKER_OPTS="--bip=192.0.2.1/24"\n');
  const own = ['sh', '-c', 'mount --bind "$0" /etc/default && exec "$@"', settings];
  const flags = a.flags({ ...merging(), 'iptables-resync': '1' });
  const daemon = new Daemon(
    a.inside([...own, process.execPath, daemonProgram, ...flags]),
    join(directory, 'rival.log'),
  );
  try {
    const { msg } = await daemon.waitForEvent('plan.failed');
    expect(msg).toMatch(/^--bip stands in the flags of \/etc\/default\/docker, beside 'bip' in .*: take it out of/);
    await daemon.waitForEvent('lease.acquired');
    expect(await a.status()).toMatchObject({ ready: false, problems: [msg] });
    expect(text()).toBe(before);
    expect(readFileSync(a.dockerEnvFile, 'utf8')).toContain('--bip=10.5.1.1/24');
    rmSync(join(settings, 'docker'));
    await daemon.waitForEvent('daemon.ready');
    expect(text()).toContain('"bip" : "10.5.1.1/25"');
  } finally {
    daemon.signal('SIGTERM');
    await daemon.end();
  }
});

test("tartan docker-opts writes what flannel's script writes, and knows a route that is in the way", async () => {
  const a = lab().node('a');
  const out = join(lab().spaces.directory, 'docker_opts.env');
  const words = ['docker-opts', '-f', a.subnetFile, '-d', out, '-k', 'DOCKER_NETWORK_OPTIONS', '-c'];
  const command = a.inside([process.execPath, toolProgram, ...words]);
  expect(await attempt(command)).toMatchObject({ status: 0, stdout: '', stderr: '' });
  const expected = 'DOCKER_NETWORK_OPTIONS=" --bip=10.5.1.1/24 --ip-masq=true --mtu=1464"\n';
  expect(readFileSync(out, 'utf8')).toBe(expected);
  // As a multi-homed host that was told of its own subnet by a router.
  await a.engine?.docker('rm', '-f', 'box');
  await a.run('ip', 'route', 'add', '10.5.1.0/24', 'via', '192.0.2.253');
  rmSync(out);
  const refused = await attempt(command);
  expect(refused).toMatchObject({ status: 1, stdout: '' });
  expect(refused.stderr).toContain('error: the routing table already leads to 10.5.1.0/24 by a gateway\nnext: ');
  expect(readFileSync(out, 'utf8')).toBe(expected);
});
