/**
 * Networks that Docker makes by itself, on the free half of the lease (--docker-pools): host a has Docker 26, host b Docker
 * 28 with legacy iptables and its settings in daemon.json, and host c Docker 20, which takes no pools.
 */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { parseIpv4, parsePrefix, prefixContains } from '../../src/model/ip.js';
import type { Finding } from '../../src/docker/verify/finding.js';
import { composePlugin, DockerEngine, type EngineOptions } from '../support/docker-engine.js';
import { expectWell, lookAt, namesOf } from '../support/doctor.js';
import { engineOf } from '../support/flow-bed.js';
import type { Flags, LabHost } from '../support/lab-host.js';
import { transfer } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const daemonJson = (): string => join(lab().spaces.directory, 'b.json');
const engines = {
  a: { version: '26' },
  b: { version: '28', iptables: 'legacy', words: words => [...words, '--config-file', daemonJson()] },
  c: { version: '20' },
} as const satisfies Readonly<Record<string, EngineOptions>>;
const available = Object.values(engines).every(({ version }) => DockerEngine.available(version));

function flagsOf({ letter, spaces }: LabHost): Flags {
  const merged = { 'docker-config': 'daemon-json', 'docker-daemon-json': join(spaces.directory, 'b.json') };
  return { 'docker-pools': 'true', ...(letter === 'b' && merged) };
}

const lab = useLab({ nodes: available ? Object.keys(engines) : [], docker: true }, async opened => {
  const start = async (host: LabHost): Promise<void> => {
    const engine = new DockerEngine(host, engines[host.letter as keyof typeof engines]);
    host.engine = engine;
    await host.startDaemon(flagsOf(host), { PATH: engine.path }).waitForEvent('daemon.ready');
    await host.startEngine();
  };
  await Promise.all(opened.hosts.map(start));
  await opened.waitForRoutes();
});

const takers = (): readonly LabHost[] => ['a', 'b'].map(letter => lab().node(letter));
const partOf = (host: LabHost, end: string): string => host.subnet.replace('0/24', end);

async function verify(host: LabHost): Promise<readonly Finding[]> {
  const { stdout } = await host.tool('docker', 'verify', '-o', 'json', '--docker-host', engineOf(host).url);
  return (JSON.parse(stdout) as { findings: Finding[] }).findings.filter(({ severity }) => severity !== 'note');
}

interface End {
  readonly letter: string;
  readonly address: string;
}

/** The reaper knows names of one letter, and of one with a c behind it; those of the lab's own are a, b, c, e and u. */
const letters = [...'fghijklmnopq'];

/** The network namespace of the container gets the name of one more host's. */
async function endOf(host: LabHost, container: string): Promise<End> {
  const letter = letters.shift();
  if (letter === undefined) throw new Error('no letter is left');
  await lab().spaces.adoptContainer(letter, await engineOf(host).pidOf(container));
  return { letter: `${letter}c`, address: await engineOf(host).addressOf(container) };
}

async function expectWhole(from: End, to: End): Promise<void> {
  const where = { from: from.letter, to: to.letter, address: to.address, port: 7003 };
  const { sent, received } = await transfer(lab().spaces, { ...where, bytes: 1_000_000 });
  expect(received).toEqual({ ...sent, source: from.address });
}

async function subnetOf(host: LabHost, network: string): Promise<string> {
  return engineOf(host).docker('network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', network);
}

test.skipIf(!available)(
  'a network without any option is a part of the lease, and reaches that of the other host',
  async () => {
    const [a, b] = [lab().node('a'), lab().node('b')];
    expect(readFileSync(a.dockerEnvFile, 'utf8')).toContain(
      ` --bip=${partOf(a, '1/25')} --ip-masq=false --mtu=1464 --default-address-pool=base=${partOf(a, '128/25')},size=28` +
        ' --default-network-opt=bridge=com.docker.network.driver.mtu=1464"',
    );
    expect(JSON.parse(readFileSync(daemonJson(), 'utf8'))).toMatchObject({
      'default-address-pools': [{ base: partOf(b, '128/25'), size: 28 }],
      'default-network-opts': { bridge: { 'com.docker.network.driver.mtu': '1464' } },
    });
    const [one, other] = await Promise.all(
      takers().map(async host => {
        await engineOf(host).docker('network', 'create', 'shop');
        await engineOf(host).runContainer('till', { network: 'shop' });
        const end = await endOf(host, 'till');
        expect(await subnetOf(host, 'shop')).toBe(partOf(host, '128/28'));
        expect(prefixContains(parsePrefix(partOf(host, '128/28')), parseIpv4(end.address))).toBe(true);
        expect(await engineOf(host).docker('exec', 'till', 'cat', '/sys/class/net/eth0/mtu')).toBe('1464');
        return end;
      }),
    );
    if (!one || !other) throw new Error('two hosts');
    await expectWhole(one, other);
    await expectWhole(other, one);
    const box = { letter: b.containerNamespace, address: b.containerAddress };
    await expectWhole(one, box);
    await expectWhole(box, one);
  },
);

test.skipIf(!available)(
  'Docker masquerades such a network behind us: no rule that it inserts comes before ours',
  async () => {
    const check = async (host: LabHost): Promise<void> => {
      const saved = await host.run('iptables-save', '-t', 'nat');
      expect(saved).toContain(`-A POSTROUTING -s ${partOf(host, '128/28')} ! -o br-`);
      expect(saved).not.toContain('tartan');
      expect(await host.run('nft', 'list', 'chain', 'ip', 'tartan', 'postrouting')).toContain('snat to ip saddr');
      expect(await verify(host)).toEqual([]);
      await expectWell(host);
    };
    await Promise.all(takers().map(check));
  },
);

test.skipIf(!available || composePlugin === undefined)(
  'docker compose up on two hosts, with no word of tartan',
  async () => {
    const file = join(lab().spaces.directory, 'compose.yaml');
    writeFileSync(file, 'services:\n  desk:\n    image: box:1\n    command: sleep 1000000\n');
    const [one, other] = await Promise.all(
      takers().map(async host => {
        const link = join(lab().spaces.directory, host.letter, 'docker/cli-plugins/docker-compose');
        mkdirSync(dirname(link));
        symlinkSync(composePlugin ?? '', link);
        await engineOf(host).docker('compose', '-p', 'office', '-f', file, 'up', '-d', '--quiet-pull');
        expect(await subnetOf(host, 'office_default')).toBe(partOf(host, '144/28'));
        return endOf(host, 'office-desk-1');
      }),
    );
    if (!one || !other) throw new Error('two hosts');
    await expectWhole(one, other);
    await expectWhole(other, one);
  },
);

test.skipIf(!available)('Docker 20 takes no pools, says so everywhere, and goes on as without them', async () => {
  const c = lab().node('c');
  const told = '--docker-pools needs Docker 23, and dockerd is version 20';
  expect((await c.status()).problems).toEqual([expect.stringContaining(told)]);
  expect(readFileSync(c.dockerEnvFile, 'utf8')).toContain(
    `DOCKER_OPTS=" --bip=${partOf(c, '1/25')} --ip-masq=false --mtu=1464"\n`,
  );
  expect(await verify(c)).toMatchObject([
    { severity: 'warning', id: 'engine-pools', repair: 'tartan docker network create NAME' },
  ]);
  expect(namesOf(await lookAt(c))).toContain('engine-pools');
  await engineOf(c).docker('network', 'create', 'plain');
  expect(await subnetOf(c, 'plain')).toMatch(/^172\./);
  const made = await c.tool('docker', 'network', 'create', 'shop', '--docker-host', engineOf(c).url);
  expect(made.stdout).toContain(`network shop was made: ${partOf(c, '128/26')}`);
  const [a] = takers();
  if (!a) throw new Error('no host');
  await engineOf(c).runContainer('till', { network: 'shop' });
  await expectWhole(await endOf(c, 'till'), { letter: a.containerNamespace, address: a.containerAddress });
});

if (process.env['TARTAN_DOCKER_MATRIX'] === 'all')
  test.skipIf(!available)(
    'Docker and tartand started again, in either order: the networks and their sources stay',
    async () => {
      const restartDocker = async (host: LabHost): Promise<void> => {
        await engineOf(host).stopDaemon();
        await engineOf(host).startDaemon();
        await engineOf(host).docker('start', 'till');
      };
      const restartTartand = async (host: LabHost): Promise<void> => {
        await host.stopDaemon();
        await host.startDaemon(flagsOf(host), { PATH: engineOf(host).path }).waitForEvent('daemon.ready');
      };
      const orders = [
        [restartDocker, restartTartand],
        [restartTartand, restartDocker],
      ];
      for (const order of orders) {
        for (const restart of order) await Promise.all(takers().map(restart));
        await lab().waitForRoutes();
        const [one, other] = await Promise.all(takers().map(host => endOf(host, 'till')));
        if (!one || !other) throw new Error('two hosts');
        await expectWhole(one, other);
        await expectWhole(other, one);
        for (const host of takers()) expect(await verify(host)).toEqual([]);
      }
    },
  );
