/** `tartan docker` as an operator meets it: exit statuses, texts and documents, and what is asked of Docker. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FactsRequest, StatusReading, ToolIo } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import type { EngineReading, NetworkRequest } from '../../src/docker/engine.js';
import type { DockerFacts } from '../../src/docker/verify/facts.js';
import { known } from '../../src/lib/fact.js';
import { formatPrefix } from '../../src/model/ip.js';
import { dockerNetwork, sampleEngine, sampleFacts } from '../support/docker-facts.js';
import { noPorts, sampleStatus, unexpected } from '../support/samples.js';

interface World {
  reading: StatusReading;
  facts: DockerFacts;
  engine: EngineReading;
  env: Readonly<Record<string, string>>;
  readonly places: FactsRequest[];
  readonly sockets: string[];
  readonly made: NetworkRequest[];
}

let world: World;
let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), `tartan-docker-${process.pid}-`));
  const half = { ...sampleEngine, networks: [dockerNetwork('bridge', '10.5.1.0/25')] };
  world = {
    reading: withBip('10.5.1.1/24'),
    facts: sampleFacts,
    engine: { kind: 'answers', state: half },
    env: {},
    places: [],
    sockets: [],
    made: [],
  };
});
afterEach(() => rmSync(directory, { recursive: true }));

function withBip(bip: string): StatusReading {
  return {
    kind: 'status',
    status: { ...sampleStatus, docker: sampleStatus.docker && { ...sampleStatus.docker, bip } },
  };
}

const away: StatusReading = { kind: 'unreachable', reason: 'there is no socket' };

async function run(...words: readonly string[]): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const io: ToolIo = {
    env: world.env,
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: {
      ...noPorts,
      readStatus: async () => world.reading,
      docker: {
        readFacts: async place => (world.places.push(place), world.facts),
        readEngine: async socket => (world.sockets.push(socket), world.engine),
        createNetwork: async (_, wanted) => void world.made.push(wanted),
      },
    },
  };
  const status = await runTool(['/usr/bin/node', '/usr/bin/tartan', 'docker', ...words], io);
  return { status, out, err };
}

describe('plan', () => {
  it('as text and as a document', async () => {
    world.reading = withBip('10.5.1.1/26');
    const text = await run('plan');
    expect(text).toMatchObject({ status: 0, err: '' });
    expect(text.out).toMatch(/docker0 +10\.5\.1\.1\/26, MTU 1472\n/);
    expect(text.out).toMatch(/for other networks +10\.5\.1\.64\/26, 10\.5\.1\.128\/25\n/);
    expect(JSON.parse((await run('plan', '-o', 'json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'DockerPlan',
      source: 'daemon',
      network: '10.5.0.0/16',
      lease: '10.5.1.0/24',
      bip: '10.5.1.1/26',
      mtu: 1472,
      ipMasq: false,
      flags: ['--bip=10.5.1.1/26', '--ip-masq=false', '--mtu=1472'],
      settingsFile: '/run/tartan/docker.env',
      forNetworks: ['10.5.1.64/26', '10.5.1.128/25'],
      pools: [],
      firewall: { device: 'tartan0', forward: true, masquerade: true },
    });
  });

  it('of the files while the daemon is away, and 4 without them', async () => {
    world.reading = away;
    const files = ['--run-dir', directory, '--subnet-file', join(directory, 'subnet.env')];
    const none = await run('plan', ...files);
    expect(none).toMatchObject({ status: 4, out: '' });
    expect(none.err).toContain('tartand cannot be asked: there is no socket, and ');
    writeFileSync(
      join(directory, 'subnet.env'),
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_IPMASQ=false\n',
    );
    writeFileSync(join(directory, 'docker.env'), 'DOCKER_OPTS=" --bip=10.5.1.1/24 --ip-masq=false --mtu=1400"\n');
    const plan = await run('plan', ...files);
    expect(plan.status).toBe(0);
    expect(plan.err).toContain('this is what it wrote last');
    expect(plan.out).toMatch(/masquerade +by nobody/);
  });

  it('needs a lease', async () => {
    world.reading = {
      kind: 'status',
      status: { ...sampleStatus, lease: null, docker: null, phase: 'waiting-for-lease' },
    };
    expect(await run('plan')).toMatchObject({
      status: 2,
      err: expect.stringContaining('it is in the phase waiting-for-lease'),
    });
  });
});

describe('verify', () => {
  it('0 where all is well, also with a note', async () => {
    expect(await run('verify')).toMatchObject({
      status: 0,
      out: expect.stringMatching(/^Docker +as it should be, engine 26\.1\.5/),
    });
    world.facts = { ...sampleFacts, engine: { kind: 'answers', state: { ...sampleEngine, version: '28.5.2' } } };
    const noted = await run('verify', '-o', 'json');
    expect(noted.status).toBe(0);
    expect(JSON.parse(noted.out)).toMatchObject({
      kind: 'DockerReport',
      ok: true,
      engine: '28.5.2',
      findings: [{ id: 'engine-raw-drop', severity: 'note', repair: null }],
    });
    expect(world.places[0]).toEqual({
      socketPath: '/var/run/docker.sock',
      daemonJson: undefined,
      envFile: '/run/tartan/docker.env',
      underlay: 'eth0',
    });
  });

  it('2 with what was found, what was expected and the repair, without control bytes', async () => {
    const network = dockerNetwork('n\u001b[31m', '10.5.2.0/24');
    world.facts = {
      ...sampleFacts,
      engine: { kind: 'answers', state: { ...sampleEngine, networks: [...sampleEngine.networks, network] } },
    };
    const { status, out } = await run('verify');
    expect(status).toBe(2);
    expect(out).toMatch(/error +network-overlap\nfound +network n\?\[31m has 10\.5\.2\.0\/24/);
    expect(out).toMatch(/repair +docker network rm NAME && tartan docker network create NAME\n/);
  });

  it("a missing drop-in is put in place from where this installation has it, which is no checkout's path", async () => {
    const bare = known(['-H', 'fd://']);
    world.facts = { ...sampleFacts, commandLine: bare };
    const from = 'install -D -m 644 /usr/share/tartan/systemd/docker.service.d/tartan.conf';
    const into = '/etc/systemd/system/docker.service.d/tartan.conf';
    expect((await run('verify')).out).toContain(`${from} ${into} && systemctl daemon-reload`);
    world.facts = { ...sampleFacts, commandLine: bare, dropIn: undefined };
    expect((await run('verify')).out).toContain('start dockerd with $DOCKER_NETWORK_OPTIONS of ');
  });

  it('names a daemon that is not ready', async () => {
    world.reading = { kind: 'status', status: { ...sampleStatus, ready: false, problems: ['the lease is unknown'] } };
    const { status, out } = await run('verify', '-o', 'json');
    expect(status).toBe(2);
    expect(JSON.parse(out)).toMatchObject({
      findings: [{ id: 'daemon-not-ready', found: 'tartand is not ready: the lease is unknown' }],
    });
  });

  it('where Docker is: the option, DOCKER_HOST for a socket, the default', async () => {
    await run('verify', '--docker-host', 'unix:///run/other.sock', '--daemon-json', '/x/daemon.json');
    world.env = { DOCKER_HOST: 'unix:///run/mine.sock' };
    await run('verify');
    world.env = { DOCKER_HOST: 'tcp://192.0.2.1:2375' };
    expect((await run('verify')).err).toContain('/var/run/docker.sock was asked');
    expect(world.places.map(({ socketPath }) => socketPath)).toEqual([
      '/run/other.sock',
      '/run/mine.sock',
      '/var/run/docker.sock',
    ]);
    expect(world.places[0]?.daemonJson).toBe('/x/daemon.json');
    for (const bad of ['tcp://192.0.2.1', 'unix://', 'unix://relative', ''])
      expect((await run('verify', '--docker-host', bad)).status).toBe(64);
  });
});

describe('network create', () => {
  beforeEach(() => {
    world.reading = withBip('10.5.1.1/25');
  });

  it('makes a bridge on the free part of the lease, once', async () => {
    expect(await run('network', 'create', 'shop')).toEqual({
      status: 0,
      out: 'network shop was made: 10.5.1.128/26, gateway 10.5.1.129, MTU 1472\n',
      err: '',
    });
    expect(world.made).toEqual([
      {
        name: 'shop',
        subnet: expect.anything(),
        options: { 'com.docker.network.driver.mtu': '1472', 'com.docker.network.bridge.enable_ip_masquerade': 'false' },
        labels: { 'tartan.network': '10.5.0.0/16' },
      },
    ]);
    const networks = [dockerNetwork('bridge', '10.5.1.0/25'), dockerNetwork('shop', '10.5.1.128/26')];
    world.engine = { kind: 'answers', state: { ...sampleEngine, networks } };
    const again = await run('network', 'create', 'shop', '-o', 'json');
    expect(JSON.parse(again.out)).toMatchObject({ kind: 'DockerNetwork', subnet: '10.5.1.128/26', created: false });
    expect(world.made).toHaveLength(1);
  });

  it.each([
    ['28.1.1', undefined],
    ['28.2.0', 'tartan0'],
    ['29.0.0', 'tartan0'],
    ['26.1.5', undefined],
  ])('engine %s trusts %s', async (version, trusted) => {
    world.engine = { kind: 'answers', state: { ...sampleEngine, version, networks: [] } };
    await run('network', 'create', 'shop');
    expect(world.made[0]?.options['com.docker.network.bridge.trusted_host_interfaces']).toBe(trusted);
  });

  it.each([
    [['--length', '25'], '10.5.1.128/25'],
    [['--subnet', '10.5.1.192/28'], '10.5.1.192/28'],
  ])('%j gives %s', async (words, subnet) => {
    expect((await run('network', 'create', 'shop', ...words)).status).toBe(0);
    expect(world.made.map(one => formatPrefix(one.subnet))).toEqual([subnet]);
  });

  it.each<[readonly string[], number, RegExp]>([
    [['-x'], 64, /unknown option/],
    [['a b'], 64, /'a b' cannot be the name of a network/],
    [['bridge'], 64, /cannot be the name/],
    [['x'.repeat(65)], 64, /cannot be the name/],
    [['shop', '--length', '31'], 64, /--length '31'/],
    [['shop', '--length', '26x'], 64, /--length '26x'/],
    [['shop', '--subnet', '10.5.1.130/26'], 64, /did you mean 10\.5\.1\.128\/26/],
    [['shop', '--subnet', '10.5.1.128/26', '--length', '26'], 64, /expected one of them/],
    [['shop', '--subnet', '10.5.1.64/26'], 1, /overlaps 10\.5\.1\.0\/25 of docker0/],
    [['shop', '--subnet', '10.5.2.0/26'], 1, /not a part of this host's lease/],
    [['shop', '--length', '24'], 1, /no \/24 of the lease/],
  ])('%j is refused', async (words, status, reason) => {
    expect(await run('network', 'create', ...words)).toMatchObject({
      status,
      out: '',
      err: expect.stringMatching(reason),
    });
    expect(world.made).toEqual([]);
  });

  it.each<[string, Parameters<typeof dockerNetwork>[2], string]>([
    ['10.5.2.0/26', {}, 'its subnet 10.5.2.0/26 is not a part of the lease'],
    ['10.5.1.64/26', {}, 'overlaps that of docker0'],
    ['10.5.1.128/26', { driver: 'macvlan' }, 'it is no bridge network'],
    ['10.5.1.128/26', { options: {} }, 'its MTU is 1500, expected 1472'],
    ['10.5.1.128/26', { options: { 'com.docker.network.driver.mtu': '1472' } }, 'Docker masquerades what leaves it'],
  ])('a network of that name on %s with %j is not taken', async (subnet, changes, reason) => {
    world.engine = { kind: 'answers', state: { ...sampleEngine, networks: [dockerNetwork('shop', subnet, changes)] } };
    expect(await run('network', 'create', 'shop')).toMatchObject({ status: 1, err: expect.stringContaining(reason) });
  });

  it('docker0 on the whole lease: says how it is narrowed, and then that Docker has to be restarted', async () => {
    world.reading = withBip('10.5.1.1/24');
    expect((await run('network', 'create', 'shop')).err).toContain(
      'next: set TARTAN_DOCKER_SUBNET_LEN=25 in /etc/default/tartand',
    );
    world.reading = withBip('10.5.1.1/25');
    world.engine = { kind: 'answers', state: { ...sampleEngine, networks: [dockerNetwork('bridge', '10.5.1.0/24')] } };
    expect(await run('network', 'create', 'shop')).toMatchObject({
      status: 1,
      err: 'error: docker0 has the whole lease 10.5.1.0/24 still\nnext: restart Docker when no container is needed: systemctl restart docker\n',
    });
  });

  it('needs a daemon that is ready and an engine that answers', async () => {
    world.engine = { kind: 'silent', reason: 'nobody listens' };
    expect(await run('network', 'create', 'shop')).toMatchObject({
      status: 1,
      err: expect.stringContaining('nobody listens'),
    });
    world.reading = { kind: 'status', status: { ...sampleStatus, phase: 'lost' } };
    expect((await run('network', 'create', 'shop')).status).toBe(1);
    world.reading = away;
    writeFileSync(join(directory, 'docker.env'), '');
    expect((await run('network', 'create', 'shop', '--run-dir', directory)).status).toBe(4);
    expect(world.made).toEqual([]);
  });
});
