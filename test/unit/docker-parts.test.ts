/** The parts of `tartan docker`: what is read of the engine and of the host, and how a lease is carved. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countDefaultRoutes, parseUnit } from '../../src/tool/docker-facts.js';
import { otherVariantFacts, readRules } from '../../src/tool/firewall-facts.js';
import { carve, type CarveRequest } from '../../src/docker/carve.js';
import { envOptions, bridgeSettings, planFromFiles } from '../../src/docker/settings/docker-plan.js';
import { parseDockerdFlags, readDaemonOptions } from '../../src/docker/settings/dockerd-options.js';
import { createEngineNetwork, engineRelease, isAtLeast, readEngine } from '../../src/docker/engine.js';
import type { RuleFacts } from '../../src/docker/verify/facts.js';
import { parseListing, wantedContent } from '../../src/host/firewall/nft-table.js';
import { placeFirewall } from '../../src/host/firewall/placement.js';
import { readSaveText } from '../../src/host/firewall/save-text.js';
import { mainTable, type KernelRoute } from '../../src/host/netlink/messages.js';
import type { FirewallPlan } from '../../src/model/plan.js';
import { plan } from '../support/firewall-texts.js';
import { formatDockerEnv } from '../../src/docker/settings/settings.js';
import { formatPrefix, parsePrefix } from '../../src/model/ip.js';

describe('carving', () => {
  const carved = (lease: string, used: readonly string[], request: CarveRequest): string => {
    const rivals = used.map(subnet => ({ subnet: parsePrefix(subnet), by: `the user of ${subnet}` }));
    const carving = carve(parsePrefix(lease), rivals, request);
    if (carving.kind === 'carved') return formatPrefix(carving.subnet);
    return carving.kind === 'refused' ? carving.reason : `full${carving.all ? ` by ${carving.all.by}` : ''}`;
  };
  const any: CarveRequest = { kind: 'any' };
  const of = (length: number): CarveRequest => ({ kind: 'length', length });
  const exactly = (text: string): CarveRequest => ({ kind: 'exact', subnet: parsePrefix(text) });

  it.each<[string, readonly string[], CarveRequest, string]>([
    ['10.5.1.0/24', ['10.5.1.0/25'], any, '10.5.1.128/26'],
    ['10.5.1.0/24', ['10.5.1.0/25', '10.5.1.128/26'], any, '10.5.1.192/26'],
    ['10.5.1.0/24', ['10.5.1.0/25', '10.5.1.160/27', '10.5.1.192/26'], any, '10.5.1.128/27'],
    [
      '10.5.1.0/24',
      ['10.5.1.0/25', '10.5.1.128/28', '10.5.1.144/29', '10.5.1.160/27', '10.5.1.192/26'],
      any,
      '10.5.1.152/29',
    ],
    ['10.5.1.0/24', ['10.5.1.0/24'], any, 'full by the user of 10.5.1.0/24'],
    ['10.5.1.0/24', ['10.0.0.0/8'], any, 'full by the user of 10.0.0.0/8'],
    ['10.5.1.0/24', ['10.5.1.0/25', '10.5.1.128/25'], any, 'full'],
    ['10.5.1.0/24', [], any, '10.5.1.0/26'],
    ['10.5.1.0/28', ['10.5.1.0/29'], any, '10.5.1.8/29'],
    ['10.5.1.0/30', [], any, '10.5.1.0/30'],
    ['10.4.0.0/14', ['10.4.0.0/30'], any, '10.4.0.64/26'],
    ['10.5.1.0/24', ['10.5.1.0/25'], of(25), '10.5.1.128/25'],
    ['10.5.1.0/24', ['10.5.1.4/30'], of(25), '10.5.1.128/25'],
    ['10.5.1.0/24', ['10.5.1.0/25', '10.5.1.132/30'], of(30), '10.5.1.128/30'],
    ['10.5.1.0/24', [], of(23), 'full'],
    ['10.5.1.0/24', ['10.5.1.0/25'], exactly('10.5.1.224/27'), '10.5.1.224/27'],
    [
      '10.5.1.0/24',
      ['10.5.1.0/25'],
      exactly('10.5.1.64/26'),
      '10.5.1.64/26 overlaps 10.5.1.0/25 of the user of 10.5.1.0/25',
    ],
    ['10.5.1.0/24', [], exactly('10.5.2.0/26'), "10.5.2.0/26 is not a part of this host's lease 10.5.1.0/24"],
    ['10.5.1.0/24', [], exactly('10.5.0.0/16'), "10.5.0.0/16 is not a part of this host's lease 10.5.1.0/24"],
    ['10.5.1.0/24', [], exactly('10.5.1.8/31'), '10.5.1.8/31 has no room for a container, expected /30 or shorter'],
  ])('%s without %j: %j is %s', (lease, used, request, expected) => {
    expect(carved(lease, used, request)).toBe(expected);
  });
});

describe('what stands in files', () => {
  it.each<[readonly string[], Readonly<Record<string, string>>]>([
    [['-H', 'fd://', '--bip=10.5.1.1/24', '--ip-masq=false'], { bip: '10.5.1.1/24', 'ip-masq': 'false' }],
    [
      ['--mtu', '1472', '--live-restore', '--icc', '-b', 'br0'],
      { mtu: '1472', 'live-restore': 'true', icc: 'true', bridge: 'br0' },
    ],
    [['--bip=1', '--bip=2', '--config-file=/x'], { bip: '2', 'config-file': '/x' }],
    [['--bip'], { bip: '' }],
    [[], {}],
  ])('dockerd %j', (words, expected) => {
    expect(Object.fromEntries(parseDockerdFlags(words))).toEqual(expected);
  });

  it('daemon.json', () => {
    expect(
      Object.fromEntries(
        readDaemonOptions('{"mtu":1,"mtu":1400,"ip-masq":true,"log-level":"x","__proto__":{"bip":"y"}}', 'f'),
      ),
    ).toEqual({ mtu: '1400', 'ip-masq': 'true' });
    for (const text of ['{', '[]', 'null', '7', '{"bip":"x"} {}'])
      expect(() => readDaemonOptions(text, '/the/file')).toThrow(/^\/the\/file is not /);
    for (const text of [undefined, '', ' \n', '{}']) expect(readDaemonOptions(text, 'f').size).toBe(0);
  });

  const subnetEnv = 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
  const env = 'DOCKER_OPTS=" --bip=10.5.1.1/25 --ip-masq=false --mtu=1472"\n';
  const rest = { envFile: '/run/x', daemonJsonFile: '/etc/x', device: 'tartan0' };

  it('the files make a plan when they are whole, and else none', () => {
    const wanted = {
      source: 'files',
      lease: parsePrefix('10.5.1.0/24'),
      bridge: parsePrefix('10.5.1.0/25'),
      mtu: 1472,
      masquerade: true,
    };
    expect(planFromFiles({ subnetEnv, dockerEnv: env, daemonJson: '{"bip":"x"}' }, rest)).toMatchObject({
      ...wanted,
      config: 'env',
    });
    const empty = formatDockerEnv([]);
    const merged = '{"bip":"10.5.1.1/25","mtu":1472}';
    expect(planFromFiles({ subnetEnv, dockerEnv: empty, daemonJson: merged }, rest)).toMatchObject({
      ...wanted,
      config: 'daemon-json',
    });
    for (const [one, other, third] of [
      ['', env, ''],
      [subnetEnv, '', ''],
      [subnetEnv, empty, '{"bip":"10.5.1.1/25"}'],
      [subnetEnv, empty, '{'],
      [subnetEnv, 'DOCKER_OPTS=" --bip=10.5.1.1/25"', merged],
      ['FLANNEL_SUBNET=10.5.1.1/24', env, ''],
    ] as const)
      expect(planFromFiles({ subnetEnv: one, dockerEnv: other, daemonJson: third }, rest)).toBeUndefined();
    for (const text of [
      'DOCKER_OPTS=" --bip=10.5.1.999/24 --mtu=1472"',
      'DOCKER_OPTS=" --bip=10.5.1.1/99 --mtu=1472"',
      'DOCKER_OPTS=" --bip=10.5.1.1/24 --mtu=x"',
    ])
      expect(bridgeSettings(envOptions(text))).toBeUndefined();
  });

  it('a unit, and one that is not there', () => {
    const shown =
      'LoadState=loaded\nEnvironmentFiles=/etc/default/docker (ignore_errors=yes)\nEnvironmentFiles=/run/tartan/docker.env (ignore_errors=no)\nNeedDaemonReload=yes\n';
    expect(parseUnit(shown)).toEqual({
      environmentFiles: '/etc/default/docker (ignore_errors=yes) /run/tartan/docker.env (ignore_errors=no)',
      needsReload: true,
    });
    expect(parseUnit('LoadState=not-found\nNeedDaemonReload=no\n')).toBeUndefined();
  });

  it('default routes, but not those that reject', () => {
    const unicast = 1;
    const route = (destination: string, typeNumber = unicast, table = mainTable): KernelRoute => ({
      destination: parsePrefix(destination),
      metric: 0,
      tos: 0,
      table,
      protocol: 3,
      type: 'other',
      typeNumber,
      scope: 0,
      linkIndex: 2,
      gateway: undefined,
      source: undefined,
      onlink: false,
      multipath: false,
    });
    const all = '0.0.0.0/0';
    const routes = [route(all), route(all), route(all, 7), route(all, 8), route(all, unicast, 7), route('10.5.0.0/16')];
    expect(countDefaultRoutes(routes)).toBe(2);
    expect(countDefaultRoutes([])).toBe(0);
  });
});

describe('the packet filter', () => {
  const save = [
    '*raw',
    ':PREROUTING ACCEPT [0:0]',
    '-A PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24 -i tartan0 -m comment --comment tartan -j ACCEPT',
    'COMMIT',
    '*filter',
    ':FORWARD DROP [0:0]',
    ':DOCKER-USER - [0:0]',
    '-A FORWARD -m comment --comment tartan -j DOCKER-USER',
    '-A DOCKER-USER -s 10.5.0.0/16 -d 10.5.0.0/16 -i tartan0 -m comment --comment tartan -j ACCEPT',
    'COMMIT',
    '*nat',
    ':POSTROUTING ACCEPT [0:0]',
    ':TARTAN-POSTRTG - [0:0]',
    '-A POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE',
    '-A POSTROUTING -s 10.5.1.2/32 -d 10.5.1.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE',
    '-A POSTROUTING -s 10.9.0.7 -j MASQUERADE',
    '-A POSTROUTING ! -s 10.1.0.0/16 -j MASQUERADE',
    '-A TARTAN-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 -m comment --comment tartan -j ACCEPT',
    '-A TARTAN-POSTRTG -s 10.5.1.0/24 ! -d 10.5.0.0/16 -m comment --comment tartan -j MASQUERADE --random-fully',
    'COMMIT',
    '',
  ].join('\n');

  it('our rules, what others masquerade, and the policy', () => {
    const { masqueraded, ...more } = readRules(save, undefined);
    expect(more).toEqual({
      ours: { forward: true, raw: true, masquerade: true, sources: true, mark: false },
      forwardDrops: true,
    });
    expect(masqueraded.map(formatPrefix)).toEqual(['10.5.1.0/24', '10.9.0.7/32']);
    expect(readRules(save.replaceAll('--comment tartan', '--comment mine'), undefined).ours).toEqual({
      forward: false,
      raw: false,
      masquerade: false,
      sources: false,
      mark: false,
    });
    const drops = (text: string): boolean => readRules(`*${text}\nCOMMIT\n`, undefined).forwardDrops;
    expect(drops('mangle\n:FORWARD DROP [0:0]')).toBe(false);
    expect(drops('filter\n:FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]')).toBe(false);
    // As for the placement of the daemon's rules: chains of Docker and a last rule drop too.
    expect(drops('filter\n:FORWARD ACCEPT [0:0]\n:DOCKER - [0:0]')).toBe(true);
    expect(drops('filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT')).toBe(true);
  });

  it('fault C2: verify and the placement of rules say the same of a FORWARD chain', () => {
    for (const chain of [
      ':FORWARD ACCEPT [0:0]',
      ':FORWARD DROP [0:0]',
      ':FORWARD ACCEPT [0:0]\n:DOCKER - [0:0]',
      ':FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]',
      ':FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable',
      ':FORWARD ACCEPT [0:0]\n-A FORWARD -s 203.0.113.0/24 -j DROP\n-A FORWARD -j ACCEPT',
    ]) {
      const text = `*filter\n${chain}\nCOMMIT\n`;
      const beside = placeFirewall([{ ...plan, nftables: true }], { iptables: readSaveText(text), nft: [] }).iptables;
      expect(readRules(text, undefined).forwardDrops, chain).toBe(beside.length > 0);
    }
  });

  it('our rules in a table of our own, as the daemon makes it', () => {
    const ours = (change: Partial<FirewallPlan>): RuleFacts['ours'] => {
      const chains = wantedContent([{ ...plan, ...change }])
        .split(/\n(?=\w+ type )/)
        .map(chain => {
          const [head = '', ...rules] = chain.split('\n');
          const lines = rules.map(rule => `\t\t${rule} comment "tartan" # handle 3`);
          return `\tchain ${head.replace(/ .*/, '')} { # handle 1\n\t\t${head.replace(/^\w+ /, '')}\n${lines.join('\n')}\n\t}\n`;
        });
      return readRules('', parseListing(`table ip tartan { # handle 9\n${chains.join('\n')}}\n`)).ours;
    };
    expect(ours({})).toEqual({ forward: true, raw: true, masquerade: true, sources: true, mark: true });
    expect(ours({ masquerade: 'off' })).toMatchObject({ masquerade: false, sources: true });
    expect(ours({ forward: false })).toMatchObject({ forward: false, raw: false, masquerade: true, mark: false });
  });

  it('another kind of iptables counts when it has rules or drops', () => {
    expect(otherVariantFacts('iptables-legacy', save)).toEqual({
      program: 'iptables-legacy',
      rules: 4,
      policyDrops: true,
    });
    expect(otherVariantFacts('iptables-legacy', '*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n')).toBeUndefined();
    expect(otherVariantFacts('iptables-nft', '*filter\n:FORWARD DROP [0:0]\nCOMMIT\n')).toMatchObject({
      rules: 0,
      policyDrops: true,
    });
  });
});

describe('the engine', () => {
  let directory = '';
  let server: Server | undefined;
  let asked: string[] = [];
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), `tartan-engine-${process.pid}-`));
    asked = [];
  });
  afterEach(async () => {
    await new Promise(resolve => (server ? server.close(resolve) : resolve(undefined)));
    server = undefined;
    rmSync(directory, { recursive: true });
  });

  const good: Readonly<Record<string, unknown>> = {
    '/version': { Version: '28.5.2', ApiVersion: '1.51' },
    '/info': {
      LiveRestoreEnabled: true,
      FirewallBackend: { Driver: 'nftables+firewalld' },
      DefaultAddressPools: [
        { Base: '10.5.1.128/25', Size: 28 },
        { Base: 'fd00::/48', Size: 64 },
      ],
    },
    '/networks': [
      {
        Name: 'bridge',
        Id: 'x',
        Driver: 'bridge',
        IPAM: { Config: [{ Subnet: '10.5.1.0/24' }, { Subnet: 'fd00::/64' }] },
        Options: { a: 'b' },
        Labels: {},
      },
      { Name: 'host', Id: 'y', Driver: 'host', IPAM: { Config: null }, Options: null },
    ],
    '/containers/json': [
      {
        Id: '0123456789abcdef',
        Names: ['/web'],
        NetworkSettings: { Networks: { bridge: { IPAddress: '10.5.1.2' }, none: { IPAddress: '' } } },
      },
      { Id: '0123456789abcdef', Names: null, NetworkSettings: { Networks: {} } },
    ],
  };

  /** @param answers by path, or the status of every answer */
  async function serve(
    answers: Readonly<Record<string, unknown>> | number,
    words = '{"message":"no\\n"}',
  ): Promise<string> {
    const path = join(directory, 'docker.sock');
    server = createServer((question, answer) => {
      let body = '';
      question.setEncoding('utf8').on('data', (part: string) => (body += part));
      question.on('end', () => {
        asked.push(`${question.method} ${question.url} ${body}`.trim());
        if (typeof answers === 'number') answer.writeHead(answers).end(words);
        else answer.end(JSON.stringify(answers[question.url ?? '']));
      });
    });
    await new Promise<void>(resolve => server?.listen(path, resolve));
    return path;
  }

  it('says what it has', async () => {
    expect(await readEngine(await serve(good))).toEqual({
      kind: 'answers',
      state: {
        version: '28.5.2',
        liveRestore: true,
        nftables: true,
        pools: [{ base: parsePrefix('10.5.1.128/25'), size: 28 }],
        networks: [
          { name: 'bridge', driver: 'bridge', subnets: [parsePrefix('10.5.1.0/24')], options: { a: 'b' } },
          { name: 'host', driver: 'host', subnets: [], options: {} },
        ],
        containers: [
          { name: 'web', addresses: [{ network: 'bridge', address: parsePrefix('10.5.1.2/32').base }] },
          { name: '0123456789ab', addresses: [] },
        ],
      },
    });
    expect(asked.every(line => /^GET \/[a-z/]+$/.test(line))).toBe(true);
  });

  it('is silent, not for us, or none: a reason each', async () => {
    const path = join(directory, 'none');
    expect(await readEngine(path)).toEqual({ kind: 'silent', reason: `there is no socket ${path}` });
    expect(await readEngine(await serve({ ...good, '/networks': { Name: 7 } }))).toMatchObject({
      kind: 'odd',
      reason: expect.stringContaining('is no Docker engine'),
    });
  });

  it.each([
    [404, 'page'],
    [500, '{"message":"broken"}'],
    [200, 'page'],
  ])('an answer %d %j is no engine', async (status, words) => {
    expect(await readEngine(await serve(status, words))).toMatchObject({ kind: 'odd' });
  });

  const wanted = { name: 'shop', subnet: parsePrefix('10.5.1.128/26'), options: { o: '1' }, labels: { l: '2' } };

  it('makes a network, the gateway its first address', async () => {
    await createEngineNetwork(await serve(201, '{"Id":"z"}'), wanted);
    expect(asked).toEqual([
      'POST /networks/create {"Name":"shop","CheckDuplicate":true,"Driver":"bridge","IPAM":{"Driver":"default","Config":[{"Subnet":"10.5.1.128/26","Gateway":"10.5.1.129"}]},"Options":{"o":"1"},"Labels":{"l":"2"}}',
    ]);
  });

  it('says why it makes none', async () => {
    await expect(createEngineNetwork(await serve(403, '{"message":"Pool overlaps"}'), wanted)).rejects.toThrow(
      /^Docker did not make network shop: Pool overlaps$/,
    );
  });

  it('versions', () => {
    expect(['20.10.24+dfsg1', '28.2', '29.0.0-rc.1', 'dev', '1'].map(engineRelease)).toEqual([
      [20, 10],
      [28, 2],
      [29, 0],
      undefined,
      undefined,
    ]);
    expect([
      isAtLeast('28.2.0', 28, 2),
      isAtLeast('28.1.9', 28, 2),
      isAtLeast('29.0.0', 28, 2),
      isAtLeast('dev', 28),
    ]).toEqual([true, false, true, false]);
  });
});
