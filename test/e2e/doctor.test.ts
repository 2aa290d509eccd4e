/** `tartan doctor` on hosts of a lab: nothing is found while all is well, and a fault is named with its next step. */
import { readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import type { DoctorReport } from '../../src/doctor/judge.js';
import { expectWell, lookAt, namesOf } from '../support/doctor.js';
import type { LabHost } from '../support/lab-host.js';
import { attempt, findTool, run, toolProgram, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] });
// No sweep puts a file right before doctor has looked.
beforeAll(() => lab().bringUp({ 'iptables-resync': '3600' }));

test('nothing is found while all is well, within the time', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const fromMs = performance.now();
  await expectWell(a);
  // Three seconds on a machine that does nothing else.
  expect(performance.now() - fromMs).toBeLessThan(20_000);
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

function loadRules(host: LabHost, text: string): Promise<string> {
  return run(host.inside(['nft', '-f', '-']), { input: text });
}

/** As firewalld has them, with and without a zone that opens the ports. */
const zones = (service: string): string => `
table inet firewalld {
  chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept; icmpv6 type nd-router-advert accept; }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    jump filter_INPUT_ZONES
    ct state { invalid } drop
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES { iifname "eth0" goto filter_IN_public; goto filter_IN_public; }
  chain filter_IN_public { jump filter_IN_public_allow; meta l4proto { icmp, ipv6-icmp } accept; reject with icmpx admin-prohibited; }
  chain filter_IN_public_allow { tcp dport 22 accept; ${service}; }
}`;

test('a firewall with zones is no alarm when both ports are open, and is named for each that is not', async () => {
  const a = lab().node('a');
  await loadRules(a, zones('udp dport { 4790, 8285 } accept'));
  await expectWell(a);
  await loadRules(a, `delete table inet firewalld ${zones('udp dport 8285 accept')}`);
  const kernelOnly = await lookAt(a);
  expect(namesOf(kernelOnly)).toEqual(['kernel-port-dropped']);
  expect(kernelOnly.findings[0]?.next).toContain('--add-port=4790/udp');
  await loadRules(a, `delete table inet firewalld ${zones('udp dport 8286 accept')}`);
  const report = await lookAt(a);
  expect(namesOf(report)).toContain('udp-new-dropped');
  expect(report.findings.find(({ id }) => id === 'udp-new-dropped')?.next).toContain('--add-port=8285/udp');
  await a.run('nft', 'delete', 'table', 'inet', 'firewalld');
});

test('iptables with a policy that drops and a rule for the ports is no alarm', async () => {
  const a = lab().node('a');
  const rules = [
    '-i lo -j ACCEPT',
    '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '-p udp -m multiport --dports 4790,8285 -j ACCEPT',
  ];
  for (const rule of rules) await a.run('iptables', '-A', 'INPUT', ...rule.split(' '));
  await a.run('iptables', '-P', 'INPUT', 'DROP');
  await expectWell(a);
  await a.run('iptables', '-P', 'INPUT', 'ACCEPT');
  await a.run('iptables', '-F', 'INPUT');
});

test('a host without a program that lists rules is no alarm, and is said to be unchecked', async () => {
  const a = lab().node('a');
  const programs = ['nft', 'iptables', 'iptables-save', 'iptables-nft-save', 'iptables-legacy-save'];
  const hidden = programs.flatMap(name => findTool(name) ?? []).map(path => `mount --bind /dev/null ${path}`);
  const words = [
    'unshare',
    '-m',
    'sh',
    '-c',
    [...hidden, 'exec "$@"'].join(' && '),
    'sh',
    process.execPath,
    toolProgram,
  ];
  const where = ['--run-dir', a.runDir, '--state-dir', a.stateDir];
  const { stdout } = await attempt(a.inside([...words, 'doctor', '-o', 'json', ...where]));
  const report = JSON.parse(stdout) as DoctorReport;
  expect(namesOf(report)).toEqual(['no-firewall-program']);
  expect(report.findings.find(({ id }) => id === 'outer-firewall')?.severity).toBe('unchecked');
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
  const spoil = (): void => {
    writeFileSync(a.subnetFile, right.replace(/FLANNEL_SUBNET=.*/, 'FLANNEL_SUBNET=10.5.207.1/24'));
  };
  // The sweep of tartand, once in a while, is faster than doctor.
  const find = async (): Promise<boolean> => {
    spoil();
    return namesOf(await lookAt(a)).join() === 'subnet-file';
  };
  await until('it is found', find);
  const fix = async (): Promise<boolean> => {
    spoil();
    const { status, stdout } = await a.tool('doctor', '--fix');
    return status === 0 && /^fixed +wrote .*subnet\.env$/m.test(stdout);
  };
  await until('it is put right', fix);
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
