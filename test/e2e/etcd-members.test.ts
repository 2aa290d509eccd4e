/**
 * The etcd of `tartan init` becomes a cluster of three by `tartan etcd`, outlives the loss of the host that made it, and
 * loses a member again. Hosts s, t and w, one life in order.
 */
import { statSync } from 'node:fs';
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import { formatMemberToken, parseMemberToken, parseToken } from '../../src/setup/token.js';
import { SystemdHost } from '../support/systemd-host.js';
import { until, type Outcome } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

let s: SystemdHost;
let t: SystemdHost;
let w: SystemdHost;
useLab({ nodes: [], etcd: false }, async ({ spaces }) => {
  const boot = async (letter: string, address: string): Promise<SystemdHost> => {
    await spaces.openHost(letter, address, 1500);
    const host = new SystemdHost(spaces, letter, 'nothing');
    await host.boot({});
    return host;
  };
  [s, t, w] = [await boot('s', '192.0.2.9'), await boot('t', '192.0.2.10'), await boot('w', '192.0.2.11')];
  await s.run(['tartan', 'init', '--network', '10.5.0.0/16']);
});
beforeEach(() => {
  onTestFailed(async () => {
    for (const host of [s, t, w]) {
      const said = await host.attempt(['sh', '-c', 'tail -n 20 /run/tartan-etcd.log; cat /run/added']);
      process.stderr.write(`${await host.lastWords()}\n${said.stdout}\n`);
    }
  });
});

const tartan = (host: SystemdHost, words: readonly string[], input = ''): Promise<Outcome> =>
  host.attempt(['tartan', ...words], { input });

/** Begins `tartan etcd add`, which waits. */
async function add(address: string): Promise<{ readonly token: string; readonly done: Promise<Outcome> }> {
  await s.run(['rm', '-f', '/run/added']);
  const done = s.attempt(['sh', '-c', `tartan etcd add ${address} >/run/added`]);
  const token = await until('the token', async () => {
    const found = (await s.attempt(['cat', '/run/added'])).stdout.trim();
    return found !== '' && found;
  });
  return { token, done };
}

const members = async (): Promise<string> =>
  s.run(['sh', '-c', 'set -a; . /etc/tartan/etcd/etcdctl.env; etcdctl member list']);

test('a token of a member is for one host, is no argument, and tells nothing', async () => {
  const { token, done } = await add('192.0.2.10');
  const { key } = parseMemberToken(token);
  const elsewhere = await tartan(w, ['etcd', 'join', '-'], token);
  expect(elsewhere.stderr).toMatch(/the token is for the host with 192\.0\.2\.10, and this one has not that address/);
  const argument = await tartan(t, ['etcd', 'join', token]);
  expect(argument.stderr).toMatch(/a token must not be an argument/);
  const broken = await tartan(t, ['etcd', 'join', '-'], token.slice(0, -3));
  expect(broken.stderr).toMatch(
    /the token cannot be used: its end is missing; copy the whole line that tartan etcd add/,
  );
  const strange = await tartan(
    t,
    ['etcd', 'join', '-'],
    formatMemberToken({ ...parseMemberToken(token), cluster: '' }),
  );
  expect(strange.stderr).toMatch(/what it holds is not what this version of tartan knows/);
  for (const { stdout, stderr } of [elsewhere, argument, broken, strange])
    expect(stdout + stderr).not.toContain(key.split('\n')[1]);
  // A member that does not come has no vote: the cluster does not wait for it.
  expect(await members()).toMatch(/192\.0\.2\.10:2380, .*, true$/m);
  expect((await tartan(s, ['leases'])).status).toBe(0);

  const joined = await tartan(t, ['etcd', 'join', '-'], token);
  expect(joined.stderr).toBe('');
  expect(joined.status).toBe(0);
  expect(joined.stdout + joined.stderr).not.toContain(key.split('\n')[1]);
  expect(statSync(t.path('/etc/tartan/etcd/server.key')).mode & 0o777).toBe(0o600);
  const added = await done;
  expect(added.stderr).toMatch(/192\.0\.2\.10 is one of 2 members: add one more/);
  expect(added.status).toBe(0);
  expect((await tartan(s, ['etcd', 'add', '192.0.2.10'])).stderr).toMatch(/192\.0\.2\.10 has a member already/);
  expect((await tartan(t, ['etcd', 'add', '192.0.2.11'])).stderr).toMatch(/etcdctl\.env is not here/);
});

test('of three members one may be lost, that of tartan init too', async () => {
  const { token, done } = await add('192.0.2.11');
  expect((await tartan(w, ['etcd', 'join', '-'], token)).status).toBe(0);
  expect((await done).stderr).toMatch(/192\.0\.2\.11 is one of 3 members\n/);
  expect((await members()).match(/started/g)).toHaveLength(3);
  const made = (await tartan(s, ['token', 'new'])).stdout.trim();
  expect([...parseToken(made).endpoints].sort()).toEqual([10, 11, 9].map(last => `https://192.0.2.${last}:2379`));
  // s learns of the others.
  expect((await tartan(s, ['join', '-'], made)).status).toBe(0);
  await s.systemctl('stop', 'tartan-etcd');
  const joined = await tartan(t, ['join', '-'], made);
  expect(joined.stderr).toBe('');
  expect(joined.stdout).toMatch(/note: an endpoint does not answer: https:\/\/192\.0\.2\.9:2379/);
  expect(joined.stdout).toMatch(/this host has 10\.5\.\d+\.0\/24/);
  expect(joined.stdout).toMatch(/UDP passes to 192\.0\.2\.9\n/);
  expect(joined.status).toBe(0);
  await s.systemctl('start', 'tartan-etcd');
});

test('a member is removed, and its host is clean', async () => {
  expect((await tartan(s, ['etcd', 'remove', '192.0.2.9'])).stderr).toMatch(/is that of this host/);
  expect((await tartan(s, ['etcd', 'remove', '192.0.2.12'])).stderr).toMatch(/there is no member on 192\.0\.2\.12/);
  const kept = await tartan(w, ['uninstall']);
  expect(kept.stderr).toMatch(/next: .*tartan etcd remove/);
  const { status, stderr } = await tartan(s, ['etcd', 'remove', '192.0.2.11']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(await members()).not.toContain('192.0.2.11');
  expect((await tartan(w, ['uninstall', '--destroy-etcd'])).status).toBe(0);
  expect((await w.attempt(['ls', '/etc/tartan', '/var/lib/tartan-etcd'])).stdout).toBe('');
});
