/**
 * Formats the settings for Docker. `subnet.env` is byte for byte what flannel writes; `docker.env` has the variables of
 * flannel's mk-docker-opts.sh and of the Red Hat units. Shells read both: only digits, dots, slashes, words and dashes
 * ever stand in them, with commas in what names a pool.
 */
import { dirname, join } from 'node:path';
import { formatBridgeAddress, formatPrefix, prefixAround, readIpv4, type Prefix } from '../../model/ip.js';
import { acceptMark } from '../../model/plan.js';
import type { DockerSettings } from '../docker.js';
import type { DaemonJsonValue } from './daemon-json.js';
import { readVariables } from './env-file.js';
import { flagWords, optionText } from './dockerd-options.js';
import type { AddressPool, LeaseParts } from '../../model/lease-parts.js';

/** A setting of dockerd: `--key=value` on its command line, a member of daemon.json. */
export interface EngineOption {
  readonly key:
    | 'bip'
    | 'ip-masq'
    | 'mtu'
    | 'bridge-accept-fwmark'
    | 'allow-direct-routing'
    | 'default-address-pools'
    | 'default-network-opts';
  /** As daemon.json has it. */
  readonly value: DaemonJsonValue;
}

export function engineOptions({ bridge }: Pick<LeaseParts, 'bridge'>, mtu: number): readonly EngineOption[] {
  return [
    { key: 'bip', value: formatBridgeAddress(bridge) },
    // Docker's own masquerade is always off: it would hide the containers' addresses from each other.
    { key: 'ip-masq', value: false },
    { key: 'mtu', value: mtu },
  ];
}

/** The first releases of Docker that make networks where a route leads, and that give networks options by default. */
export const firstWithPools = 23;
export const firstWithNetworkOptions = 24;
export const mtuOption = 'com.docker.network.driver.mtu';

/**
 * The options by which the networks that Docker makes by itself are parts of the lease.
 * @param major of the engine
 */
export function poolOptions(pools: readonly AddressPool[], mtu: number, major: number): readonly EngineOption[] {
  if (pools.length === 0 || major < firstWithPools) return [];
  const bases = pools.map(({ base, size }) => ({ base: formatPrefix(base), size }));
  return [
    { key: 'default-address-pools', value: bases },
    ...(major < firstWithNetworkOptions
      ? []
      : [{ key: 'default-network-opts', value: { bridge: { [mtuOption]: String(mtu) } } } as const]),
  ];
}

const hexMark = `0x${acceptMark.toString(16)}`;

/**
 * The options that Docker's nftables backend needs besides: an `accept` of our table does not outweigh its drops.
 * Engines before 29 do not start with them.
 */
export const nftablesOptions: readonly EngineOption[] = [
  { key: 'bridge-accept-fwmark', value: `${hexMark}/${hexMark}` },
  { key: 'allow-direct-routing', value: true },
];

/** All that flannel writes to its file, whatever this network has of it. */
export const subnetVariables = [
  'FLANNEL_NETWORK',
  'FLANNEL_SUBNET',
  'FLANNEL_IPV6_NETWORK',
  'FLANNEL_IPV6_SUBNET',
  'FLANNEL_MTU',
  'FLANNEL_IPMASQ',
];

export function formatSubnetEnv(settings: DockerSettings): string {
  return [
    `FLANNEL_NETWORK=${formatPrefix(settings.network)}`,
    `FLANNEL_SUBNET=${formatBridgeAddress(settings.subnet)}`,
    `FLANNEL_MTU=${settings.mtu}`,
    `FLANNEL_IPMASQ=${settings.ipMasquerade}`,
    '',
  ].join('\n');
}

const optionVariables = [
  ['DOCKER_OPT_BIP', 'bip'],
  ['DOCKER_OPT_IPMASQ', 'ip-masq'],
  ['DOCKER_OPT_MTU', 'mtu'],
] as const;

export const dockerVariables = [...optionVariables.map(([name]) => name), 'DOCKER_OPTS', 'DOCKER_NETWORK_OPTIONS'];

/** Formats `docker.env`. Without options every variable is empty: units that insist on the file still start Docker. */
export function formatDockerEnv(options: readonly EngineOption[]): string {
  const words = new Map(options.map(option => [option.key, formatWords(option).join(' ')]));
  const all = options
    .flatMap(formatWords)
    .map(word => ` ${word}`)
    .join('');
  return [
    ...optionVariables.map(([name, key]) => `${name}="${words.get(key) ?? ''}"`),
    `DOCKER_OPTS="${all}"`,
    `DOCKER_NETWORK_OPTIONS="${all}"`,
    '',
  ].join('\n');
}

/**
 * The copy of `docker.env` that Docker's gate (the drop-in of its unit) makes beside it for dockerd, at each start of Docker.
 * @param envFile the `docker.env`
 */
export function gateFile(envFile: string): string {
  return join(dirname(envFile), 'docker-gate.env');
}

/** Formats an option for a command line. */
export function formatWords({ key, value }: EngineOption): readonly string[] {
  return value === true ? [`--${key}`] : flagWords(key, optionText(key, value));
}

/**
 * Reads FLANNEL_SUBNET of a `subnet.env` as base and length, as flannel does: of a list one entry must be sound.
 * @returns undefined unless there is exactly one sound value
 */
export function parseSubnetEnv(text: string): Prefix | undefined {
  const value = readVariables(text).get('FLANNEL_SUBNET') ?? '';
  const found = value
    .split(',')
    .flatMap(entry => readInterfaceAddress(entry.trim()) ?? [])
    .filter(({ length }) => length >= 1 && length <= 31);
  return found.length === 1 ? found[0] : undefined;
}

/** Reads an address with its prefix length as the prefix around it; undefined for anything else. */
export function readInterfaceAddress(text: string): Prefix | undefined {
  const [, host = '', length = ''] = /^([0-9.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const address = readIpv4(host);
  return address === undefined || Number(length) > 32 ? undefined : prefixAround(address, Number(length));
}
