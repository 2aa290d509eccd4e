/** --docker-pools: how the lease is divided, what Docker is told, who is asked first, and what verify makes of it. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EngineState } from '../../src/docker/engine.js';
import type { DockerWriteResult } from '../../src/docker/docker.js';
import { openDockerFiles } from '../../src/docker/settings/docker-files.js';
import { planFromFiles, type DockerPlan } from '../../src/docker/settings/docker-plan.js';
import { readDaemonOptions } from '../../src/docker/settings/dockerd-options.js';
import { unmergeDaemonJson } from '../../src/docker/settings/merge.js';
import type { DockerFacts } from '../../src/docker/verify/facts.js';
import { judgeDocker } from '../../src/docker/verify/judge.js';
import { wantedContent } from '../../src/host/firewall/nft-table.js';
import { placeFirewall } from '../../src/host/firewall/placement.js';
import { readSaveText } from '../../src/host/firewall/save-text.js';
import { known } from '../../src/lib/fact.js';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { checkParts, divideLease } from '../../src/model/lease-parts.js';
import {
  dockerEnv,
  dockerNetwork,
  sampleEngine,
  sampleFacts,
  sampleFlags,
  samplePlan,
} from '../support/docker-facts.js';
import { docker20, plan as rules } from '../support/firewall-texts.js';

describe('dividing the lease', () => {
  it.each([
    ['10.5.1.0/24', 0, '10.5.1.0/25', '28 of 10.5.1.128/25'],
    ['10.5.1.0/24', 26, '10.5.1.0/26', '28 of 10.5.1.64/26, 28 of 10.5.1.128/25'],
    // A part smaller than a network is left to tartan docker network create.
    [
      '10.5.1.0/24',
      29,
      '10.5.1.0/29',
      '28 of 10.5.1.16/28, 28 of 10.5.1.32/27, 28 of 10.5.1.64/26, 28 of 10.5.1.128/25',
    ],
    ['10.5.1.0/27', 0, '10.5.1.0/28', '28 of 10.5.1.16/28'],
    ['10.5.4.0/22', 0, '10.5.4.0/23', '28 of 10.5.6.0/23'],
    ['10.5.16.0/20', 0, '10.5.16.0/21', '26 of 10.5.24.0/21'],
    ['10.5.0.0/16', 0, '10.5.0.0/17', '22 of 10.5.128.0/17'],
  ])('%s with %s: docker0 %s, networks of %s', (lease, subnetLength, bridge, pools) => {
    const parts = checkParts(parsePrefix(lease), { subnetLength, pools: true });
    expect(formatPrefix(parts.bridge)).toBe(bridge);
    expect(parts.pools.map(({ base, size }) => `${size} of ${formatPrefix(base)}`).join(', ')).toBe(pools);
  });

  it.each(['10.5.1.0/28', '10.5.1.0/30'])('%s is too small, and named', text => {
    const lease = parsePrefix(text);
    expect(() => checkParts(lease, { subnetLength: 0, pools: true })).toThrow(
      `--docker-pools: the leased ${text} has no room for a network of /28 beside docker0: start tartand without it, ` +
        'or give hosts subnets of /27 or larger (SubnetLen in the network document)',
    );
    expect(divideLease(lease, { subnetLength: 0, pools: true }).pools).toEqual([]);
  });
});

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-pools-'));
  mkdirSync(join(directory, 'state'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const at = (name: string): string => join(directory, name);
const text = (name: string): string => readFileSync(at(name), 'utf8');

function put(name: string, content: string, mode = 0o644): void {
  mkdirSync(dirname(at(name)), { recursive: true });
  writeFileSync(at(name), content, { mode });
}

/** As tartand with --docker-pools writes the files, beside a dockerd of this version. */
async function write(version: string | undefined, config: 'env' | 'daemon-json' = 'env'): Promise<DockerWriteResult> {
  if (version !== undefined) put('dockerd', `#!/bin/sh\necho 'Docker version ${version}, build 1'\n`, 0o755);
  const docker = { config, daemonJsonFile: at('daemon.json'), subnetLength: 0, pools: true, firewall: 'auto' } as const;
  const files = { subnetFile: at('subnet.env'), dockerEnvFile: at('docker.env'), stateDir: at('state') };
  const settings = {
    network: parsePrefix('10.5.0.0/16'),
    subnet: parsePrefix('10.5.29.0/24'),
    mtu: 1464,
    ipMasquerade: true,
  };
  return openDockerFiles({ ...files, docker }, { root: at('root'), dockerd: at('dockerd') }).write(settings);
}

const basic = ' --bip=10.5.29.1/25 --ip-masq=false --mtu=1464';
const pool = ' --default-address-pool=base=10.5.29.128/25,size=28';
const networkOption = ' --default-network-opt=bridge=com.docker.network.driver.mtu=1464';

describe('docker.env', () => {
  it.each([
    ['29.0.1', `${basic}${pool}${networkOption}`, undefined],
    ['24.0.7', `${basic}${pool}${networkOption}`, undefined],
    ['23.0.6', `${basic}${pool}`, undefined],
    ['20.10.24+dfsg1', basic, 'dockerd is version 20'],
    [undefined, basic, 'the version of dockerd cannot be told'],
  ])('for dockerd %s', async (version, flags, problem) => {
    const { conflicts } = await write(version);
    expect(text('docker.env')).toContain(`DOCKER_OPTS="${flags}"\nDOCKER_NETWORK_OPTIONS="${flags}"\n`);
    expect(conflicts).toEqual(
      problem === undefined
        ? []
        : [
            `--docker-pools needs Docker 23, and ${problem}: Docker's own networks reach no other host; ` +
              'install Docker 23, or make networks by: tartan docker network create',
          ],
    );
    // What a tool reads back while the daemon is away.
    const rest = { envFile: at('docker.env'), daemonJsonFile: at('daemon.json'), device: 'tartan0' };
    const plan = planFromFiles({ subnetEnv: text('subnet.env'), dockerEnv: text('docker.env'), daemonJson: '' }, rest);
    const pools = flags.includes('pool') ? [{ base: parsePrefix('10.5.29.128/25'), size: 28 }] : [];
    expect(plan).toMatchObject({ bridge: parsePrefix('10.5.29.0/25'), pools });
  });

  it.each([
    [
      'pools',
      '{"default-address-pools":[{"base":"10.99.0.0/16","size":24}]}',
      networkOption,
      ['default-address-pools'],
    ],
    ['options', '{"default-network-opts":{"bridge":{"a":"b"}}}', pool, ['default-network-opts']],
    [
      'the same',
      `{"default-address-pools":[{"size":28,"base":"10.5.29.128/25"}],` +
        `"default-network-opts":{"bridge":{"a":"b","com.docker.network.driver.mtu":"1464"}}}`,
      '',
      [],
    ],
    ['nonsense', '{"default-address-pools":7,"default-network-opts":[]}', '', ['-pools', '-opts']],
  ])(
    "of the administrator's daemon.json, %s: ours are left out, so that dockerd starts",
    async (_, file, flags, named) => {
      put('daemon.json', file);
      const { conflicts } = await write('28.5.2');
      expect(text('docker.env')).toContain(`DOCKER_OPTS="${basic}${flags}"\n`);
      expect(text('daemon.json')).toBe(file);
      expect(conflicts).toEqual(named.map(one => expect.stringContaining(one) as string));
      for (const conflict of conflicts) expect(conflict).toContain(`${at('daemon.json')} has '`);
    },
  );

  it("so are they beside flags of the administrator's", async () => {
    put('root/etc/default/docker', 'DOCKER_OPTS="--default-address-pool base=10.99.0.0/16,size=24"\n');
    const { conflicts } = await write('28.5.2');
    expect(text('docker.env')).toContain(`DOCKER_OPTS="${basic}${networkOption}"\n`);
    expect(conflicts).toEqual([
      "/etc/default/docker has 'default-address-pools', so that Docker's own networks are no parts of the lease: " +
        'take it out of /etc/default/docker, or start tartand without --docker-pools',
    ]);
  });
});

describe('daemon.json', () => {
  const members = {
    'default-address-pools': [{ base: '10.5.29.128/25', size: 28 }],
    'default-network-opts': { bridge: { 'com.docker.network.driver.mtu': '1464' } },
  };

  it('gets them as members, once, and gives them back', async () => {
    put('daemon.json', '{"debug":true}');
    await write('28.5.2', 'daemon-json');
    expect(JSON.parse(text('daemon.json'))).toMatchObject({ debug: true, bip: '10.5.29.1/25', ...members });
    expect(await write('28.5.2', 'daemon-json')).toMatchObject({ written: [], conflicts: [] });
    put('daemon.json', text('daemon.json').replace('"debug":true', '"debug":false'));
    expect(unmergeDaemonJson(at('state'))).toMatchObject({ changed: true, left: [] });
    expect(text('daemon.json')).toBe('{"debug":false}');
  });

  it('an older engine gets none, and gives back those of a newer one', async () => {
    await write('28.5.2', 'daemon-json');
    await write('20.10.24', 'daemon-json');
    expect(JSON.parse(text('daemon.json'))).toEqual({ bip: '10.5.29.1/25', 'ip-masq': false, mtu: 1464 });
  });

  it("the administrator's stay, those that were there and those that come in the place of ours", async () => {
    const theirs = '"default-address-pools":[{"base":"10.99.0.0/16","size":24}]';
    put('daemon.json', `{${theirs}}`);
    for (let pass = 0; pass < 2; pass++) {
      const { conflicts } = await write('28.5.2', 'daemon-json');
      expect(conflicts).toEqual([expect.stringContaining("has 'default-address-pools', so that")]);
      expect(text('daemon.json')).toContain(theirs);
    }
    put('daemon.json', text('daemon.json').replace('"1464"', '"9000"'));
    const { conflicts } = await write('28.5.2', 'daemon-json');
    expect(conflicts).toHaveLength(2);
    expect(text('daemon.json')).toContain('"9000"');
    expect(unmergeDaemonJson(at('state'))).toMatchObject({ changed: true });
    expect(text('daemon.json')).toMatch(/^\{"default-address-pools":.*"9000".*\}$/);
    expect(text('daemon.json')).not.toContain('bip');
  });

  it('is read as its flags would be', () => {
    const options = readDaemonOptions(JSON.stringify(members), 'f');
    expect(Object.fromEntries(options)).toEqual({
      'default-address-pools': 'base=10.5.29.128/25,size=28',
      'default-network-opts': 'bridge=com.docker.network.driver.mtu=1464',
    });
  });
});

describe('rules, while Docker masquerades networks of the lease', () => {
  const saved = readSaveText(docker20);

  it.each([
    ['sources are chosen by nft', saved, [], 'elsewhere', 1],
    ['no nft', saved, undefined, rules.masquerade, 0],
    ['Docker on nftables, which has both already', saved, ['docker-bridges'], rules.masquerade, 1],
  ] as const)('%s', (_, iptables, nft, masquerade, tables) => {
    const place = placeFirewall([{ ...rules, rivalMasquerade: true }], { iptables, nft });
    expect(place.iptables).toMatchObject([{ forward: true, masquerade }]);
    expect(place.nftables).toHaveLength(tables);
  });

  it.each(['off', 'on'] as const)('beside a masquerade that is %s nft has the sources alone', masquerade => {
    const plan = { ...rules, masquerade, rivalMasquerade: true };
    const content = wantedContent(placeFirewall([plan], { iptables: saved, nft: [] }).nftables);
    expect(content).toContain('postrouting type nat hook postrouting priority 90');
    expect(content).toContain('oifname "tartan0" snat to ip saddr');
    expect(content).not.toContain('forward');
    expect(/masquerade( |$)/m.test(content)).toBe(masquerade === 'on');
  });
});

describe('verify', () => {
  const plan: DockerPlan = {
    ...samplePlan,
    bridge: parsePrefix('10.5.1.0/25'),
    pools: [{ base: parsePrefix('10.5.1.128/25'), size: 28 }],
  };
  const words = [
    ...sampleFlags.map(flag => flag.replace('/24', '/25')),
    '--default-address-pool=base=10.5.1.128/25,size=28',
    '--default-network-opt=bridge=com.docker.network.driver.mtu=1472',
  ];
  const engineOptions = { 'com.docker.network.driver.mtu': '1472' };
  const own = (number: number, options: Readonly<Record<string, string>> = engineOptions) =>
    dockerNetwork(`n${number}`, `10.5.1.${128 + 16 * number}/28`, { options });
  const well: EngineState = {
    ...sampleEngine,
    pools: plan.pools,
    networks: [dockerNetwork('bridge', '10.5.1.0/25'), own(0)],
  };
  const facts: DockerFacts = {
    ...sampleFacts,
    commandLine: known(words),
    envFile: known(dockerEnv(words)),
    docker0: known({
      name: 'docker0',
      mtu: 1472,
      addresses: [{ address: parseIpv4('10.5.1.1'), prefix: plan.bridge }],
    }),
  };
  const judge = (state: Partial<EngineState>, more: Partial<DockerFacts> = {}) =>
    judgeDocker(plan, { ...facts, engine: { kind: 'answers', state: { ...well, ...state } }, ...more });
  const withoutOption = words.slice(0, -1);
  const file = (content: string): Partial<DockerFacts> => ({
    daemonJson: { path: '/etc/docker/daemon.json', text: known(content) },
  });

  it.each<[string, Partial<EngineState>, Partial<DockerFacts>, readonly string[]]>([
    ['as planned, with a network that Docker masquerades', {}, {}, []],
    ['too old', { version: '20.10.24', pools: [] }, {}, ['warning engine-pools']],
    ['without options of networks', { version: '23.0.6' }, {}, ['warning engine-network-mtu']],
    ['started before', { pools: [] }, {}, ['error pools-not-taken']],
    ['without the MTU', {}, { commandLine: known(withoutOption) }, ['error network-mtu-not-taken']],
    [
      'all in use',
      { networks: [...well.networks, ...Array.from({ length: 7 }, (_, at) => own(at + 1))] },
      {},
      ['warning pools-full'],
    ],
    ['a network with another MTU', { networks: [...well.networks, own(1, {})] }, {}, ['error network-mtu']],
    [
      "the administrator's pools",
      { pools: [{ base: parsePrefix('10.99.0.0/16'), size: 24 }] },
      file('{"default-address-pools":[{"base":"10.99.0.0/16","size":24}]}'),
      ['error settings-conflict'],
    ],
  ])('%s', (_, state, more, expected) => {
    expect(judge(state, more).map(({ severity, id }) => `${severity} ${id}`)).toEqual(expected);
  });

  it('names what it found, and the next step', () => {
    expect(judge({ pools: [] })).toMatchObject([
      {
        found: 'Docker makes its own networks outside of the overlay',
        expected: 'of /28 in 10.5.1.128/25',
        repair: 'systemctl restart docker',
      },
    ]);
  });
});
