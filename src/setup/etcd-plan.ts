/** Decides how an etcd for the cluster is set up on this host, and how it is taken away. Pure. */
import { formatIpv4, formatPrefix, prefixesOverlap, type Ipv4, type Prefix } from '../model/ip.js';
import { TartanError } from '../lib/errors.js';
import { formatEnvironment } from '../cli/environment-file.js';
import type { UnitState } from './setup-state.js';
import { removeStep, runStep, writeStep, type SetupStep } from './step.js';

export const etcdPaths = {
  unit: '/etc/systemd/system/tartan-etcd.service',
  settings: '/etc/tartan/etcd/etcd.env',
  /** Root's login, for etcdctl. */
  administrator: '/etc/tartan/etcd/etcdctl.env',
  ca: '/etc/tartan/etcd/ca.pem',
  caKey: '/etc/tartan/etcd/ca.key',
  certificate: '/etc/tartan/etcd/server.pem',
  key: '/etc/tartan/etcd/server.key',
} as const;

export const etcdData = '/var/lib/tartan-etcd';
export const etcdUser = 'tartan-etcd';
const unit = 'tartan-etcd.service';

export interface EtcdFacts {
  /** undefined where the program is not installed. */
  readonly version: string | undefined;
  /** Whether that program is here. */
  readonly openssl: boolean;
  /** The distribution's etcd.service. */
  readonly theirs: UnitState;
  /** What apt-get installs, etcdctl too; undefined where there is no apt-get. */
  readonly packages: readonly string[] | undefined;
  readonly machine: string;
}

export interface EtcdRequest {
  readonly address: Ipv4;
  readonly name: string;
  /** undefined: the first member of a cluster. Else all members, as ETCD_INITIAL_CLUSTER has them, with this one. */
  readonly cluster?: string;
  readonly clusterToken: string;
  /** Of a first member alone. */
  readonly rootPassword?: string;
  readonly unitText: string;
}

/** What the steps do that is no file and no program alone. */
export interface EtcdEffects {
  readonly checkVersion: () => Promise<void>;
  readonly makeCertificates: () => Promise<void>;
  readonly removeCertificates: () => Promise<void>;
  readonly removeData: () => Promise<void>;
  /** Of a first member alone. */
  readonly makeUsers?: () => Promise<void>;
}

/** @throws TartanError HOST_REFUSED where an etcd runs here already, or none can be had */
export function planEtcd(request: EtcdRequest, facts: EtcdFacts, effects: EtcdEffects): readonly SetupStep[] {
  const { theirs } = facts;
  if (theirs.active === 'active' || theirs.active === 'activating')
    throw new TartanError(
      'HOST_REFUSED',
      'etcd.service runs on this host already and is left alone: give its URL with --etcd-endpoints, or stop and disable it',
    );
  return [
    ...installSteps(facts),
    call('check that etcd is 3.4 or later', 'nothing', effects.checkVersion),
    runStep(['systemd-sysusers', '--inline', `u ${etcdUser} - "etcd of tartan" ${etcdData}`]),
    call(
      `put CA and certificate of etcd into /etc/tartan/etcd`,
      'rm /etc/tartan/etcd/*',
      effects.makeCertificates,
      effects.removeCertificates,
    ),
    ...(request.rootPassword === undefined ? [] : [administratorStep(request.address, request.rootPassword)]),
    writeStep(etcdPaths.settings, formatSettings(request, facts), 0o600, false),
    writeStep(etcdPaths.unit, request.unitText, 0o644, false),
    runStep(['systemctl', 'daemon-reload']),
    call(`keep its data in ${etcdData}`, `rm -r ${etcdData}`, async () => {}, effects.removeData),
    runStep(['systemctl', '--quiet', 'enable', unit], ['systemctl', '--quiet', 'disable', unit]),
    runStep(['systemctl', 'start', unit], ['systemctl', 'stop', unit]),
    ...(effects.makeUsers
      ? [
          call(
            'make role, users and network document, switch authentication on',
            'rm -r of the data',
            effects.makeUsers,
          ),
        ]
      : []),
  ];
}

function administratorStep(address: Ipv4, rootPassword: string): SetupStep {
  const login = [
    ['ETCDCTL_API', '3'],
    ['ETCDCTL_ENDPOINTS', endpointOf(address)],
    ['ETCDCTL_CACERT', etcdPaths.ca],
    ['ETCDCTL_USER', `root:${rootPassword}`],
  ] as const;
  return writeStep(etcdPaths.administrator, formatEnvironment(new Map(login)), 0o600, false);
}

function call(text: string, undo: string, run: () => Promise<void>, back?: () => Promise<void>): SetupStep {
  return { text, undo, action: { kind: 'call', do: run, ...(back ? { undo: back } : {}) } };
}

/** Another apt-get, such as that of the first boot, is waited for. */
const aptOptions = ['--yes', '--quiet', '-o', 'DPkg::Lock::Timeout=120'];

function masksTheirs({ version, theirs }: Pick<EtcdFacts, 'version' | 'theirs'>): boolean {
  return version === undefined && theirs.load === 'not-found';
}

/** The distribution's package starts its own etcd where nobody has masked that. */
function installSteps({ version, openssl, theirs, packages }: EtcdFacts): readonly SetupStep[] {
  if (version !== undefined && openssl) return [];
  if (packages === undefined)
    throw new TartanError(
      'HOST_REFUSED',
      `there is no ${version === undefined ? 'etcd' : 'openssl'} here and no apt-get to install one: install etcd 3.4 or later, or give --etcd-endpoints`,
    );
  const names = [...(version === undefined ? packages : []), ...(openssl ? [] : ['openssl'])];
  const mask = ['systemctl', '--quiet', 'mask', 'etcd.service'];
  return [
    ...(masksTheirs({ version, theirs }) ? [runStep(mask, ['systemctl', '--quiet', 'unmask', 'etcd.service'])] : []),
    runStep(
      ['apt-get', ...aptOptions, 'install', '--no-install-recommends', ...names],
      ['apt-get', ...aptOptions, 'remove', ...names],
    ),
  ];
}

export function endpointOf(address: Ipv4): string {
  return `https://${formatIpv4(address)}:2379`;
}

/** By this line `tartan uninstall` knows it. */
const maskedLine = '# tartan init has masked etcd.service.';

/** @param settings the text of etcdPaths.settings @returns whether `tartan init` masked the distribution's etcd.service */
export function hasMaskedTheirs(settings: string): boolean {
  return settings.startsWith(`${maskedLine}\n`);
}

export function peerUrlOf(address: Ipv4): string {
  return `https://${formatIpv4(address)}:2380`;
}

function formatSettings({ address, name, cluster, clusterToken }: EtcdRequest, facts: EtcdFacts): string {
  const peer = peerUrlOf(address);
  const { certificate, key, ca } = etcdPaths;
  const settings = formatEnvironment(
    new Map([
      ['ETCD_NAME', name],
      ['ETCD_DATA_DIR', etcdData],
      ['ETCD_LOGGER', 'zap'],
      ['ETCD_LISTEN_CLIENT_URLS', endpointOf(address)],
      ['ETCD_ADVERTISE_CLIENT_URLS', endpointOf(address)],
      ['ETCD_LISTEN_PEER_URLS', peer],
      ['ETCD_INITIAL_ADVERTISE_PEER_URLS', peer],
      ['ETCD_INITIAL_CLUSTER', cluster ?? `${name}=${peer}`],
      ['ETCD_INITIAL_CLUSTER_TOKEN', clusterToken],
      ['ETCD_INITIAL_CLUSTER_STATE', cluster === undefined ? 'new' : 'existing'],
      ['ETCD_CERT_FILE', certificate],
      ['ETCD_KEY_FILE', key],
      ['ETCD_PEER_CERT_FILE', certificate],
      ['ETCD_PEER_KEY_FILE', key],
      ['ETCD_PEER_TRUSTED_CA_FILE', ca],
      ['ETCD_PEER_CLIENT_CERT_AUTH', 'true'],
      // The history that nobody reads would fill the disk.
      ['ETCD_AUTO_COMPACTION_RETENTION', '1h'],
      ...(facts.machine === 'arm64' ? [['ETCD_UNSUPPORTED_ARCH', 'arm64'] as const] : []),
    ]),
  );
  return masksTheirs(facts) ? `${maskedLine}\n${settings}` : settings;
}

/** What `tartan uninstall` does with the etcd of the cluster. @param freeTheirs undefined where init masked nothing */
export function planEtcdRemoval(
  files: readonly string[],
  removeData: () => Promise<void>,
  freeTheirs: (() => Promise<void>) | undefined,
): readonly SetupStep[] {
  return [
    runStep(['systemctl', '--quiet', 'disable', '--now', unit]),
    ...files.map(path => removeStep(path, 'tartan init')),
    call(`remove ${etcdData}`, 'a snapshot of etcd', removeData),
    ...(freeTheirs ? [call('systemctl unmask etcd.service, disabled', 'systemctl mask etcd.service', freeTheirs)] : []),
    runStep(['systemctl', 'daemon-reload']),
  ];
}

/** A network of this host, and where it is from. */
export interface OwnNetwork {
  readonly prefix: Prefix;
  /** `the route 10.0.0.0/8 on eth0`. */
  readonly text: string;
}

/** @throws TartanError CONFIG_INVALID that names the route or the address */
export function refuseOverlapping(network: Prefix, own: readonly OwnNetwork[]): void {
  const other = own.find(({ prefix }) => prefix.length > 0 && prefixesOverlap(prefix, network));
  if (other)
    throw new TartanError(
      'CONFIG_INVALID',
      `--network ${formatPrefix(network)} overlaps ${other.text} of this host: give a network that nothing here uses, such as 10.5.0.0/16`,
    );
}
