/**
 * Every alert of config/prometheus fires once by a real fault, beside a real Prometheus that scrapes four hosts. Only the
 * times that an alert waits are shortened. Part `metrics` of long.sh runs it.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { LabPrometheus, metricsFlags, metricsPort, rulesFile, type Alert } from '../support/prometheus.js';
import { probe, root, run, start, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const fired = new Set<string>();
const shortened = (rules: string): string => rules.replaceAll(/for: \d+[smhd]/g, 'for: 1s');
let prometheus: LabPrometheus;
let daemonJson = '';

const lab = useLab({ nodes: ['a', 'b', 'c', 'd'] }, async opened => {
  daemonJson = join(opened.spaces.directory, 'daemon.json');
  // Host d comes later.
  const hosts = opened.hosts.slice(0, 3);
  await Promise.all(hosts.map(host => host.bringUp(flagsOf(host))));
  await Promise.all(hosts.map(host => host.waitForPeers(2)));
  prometheus = await LabPrometheus.start(opened, shortened);
  await until('every host is scraped', async () => (await prometheus.query('tartan_ready == 1')).length === 3);
});

const ttlSeconds = 20;

function flagsOf({ address }: LabHost): Readonly<Record<string, string>> {
  const more = { 'lease-ttl': String(ttlSeconds), 'on-lost': 'degraded', 'docker-daemon-json': daemonJson };
  return { ...metricsFlags(address), ...more };
}

const instanceOf = ({ address }: LabHost): string => `${address}:${metricsPort}`;
const node = (letter: string): LabHost => lab().node(letter);

/** The alert of that host does not fire, and fires after the fault. */
async function firesBy(
  name: string,
  host: LabHost | undefined,
  fault: () => Promise<unknown>,
  timeoutMs?: number,
): Promise<Alert> {
  const labels = host ? { instance: instanceOf(host) } : {};
  const early = (await prometheus.alerts()).filter(
    alert => alert.name === name && (!host || alert.labels['instance'] === labels.instance),
  );
  expect(early).toEqual([]);
  await fault();
  const alert = await prometheus.fires(name, labels, timeoutMs);
  fired.add(name);
  for (const text of Object.values(alert.annotations)) expect(text).not.toMatch(/<no value>|error expanding/);
  return alert;
}

afterAll(() => {
  const all = [...readFileSync(rulesFile, 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);
  expect(all.filter(name => !fired.has(name))).toEqual([]);
});

test('a way that loses packets', async () => {
  const [a, c] = [node('a'), node('c')];
  const flow = await lab().flow(a, c, 20);
  const rule = ['INPUT', '-p', 'udp', '--dport', '8285', '-m', 'statistic', '--mode', 'random', '--probability', '0.3'];
  await firesBy('TartanPeersLossy', a, () => c.run('iptables', '-I', ...rule, '-j', 'DROP'), 90_000);
  await c.run('iptables', '-D', ...rule, '-j', 'DROP');
  await flow.stop();
});

test('a way that is too narrow', async () => {
  const [a, c] = [node('a'), node('c')];
  const flow = await lab().flow(a, c, 20);
  const narrow = (mtu: string): Promise<string> =>
    run(lab().spaces.inside('u', ['ip', 'link', 'set', 'pc', 'mtu', mtu]));
  await firesBy('TartanPathMtuReduced', a, () => narrow('1300'), 120_000);
  await narrow('1500');
  await flow.stop();
});

test('packets that no peer may send', async () => {
  const send = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.send(Buffer.from('4500001400000000401100000a050101' + '0a050201', 'hex'), 8285, '${node('a').address}', () => socket.close());
  `;
  await firesBy('TartanSpoofedPackets', node('a'), () =>
    until('a stranger is counted', async () => {
      await run(lab().spaces.inside('e', [process.execPath, '-e', send]));
      return ((await node('a').counters())['rx_not_member'] ?? 0) > 3;
    }),
  );
});

test('packets that have no way', async () => {
  const sender = start(lab().spaces.inside('ac', [probe, 'send', '10.5.250.2', '7001', '200']));
  onTestFinished(() => void sender.kill());
  await firesBy('TartanDrops', node('a'), async () => {});
});

test('a data process that dies again and again', async () => {
  await firesBy('TartanDataProcessRestarts', node('b'), async () => {
    for (let death = 1; death <= 4; death++) {
      process.kill(await node('b').datapathPid(), 'SIGKILL');
      await until('a new one', async () => (await node('b').status()).datapath?.respawns === death);
    }
  });
});

test('somebody who removes our route all the time', async () => {
  await firesBy('TartanDrift', node('b'), async () => {
    for (let times = 0; times < 13; times++) {
      await node('b').run('ip', 'route', 'del', '10.5.0.0/16', 'dev', 'tartan0', 'metric', '0');
      await until('the route is back', async () =>
        (await node('b').run('ip', 'route', 'show', '10.5.0.0/16', 'dev', 'tartan0')).includes('10.5.0.0/16'),
      );
    }
  });
});

test('a file that cannot be written', async () => {
  const { dockerEnvFile } = node('b');
  await firesBy('TartanPassesFail', node('b'), async () => {
    rmSync(dockerEnvFile);
    mkdirSync(join(dockerEnvFile, 'in the way'), { recursive: true });
  });
  rmSync(dockerEnvFile, { recursive: true });
});

test('a setting that stands in daemon.json too', async () => {
  await firesBy('TartanDockerOutOfSync', node('a'), async () => writeFileSync(daemonJson, '{"bip":"10.99.0.1/24"}\n'));
  writeFileSync(daemonJson, '{}\n');
  await prometheus.rests('TartanDockerOutOfSync', instanceOf(node('a')));
});

test('a daemon that is dead', async () => {
  await firesBy('TartanDown', node('b'), () => node('b').stopDaemon('SIGKILL'));
});

test('two versions', async () => {
  const tree = join(lab().spaces.directory, 'next');
  mkdirSync(tree);
  cpSync(join(root, 'dist'), join(tree, 'dist'), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
  const text = readFileSync(join(root, 'package.json'), 'utf8');
  writeFileSync(join(tree, 'package.json'), text.replace(/"version": ".*?"/, '"version": "9.9.9"'));
  node('b').program = join(tree, 'dist/tartand.js');
  await firesBy('TartanVersionSkew', undefined, () =>
    node('b')
      .startDaemon(flagsOf(node('b')))
      .waitForEvent('daemon.ready'),
  );
  await prometheus.rests('TartanDown', instanceOf(node('b')));
});

test('a host that waits for a network document', async () => {
  const d = node('d');
  const alert = await firesBy('TartanImpaired', d, async () => {
    expect((await prometheus.alerts()).map(({ name }) => name)).not.toContain('TartanNotReady');
    d.startDaemon({ ...flagsOf(d), 'etcd-prefix': '/elsewhere' });
  });
  expect(alert.annotations['summary']).toBe(`the health of ${instanceOf(d)} is impaired, problems: 1`);
  await prometheus.fires('TartanNotReady', { instance: instanceOf(d) });
  fired.add('TartanNotReady');
  await d.stopDaemon();
});

test('a UDP port that is blocked', async () => {
  const c = node('c');
  const flows = await Promise.all([lab().flow(node('a'), c, 20), lab().flow(node('b'), c, 20)]);
  await firesBy('TartanPeersSilent', node('a'), () =>
    c.run('iptables', '-I', 'INPUT', '-p', 'udp', '--dport', '8285', '-j', 'DROP'),
  );
  const alert = await prometheus.fires('TartanPeerSilentToMany', { peer: c.subnet });
  expect(alert.annotations['summary']).toBe(`2 hosts do not hear ${c.subnet}`);
  fired.add('TartanPeerSilentToMany');
  await c.run('iptables', '-D', 'INPUT', '-p', 'udp', '--dport', '8285', '-j', 'DROP');
  await prometheus.rests('TartanPeersSilent', instanceOf(node('a')), 60_000);
  for (const flow of flows) await flow.stop();
});

test('etcd that is gone', async () => {
  await firesBy('TartanLeaseNotRenewed', node('a'), () => lab().etcd.kill());
  const instance = instanceOf(node('a'));
  await prometheus.fires('TartanLeaseEnds', { instance });
  await prometheus.fires('TartanEtcdDown', { instance }, 90_000);
  for (const name of ['TartanLeaseEnds', 'TartanEtcdDown']) fired.add(name);
  await lab().etcd.start();
  for (const name of ['TartanLeaseEnds', 'TartanLeaseNotRenewed', 'TartanEtcdDown'])
    await prometheus.rests(name, instance);
});

test('a subnet that another host has', async () => {
  const c = node('c');
  const key = `/coreos.com/network/subnets/${c.subnet.replace('/', '-')}`;
  await firesBy('TartanLeaseLost', c, () =>
    lab().etcd.put(key, '{"PublicIP":"192.0.2.77","BackendType":"udp","nodeId":"another","bootId":"x"}'),
  );
});
