/** A cluster from nothing: `tartan init` on host s, whose etcd has TLS and users, the token to `tartan join -` on host t. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import { formatToken, parseToken } from '../../src/setup/token.js';
import { SystemdHost } from '../support/systemd-host.js';
import type { Outcome } from '../support/tools.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

let s: SystemdHost;
let t: SystemdHost;
const lab = useLab({ nodes: [], network: false }, async opened => {
  for (const [letter, address] of [
    ['s', '192.0.2.9'],
    ['t', '192.0.2.10'],
  ] as const)
    await opened.spaces.openHost(letter, address, 1500);
  s = new SystemdHost(opened.spaces, 's', 'nothing');
  t = new SystemdHost(opened.spaces, 't', 'nothing');
  await s.boot({});
  await t.boot({});
});
beforeEach(() => {
  onTestFailed(async () => {
    const words = ['sh', '-c', 'tail -n 20 /run/tartan-etcd.log'];
    process.stderr.write(`${await s.lastWords()}\n${(await s.attempt(words)).stdout}\n${await t.lastWords()}\n`);
  });
});

const tartan = (host: SystemdHost, words: readonly string[], input = ''): Promise<Outcome> =>
  host.attempt(['tartan', ...words], { input });
/** The token of the last `init`, as an operator would copy it. */
let token = '';
/** What it said about snapshots. */
let recipes = '';
const etcdctl = (command: string): Promise<Outcome> =>
  s.attempt(['sh', '-c', `set -a; . /etc/tartan/etcd/etcdctl.env; etcdctl ${command}`]);

async function look(host: SystemdHost): Promise<unknown> {
  const places = ['/etc/tartan', '/etc/systemd/system/tartan-etcd.service', '/var/lib/tartan-etcd'];
  return {
    places: places.map(file => existsSync(host.path(file))),
    dropIn: existsSync(host.path('/etc/systemd/system/docker.service.d')),
    units: (await host.attempt(['systemctl', 'list-unit-files', '--no-legend', 'tartan*', 'etcd*'])).stdout,
    etcd: await host.show('tartan-etcd', 'ActiveState'),
    tartand: await host.show('tartand', 'ActiveState'),
  };
}

test('init refuses a network that this host uses, names it, and undoes what it began', async () => {
  const before = await look(s);
  expect((await tartan(s, ['init'])).stderr).toMatch(/--network is missing\nnext: tartan init --network/);
  expect((await tartan(s, ['init', '--network', '192.0.0.0/16'])).stderr).toMatch(
    /--network 192\.0\.0\.0\/16 overlaps the address 192\.0\.2\.9\/24 on \S+ of this host/,
  );
  await s.run(['ip', 'route', 'add', '10.5.128.0/17', 'via', '192.0.2.1']);
  expect((await tartan(s, ['init', '--network', '10.5.0.0/16'])).stderr).toMatch(
    /overlaps the route 10\.5\.128\.0\/17 on/,
  );
  await s.run(['ip', 'route', 'del', '10.5.128.0/17']);
  // What cannot be told before: the unit does not start.
  s.write(
    '/run/systemd/system/tartan-etcd.service.d/broken.conf',
    '[Service]\nRestart=no\nExecStart=\nExecStart=/bin/false\n',
  );
  const { status, stderr } = await tartan(s, ['init', '--network', '10.5.0.0/16']);
  expect(stderr).toMatch(/systemctl start tartan-etcd\.service: .*; this host is as it was\n/);
  expect(status).toBe(1);
  await s.run(['rm', '-r', '/run/systemd/system/tartan-etcd.service.d']);
  await s.systemctl('daemon-reload');
  await s.attempt(['systemctl', 'reset-failed']);
  expect(await look(s)).toEqual(before);
  const dry = await tartan(s, ['init', '--network', '10.5.0.0/16', '--dry-run']);
  expect(dry.stdout).toMatch(
    /would systemctl start tartan-etcd\.service {3}\(undo: systemctl stop tartan-etcd\.service\)/,
  );
  expect(await look(s)).toEqual(before);
});

test('init makes etcd with TLS and users, joins this host, and shows a token once', async () => {
  const { status, stdout, stderr } = await tartan(s, ['init', '--network', '10.5.0.0/16', '--ip-masq']);
  expect(stderr).toMatch(/^token of the user host-[0-9a-f]{8}, shown once/);
  expect(status).toBe(0);
  expect(stdout).toMatch(/etcd shows the CA that the token names\n/);
  expect(stdout).toMatch(/this host has 10\.5\.\d+\.0\/24 of 10\.5\.0\.0\/16\n/);
  expect(stdout).toMatch(/one member, which is no cluster.*tartan etcd add ADDRESS here/);
  recipes = stdout;
  token = stdout.trim().split('\n').at(-1) ?? '';
  const { password, endpoints } = parseToken(token);
  expect(endpoints).toEqual(['https://192.0.2.9:2379']);
  expect((await s.attempt(['grep', '-rF', password, '/etc', '/run', '/var/lib/tartan'])).stdout).toBe('');
  const secret = ['etcdctl.env', 'etcd.env', 'ca.key', 'server.key'].map(name => `/etc/tartan/etcd/${name}`);
  for (const file of [...secret, '/etc/tartan/join.env', '/etc/tartan/etcd-password'])
    expect(statSync(s.path(file)).mode & 0o777, file).toBe(0o600);
  const rootPassword = /root:([\w-]+)/.exec(s.read('/etc/tartan/etcd/etcdctl.env'))?.[1] ?? 'none';
  expect(stdout + stderr).not.toContain(rootPassword);
  expect((await etcdctl('endpoint health')).status).toBe(0);
  // Nobody gets in without a login, and a host sees the keys of its network alone.
  const bare = ['etcdctl', '--endpoints', 'https://192.0.2.9:2379', '--cacert', '/etc/tartan/etcd/ca.pem', 'get', '/'];
  expect((await s.attempt(bare)).status).not.toBe(0);
  const { stdout: role } = await etcdctl('role get tartan');
  expect(role).toMatch(/KV Read:\n\t\/coreos\.com\/network\/config\n/);
  expect(role.match(/\[.*?\)|\/\S*/g)?.every(text => text.includes('/coreos.com/network/'))).toBe(true);
});

test('init again prints the state, and never a secret', async () => {
  const { status, stdout, stderr } = await tartan(s, ['init']);
  expect(status).toBe(0);
  expect(stdout).toMatch(/tartan-etcd\.service is active/);
  expect(stdout).toMatch(/users of tokens: host-\w+, host-\w+/);
  expect(stdout).toMatch(/network document: \{"Network":"10\.5\.0\.0\/16"\}/);
  const secrets = `${s.read('/etc/tartan/etcd/etcdctl.env')} ${s.read('/etc/tartan/etcd-password')}`;
  for (const word of secrets.match(/[\w-]{30,}/g) ?? []) expect(stdout + stderr).not.toContain(word);
  expect(stdout + stderr).not.toContain('tartan1.');
});

test('a token of another cluster sends nothing, a revoked one is refused', async () => {
  const before = await look(t);
  const good = parseToken(token);
  const strange = await tartan(t, ['join', '-'], formatToken({ ...good, ca: 'ab'.repeat(32) }));
  expect(strange.stderr).toMatch(/shows another CA than the token names.*; nothing was sent to it/);
  const unknown = await tartan(t, ['join', '-'], formatToken({ ...good, password: 'not-this-one' }));
  expect(unknown.stderr).toMatch(/refuses the user host-\w+/);
  expect((await tartan(t, ['join', '-'], token.replace('tartan1.e', 'tartan1.f'))).stderr).toMatch(
    /check sum is wrong/,
  );
  const spare = (await tartan(s, ['token', 'new', 'spare'])).stdout.trim();
  expect(parseToken(spare).user).toBe('spare');
  expect((await tartan(s, ['token', 'new', 'spare'])).stderr).toMatch(/user spare: .*exist/);
  expect((await tartan(s, ['token', 'revoke', 'spare'])).stdout).toBe('spare is revoked\n');
  expect((await tartan(t, ['join', '-'], spare)).stderr).toMatch(/refuses the user spare/);
  expect((await tartan(s, ['token', 'revoke', 'spare'])).stderr).toMatch(/there are: host-/);
  expect((await tartan(t, ['token', 'new'])).stderr).toMatch(/tokens are made on the host where tartan init/);
  expect(await look(t)).toEqual(before);
});

test('the token makes another host a member, and packets pass between both', async () => {
  t.write('/root/token', `${token}\n`);
  const { status, stdout, stderr } = await tartan(t, ['join', '--token-file', '/root/token']);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/UDP passes to 192\.0\.2\.9\n/);
  expect(stdout).not.toContain(parseToken(token).password);
  expect(t.read('/etc/tartan/join.env')).not.toContain(parseToken(token).password);
  await until('an answer through the tunnel', async () => (await tartan(t, ['ping', '-c', '1'])).status === 0);
  expect((await tartan(t, ['leases'])).stdout).toMatch(/192\.0\.2\.9 /);
});

test('the snapshot that init names brings back what etcd had', async () => {
  const recipe = (title: string): readonly string[] => {
    const commands = new RegExp(`^${title}[^:]*: (.*)$`, 'm').exec(recipes)?.[1] ?? '';
    return ['sh', '-ec', commands.replace('FILE', '/root/snapshot')];
  };
  await s.run(recipe('a snapshot of etcd'));
  await etcdctl('put /coreos.com/network/later yes');
  await s.run(recipe('played back'));
  expect((await etcdctl('get --prefix --keys-only /coreos.com/network')).stdout).toMatch(/\/config\n/);
  expect((await etcdctl('get /coreos.com/network/later')).stdout).toBe('');
  expect((await etcdctl('member list')).stdout).toContain('https://192.0.2.9:2380');
  await until('etcd again', async () => (await tartan(t, ['status', '--check'])).status === 0, 30_000);
  await s.run(['rm', '-r', '/root/snapshot', '/var/lib/tartan-etcd.old']);
});

test('a token by which a host joined is revoked with --force alone, and so goes the etcd of others', async () => {
  const { user } = parseToken(token);
  const refused = await tartan(s, ['token', 'revoke', user]);
  expect(refused.stderr).toMatch(new RegExp(`by ${user} joined: ${lab().spaces.name('t')} \\([0-9a-f-]{36}\\)`));
  expect(refused.status).toBe(2);
  const kept = await tartan(s, ['uninstall']);
  expect(kept.stderr).toMatch(/has the leases of others: 10\.5\.\d+\.0\/24 of 192\.0\.2\.10\nnext: .*--destroy-etcd/);
  expect(await s.show('tartan-etcd', 'ActiveState')).toBe('active');
  expect((await tartan(s, ['token', 'revoke', user, '--force'])).stdout).toMatch(/is revoked; cut off: /);
});

test('uninstall takes all back', async () => {
  const left = await tartan(t, ['uninstall']);
  expect(left.status).toBe(0);
  expect(left.stdout).toMatch(/the subnet stays this host's until its lease ends/);
  const gone = await tartan(s, ['uninstall', '--destroy-etcd']);
  expect(gone.stderr).toBe('');
  expect(gone.status).toBe(0);
  for (const host of [s, t])
    expect(await look(host)).toMatchObject({ places: [false, false, false], dropIn: false, tartand: 'inactive' });
  expect(existsSync(join(s.path('/etc/tartan')))).toBe(false);
});

test('with an etcd of its own a cluster gets its network document once, and this host is a member', async () => {
  const etcd = ['--etcd-endpoints', lab().etcd.endpoint];
  const dry = await tartan(s, ['init', '--network', '10.7.0.0/16', ...etcd, '--dry-run']);
  expect(dry.stdout).toMatch(/would write the network document \{"Network":"10\.7\.0\.0\/16"\}/);
  const { status, stdout, stderr } = await tartan(s, ['init', '--network', '10.7.0.0/16', ...etcd]);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/this host has 10\.7\.\d+\.0\/24 of 10\.7\.0\.0\/16\n/);
  expect(stdout).toMatch(/on each other host.*: tartan join http:\/\/192\.0\.2\.254:2379\n/);
  expect(existsSync(s.path('/etc/tartan/etcd'))).toBe(false);
  const again = await tartan(s, ['init', '--network', '10.7.0.0/16', ...etcd]);
  expect(again.stdout).toMatch(/everything is in place already/);
  const other = await tartan(t, ['init', '--network', '10.8.0.0/16', ...etcd]);
  expect(other.stderr).toMatch(
    /etcd has another network document: .*10\.7\.0\.0.*\nnext: join that cluster: tartan join http/,
  );
  expect(other.status).toBe(1);
  expect((await tartan(s, ['uninstall'])).status).toBe(0);
});
