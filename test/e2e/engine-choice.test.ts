/** The choice between the engines: by flag and network document, told in lease and status, with the MTU and the rules. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseLeaseValue } from '../../src/model/lease.js';
import type { LabHost } from '../support/lab-host.js';
import { keyPrefix } from '../support/lab.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const document = (engine?: string): string => JSON.stringify({ Network: '10.5.0.0/16', Engine: engine });
const lab = useLab({ nodes: ['a', 'b', 'c'], network: document() }, async opened => {
  const { a, b, c } = { a: opened.node('a'), b: opened.node('b'), c: opened.node('c') };
  await Promise.all([a.bringUp(), b.bringUp({ engine: 'kernel' }), c.bringUp({ engine: 'user' })]);
  await opened.waitForRoutes();
});

async function announced(host: LabHost): Promise<unknown> {
  const key = `${keyPrefix}/subnets/${host.subnet.replace('/', '-')}`;
  return parseLeaseValue((await lab().etcd.get(key)) ?? '{}').features.kernel;
}

async function engineOf(from: LabHost, to: LabHost): Promise<readonly unknown[]> {
  const { peers } = await from.status();
  const watched = peers.find(({ subnet }) => subnet === to.subnet)?.watched;
  return [watched?.engine, watched?.engineReason];
}

test('each host has the MTU of its engine, auto without a flag, in the files, at the tunnel and for its containers', async () => {
  for (const [letter, mtu] of [
    ['a', 1464],
    ['b', 1464],
    ['c', 1472],
  ] as const) {
    const host = lab().node(letter);
    expect(await host.run('ip', 'link', 'show', 'tartan0')).toContain(`mtu ${mtu} `);
    expect(readFileSync(host.subnetFile, 'utf8')).toContain(`FLANNEL_MTU=${mtu}\n`);
    expect(readFileSync(host.dockerEnvFile, 'utf8')).toContain(`--mtu=${mtu}`);
  }
});

test('two hosts that announce it go by the kernel, a third one by user space, each with its reason', async () => {
  const [a, b, c] = [lab().node('a'), lab().node('b'), lab().node('c')];
  await until('the leases of a and b announce it', async () => Boolean((await announced(a)) && (await announced(b))));
  expect(await announced(a)).toEqual({ port: 4790, vni: 1 });
  expect(await announced(c)).toBeUndefined();
  await until('a and b reach each other by the kernel', async () => {
    await a.pingFromContainer(b.containerAddress);
    const engines = await Promise.all([engineOf(a, b), engineOf(b, a)]);
    return engines.every(([engine]) => engine === 'kernel');
  });
  expect(await a.pingFromContainer(c.containerAddress)).toBe(true);
  expect(await engineOf(a, b)).toEqual(['kernel', null]);
  expect(await engineOf(a, c)).toEqual(['user', 'its lease does not announce the kernel engine']);
  expect(await engineOf(c, a)).toEqual(['user', null]);
  expect((await a.status()).datapath?.kernel).toEqual({ wanted: 'auto', state: 'on', reason: null, peers: 1 });
  expect((await c.status()).datapath?.kernel).toMatchObject({ wanted: 'user', state: 'off' });
  expect((await a.tool('peers')).stdout).toMatch(/ENGINE[^]* kernel /);
  expect((await a.tool('status')).stdout).toContain('kernel for 1 of 2 peers');
  const raw = await a.run('iptables', '-t', 'raw', '-S');
  expect(raw.match(/--dport 4790 .*--notrack/g)).toHaveLength(2);
  expect(raw).toMatch(/-A PREROUTING -i tartan-k .*-j DROP/);
});

test('TTL, DSCP and ECN are as the README says: by the kernel, and by user space', async () => {
  const [a, b, c] = [lab().node('a'), lab().node('b'), lab().node('c')];
  const captures = await Promise.all(
    // The outer TOS: no DSCP and ECT(0), or anything with ECN.
    ['udp port 4790 and ip[1] = 2 and greater 300', 'udp port 8285 and ip[1] & 3 != 0'].map(filter =>
      lab().captureUnderlay(filter),
    ),
  );
  for (const [to, ttl] of [
    [b, 62],
    [c, 61],
  ] as const) {
    const ping = ['ping', '-c', '2', '-i', '0.2', '-W', '1', '-s', '300', '-Q', '0xba', to.containerAddress];
    const { stdout } = await a.inContainer(...ping);
    expect(stdout).toContain(` ttl=${ttl} `);
  }
  // A time to live that ends on the way: the other host tells of it, and in user space the tunnel itself.
  const before = (await a.counters())['tx_ttl'] ?? 0;
  for (const to of [b, c]) {
    const { stdout, stderr } = await a.inContainer('ping', '-n', '-c', '1', '-W', '1', '-t', '2', to.containerAddress);
    expect(`${stdout}${stderr}`).toContain('Time to live exceeded');
  }
  expect((await a.counters())['tx_ttl']).toBe(before + 1);
  const [byKernel, byUser] = await Promise.all(captures.map(capture => capture.stop()));
  expect(byKernel).toHaveLength(4);
  expect(byUser).toEqual([]);
});

test('doctor names the rule of a host that lets 8285 pass and not 4790', async () => {
  const a = lab().node('a');
  const rule = ['INPUT', '-p', 'udp', '--dport', '4790', '-j', 'DROP'];
  await a.run('iptables', '-I', ...rule);
  const { stdout } = await a.tool('doctor', '-o', 'json');
  await a.run('iptables', '-D', ...rule);
  const { findings } = JSON.parse(stdout) as { readonly findings: readonly { id: string; next: string }[] };
  expect(findings.find(({ id }) => id === 'kernel-port-dropped')?.next).toBe(
    'iptables -t filter -I INPUT -p udp --dport 4790 -j ACCEPT',
  );
});

test('Engine "user" switches both hosts while packets flow, without a restart: none is lost, no MTU moves', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const pids = [a.daemon.pid, b.daemon.pid];
  const flow = await lab().flow(a, b);
  await lab().setNetwork(document('user'));
  await until('a and b go by user space', async () => {
    const engines = await Promise.all([engineOf(a, b), engineOf(b, a)]);
    return engines.every(([engine]) => engine === 'user');
  });
  await until('their leases withdraw it', async () => !(await announced(a)) && !(await announced(b)));
  const { datapath, problems } = await a.status();
  const reason = expect.stringContaining('network document') as unknown;
  expect(datapath?.kernel).toMatchObject({ wanted: 'user', state: 'on', reason });
  expect(problems).toEqual([]);
  await lab().setNetwork(document('auto'));
  await until('their leases announce it again', async () => Boolean((await announced(a)) && (await announced(b))));
  await until('a and b go by the kernel again', async () => (await engineOf(a, b))[0] === 'kernel');
  expect(await flow.stop()).toMatchObject({ lost: 0 });
  expect([a.daemon.pid, b.daemon.pid]).toEqual(pids);
  expect(await a.run('ip', 'link', 'show', 'tartan0')).toContain('mtu 1464 ');
});
