/**
 * Formats the settings for Docker. `subnet.env` is byte for byte what flannel writes; `docker.env` has the variables of
 * flannel's mk-docker-opts.sh and of the Red Hat units. Shells read both: only digits, dots, slashes, words and dashes
 * ever stand in them.
 */
import { dirname, join } from 'node:path';
import { TartanError } from '../../lib/errors.js';
import { formatBridgeAddress, formatPrefix, prefixAround, readIpv4, type Prefix } from '../../model/ip.js';
import { acceptMark } from '../../model/plan.js';
import type { DockerSettings } from '../docker.js';
import { readVariables } from './env-file.js';

/** A setting of dockerd: `--key=value` on its command line, a member of daemon.json. */
export interface EngineOption {
  readonly key: 'bip' | 'ip-masq' | 'mtu' | 'bridge-accept-fwmark' | 'allow-direct-routing';
  readonly value: string | number | boolean;
}

/**
 * @param bridgeLength of docker0's part of the subnet; 0 for the whole
 * @throws TartanError CONFIG_INVALID for a part that is not smaller than the subnet
 */
export function engineOptions(
  { subnet, mtu }: Pick<DockerSettings, 'subnet' | 'mtu'>,
  bridgeLength = 0,
): readonly EngineOption[] {
  if (bridgeLength !== 0 && (bridgeLength <= subnet.length || bridgeLength > 30))
    throw new TartanError(
      'CONFIG_INVALID',
      `--docker-subnet-len ${bridgeLength} is no part of the leased ${formatPrefix(subnet)}: give 0 for the whole, ` +
        `or a length from ${subnet.length + 1} to 30`,
    );
  return [
    { key: 'bip', value: formatBridgeAddress({ base: subnet.base, length: bridgeLength || subnet.length }) },
    // Docker's own masquerade is always off: it would hide the containers' addresses from each other.
    { key: 'ip-masq', value: false },
    { key: 'mtu', value: mtu },
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
  const words = new Map(options.map(option => [option.key, formatWord(option)]));
  const all = options.map(option => ` ${formatWord(option)}`).join('');
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
export function formatWord({ key, value }: EngineOption): string {
  return value === true ? `--${key}` : `--${key}=${value}`;
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
