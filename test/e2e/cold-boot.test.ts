/** Starts without etcd: what the state file is good for, when it is refused, and how etcd's truth replaces it. */
import { existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { isAlive, type LabHost } from '../support/lab-host.js';
import { attempt, run, until, type Outcome } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';
import { Patience } from './faults/patience.js';

const subnets = '/coreos.com/network/subnets';
const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

function stateFile(host: LabHost): string {
  return join(host.stateDir, 'state.json');
}

/** The state file has the network, the lease and the other host. */
async function remembers(host: LabHost): Promise<void> {
  await until(`host ${host.letter} wrote its peers down`, () => {
    const { body } = JSON.parse(readFileSync(stateFile(host), 'utf8')) as { body: { memory?: { peers: unknown[] } } };
    return body.memory?.peers.length === lab().hosts.length - 1;
  });
}

/** Power is cut: both processes, what stood in the kernel and what stood on a tmpfs are gone; the disk stays. */
async function cutPower(host: LabHost): Promise<void> {
  const pid = await host.datapathPid();
  host.daemon.signal('SIGKILL');
  process.kill(pid, 'SIGKILL');
  await host.daemon.end();
  await until('the data process is gone', () => !isAlive(pid));
  await attempt(host.inside(['ip', 'link', 'del', 'tartan0']));
  await attempt(host.inside(['ip', 'route', 'flush', 'proto', '167']));
  for (const path of [host.runDir, host.subnetFile, host.dockerEnvFile]) rmSync(path, { recursive: true, force: true });
}

async function everyHost(what: string, is: (host: LabHost) => Promise<boolean>): Promise<void> {
  await until(what, async () => (await Promise.all(lab().hosts.map(is))).every(Boolean));
}

async function toNormal(): Promise<void> {
  await everyHost('every host is ready', async host => (await host.status()).ready);
  await lab().waitForRoutes();
}

test('etcd is down at boot: tunnel and Docker settings in under 3 s, traffic, and nothing lost when etcd is back', async () => {
  const before = lab().hosts.map(({ subnet, dockerEnvFile }) => [subnet, readFileSync(dockerEnvFile, 'utf8')]);
  for (const host of lab().hosts) await remembers(host);
  const keys = await lab().etcd.keys(subnets);
  await lab().etcd.kill();
  for (const host of lab().hosts) await cutPower(host);
  for (const host of lab().hosts) {
    const daemon = host.startDaemon();
    const patience = new Patience(3000, () => [daemon.pid]);
    await daemon.waitForEvent('lease.remembered', { peers: 1 });
    await daemon.waitForEvent('daemon.ready');
    expect(patience.isOver, daemon.lastWords()).toBe(false);
  }
  expect(lab().hosts.map(({ subnet, dockerEnvFile }) => [subnet, readFileSync(dockerEnvFile, 'utf8')])).toEqual(before);
  const [a, b] = [lab().node('a'), lab().node('b')];
  expect(await a.status()).toMatchObject({
    phase: 'ready',
    ready: false,
    lease: { subnet: a.subnet, state: 'unknown' },
    peers: [{ subnet: b.subnet, state: 'remembered' }],
  });
  await until('traffic', () => a.pingFromContainer(b.containerAddress));

  const written = lab().hosts.map(({ dockerEnvFile }) => statSync(dockerEnvFile).mtimeMs);
  const pids = await Promise.all(lab().hosts.map(host => host.datapathPid()));
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await lab().etcd.start();
  await toNormal();
  await until('traffic after it', async () => ((await b.counters())['rx_ok'] ?? 0) > 3000);
  for (const flow of flows) expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
  expect((await a.status()).peers).toMatchObject([{ subnet: b.subnet, state: 'live' }]);
  expect(await Promise.all(lab().hosts.map(host => host.datapathPid()))).toEqual(pids);
  expect(lab().hosts.map(({ dockerEnvFile }) => statSync(dockerEnvFile).mtimeMs)).toEqual(written);
  expect(await lab().etcd.keys(subnets)).toEqual(keys);
  await a.daemon.waitForEvent('lease.state', { state: 'held' });
});

const damages: readonly (readonly [string, RegExp, (path: string) => void])[] = [
  ['damaged', /is damaged: its checksum does not fit/, path => replace(path, /"subnet":"10\.5\./, '"subnet":"10.6.')],
  ['truncated', /is damaged, or not a state file/, path => truncateSync(path, statSync(path).size - 20)],
  ['empty', /is damaged, or not a state file/, path => truncateSync(path, 0)],
  ['of a newer version', /was written by a newer version \(3\)/, path => replace(path, /"version":2/, '"version":3')],
  ['of another node', /belongs to node/, path => writeFileSync(path, readFileSync(stateFile(lab().node('b'))))],
];

function replace(path: string, what: RegExp, by: string): void {
  writeFileSync(path, readFileSync(path, 'utf8').replace(what, by));
}

test('a state file that is damaged, cut, unknown or foreign is refused as a whole, with a line that says why', async () => {
  const a = lab().node('a');
  const subnet = a.subnet;
  await remembers(a);
  await cutPower(a);
  await lab().etcd.kill();
  const good = readFileSync(stateFile(a));
  for (const [name, reason, damage] of damages) {
    writeFileSync(stateFile(a), good);
    damage(stateFile(a));
    const daemon = a.startDaemon();
    const { msg } = await daemon.waitForEvent('state.refused');
    expect(msg, name).toMatch(reason);
    await daemon.waitForEvent('network.waiting', { attempt: 2 });
    expect(await a.status(), name).toMatchObject({ phase: 'waiting-for-network', lease: null, peers: [] });
    expect(existsSync(a.subnetFile)).toBe(false);
    await a.stopDaemon();
  }
  await a.startDaemon().waitForEvent('network.waiting');
  await lab().etcd.start();
  await a.daemon.waitForEvent('daemon.ready');
  expect(a.subnet).toBe(subnet);
  await toNormal();
});

test('at another address the state file is not used, and its subnet is asked for again', async () => {
  const a = lab().node('a');
  await remembers(a);
  const subnet = a.subnet;
  await cutPower(a);
  await lab().etcd.kill();
  const daemon = a.startDaemon({ 'public-ip': '192.0.2.99', iface: 'eth0' });
  const { msg } = await daemon.waitForEvent('state.refused');
  expect(msg).toMatch(/was written for the address 192\.0\.2\.1 at 192\.0\.2\.1, this host has 192\.0\.2\.99/);
  await daemon.waitForEvent('network.waiting');
  await a.stopDaemon();
  await lab().etcd.start();
  await a.startDaemon().waitForEvent('daemon.ready');
  expect(a.subnet).toBe(subnet);
  await toNormal();
});

test('fault K1: etcd that is gone impairs the health of a running host within 10 s, and takes no readiness to carry traffic', async () => {
  const a = lab().node('a');
  const readyz = (): Promise<Outcome> =>
    attempt(a.inside(['busybox', 'wget', '-O', '-', 'http://127.0.0.1:8470/readyz']));
  await a.stopDaemon();
  await a.startDaemon({ 'healthz-port': '8470' }).waitForEvent('daemon.ready');
  await toNormal();
  await remembers(a);
  await until('well', async () => (await a.status()).health?.state === 'ok');
  expect((await a.tool('status', '--check')).status).toBe(0);
  await lab().etcd.kill();
  await until('impaired', async () => (await a.status()).health?.state === 'impaired', 10_000);
  expect((await a.status()).health?.reasons.join()).toContain('etcd does not answer');
  expect(await a.status()).toMatchObject({ phase: 'ready', ready: true, lease: { state: 'held' } });
  expect(await a.tool('status', '--check')).toMatchObject({
    status: 2,
    stdout: expect.stringMatching(/^impaired, /),
  });
  expect((await readyz()).status).toBe(0);
  await cutPower(a);
  const daemon = a.startDaemon({ 'healthz-port': '8470' });
  expect((await readyz()).status).not.toBe(0);
  await daemon.waitForEvent('daemon.ready');
  expect((await readyz()).status).toBe(0);
  expect(await a.status()).toMatchObject({ ready: false, lease: { state: 'unknown' } });
  await lab().etcd.start();
  await toNormal();
  await until('well again', async () => (await a.status()).health?.state === 'ok');
});

test('fault B1, fault F6: a restart beside a document that cannot be used renews the lease and says what etcd answered', async () => {
  const a = lab().node('a');
  const [subnet, good] = [a.subnet, await lab().etcd.get('/coreos.com/network/config')];
  await remembers(a);
  for (const [document, reason] of [
    ['{"Network":"10.5.0.0/16",}', /config_invalid: .*the last good document is kept/],
    ['{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}', /config_invalid: .*vxlan.*the last good document is kept/],
  ] as const) {
    await lab().setNetwork(document);
    await a.stopDaemon();
    await a.startDaemon().waitForEvent('lease.acquired');
    await until('held', async () => (await a.status()).ready);
    await until('told', async () => (await a.status()).problems.some(problem => reason.test(problem)));
    expect(a.subnet).toBe(subnet);
  }
  await lab().setNetwork(good);
  await until('well again', async () => (await a.status()).problems.length === 0);
});

test('tartand killed while etcd is down: nothing is lost, and forwarding outlasts six TTLs', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const ttlSeconds = 2;
  const flags = { 'lease-ttl': String(ttlSeconds) };
  await a.stopDaemon();
  await a.startDaemon(flags).waitForEvent('daemon.ready');
  await toNormal();
  const flow = await lab().flow(b, a);
  const received = async (): Promise<number> => (await a.counters())['rx_ok'] ?? 0;
  await lab().etcd.kill();
  await until('unknown', async () => (await a.status()).lease?.state === 'unknown');
  // Far enough for the last KeepAlive to be of no use to a data process left alone.
  const enough = (await received()) + 7 * ttlSeconds * 1000;
  await until('seven TTLs of traffic', async () => (await received()) > enough, 40_000);
  expect(await a.stopDaemon('SIGKILL')).toBe('SIGKILL');
  await a.startDaemon(flags).waitForEvent('lease.remembered');
  // Longer than a daemon's last word to the data process is good for.
  await until('the daemon is back', () => a.status());
  const later = (await received()) + 17_000;
  await until('seventeen seconds more', async () => (await received()) > later, 40_000);
  expect(await flow.stop()).toMatchObject({ lost: 0, duplicates: 0 });
  await lab().etcd.start();
  await toNormal();
  await a.stopDaemon();
  await a.startDaemon().waitForEvent('daemon.ready');
  await toNormal();
});

test('fault C21: a host that slept while another took its subnet, and cannot ask etcd, forwards to nobody who knows', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const key = `${subnets}/${a.subnet.replace('/', '-')}`;
  const etcdAddress = new URL(lab().etcd.endpoint).hostname;
  const adopted = async (): Promise<number> => (await b.status()).datapath?.generationAdopted ?? 0;
  const generation = await adopted();
  a.daemon.signal('SIGSTOP');
  // The connection ends while nobody reads it, so that nothing waits in it.
  await lab().etcd.kill();
  await run(a.inside(['ip', 'route', 'add', 'blackhole', etcdAddress]));
  await lab().etcd.start();
  await lab().etcd.delete(key);
  await lab().etcd.put(key, JSON.stringify({ PublicIP: '192.0.2.66', nodeId: 'another' }));
  await until('the peer knows', async () => (await b.status()).peers.some(({ publicIp }) => publicIp === '192.0.2.66'));
  await until('its data process too', async () => (await adopted()) > generation);
  a.daemon.signal('SIGCONT');
  await until('the daemon is back', () => a.status());
  const sent = (await a.counters())['tx_ok'] ?? 0;
  const refused = async (): Promise<number> => {
    const { rx_not_member = 0, rx_spoof_src = 0 } = await b.counters();
    return rx_not_member + rx_spoof_src;
  };
  const before = await refused();
  expect(await a.pingFromContainer(b.containerAddress, 3)).toBe(false);
  expect((await a.counters())['tx_ok'] ?? 0).toBeGreaterThanOrEqual(sent + 3);
  expect(await refused()).toBeGreaterThanOrEqual(before + 3);
  await until('told', async () => (await a.status()).health?.state === 'impaired');
  await run(a.inside(['ip', 'route', 'del', 'blackhole', etcdAddress]));
  expect(await a.daemon.end()).toBe(75);
  await lab().etcd.put(key, JSON.stringify({ PublicIP: '192.0.2.66', nodeId: 'another', released: true }));
  await a.startDaemon().waitForEvent('daemon.ready');
  await lab().etcd.delete(key);
  await toNormal();
});

test('the subnet was taken meanwhile: its traffic stops when etcd says so, with 75, and the next start has another', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const subnet = a.subnet;
  await remembers(a);
  await cutPower(a);
  const key = `${subnets}/${subnet.replace('/', '-')}`;
  const theirs = JSON.stringify({ PublicIP: '192.0.2.66', nodeId: 'another' });
  await lab().etcd.delete(key);
  await lab().etcd.put(key, theirs);
  // Only this host is cut off from etcd.
  const etcdAddress = new URL(lab().etcd.endpoint).hostname;
  await run(a.inside(['ip', 'route', 'add', 'blackhole', etcdAddress]));
  await a.startDaemon().waitForEvent('lease.remembered');
  await a.daemon.waitForEvent('daemon.ready');
  await run(a.inside(['ip', 'route', 'del', 'blackhole', etcdAddress]));
  await a.daemon.waitForEvent('lease.lost');
  expect(await a.daemon.end()).toBe(75);
  expect(await lab().etcd.get(key)).toBe(theirs);
  const wire = await lab().captureUnderlay(`(udp port 8285 or udp port 4790) and src host ${a.address}`);
  expect(await a.pingFromContainer(b.containerAddress)).toBe(false);
  expect(await wire.stop()).toEqual([]);
  await a.startDaemon().waitForEvent('daemon.ready');
  expect(a.subnet).not.toBe(subnet);
});

test('degraded: another owner stops the traffic at once, and the daemon stays, not ready', async () => {
  const b = lab().node('b');
  await b.stopDaemon();
  await b.startDaemon({ 'on-lost': 'degraded', 'healthz-port': '8471' }).waitForEvent('daemon.ready');
  await b.untilConfirmed();
  const docker = readFileSync(b.dockerEnvFile, 'utf8');
  const key = `${subnets}/${b.subnet.replace('/', '-')}`;
  await lab().etcd.put(key, JSON.stringify({ PublicIP: '192.0.2.66', nodeId: 'another' }));
  await b.daemon.waitForEvent('lease.lost', {}, 2000);
  const wire = await lab().captureUnderlay(`(udp port 8285 or udp port 4790) and src host ${b.address}`);
  expect(await b.pingFromContainer(lab().node('a').containerAddress)).toBe(false);
  expect(await wire.stop()).toEqual([]);
  expect(await b.status()).toMatchObject({ phase: 'lost', ready: false, lease: { state: 'lost' } });
  const { stderr } = await attempt(b.inside(['busybox', 'wget', '-O', '-', 'http://127.0.0.1:8471/readyz']));
  expect(stderr).toMatch(/\b503\b/);
  expect(readFileSync(b.dockerEnvFile, 'utf8')).toBe(docker);
  expect(b.daemon.running).toBe(true);
  expect(await b.stopDaemon()).toBe(0);
});
