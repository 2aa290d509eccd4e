/** What `tartan docker verify` makes of a host: each difference by its name, and nothing where all is well. */
import { describe, expect, it } from 'vitest';
import type { DockerPlan } from '../../src/docker/settings/docker-plan.js';
import type { EngineState } from '../../src/docker/engine.js';
import { known, unknown } from '../../src/lib/fact.js';
import type { DockerFacts, FirewallFacts, KernelFacts, RuleFacts } from '../../src/docker/verify/facts.js';
import type { Finding } from '../../src/docker/verify/finding.js';
import { judgeDocker } from '../../src/docker/verify/judge.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import {
  dockerContainer,
  dockerEnv,
  dockerNetwork,
  sampleEngine,
  sampleFacts,
  sampleFlags,
  samplePlan,
  sampleRules,
} from '../support/docker-facts.js';

const judge = (facts: Partial<DockerFacts>, plan: Partial<DockerPlan> = {}): readonly Finding[] =>
  judgeDocker({ ...samplePlan, ...plan }, { ...sampleFacts, ...facts });

const engine = (state: Partial<EngineState>): Partial<DockerFacts> => ({
  engine: { kind: 'answers', state: { ...sampleEngine, ...state } },
});
const engine29: Partial<DockerFacts> = {
  ...engine({ version: '29.0.1', nftables: true }),
  commandLine: known([...sampleFlags, '--bridge-accept-fwmark=0x1000000/0x1000000', '--allow-direct-routing']),
};
const withNetworks = (...networks: EngineState['networks']): Partial<DockerFacts> =>
  engine({ networks: [...sampleEngine.networks, ...networks] });
const withBridge = (subnet: string, options: Readonly<Record<string, string>> = {}): EngineState['networks'] => {
  const bridge = dockerNetwork('bridge', subnet);
  return [{ ...bridge, options: { ...bridge.options, ...options } }];
};
const firewall = (changes: Partial<FirewallFacts>): Partial<DockerFacts> => ({
  firewall: { ...sampleFacts.firewall, ...changes },
});
const kernel = (changes: Partial<KernelFacts>): Partial<DockerFacts> => ({
  kernel: { ...sampleFacts.kernel, ...changes },
});
const rules = (changes: Partial<RuleFacts>): Partial<DockerFacts> =>
  firewall({ rules: known({ ...sampleRules, ...changes }) });
const noRules: RuleFacts['ours'] = { forward: false, raw: false, masquerade: false, sources: false, mark: false };
const file = (text: string): Partial<DockerFacts> => ({
  daemonJson: { path: '/etc/docker/daemon.json', text: known(text) },
});
const silent: DockerFacts['engine'] = { kind: 'silent', reason: 'there is no socket /x' };

function names(findings: readonly Finding[]): readonly string[] {
  return findings.map(({ severity, id }) => `${severity} ${id}`);
}

describe('a host where all is well', () => {
  it.each<[string, Partial<DockerFacts>, Partial<DockerPlan>]>([
    ['flags', {}, {}],
    [
      'settings in daemon.json',
      {
        ...file('{"bip":"10.5.1.1/24","mtu":1472,"ip-masq":false,"debug":true}'),
        commandLine: known([]),
        envFile: known(dockerEnv([])),
        unit: known({ environmentFiles: '', needsReload: false }),
      },
      { config: 'daemon-json' },
    ],
    ['an empty daemon.json', file('  \n'), {}],
    ['no systemd', { unit: known(undefined) }, {}],
    [
      'a bridge without ports at 1500 (20.10)',
      {
        ...engine({ containers: [] }),
        docker0: known({
          name: 'docker0',
          mtu: 1500,
          addresses: [{ address: parseIpv4('10.5.1.1'), prefix: samplePlan.bridge }],
        }),
      },
      {},
    ],
    ['a network elsewhere', withNetworks(dockerNetwork('db', '172.20.0.0/16', { options: {} })), {}],
    [
      'no rules wanted and none there',
      rules({ ours: noRules, forwardDrops: false }),
      { forward: false, masquerade: false },
    ],
    ['strict rp_filter with one default route', kernel({ rpFilterAll: known('1') }), {}],
    [
      'loose rp_filter on the underlay',
      kernel({ rpFilterAll: known('1'), rpFilterUnderlay: known('2'), defaultRoutes: known(2) }),
      {},
    ],
  ])('%s', (_, facts, plan) => {
    expect(judge(facts, plan)).toEqual([]);
  });

  it('with docker0 on a part of the lease and our networks on the rest', () => {
    const bridge = parsePrefix('10.5.1.0/25');
    const flags = sampleFlags.map(flag => flag.replace('/24', '/25'));
    const facts = {
      ...engine({ networks: [...withBridge('10.5.1.0/25'), dockerNetwork('shop', '10.5.1.128/26')] }),
      commandLine: known(flags),
      envFile: known(dockerEnv(flags)),
      docker0: known({ name: 'docker0', mtu: 1472, addresses: [{ address: parseIpv4('10.5.1.1'), prefix: bridge }] }),
    };
    expect(judge(facts, { bridge })).toEqual([]);
  });
});

describe('the engine', () => {
  it.each<[string, Partial<DockerFacts>, readonly string[]]>([
    ['not installed', { engine: silent, program: undefined, commandLine: known(undefined) }, ['error docker-absent']],
    ['not running', { engine: silent, commandLine: known(undefined) }, ['error docker-stopped']],
    ['listens elsewhere', { engine: silent }, ['error docker-elsewhere']],
    ['not for us', { engine: { kind: 'denied', reason: 'for root' } }, ['error docker-denied']],
    ['something else', { engine: { kind: 'odd', reason: 'no engine' } }, ['error docker-odd']],
    ['too old', engine({ version: '19.03.15' }), ['warning engine-version']],
    ['of no known version', engine({ version: 'dev' }), ['warning engine-version']],
    ['podman in its clothes', engine({ version: '4.3.1' }), ['warning engine-version']],
    ['20.10', engine({ version: '20.10.24+dfsg1' }), []],
    ['28', engine({ version: '28.5.2+dfsg4' }), ['note engine-raw-drop']],
    [
      '29 with nftables and no mark',
      { ...engine({ version: '29.0.1', nftables: true }), ...rules({ ours: { ...sampleRules.ours, mark: true } }) },
      ['error docker-nftables', 'note engine-raw-drop'],
    ],
    [
      '29 with nftables and our mark',
      {
        ...engine29,
        ...rules({ ours: { ...sampleRules.ours, mark: true } }),
      },
      ['note engine-raw-drop'],
    ],
    ['icc off', { commandLine: known([...sampleFlags, '--icc=false']) }, ['note docker-icc-off']],
    ['iptables off in the file', file('{"iptables":false}'), ['note docker-iptables-off']],
  ])('%s', (_, facts, expected) => {
    expect(names(judge(facts))).toEqual(expected);
  });
});

describe('the settings', () => {
  const stopped = { engine: silent, commandLine: known(undefined) };
  const byFile = { commandLine: known([]), unit: known({ environmentFiles: '', needsReload: false }) };

  it.each<[string, Partial<DockerFacts>, readonly string[]]>([
    ['in both places', file('{"bip":"10.5.1.1/24"}'), ['error settings-conflict']],
    [
      'in both places at the next start',
      { ...stopped, ...file('{"mtu":1400}') },
      ['error docker-stopped', 'error settings-conflict'],
    ],
    ['no JSON', file('{"bip":'), ['error daemon-json-broken']],
    ['an array', file('[]'), ['error daemon-json-broken']],
    ['a bridge of the administrator beside bip', file('{"bridge":"br0"}'), ['error bridge-conflict']],
    ['-b beside --bip', { commandLine: known([...sampleFlags, '-b', 'br0']) }, ['error bridge-conflict']],
    ['not taken', { commandLine: known(['-H', 'fd://']) }, ['error settings-not-taken']],
    ['partly taken', { commandLine: known(['--bip', '10.5.1.1/24', '--mtu', '1472']) }, ['error settings-not-taken']],
    [
      'drop-in missing while stopped',
      { ...stopped, unit: known({ environmentFiles: '/etc/default/docker', needsReload: false }) },
      ['error docker-stopped', 'error settings-not-taken'],
    ],
    [
      'unit not read again',
      { unit: known({ environmentFiles: samplePlan.envFile, needsReload: true }) },
      ['warning unit-changed'],
    ],
    [
      'another bip in the file',
      { ...file('{"bip":"10.9.9.1/24"}'), commandLine: known(['--mtu=1472', '--ip-masq=false']) },
      ['error settings-conflict'],
    ],
    [
      'another bip in the file, and no drop-in',
      { ...file('{"bip":"10.9.9.1/24","mtu":1472,"ip-masq":false}'), ...byFile },
      ['error daemon-json-value'],
    ],
    ['no env file', { envFile: known(undefined) }, ['error env-file']],
    [
      'an env file of an older lease',
      { envFile: known(dockerEnv(['--bip=10.5.7.1/24', '--mtu=1472'])) },
      ['error env-file'],
    ],
    ['an env file that is none', { envFile: known('\0\0') }, ['error env-file']],
    [
      'nothing readable',
      {
        envFile: unknown('EACCES'),
        commandLine: unknown('EACCES'),
        unit: unknown('timed out'),
        daemonJson: { path: '/etc/docker/daemon.json', text: unknown('EACCES') },
      },
      ['unchecked daemon-json', 'unchecked docker-flags', 'unchecked docker-unit', 'unchecked env-file'],
    ],
  ])('%s', (_, facts, expected) => {
    expect(names(judge(facts))).toEqual(expected);
  });

  it('the repair names the key, and the file that the engine reads', () => {
    expect(judge(file('{"bip":"10.5.1.1/24","ip-masq":true}'))).toMatchObject([
      {
        found: "/etc/docker/daemon.json has 'bip', beside tartan's --bip dockerd does not start",
        repair: "take 'bip' out of the file, or start tartand with --docker-config=daemon-json",
      },
      { id: 'settings-conflict', repair: expect.stringContaining("take 'ip-masq' out of the file") },
    ]);
  });

  const merged = { ...file('{"bip":"10.5.1.1/24","mtu":1472,"ip-masq":false}'), ...byFile, envFile: known(undefined) };
  const flagOf = (place: string, running = false): Partial<DockerFacts> => ({
    placedFlags: [{ flag: ['mtu', '1472'], place, running }],
  });

  it.each<[string, Partial<DockerFacts>, readonly string[]]>([
    ['as they should be', merged, []],
    ['and dockerd has its flags from the time before', { ...merged, ...flagOf('the running dockerd', true) }, []],
    ['and a flag in a file', { ...merged, ...flagOf('/etc/default/docker') }, ['error settings-conflict']],
    [
      'beside a bridge',
      { ...merged, ...file('{"bridge":"br0","mtu":1472,"ip-masq":false}') },
      ['error bridge-conflict'],
    ],
    [
      'with another MTU',
      { ...merged, ...file('{"bip":"10.5.1.1/24","mtu":9,"ip-masq":false}') },
      ['error daemon-json-value'],
    ],
    ['not there', { ...merged, ...file('{}') }, ['error settings-not-taken']],
    [
      'not there before a start',
      { ...merged, ...stopped, ...file('') },
      ['error docker-stopped', 'error settings-not-taken'],
    ],
  ])('merged into daemon.json: %s', (_, facts, expected) => {
    expect(names(judge(facts, { config: 'daemon-json' }))).toEqual(expected);
  });

  it('a flag beside merged settings is named with its place', () => {
    expect(judge({ ...merged, ...flagOf('/etc/default/docker') }, { config: 'daemon-json' })).toMatchObject([
      {
        found: expect.stringMatching(/^--mtu stands in the flags of \/etc\/default\/docker, beside 'mtu' in /),
        repair: 'take it out of /etc/default/docker, or start tartand with --docker-config=env',
      },
    ]);
  });
});

describe('docker0', () => {
  const linkAt = (address: string, mtu = 1472, rivals: readonly string[] = []): Partial<DockerFacts> => {
    const addresses = [{ address: parseIpv4(address), prefix: samplePlan.bridge }];
    return { docker0: known({ name: 'docker0', mtu, rivals, addresses }) };
  };

  it.each<[string, Partial<DockerFacts>, readonly string[]]>([
    ['on another subnet', engine({ networks: withBridge('172.17.0.0/16'), containers: [] }), ['error docker0-subnet']],
    ['on another length', engine({ networks: withBridge('10.5.1.0/25') }), ['error docker0-subnet']],
    ['with another address', linkAt('10.5.1.254'), ['error docker0-address']],
    ['gone', { docker0: known(undefined) }, ['error docker0-address']],
    ['not to be seen', { docker0: unknown('EPERM') }, ['unchecked docker0-link']],
    [
      'with MTU 1500 for containers',
      engine({ networks: withBridge('10.5.1.0/24', { 'com.docker.network.driver.mtu': '1500' }) }),
      ['error docker0-mtu'],
    ],
    ['with a smaller link', linkAt('10.5.1.1', 1400), ['error docker0-mtu']],
    ['with a larger link and containers', linkAt('10.5.1.1', 1500), ['error docker0-mtu']],
    [
      'masqueraded by Docker',
      engine({ networks: withBridge('10.5.1.0/24', { 'com.docker.network.bridge.enable_ip_masquerade': 'true' }) }),
      ['error docker0-masquerade'],
    ],
    ['beside one of CNI', linkAt('10.5.1.1', 1472, ['cni0 (10.5.1.1/24)']), ['error docker0-shared']],
    ['masqueraded by a rule', rules({ masqueraded: [parsePrefix('10.0.0.0/8')] }), ['error docker0-masquerade']],
    [
      'a network on docker0 to be, masqueraded by its own rule',
      { ...withNetworks(dockerNetwork('n', '10.5.1.64/26')), ...rules({ masqueraded: [parsePrefix('10.5.1.64/26')] }) },
      ['error network-blocks-docker0'],
    ],
    ['others masqueraded by a rule', rules({ masqueraded: [parsePrefix('192.168.0.0/16')] }), []],
    ['absent by wish', engine({ networks: [], containers: [] }), ['note docker0-none']],
    [
      'with a container of another subnet',
      engine({ containers: [dockerContainer('old', '10.5.9.2'), dockerContainer('web', '10.5.1.2')] }),
      ['error containers-old-subnet'],
    ],
    ['with a container on another network', engine({ containers: [dockerContainer('db', '172.20.0.2', 'db')] }), []],
  ])('%s', (_, facts, expected) => {
    expect(names(judge(facts))).toEqual(expected);
  });

  it('held on an old subnet by live-restore: its containers have to stop first', () => {
    const old = engine({
      networks: withBridge('10.99.0.0/24'),
      containers: [dockerContainer('web', '10.99.0.2'), dockerContainer('a$(b)', '10.99.0.3')],
      liveRestore: true,
    });
    expect(judge(old)).toMatchObject([
      {
        id: 'docker0-subnet',
        found:
          'docker0 is on 10.99.0.0/24, and containers run on it: web, a$(b); live-restore keeps it there while they run',
        expected: '10.5.1.1/24',
        repair: 'docker stop web NAME && systemctl restart docker',
      },
    ]);
  });
});

describe('networks', () => {
  it.each<[string, EngineState['networks'][number], readonly string[], RegExp]>([
    [
      "of another host's subnet",
      dockerNetwork('n', '10.5.2.0/25'),
      ['error network-overlap'],
      /of the host node-b \(10\.5\.2\.0\/24\)/,
    ],
    [
      'of nobody',
      dockerNetwork('n', '10.5.200.0/24'),
      ['error network-overlap'],
      /overlaps the overlay 10\.5\.0\.0\/16/,
    ],
    ['around the whole overlay', dockerNetwork('n', '10.0.0.0/8'), ['error network-overlap'], /10\.0\.0\.0\/8/],
    [
      'macvlan on the overlay',
      dockerNetwork('n', '10.5.3.0/24', { driver: 'macvlan' }),
      ['error network-overlap'],
      /n has/,
    ],
    [
      'where docker0 is to be',
      dockerNetwork('n', '10.5.1.64/26'),
      ['error network-blocks-docker0'],
      /dockerd will not start/,
    ],
  ])('%s', (_, network, expected, found) => {
    const findings = judge(withNetworks(network));
    expect(names(findings)).toEqual(expected);
    expect(findings[0]?.found).toMatch(found);
  });

  it.each<[Readonly<Record<string, string>>, readonly string[]]>([
    [{}, ['error network-masquerade', 'error network-mtu']],
    [{ 'com.docker.network.driver.mtu': '1472' }, ['error network-masquerade']],
    [
      { 'com.docker.network.driver.mtu': '1300', 'com.docker.network.bridge.enable_ip_masquerade': 'false' },
      ['warning network-mtu'],
    ],
  ])('on the free part of the lease with options %j', (options, expected) => {
    const bridge = parsePrefix('10.5.1.0/25');
    const networks = [...withBridge('10.5.1.0/25'), dockerNetwork('n', '10.5.1.128/26', { options })];
    const findings = judge(engine({ networks }), { bridge }).filter(({ id }) => id.startsWith('network-'));
    expect(names(findings)).toEqual(expected);
    expect(findings[0]?.repair).toContain('--subnet 10.5.1.128/26');
  });
});

describe('the host', () => {
  it.each<[string, Partial<DockerFacts>, Partial<DockerPlan>, readonly string[]]>([
    ['neither iptables nor nft', firewall({ iptables: false, nft: false }), {}, ['error no-firewall-program']],
    ['neither, and none needed', firewall({ iptables: false, nft: false }), { forward: false, masquerade: false }, []],
    ['all rules gone', rules({ ours: noRules }), {}, ['error rules-missing']],
    ['the raw rule gone', rules({ ours: { ...sampleRules.ours, raw: false } }), {}, ['error rules-missing']],
    [
      'the guard of sources gone',
      rules({ ours: { ...sampleRules.ours, sources: false } }),
      { masquerade: false },
      ['error rules-missing'],
    ],
    ['no masquerade wanted', rules({ ours: { ...sampleRules.ours, masquerade: false } }), { masquerade: false }, []],
    [
      'forwarding dropped and left to the operator',
      rules({ ours: { ...noRules, masquerade: true, sources: true } }),
      { forward: false },
      ['warning forward-dropped'],
    ],
    [
      'rules unreadable',
      firewall({ rules: unknown('EPERM'), otherVariant: unknown('EPERM') }),
      {},
      ['unchecked firewall-rules', 'unchecked firewall-kinds'],
    ],
    [
      'rules of the other iptables',
      firewall({ otherVariant: known({ program: 'iptables-legacy', rules: 3, policyDrops: false }) }),
      {},
      ['warning both-iptables'],
    ],
    [
      'the other iptables drops',
      firewall({ otherVariant: known({ program: 'iptables-legacy', rules: 3, policyDrops: true }) }),
      {},
      ['error both-iptables'],
    ],
    [
      'firewalld and ufw',
      firewall({ rivals: ['firewalld', 'ufw'] }),
      {},
      ['warning firewall-manager', 'note firewall-manager'],
    ],
    ['the mark gone, where Docker filters by it', engine29, {}, ['error rules-missing', 'note engine-raw-drop']],
    ['ip_forward off', kernel({ ipForward: known('0') }), {}, ['error ip-forward']],
    [
      'ip_forward off before Docker starts',
      { ...kernel({ ipForward: known('0') }), engine: silent, commandLine: known(undefined) },
      {},
      ['error docker-stopped'],
    ],
    [
      'ip_forward off before a Docker with nftables starts',
      {
        ...kernel({ ipForward: known('0') }),
        ...file('{"firewall-backend":"nftables"}'),
        engine: silent,
        commandLine: known(undefined),
      },
      {},
      ['error docker-stopped', 'error ip-forward'],
    ],
    ['ip_forward unknown', kernel({ ipForward: unknown('EACCES') }), {}, ['unchecked ip-forward']],
    [
      'strict rp_filter and two default routes',
      kernel({ rpFilterUnderlay: known('1'), defaultRoutes: known(2) }),
      {},
      ['warning rp-filter'],
    ],
  ])('%s', (_, facts, plan, expected) => {
    expect(names(judge(facts, plan))).toEqual(expected);
  });

  it('says who may have flushed, and who puts the rules back', () => {
    const flushed = firewall({ rules: known({ ...sampleRules, ours: noRules }), rivals: ['ufw'] });
    expect(judge(flushed, { source: 'files' })[0]).toMatchObject({
      found: 'these rules of tartan are missing: forward, raw, masquerade, sources; ufw may have removed them',
      repair: 'systemctl start tartand',
    });
  });

  it('the gravest comes first, and every finding but a note has a next step or a reason', () => {
    const findings = judge({ ...rules({ ours: noRules }), ...engine({ version: '28.1.0' }), docker0: unknown('x') });
    expect(names(findings)).toEqual(['error rules-missing', 'note engine-raw-drop', 'unchecked docker0-link']);
    for (const { severity, repair } of findings)
      expect(repair !== null).toBe(severity === 'error' || severity === 'warning');
  });
});
