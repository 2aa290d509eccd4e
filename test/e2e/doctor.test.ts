/** `tartan doctor` on hosts of a lab: nothing is found while all is well, and a fault is named with its next step. */
import { readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { expectWell, lookAt, namesOf } from '../support/doctor.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] });
beforeAll(() => lab().bringUp());

test('nothing is found while all is well, within the time', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const fromMs = performance.now();
  await expectWell(a);
  // Three seconds on a machine that does nothing else.
  expect(performance.now() - fromMs).toBeLessThan(10_000);
  await expectWell(b);
});

test('a firewall that drops the tunnel is named with the rule and what accepts it, until it is gone', async () => {
  const a = lab().node('a');
  await a.run('nft', 'add table inet t; add chain inet t in { type filter hook input priority 0; }');
  await a.run('nft', 'add rule inet t in udp dport 8285 counter drop');
  const { status, stdout } = await a.tool('doctor');
  expect(status).toBe(2);
  expect(stdout).toMatch(/^doctor +not as it should be, 1 error/);
  expect(stdout).toMatch(/udp-in-dropped\nfound +nft inet t in: its rule 'udp dport 8285 .*drop' drops/);
  const repair = /^next +(nft insert rule .*)$/m.exec(stdout)?.[1] ?? '';
  expect(repair).toBe('nft insert rule inet t in udp dport 8285 accept');
  await a.run(...repair.split(' '));
  await expectWell(a);
  await a.run('nft', 'delete table inet t');
});

test('a route of others to a peer is named once', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  await a.run('ip', 'route', 'add', b.subnet, 'via', '192.0.2.253');
  await until('the daemon has seen the route', async () => (await a.status()).problems.length > 0);
  const report = await lookAt(a);
  expect(namesOf(report)).toEqual(['route-conflict']);
  expect(report.findings[0]).toMatchObject({ group: 'Host', severity: 'error' });
  expect(report.findings[0]?.evidence).toContain(b.subnet);
  await a.run('ip', 'route', 'del', b.subnet);
  await until('the daemon has seen that it is gone', async () => (await a.status()).problems.length === 0);
  await expectWell(a);
});

test('--fix puts our file right and says so', async () => {
  const a = lab().node('a');
  const right = readFileSync(a.subnetFile, 'utf8');
  writeFileSync(a.subnetFile, right.replace(/FLANNEL_SUBNET=.*/, 'FLANNEL_SUBNET=10.5.77.1/24'));
  expect(namesOf(await lookAt(a))).toEqual(['subnet-file']);
  const { status, stdout } = await a.tool('doctor', '--fix');
  expect([status, stdout]).toEqual([0, expect.stringMatching(/^fixed +wrote .*subnet\.env$/m)]);
  expect(readFileSync(a.subnetFile, 'utf8')).toBe(right);
});

test('a daemon that does not answer is told first, with the reason, and the rest is judged all the same', async () => {
  const b = lab().node('b');
  const { daemon } = await b.status();
  const pid = daemon?.pid ?? 0;
  process.kill(pid, 'SIGSTOP');
  const stopped = await lookAt(b);
  process.kill(pid, 'SIGCONT');
  expect(stopped.findings[0]).toMatchObject({ id: 'daemon-away', next: `kill -CONT ${pid}` });
  await b.stopDaemon();
  const { status, stdout } = await b.tool('doctor');
  expect(status).toBe(2);
  expect(stdout).toMatch(/daemon-away\nfound +tartand cannot be asked: .*\ncause +no tartand runs here/);
  expect(stdout).toMatch(/^Data plane +ok: the data process goes on alone$/m);
});
