/** `tartan join` and `tartan uninstall` on a host that a real systemd runs, with real etcd and real Docker; host b is its peer. */
import { existsSync, statSync } from 'node:fs';
import { beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import type { Outcome } from '../support/tools.js';
import { SystemdHost } from '../support/systemd-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

let host: SystemdHost;
const lab = useLab({ nodes: ['b'], network: false }, async opened => {
  await opened.spaces.openHost('s', '192.0.2.9', 1500);
  host = new SystemdHost(opened.spaces, 's', 'nothing');
  await host.boot({ 'docker/daemon.json': '{"exec-opts":["native.cgroupdriver=cgroupfs"]}\n' });
});
beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await host.lastWords()}\n`));
});

const etcd = 'http://192.0.2.254:2379';
const tartan = (...words: readonly string[]): Promise<Outcome> => host.attempt(['tartan', ...words]);

/** What join may change. */
async function look(): Promise<unknown> {
  const files = ['/etc/tartan', '/etc/systemd/system/tartand.service', '/etc/systemd/system/docker.service.d'];
  return {
    files: files.map(file => existsSync(host.path(file))),
    units: (await host.attempt(['systemctl', 'list-unit-files', '--no-legend', 'tartan*'])).stdout,
    active: await host.show('tartand', 'ActiveState'),
    links: (await host.run(['ip', '-br', 'link'])).includes('tartan0'),
    rules: (await host.run(['iptables-save'])).includes('tartan'),
  };
}

describe('a step that fails leaves the host as it was, and says the next command', () => {
  const cases: readonly (readonly [string, readonly string[], number, RegExp, RegExp])[] = [
    ['nothing is said', ['join'], 64, /expected one of: - for a token/, /tartan join -/],
    [
      'a token is an argument',
      ['join', `tartan1.${'hunter2'.repeat(9)}.x`],
      64,
      /must not be an argument/,
      /tartan token new/,
    ],
    ['the argument is no URL', ['join', 'hunter2'], 64, /neither - nor a URL/, /tartan join/],
    ['a login is in the URL', ['join', 'http://root:hunter2@192.0.2.254:2379'], 64, /must not hold a login/, /./],
    ['nobody answers there', ['join', 'http://192.0.2.254:2378'], 5, /192\.0\.2\.254:2378/, /check that etcd runs/],
    ['it speaks no TLS', ['join', 'https://192.0.2.254:2379'], 5, /does not speak TLS/, /./],
    ['the interface is not there', ['join', etcd, '--iface', 'eth9'], 1, /eth9: no such interface/, /./],
    [
      'a flag has no number',
      ['join', etcd, '--docker-subnet-len', '99'],
      64,
      /--docker-subnet-len.*expected 0 to 30/,
      /./,
    ],
    ['there is no network document', ['join', etcd], 1, /no network document at/, /tartan config set/],
  ];
  test.each(cases)('%s', async (_, words, status, why, next) => {
    const before = await look();
    const outcome = await tartan(...words);
    expect(outcome.stderr).toMatch(why);
    expect(outcome.stderr.split('\n')[1]).toMatch(next);
    expect(outcome.status).toBe(status);
    expect(outcome.stdout + outcome.stderr).not.toContain('hunter2');
    expect(await look()).toEqual(before);
  });

  test('the network of the cluster contains this host', async () => {
    await lab().etcd.put('/coreos.com/network/config', '{"Network":"192.0.0.0/16"}');
    const before = await look();
    expect((await tartan('join', etcd)).stderr).toMatch(/contains 192\.0\.2\.9 of \S+: this host cannot join it/);
    expect(await look()).toEqual(before);
  });

  test('tartand ends each time it is started', async () => {
    await lab().setNetwork();
    const before = await look();
    const broken = '/run/systemd/system/tartand.service.d/broken.conf';
    host.write(broken, '[Service]\nRestartSec=100ms\nExecStart=\nExecStart=/bin/false\n');
    const { status, stderr } = await tartan('join', etcd);
    expect(stderr).toMatch(/does not become ready.*; this host is as it was\nnext: /);
    expect(status).toBe(1);
    await host.run(['rm', '-r', '/run/systemd/system/tartand.service.d']);
    await host.systemctl('daemon-reload');
    expect(await look()).toEqual(before);
  });
});

test('a dry run checks, prints each step with its undo, and changes nothing', async () => {
  const before = await look();
  const { status, stdout } = await tartan('join', etcd, '--ip-masq', '--dry-run');
  expect(status).toBe(0);
  expect(stdout).toMatch(/would write \/etc\/tartan\/join\.env \(mode 0600\) {3}\(undo: rm \/etc\/tartan\/join\.env\)/);
  expect(await look()).toEqual(before);
});

test('one command makes the host a member, and a second one changes nothing', async () => {
  await lab().node('b').bringUp();
  await host.systemctl('start', 'docker');
  const { status, stdout, stderr } = await tartan('join', etcd, '--ip-masq', '--restart-docker');
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^underlay: 192\.0\.2\.9 on /);
  expect(stdout).toMatch(/its clock runs/);
  expect(stdout).toMatch(/this host has 10\.5\.\d+\.0\/24 of 10\.5\.0\.0\/16/);
  expect(stdout).toMatch(/UDP passes to 192\.0\.2\.\d+\n/);
  expect(statSync(host.path('/etc/tartan/join.env')).mode & 0o777).toBe(0o600);
  const subnet = /this host has (10\.5\.\d+)\./.exec(stdout)?.[1] ?? '';
  await until('Docker with its subnet', async () =>
    (await host.attempt(['ip', '-br', 'address', 'show', 'docker0'])).stdout.includes(` ${subnet}.1/24`),
  );
  expect((await host.run(['tartan', 'leases'])).split('\n').length).toBeGreaterThan(2);
  const pid = await host.mainPid('tartand');
  const again = await tartan('join', etcd, '--ip-masq');
  expect(again.stdout).toMatch(/everything is in place already/);
  expect(again.stdout).toMatch(/Docker has its subnet/);
  expect(again.stdout).not.toMatch(/undo:/);
  expect(await host.mainPid('tartand')).toBe(pid);
});

test('another setting restarts tartand alone; a wrong one is taken back', async () => {
  const dockerd = await host.mainPid('docker');
  const other = await tartan('join', etcd);
  expect(other.status).toBe(0);
  expect(host.read('/etc/tartan/join.env')).not.toContain('MASQ');
  const text = host.read('/etc/tartan/join.env');
  const wrong = await tartan('join', etcd, '--engine', 'steam');
  expect(wrong.stderr).toMatch(/this host is as it was/);
  expect(host.read('/etc/tartan/join.env')).toBe(text);
  await until('tartand as before', async () => (await tartan('status', '--check')).status === 0);
  expect(await host.mainPid('docker')).toBe(dockerd);
});

test("the administrator's file wins, and a setting that it has otherwise is named", async () => {
  host.write('/etc/default/tartand', 'TARTAN_ETCD_ENDPOINTS=http://192.0.2.1:2379\n');
  const { stderr } = await tartan('join', etcd);
  expect(stderr).toMatch(/TARTAN_ETCD_ENDPOINTS in \/etc\/default\/tartand is 'http:\/\/192\.0\.2\.1:2379' and wins/);
  await host.run(['rm', '/etc/default/tartand']);
});

test('uninstall takes all back, and gives the subnet away', async () => {
  const { status, stdout, stderr } = await tartan('uninstall');
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/left to do: systemctl restart docker/);
  expect(await look()).toMatchObject({ files: [false, false, false], links: false, rules: false });
  expect((await lab().etcd.keys('/coreos.com/network/subnets/')).length).toBe(1);
  await host.systemctl('restart', 'docker');
  expect((await tartan('uninstall')).status).toBe(0);
});
