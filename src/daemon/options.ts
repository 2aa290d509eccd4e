/**
 * Parses flags, then TARTAN_* and FLANNELD_* variables, then defaults into one read-only record of the daemon's
 * options. A value that cannot be used is a USAGE error that names its place; a secret never appears in an error, in a
 * note or in `describeOptions`.
 */
import { isIP } from 'node:net';
import { parseListenAddress, requireProtection } from '../admin/listen-place.js';
import type { StatusListenPlace } from '../admin/status-listener.js';
import type { DockerFileOptions } from '../docker/settings/docker-files.js';
import { messageOf, TartanError } from '../lib/errors.js';
import type { LogLevel } from '../lib/log.js';
import { logFormats, type WantedLogFormat } from '../lib/log-output.js';
import { formatIpv4, isUnicastHost, readIpv4, shown, type Ipv4 } from '../model/ip.js';
import { nodeIdPattern } from '../model/node.js';
import type { EngineChoice } from '../model/plan.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { parseEtcdOptions, type ParsedEtcdOptions } from '../cli/etcd-options.js';
import { findFlag, flags, type Flag, type FlagName } from '../cli/flags.js';
import {
  parseCommandLine,
  readGoBoolean,
  readGoInteger,
  withEnvironment,
  type Environment,
  type GivenFlags,
} from '../cli/flag-syntax.js';
import { describeOddity } from '../cli/odd-text.js';
import { resolvePath } from '../cli/paths.js';
import { NamePattern } from './name-pattern.js';
import { daemonUsage } from './usage.js';
import { version } from '../cli/version.js';

export interface DaemonOptions {
  readonly etcd: EtcdOptions;
  /** undefined where the password itself was given, or none. */
  readonly etcdPasswordFile?: string;
  /** Names or IPv4 addresses, in order of preference. */
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly NamePattern[];
  readonly ifaceCanReach?: Ipv4;
  readonly publicIp?: Ipv4;
  readonly subnetFile: string;
  readonly dockerEnvFile: string;
  readonly docker: DockerFileOptions['docker'];
  readonly ipMasquerade: 'off' | 'on' | 'not-fully-random';
  readonly forwardRules: boolean;
  readonly resyncSeconds: number;
  readonly healthz?: { readonly ip: string; readonly port: number };
  /** Offered on the health listener. */
  readonly metrics?: { readonly peers: number };
  /** Where the status is offered beside the local socket. */
  readonly statusListen?: StatusListenPlace;
  readonly runDir: string;
  readonly stateDir: string;
  readonly nodeId?: string;
  readonly leaseTtlSeconds: number;
  readonly peerHoldSeconds: number;
  readonly onLost: 'exit' | 'degraded';
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
  readonly engine: EngineChoice;
  readonly reuseQuarantined: boolean;
  readonly logLevel: LogLevel;
  readonly logFormat: WantedLogFormat;
  /** Values that were accepted and have no effect, or deserve a remark: one line each, for the log. */
  readonly notes: readonly string[];
}

export type DaemonInvocation =
  | { readonly kind: 'run'; readonly options: DaemonOptions }
  /** The caller prints `text` on standard output and exits with 0. */
  | { readonly kind: 'help' | 'version'; readonly text: string };

/**
 * @param argv the words after the program's name
 * @throws TartanError USAGE; CONFIG_INVALID for a file given by a flag that cannot be read
 */
export function parseDaemonOptions(argv: readonly string[], env: Environment): DaemonInvocation {
  const line = parseCommandLine(argv);
  if (line.kind === 'help') return { kind: 'help', text: daemonUsage() };
  if (new FlagValues(line.given).boolean('version')) return { kind: 'version', text: `tartand ${version}\n` };
  return { kind: 'run', options: readOptions(new FlagValues(withEnvironment(line.given, env))) };
}

/** Returns the options for the start-up log and a config dump, without secrets. */
export function describeOptions(options: DaemonOptions): Readonly<Record<string, unknown>> {
  const { etcd, ifaceRegex, ifaceCanReach, publicIp, notes: _, ...plain } = options;
  const { password, ...openEtcd } = etcd;
  return {
    ...plain,
    etcd: { ...openEtcd, ...(password === undefined ? {} : { password: '(set)' }) },
    ifaceRegex: ifaceRegex.map(regex => regex.source),
    ...(ifaceCanReach === undefined ? {} : { ifaceCanReach: formatIpv4(ifaceCanReach) }),
    ...(publicIp === undefined ? {} : { publicIp: formatIpv4(publicIp) }),
  };
}

function readOptions(values: FlagValues): DaemonOptions {
  const reviewed = values.review();
  const etcd = readEtcd(values);
  const runDir = values.path('run-dir') ?? '/run/tartan';
  const ifaceCanReach = values.ipv4('iface-can-reach');
  const publicIp = readPublicIp(values);
  const healthz = readHealthz(values);
  const metrics = readMetrics(values, healthz);
  const statusListen = readStatusListen(values);
  const nodeId = readNodeId(values);
  const etcdPasswordFile = values.path('etcd-password-file');
  return {
    etcd: etcd.options,
    ...(etcdPasswordFile === undefined ? {} : { etcdPasswordFile }),
    iface: readInterfaces(values),
    ifaceRegex: values.list('iface-regex').map(text => readRegex(values, text)),
    ...(ifaceCanReach === undefined ? {} : { ifaceCanReach }),
    ...(publicIp === undefined ? {} : { publicIp }),
    subnetFile: values.path('subnet-file') ?? '/run/flannel/subnet.env',
    dockerEnvFile: values.path('docker-env-file') ?? `${runDir}/docker.env`,
    docker: readDocker(values),
    ipMasquerade: readMasquerade(values),
    forwardRules: values.boolean('iptables-forward-rules'),
    resyncSeconds: values.integer('iptables-resync'),
    ...(healthz === undefined ? {} : { healthz }),
    ...(metrics === undefined ? {} : { metrics }),
    ...(statusListen === undefined ? {} : { statusListen }),
    runDir,
    stateDir: values.path('state-dir') ?? '/var/lib/tartan',
    ...(nodeId === undefined ? {} : { nodeId }),
    leaseTtlSeconds: values.integer('lease-ttl'),
    peerHoldSeconds: values.integer('peer-hold-down'),
    onLost: readOnLost(values),
    checkSource: !values.boolean('no-source-check'),
    checkDestination: !values.boolean('no-destination-check'),
    engine: readEngine(values),
    reuseQuarantined: values.boolean('reuse-quarantined'),
    logLevel: readLogLevel(values),
    logFormat: readLogFormat(values),
    notes: [...reviewed, ...etcd.notes],
  };
}

function readEtcd(values: FlagValues): ParsedEtcdOptions {
  const passwordFile = values.path('etcd-password-file');
  const reading = parseEtcdOptions({
    endpoints: { text: values.text('etcd-endpoints'), source: values.source('etcd-endpoints') },
    prefix: { text: values.text('etcd-prefix'), source: values.source('etcd-prefix') },
    caFile: values.path('etcd-cafile'),
    certFile: values.path('etcd-certfile'),
    keyFile: values.path('etcd-keyfile'),
    username: values.text('etcd-username'),
    password: values.text('etcd-password'),
    passwordFile:
      passwordFile === undefined ? undefined : { text: passwordFile, source: values.source('etcd-password-file') },
    insecureEtcd: values.boolean('insecure-etcd'),
  });
  if (values.source('etcd-password') !== '--etcd-password' || !values.given('etcd-password')) return reading;
  const note = 'every user of this host can read --etcd-password in the process list: use --etcd-password-file';
  return { ...reading, notes: [...reading.notes, note] };
}

function readInterfaces(values: FlagValues): readonly string[] {
  const names = values.list('iface');
  const bad = names.find(name => !/^[\x21-\x7e]{1,64}$/.test(name));
  if (bad !== undefined) throw values.refusal('iface', bad, 'the name or the IPv4 address of an interface');
  return names;
}

const longestPattern = 1024;

function readRegex(values: FlagValues, text: string): NamePattern {
  const expected = "a regular expression in Go's syntax (RE2), such as ^eth[0-9]+$";
  if (text.length > longestPattern)
    throw values.refusal('iface-regex', text, `${expected}, of at most ${longestPattern} characters`);
  try {
    return new NamePattern(text);
  } catch (error) {
    throw values.refusal(
      'iface-regex',
      text,
      `${expected}; ${shown(messageOf(error).replace(/^error parsing regexp: /, ''))}`,
    );
  }
}

function readPublicIp(values: FlagValues): Ipv4 | undefined {
  const address = values.ipv4('public-ip');
  if (address !== undefined && !isUnicastHost(address))
    throw values.refusal('public-ip', values.text('public-ip'), 'a unicast address that a host can have');
  return address;
}

const hostName = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/;
/** Go listens on all addresses where the text is empty, and prefers IPv4 for a name. */
const healthzAliases: ReadonlyMap<string, string> = new Map([
  ['', '0.0.0.0'],
  ['localhost', '127.0.0.1'],
]);

function readHealthz(values: FlagValues): DaemonOptions['healthz'] {
  const port = values.integer('healthz-port');
  const ip = values.text('healthz-ip');
  // What is all digits and dots and no address is a typing error, not a name.
  if (ip !== '' && isIP(ip) === 0 && (!hostName.test(ip) || /^[0-9.]+$/.test(ip)))
    throw values.refusal('healthz-ip', ip, 'an IP address such as 127.0.0.1, a name of this host, or nothing for all');
  return port > 0 ? { ip: healthzAliases.get(ip) ?? ip, port } : undefined;
}

function readMetrics(values: FlagValues, healthz: DaemonOptions['healthz']): DaemonOptions['metrics'] {
  if (!values.boolean('metrics')) return undefined;
  if (!healthz)
    throw new TartanError(
      'USAGE',
      `${values.source('metrics')} is a path of the health listener, which is off: give --healthz-port, 8470 for example`,
    );
  return { peers: values.integer('metrics-peers') };
}

function readStatusListen(values: FlagValues): DaemonOptions['statusListen'] {
  const text = values.text('status-listen');
  const tokenFile = values.path('status-token-file');
  const [certFile, keyFile] = [values.path('status-tls-cert'), values.path('status-tls-key')];
  if (text === '') return undefined;
  const [cert, key] = [values.source('status-tls-cert'), values.source('status-tls-key')];
  if ((certFile === undefined) !== (keyFile === undefined))
    throw new TartanError('USAGE', `${cert} and ${key} belong together, and one is missing`);
  const address = parseListenAddress(text, values.source('status-listen'));
  const given = { token: tokenFile !== undefined, tls: certFile !== undefined };
  const sources = {
    listen: values.source('status-listen'),
    token: values.source('status-token-file'),
    tls: `${cert} with ${key}`,
  };
  requireProtection(address, given, sources);
  return {
    address,
    ...(tokenFile === undefined ? {} : { tokenFile }),
    ...(certFile === undefined || keyFile === undefined ? {} : { tls: { certFile, keyFile } }),
  };
}

function readNodeId(values: FlagValues): string | undefined {
  const id = values.text('node-id');
  if (id === '') return undefined;
  if (!nodeIdPattern.test(id)) throw values.refusal('node-id', id, 'up to 128 letters, digits, dots, _ or -');
  return id;
}

function readDocker(values: FlagValues): DaemonOptions['docker'] {
  const config = values.text('docker-config');
  if (config !== 'env' && config !== 'daemon-json') throw values.refusal('docker-config', config, 'env or daemon-json');
  const firewall = values.text('docker-firewall');
  if (firewall !== 'auto' && firewall !== 'iptables' && firewall !== 'nftables')
    throw values.refusal('docker-firewall', firewall, 'auto, iptables or nftables');
  return {
    config,
    daemonJsonFile: values.path('docker-daemon-json') ?? '/etc/docker/daemon.json',
    subnetLength: values.integer('docker-subnet-len'),
    pools: values.boolean('docker-pools'),
    firewall,
  };
}

function readMasquerade(values: FlagValues): DaemonOptions['ipMasquerade'] {
  const disableRandom = values.boolean('ip-masq-fully-random-disable');
  if (!values.boolean('ip-masq')) return 'off';
  return disableRandom ? 'not-fully-random' : 'on';
}

function readOnLost(values: FlagValues): DaemonOptions['onLost'] {
  const text = values.text('on-lost');
  if (text !== 'exit' && text !== 'degraded') throw values.refusal('on-lost', text, 'exit or degraded');
  return text;
}

function readEngine(values: FlagValues): EngineChoice {
  const text = values.text('engine');
  if (text !== 'user' && text !== 'kernel' && text !== 'auto')
    throw values.refusal('engine', text, 'user, kernel or auto');
  return text;
}

const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

function readLogLevel(values: FlagValues): LogLevel {
  const text = values.text('log-level');
  const level = logLevels.find(name => name === text);
  if (level === undefined) throw values.refusal('log-level', text, 'debug, info, warn or error');
  // A level given by name wins over flannel's number.
  return !values.given('log-level') && values.integer('v') >= 1 ? 'debug' : level;
}

function readLogFormat(values: FlagValues): WantedLogFormat {
  const text = values.text('log-format');
  const format = logFormats.find(name => name === text);
  if (format === undefined) throw values.refusal('log-format', text, 'auto, json, text or journal');
  return format;
}

/**
 * Gives typed access to the values of the flags: each getter parses one kind of value and its error names the flag or
 * the variable that the text came from. The text of a secret is never part of an error.
 */
class FlagValues {
  readonly #given: GivenFlags;

  constructor(given: GivenFlags) {
    this.#given = given;
  }

  given(name: FlagName): boolean {
    return this.#given.has(name);
  }

  /** Returns `--name` or `environment variable NAME`, for a message. */
  source(name: FlagName): string {
    return this.#given.get(name)?.source ?? `--${name}`;
  }

  /** Returns the text as given, or the default; '' where neither exists. */
  text(name: FlagName): string {
    return this.#given.get(name)?.texts.at(-1) ?? flagOf(name).fallback;
  }

  /** Leaves out empty texts: `--iface=` means the default to flannel. */
  list(name: FlagName): readonly string[] {
    return (this.#given.get(name)?.texts ?? []).filter(text => text !== '');
  }

  boolean(name: FlagName): boolean {
    const text = this.text(name);
    const value = readGoBoolean(text);
    if (value === undefined) throw this.refusal(name, text, 'true or false');
    return value;
  }

  integer(name: FlagName): number {
    const text = this.text(name);
    const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = flagOf(name);
    const value = readGoInteger(text);
    if (value === undefined || value < min || value > max)
      throw this.refusal(name, text, `a whole number from ${min} to ${max}`);
    return value;
  }

  /** @returns undefined when empty and without a default: unit files write `--etcd-cafile=${CA}` with CA unset */
  path(name: FlagName): string | undefined {
    const text = this.text(name);
    if (text === '' && flagOf(name).fallback === '') return undefined;
    const path = resolvePath(text);
    if (path === undefined) throw this.refusal(name, text, 'a path such as /run/tartan');
    return path;
  }

  ipv4(name: FlagName): Ipv4 | undefined {
    const text = this.text(name);
    if (text === '') return undefined;
    const address = readIpv4(text);
    if (address === undefined) throw this.refusal(name, text, 'an IPv4 address such as 192.0.2.1');
    return address;
  }

  refusal(name: FlagName, text: string, expected: string): TartanError {
    const value = flagOf(name).kind === 'secret' ? 'the value' : text === '' ? 'an empty value' : `'${shown(text)}'`;
    const oddity = describeOddity(text);
    const cause = oddity === undefined || flagOf(name).kind === 'secret' ? '' : ` (${oddity})`;
    return new TartanError('USAGE', `${this.source(name)}: ${value} is not usable${cause}, expected ${expected}`);
  }

  /**
   * Parses every given value, used or not, so that a bad value is never silently dropped; refuses what this version
   * cannot do.
   * @returns a note for each flag that has no effect
   */
  review(): readonly string[] {
    const notes: string[] = [];
    for (const flag of flags) {
      if (!this.given(flag.name)) continue;
      if (flag.kind === 'boolean') this.boolean(flag.name);
      if (flag.kind === 'integer') this.integer(flag.name);
      if (flag.disposition.kind === 'harmless')
        notes.push(`${this.source(flag.name)} has no effect: ${flag.disposition.why}`);
      if (flag.disposition.kind === 'later' && this.#asksForSomething(flag))
        throw new TartanError('USAGE', `${this.source(flag.name)} is not supported: ${flag.disposition.missing}`);
    }
    return notes;
  }

  #asksForSomething(flag: Flag & { readonly name: FlagName }): boolean {
    return flag.kind === 'boolean' ? this.boolean(flag.name) : this.text(flag.name) !== '';
  }
}

function flagOf(name: FlagName): Flag {
  const flag = findFlag(name);
  if (!flag) throw new TartanError('INVARIANT', `flag ${name} is not in the table`);
  return flag;
}
