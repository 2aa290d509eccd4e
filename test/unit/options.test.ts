import { describe, expect, it } from 'vitest';
import { environmentNames, findFlag, flags } from '../../src/cli/flags.js';
import { readGoBoolean, readGoInteger } from '../../src/cli/flag-syntax.js';
import { parseDaemonOptions, type DaemonOptions } from '../../src/daemon/options.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { parseRun, refusalOf } from '../support/samples.js';

const defaults: DaemonOptions = {
  etcd: {
    endpoints: ['http://127.0.0.1:4001', 'http://127.0.0.1:2379'],
    prefix: '/coreos.com/network',
    insecureEtcd: false,
  },
  iface: [],
  ifaceRegex: [],
  subnetFile: '/run/flannel/subnet.env',
  dockerEnvFile: '/run/tartan/docker.env',
  docker: { config: 'env', daemonJsonFile: '/etc/docker/daemon.json', subnetLength: 0, pools: false, firewall: 'auto' },
  ipMasquerade: 'off',
  forwardRules: true,
  resyncSeconds: 5,
  runDir: '/run/tartan',
  stateDir: '/var/lib/tartan',
  leaseTtlSeconds: 86_400,
  peerHoldSeconds: 60,
  onLost: 'exit',
  checkSource: true,
  checkDestination: true,
  engine: 'auto',
  reuseQuarantined: false,
  logLevel: 'info',
  logFormat: 'auto',
  notes: [],
};

/** A value for each flag that works, and what it changes. */
const effects: readonly (readonly [flag: string, text: string, change: object])[] = [
  ['etcd-endpoints', 'http://192.0.2.9:2379', { etcd: { ...defaults.etcd, endpoints: ['http://192.0.2.9:2379'] } }],
  ['etcd-prefix', '/my/net', { etcd: { ...defaults.etcd, prefix: '/my/net' } }],
  ['insecure-etcd', 'true', { etcd: { ...defaults.etcd, insecureEtcd: true } }],
  ['iface', 'eth1', { iface: ['eth1'] }],
  ['iface-regex', '^eth[0-9]$', { ifaceRegex: [expect.objectContaining({ source: '^eth[0-9]$' })] }],
  ['iface-can-reach', '192.0.2.1', { ifaceCanReach: parseIpv4('192.0.2.1') }],
  ['public-ip', '192.0.2.7', { publicIp: parseIpv4('192.0.2.7') }],
  ['subnet-file', '/tmp/subnet.env', { subnetFile: '/tmp/subnet.env' }],
  ['docker-env-file', '/tmp/d.env', { dockerEnvFile: '/tmp/d.env' }],
  ['docker-config', 'daemon-json', { docker: { ...defaults.docker, config: 'daemon-json' } }],
  ['docker-daemon-json', '/srv/d.json', { docker: { ...defaults.docker, daemonJsonFile: '/srv/d.json' } }],
  ['docker-pools', 'true', { docker: { ...defaults.docker, pools: true } }],
  ['docker-subnet-len', '26', { docker: { ...defaults.docker, subnetLength: 26 } }],
  ['docker-firewall', 'nftables', { docker: { ...defaults.docker, firewall: 'nftables' } }],
  ['run-dir', '/run/other/', { runDir: '/run/other', dockerEnvFile: '/run/other/docker.env' }],
  ['state-dir', '/var/lib/other', { stateDir: '/var/lib/other' }],
  ['node-id', 'host-1.example', { nodeId: 'host-1.example' }],
  ['ip-masq', 'true', { ipMasquerade: 'on' }],
  ['ip-masq-fully-random-disable', 'true', {}],
  ['iptables-forward-rules', 'false', { forwardRules: false }],
  ['iptables-resync', '0x1e', { resyncSeconds: 30 }],
  ['lease-ttl', '315_360_000', { leaseTtlSeconds: 315_360_000 }],
  ['on-lost', 'degraded', { onLost: 'degraded' }],
  ['peer-hold-down', '0', { peerHoldSeconds: 0 }],
  ['reuse-quarantined', 'T', { reuseQuarantined: true }],
  ['no-source-check', '1', { checkSource: false }],
  ['no-destination-check', 'TRUE', { checkDestination: false }],
  ['engine', 'user', { engine: 'user' }],
  ['healthz-ip', '0.0.0.0', {}],
  ['healthz-port', '8471', { healthz: { ip: '127.0.0.1', port: 8471 } }],
  ['log-level', 'warn', { logLevel: 'warn' }],
  ['log-format', 'text', { logFormat: 'text' }],
  ['v', '4', { logLevel: 'debug' }],
  ['etcd-keyfile', '/none.key', { etcd: { ...defaults.etcd, keyFile: '/none.key' } }],
  ['etcd-certfile', '/none.pem', { etcd: { ...defaults.etcd, certFile: '/none.pem' } }],
  ['etcd-cafile', '/none.ca', { etcd: { ...defaults.etcd, caFile: '/none.ca' } }],
  ['etcd-username', 'alice', {}],
  ['etcd-password', 'unused', {}],
];

const statusFlags = ['status-listen', 'status-token-file', 'status-tls-cert', 'status-tls-key'];
const elsewhere = ['etcd-password-file', 'metrics', 'metrics-peers', ...statusFlags, 'version'];

describe('the table of flags', () => {
  it('knows every flag of flannel', () => {
    const ofFlannel =
      'etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username etcd-password iface iface-regex ' +
      'iface-can-reach subnet-file public-ip public-ipv6 subnet-lease-renew-margin ip-masq ' +
      'ip-masq-fully-random-disable kube-subnet-mgr kube-api-url kube-annotation-prefix kubeconfig-file version ' +
      'healthz-ip healthz-port iptables-resync iptables-forward-rules ip-blackhole-route net-config-path ' +
      'set-node-network-unavailable v vmodule log_backtrace_at';
    const known = new Set(flags.map(flag => flag.name as string));
    expect(ofFlannel.split(' ').filter(name => !known.has(name))).toEqual([]);
    expect(known.size).toBe(flags.length);
  });

  it('has an effect below for every flag that works', () => {
    const tested = new Set([...effects.map(([name]) => name), ...elsewhere]);
    const untested = flags.filter(flag => flag.disposition.kind === 'works' && !tested.has(flag.name));
    expect(untested.map(flag => flag.name)).toEqual([]);
  });
});

describe('values', () => {
  it('has the documented defaults', () => expect(parseRun([])).toEqual(defaults));

  it.each(effects)('--%s=%s as flag and as either variable', (name, text, change) => {
    const { notes: _, ...expected } = { ...defaults, ...change };
    const flag = findFlag(name);
    const variables = flag ? environmentNames(flag) : [];
    expect(variables).toHaveLength(2);
    const ways = [
      parseRun([`--${name}=${text}`]),
      parseRun([`-${name}=${text}`]),
      ...(flag?.kind === 'boolean' ? [] : [parseRun([`--${name}`, text]), parseRun([`-${name}`, text])]),
      ...variables.map(variable => parseRun([], { [variable]: text })),
    ];
    for (const way of ways) expect(way).toMatchObject(expected);
  });

  it('a flag wins over TARTAN_, which wins over FLANNELD_, and empty variables count as absent', () => {
    const env = { TARTAN_IFACE: 'two', FLANNELD_IFACE: 'three' };
    expect(parseRun(['--iface=one'], env).iface).toEqual(['one']);
    expect(parseRun([], env).iface).toEqual(['two']);
    expect(parseRun([], { ...env, TARTAN_IFACE: '' }).iface).toEqual(['three']);
    expect(parseRun([], { TARTAN_IFACE: '', FLANNELD_IFACE: '' }).iface).toEqual([]);
  });

  it('list flags accumulate; a variable is one value; other flags keep the last', () => {
    expect(parseRun(['--iface', 'a', '-iface=b', '--iface=c']).iface).toEqual(['a', 'b', 'c']);
    expect(parseRun(['--iface-regex=^a', '--iface-regex=^b']).ifaceRegex.map(({ source }) => source)).toEqual([
      '^a',
      '^b',
    ]);
    expect(parseRun([], { FLANNELD_IFACE: 'a,b' }).iface).toEqual(['a,b']);
    expect(parseRun(['--public-ip=192.0.2.1', '--public-ip=192.0.2.2']).publicIp).toBe(parseIpv4('192.0.2.2'));
  });

  it('a boolean never takes the next word', () => {
    expect(parseRun(['--ip-masq', '--iface', 'x'])).toMatchObject({ ipMasquerade: 'on', iface: ['x'] });
    expect(parseRun(['--ip-masq=false']).ipMasquerade).toBe('off');
    expect(refusalOf(['--ip-masq', 'false'])).toBe(
      "USAGE unexpected argument 'false'; a boolean takes its value after '=': --ip-masq=false",
    );
  });

  it('a value may look like a flag, and a flag may be given empty where empty means the default', () => {
    expect(refusalOf(['--public-ip', '--ip-masq'])).toContain("--public-ip: '--ip-masq' is not usable");
    expect(parseRun(['--etcd-cafile=', '--public-ip=', '--iface=', '--iface-regex=', '--node-id='])).toEqual(defaults);
  });

  it('masquerades as the two flags say together', () => {
    expect(parseRun(['--ip-masq', '--ip-masq-fully-random-disable']).ipMasquerade).toBe('not-fully-random');
  });

  it('--docker-env-file wins over the run directory', () => {
    expect(parseRun(['--run-dir=/a', '--docker-env-file=/b/c']).dockerEnvFile).toBe('/b/c');
  });

  it('--log-level wins over -v, and -v 0 is info', () => {
    expect(parseRun(['-v=3', '--log-level=error']).logLevel).toBe('error');
    expect(parseRun(['-v=0']).logLevel).toBe('info');
  });

  it('the status is offered elsewhere with a token and TLS only', () => {
    const [token, cert, key] = ['--status-token-file=/t', '--status-tls-cert=/c', '--status-tls-key=/k'];
    expect(parseRun([]).statusListen).toBeUndefined();
    expect(parseRun(['--status-listen=127.0.0.1:8287']).statusListen).toEqual({
      address: { ip: '127.0.0.1', port: 8287 },
    });
    expect(parseRun(['--status-listen=0.0.0.0:8287', token, cert, key]).statusListen).toEqual({
      address: { ip: '0.0.0.0', port: 8287 },
      tokenFile: '/t',
      tls: { certFile: '/c', keyFile: '/k' },
    });
    expect(refusalOf(['--status-listen=192.0.2.1:8287', token])).toMatch(
      /^USAGE --status-listen: other hosts reach 192\.0\.2\.1:8287, expected --status-tls-cert with --status-tls-key as/,
    );
    expect(refusalOf(['--status-listen=192.0.2.1:8287', cert, key])).toContain('expected --status-token-file as well');
    expect(refusalOf(['--status-listen=127.0.0.1:8287', cert])).toContain('belong together');
    expect(refusalOf(['--status-listen=8287'])).toContain("--status-listen: '8287' is not usable");
  });

  it('metrics are a path of the health listener', () => {
    const on = ['--healthz-port=8470', '--metrics'];
    expect(parseRun(on.slice(0, 1)).metrics).toBeUndefined();
    expect(parseRun(on).metrics).toEqual({ peers: 50 });
    expect(parseRun([...on, '--metrics-peers=0']).metrics).toEqual({ peers: 0 });
    expect(refusalOf(on.slice(1))).toMatch(/^USAGE --metrics .* give --healthz-port, 8470 for example$/);
    expect(refusalOf([...on, '--metrics-peers=1001'])).toContain('--metrics-peers');
  });

  it('no health listener at port 0 and below', () => {
    expect(parseRun(['--healthz-port=0']).healthz).toBeUndefined();
    expect(parseRun(['--healthz-port=-1']).healthz).toBeUndefined();
    expect(parseRun(['--healthz-port=1', '--healthz-ip=::1']).healthz).toEqual({ ip: '::1', port: 1 });
  });

  it("takes Go's case folding in a regular expression", () => {
    expect(parseRun(['--iface-regex=(?i)^ETH']).ifaceRegex[0]?.test('eth0')).toBe(true);
  });

  it('endpoints: a trailing slash goes, IPv6 and names stay', () => {
    expect(
      parseRun(['--etcd-endpoints=https://etcd-1.example:2379/,https://[2001:db8::1]:2379']).etcd.endpoints,
    ).toEqual(['https://etcd-1.example:2379', 'https://[2001:db8::1]:2379']);
  });
});

describe('Go literals', () => {
  it.each([
    ['10', 10],
    ['-5', -5],
    ['+5', 5],
    ['0', 0],
    ['0x1F', 31],
    ['0o17', 15],
    ['017', 15],
    ['0b101', 5],
    ['1_000', 1000],
    ['0x_ff', 255],
    ['', undefined],
    ['1_', undefined],
    ['_1', undefined],
    ['1__0', undefined],
    ['08', undefined],
    ['1.0', undefined],
    ['1e3', undefined],
    [' 1', undefined],
    ['0x', undefined],
    ['ten', undefined],
  ])('integer %j is %s', (text, value) => expect(readGoInteger(text)).toBe(value));

  it('booleans', () => {
    for (const text of '1 t T true TRUE True'.split(' ')) expect(readGoBoolean(text)).toBe(true);
    for (const text of '0 f F false FALSE False'.split(' ')) expect(readGoBoolean(text)).toBe(false);
    for (const text of ['', 'yes', 'no', 'on', 'tRUE', '2', ' 1']) expect(readGoBoolean(text)).toBeUndefined();
  });
});

describe('refusals', () => {
  it.each([
    [['--ip-msq'], 'unknown flag --ip-msq, did you mean --ip-masq?'],
    [['--etcd_endpoints=x'], 'unknown flag --etcd_endpoints, did you mean --etcd-endpoints?'],
    [['--qwertyuiop'], 'unknown flag --qwertyuiop; --help lists all flags'],
    [['serve'], "unexpected argument 'serve'"],
    [['--ip-masq', '--', 'serve'], "unexpected argument 'serve'"],
    [['-'], "unexpected argument '-'"],
    [['---iface=x'], 'is not a flag'],
    [['--=x'], 'is not a flag'],
    [['--iface'], '--iface needs a value'],
    [['--ip-masq=yes'], "--ip-masq: 'yes' is not usable, expected true or false"],
    [['--version=maybe'], "--version: 'maybe'"],
    [['--docker-config=file'], "--docker-config: 'file' is not usable, expected env or daemon-json"],
    [['--docker-firewall=nft'], "--docker-firewall: 'nft' is not usable, expected auto, iptables or nftables"],
    [['--docker-subnet-len=31'], "--docker-subnet-len: '31' is not usable, expected a whole number from 0 to 30"],
    [['--docker-subnet-len=-1'], "--docker-subnet-len: '-1'"],
    [['--iptables-resync=0'], "--iptables-resync: '0' is not usable, expected a whole number from 1 to 86400"],
    [['--iptables-resync=five'], "'five'"],
    [['--subnet-lease-renew-margin=0'], 'from 1 to 1439'],
    [['--subnet-lease-renew-margin=1440'], 'from 1 to 1439'],
    [['--lease-ttl=1'], 'from 2 to 315360000'],
    [['--lease-ttl=315360001'], 'from 2 to 315360000'],
    [['--healthz-port=65536'], "'65536'"],
    [['--healthz-ip=127.0.0.256'], "--healthz-ip: '127.0.0.256'"],
    [['--public-ip=010.0.0.1'], "--public-ip: '010.0.0.1'"],
    [['--public-ip=127.0.0.1'], 'a unicast address'],
    [['--iface-can-reach=host'], '--iface-can-reach'],
    [['--iface-regex=('], "--iface-regex: '('"],
    [['--subnet-file='], '--subnet-file: an empty value'],
    [['--state-dir=/a\nb'], '--state-dir'],
    [['--node-id=-x'], '--node-id'],
    [['--log-level=chatty'], 'debug, info, warn or error'],
    [['--log-format=xml'], 'auto, json, text or journal'],
    [['--etcd-endpoints='], 'is not an endpoint'],
    [['--etcd-endpoints=127.0.0.1'], "'127.0.0.1' is not an endpoint"],
    [['--etcd-endpoints=http://127.0.0.1'], 'is not an endpoint'],
    [['--etcd-endpoints=http://127.0.0.1:0'], 'is not an endpoint'],
    [['--etcd-endpoints=http://127.0.0.1:65536'], 'is not an endpoint'],
    [['--etcd-endpoints=http://127.0.0.256:1'], 'is not an endpoint'],
    [['--etcd-endpoints=http://a:1,https://b:1'], 'partly http, partly https'],
    [['--etcd-endpoints=unix:///run/etcd'], 'is not an endpoint'],
    [['--etcd-prefix='], '--etcd-prefix'],
    [['--etcd-prefix=../x'], '--etcd-prefix'],
    [['--etcd-endpoints=https://a:1', '--etcd-certfile=/c.pem'], 'needs its key'],
    [['--kube-subnet-mgr'], '--kube-subnet-mgr is not supported: subnets come from etcd only'],
    [['--public-ipv6=2001:db8::1'], '--public-ipv6 is not supported: this version carries IPv4'],
    [['--ip-blackhole-route=true'], '--ip-blackhole-route is not supported: no blackhole route'],
  ])('%j', (words, message) => {
    const text = refusalOf(words);
    expect(text).toMatch(/^USAGE /);
    expect(text).toContain(message);
  });

  it.each([
    ['FLANNELD_IPTABLES_RESYNC', '0'],
    ['TARTAN_IP_MASQ', 'yes'],
    ['FLANNELD_SUBNET_LEASE_RENEW_MARGIN', 'soon'],
    ['FLANNELD_KUBE_SUBNET_MGR', 'true'],
    ['FLANNELD_SET_NODE_NETWORK_UNAVAILABLE', 'x'],
    ['TARTAN_ETCD_ENDPOINTS', 'nowhere'],
    ['FLANNELD_PUBLIC_IPV6', '2001:db8::1'],
    ['TARTAN_LOG_LEVEL', 'loud'],
    ['TARTAN_STATE_DIR', 'a\tb'],
  ])('%s=%s names the variable', (name, text) => {
    expect(refusalOf([], { [name]: text })).toMatch(new RegExp(`^USAGE environment variable ${name}\\b`));
  });

  it('a refused flag set to nothing asks for nothing', () => {
    const words = ['--kube-subnet-mgr=false', '--public-ipv6=', '--ip-blackhole-route=false'];
    expect(parseRun(words)).toEqual(defaults);
  });

  it('an unusable certificate file is CONFIG_INVALID', () => {
    expect(refusalOf(['--etcd-endpoints=https://a:1', '--etcd-cafile=/nowhere.pem'])).toMatch(
      /^CONFIG_INVALID .*\/nowhere\.pem/,
    );
  });
});

describe('flags without effect', () => {
  const harmless = flags.filter(flag => flag.disposition.kind === 'harmless');

  it.each(harmless.map(flag => [flag.name, flag.fallback || 'x'] as const))(
    '--%s is accepted and noted',
    (name, text) => {
      const options = parseRun([`--${name}=${text}`]);
      expect(options.notes).toHaveLength(1);
      expect(options.notes[0]).toContain(`--${name} has no effect: `);
      expect({ ...options, notes: [] }).toEqual(defaults);
    },
  );

  it('the ones of Kubernetes, of klog and the renewal margin are these', () => {
    expect(harmless.map(({ name }) => name).sort()).toEqual([
      'kube-annotation-prefix',
      'kube-api-url',
      'kubeconfig-file',
      'log_backtrace_at',
      'net-config-path',
      'set-node-network-unavailable',
      'subnet-lease-renew-margin',
      'vmodule',
    ]);
  });

  it('a note names the variable it came from', () => {
    expect(parseRun([], { FLANNELD_KUBE_API_URL: 'http://x' }).notes).toEqual([
      'environment variable FLANNELD_KUBE_API_URL has no effect: subnets come from etcd, no Kubernetes API is used',
    ]);
  });

  it('TLS files are noted when the endpoints are http', () => {
    expect(parseRun(['--etcd-cafile=/ca.pem']).notes).toEqual([
      'the TLS files for etcd have no effect: the endpoints are http',
    ]);
  });
});

describe('help and version', () => {
  it.each([[['--help']], [['-h']], [['-help']], [['--ip-masq', '--help', '--nonsense']]])('%j is help', words => {
    const invocation = parseDaemonOptions(words, { TARTAN_IP_MASQ: 'bad' });
    expect(invocation.kind).toBe('help');
    if (invocation.kind !== 'help') return;
    for (const flag of flags) expect(invocation.text).toContain(`  --${flag.name}`);
  });

  it('--version reads no environment, and no variable asks for it', () => {
    const invocation = parseDaemonOptions(['--version'], { TARTAN_IP_MASQ: 'bad' });
    expect(invocation).toMatchObject({ kind: 'version', text: expect.stringMatching(/^tartand \d+\.\d+\.\d+\n$/) });
    expect(parseRun([], { FLANNELD_VERSION: 'true', TARTAN_VERSION: '0.1.0' })).toEqual(defaults);
    expect(parseDaemonOptions(['--version=false'], {}).kind).toBe('run');
  });
});
