/** `tartan docker` beside real engines: host a as it should be, host b started by somebody with other settings. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Finding } from '../../src/docker/verify/finding.js';
import { askedEngine, DockerEngine } from '../support/docker-engine.js';
import { expectWell, lookAt, namesOf } from '../support/doctor.js';
import type { LabHost } from '../support/lab-host.js';
import { useLab } from '../support/use-lab.js';

const stranger = '--bip=10.99.0.1/24 --mtu=1500 --live-restore';

const lab = useLab({ nodes: ['a', 'b'], docker: askedEngine() }, async opened => {
  if (!DockerEngine.available()) throw new Error('no dockerd: run test/support/setup.sh');
  const [a, b] = [opened.node('a'), opened.node('b')];
  await Promise.all([a, b].map(host => host.bringUp({ 'ip-masq': 'true' })));
  // Stopped, so that it does not put its file right before dockerd has read it.
  await b.stopDaemon();
  const handedOver = readFileSync(b.dockerEnvFile, 'utf8');
  writeFileSync(b.dockerEnvFile, handedOver.replace(/^(DOCKER_NETWORK_OPTIONS)=.*$/m, `$1="${stranger}"`));
  await Promise.all([a, b].map(host => host.startEngine()));
  writeFileSync(b.dockerEnvFile, handedOver);
  await b.bringUp({ 'ip-masq': 'true' });
});

interface Report {
  readonly ok: boolean;
  readonly engine: string | null;
  readonly findings: readonly Finding[];
}

const socketOf = (host: LabHost): string => `unix://${join(host.spaces.directory, host.letter, 'docker/docker.sock')}`;

async function verify(host: LabHost, ...more: readonly string[]): Promise<Report & { readonly status: number }> {
  const { status, stdout, stderr } = await host.tool(
    'docker',
    'verify',
    '-o',
    'json',
    '--docker-host',
    socketOf(host),
    ...more,
  );
  expect(stderr).toBe('');
  return { ...(JSON.parse(stdout) as Report), status };
}

/** Errors alone: what a newer engine is told of is not one. */
function errorsOf({ findings }: Report): readonly string[] {
  return findings.filter(({ severity }) => severity === 'error').map(({ id }) => id);
}

test('doctor finds nothing where Docker is as it should be, and says what verify says where not', async () => {
  await expectWell(lab().node('a'));
  const found = namesOf(await lookAt(lab().node('b')));
  expect(found).toEqual(expect.arrayContaining(['docker0-subnet', 'docker0-mtu']));
});

test('says what Docker should have, and that it has it', async () => {
  const a = lab().node('a');
  const plan = await a.tool('docker', 'plan', '-o', 'json');
  const bip = a.subnet.replace('.0/', '.1/');
  expect(JSON.parse(plan.stdout)).toMatchObject({
    source: 'daemon',
    lease: a.subnet,
    bip,
    flags: [`--bip=${bip}`, '--ip-masq=false', '--mtu=1464'],
    settingsFile: a.dockerEnvFile,
    firewall: { forward: true, masquerade: true },
  });
  const report = await verify(a);
  expect(report.findings.filter(({ severity }) => severity !== 'note')).toEqual([]);
  expect(report).toMatchObject({ status: 0, ok: true });
  expect((await a.tool('docker', 'verify', '--docker-host', socketOf(a))).stdout).toContain('as it should be');
});

test('names another subnet with containers that live-restore keeps there, MTU and masquerade', async () => {
  const report = await verify(lab().node('b'));
  expect(report.status).toBe(2);
  expect(errorsOf(report)).toEqual(['settings-not-taken', 'docker0-subnet', 'docker0-mtu', 'docker0-masquerade']);
  expect(report.findings.find(({ id }) => id === 'docker0-subnet')).toMatchObject({
    found: 'docker0 is on 10.99.0.0/24, and containers run on it: box; live-restore keeps it there while they run',
    expected: lab().node('b').subnet.replace('.0/', '.1/'),
    repair: 'docker stop box && systemctl restart docker',
  });
});

test('names networks that overlap the overlay, and those made wrongly on the lease', async () => {
  const b = lab().node('b');
  const part = b.subnet.replace('.0/24', '.128/26');
  await b.engine?.docker('network', 'create', '--subnet', lab().node('a').subnet, 'theirs');
  await b.engine?.docker('network', 'create', '--subnet', part, 'careless');
  const { findings } = await verify(b);
  const of = (network: string): readonly string[] =>
    findings.filter(({ found }) => found.includes(`network ${network} `)).map(({ id }) => id);
  expect(of('theirs')).toEqual(['network-overlap']);
  expect(of('careless').toSorted()).toEqual(['network-blocks-docker0', 'network-masquerade', 'network-mtu']);
  await b.engine?.docker('network', 'rm', 'theirs', 'careless');
});

test('names a daemon.json that fights the flags or is none, and missing rules, and changes none of it', async () => {
  const a = lab().node('a');
  const folder = `/proc/${a.engine?.daemonPid}/root/etc/docker`;
  const file = `${folder}/daemon.json`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, '{"bip":"10.5.209.1/24","debug":false}');
  const report = await verify(a);
  expect(errorsOf(report)).toEqual(['settings-conflict']);
  expect(report.findings[0]?.repair).toBe(
    "take 'bip' out of the file, or start tartand with --docker-config=daemon-json",
  );
  writeFileSync(file, '{"bip":');
  expect(errorsOf(await verify(a))).toEqual(['daemon-json-broken']);
  expect(readFileSync(file, 'utf8')).toBe('{"bip":');
  rmSync(file);
});

test('judges by the files while tartand is away, and then names what is gone', async () => {
  const a = lab().node('a');
  await a.stopDaemon();
  const files = ['--docker-env-file', a.dockerEnvFile, '--subnet-file', a.subnetFile];
  await a.run('iptables', '-F', 'DOCKER-USER');
  await a.run('iptables', '-t', 'nat', '-F', 'TARTAN-POSTRTG');
  const report = await verify(a, ...files);
  expect(report.status).toBe(4);
  expect(errorsOf(report)).toEqual(['daemon-away', 'rules-missing']);
  expect(report.findings[1]?.found).toBe('these rules of tartan are missing: forward, masquerade, sources');
  const plan = await a.tool('docker', 'plan', '-o', 'json', ...files);
  expect(JSON.parse(plan.stdout)).toMatchObject({ source: 'files', lease: a.subnet });
  expect(plan.stderr).toContain('tartand cannot be asked');
  await a.bringUp({ 'ip-masq': 'true' });
  await a.untilConfirmed();
  expect(errorsOf(await verify(a))).toEqual([]);
});

test('says that Docker is stopped', async () => {
  const a = lab().node('a');
  // The container does not heed SIGTERM: dockerd would wait 10 s for it.
  await a.engine?.docker('kill', 'box');
  await a.engine?.stopDaemon();
  const report = await verify(a);
  expect(report).toMatchObject({ status: 2, engine: null });
  expect(report.findings).toMatchObject([{ id: 'docker-stopped', repair: 'systemctl start docker' }]);
});
