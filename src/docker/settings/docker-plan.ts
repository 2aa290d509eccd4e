/**
 * The settings that Docker should have, from the daemon's status or, while the daemon cannot be asked, from the files
 * that it wrote last. docker0's part may be smaller than the lease; the rest is for networks of the operator.
 */
import { parsePrefix, type Prefix } from '../../model/ip.js';
import type { DockerShare } from '../docker.js';
import { combineFlags, parseDockerdFlags, readDaemonOptions, type DockerdOptions } from './dockerd-options.js';
import { readVariables } from './env-file.js';
import type { AddressPool, LeaseParts } from '../../model/lease-parts.js';
import {
  engineOptions,
  firstWithNetworkOptions,
  formatWords,
  parseSubnetEnv,
  poolOptions,
  readInterfaceAddress,
} from './settings.js';

export interface DockerPlan extends DockerShare, LeaseParts {
  readonly source: 'daemon' | 'files';
  readonly network: Prefix;
  /** This host's part of the network. */
  readonly lease: Prefix;
  /** The name of the overlay device. */
  readonly device: string;
  /** Subnets of the other hosts. */
  readonly peers: readonly { readonly subnet: Prefix; readonly name: string }[];
}

/**
 * Formats the options as dockerd's flags.
 * @param major of the engine; one that takes all of them when it is not known
 */
export function dockerFlags(plan: DockerPlan, major = firstWithNetworkOptions): readonly string[] {
  return [...engineOptions(plan, plan.mtu), ...poolOptions(plan.pools, plan.mtu, major)].flatMap(formatWords);
}

/** Returns the file that passes the settings to Docker. */
export function settingsFile({ config, envFile, daemonJsonFile }: DockerPlan): string {
  return config === 'env' ? envFile : daemonJsonFile;
}

/** Reads dockerd's flags from a `docker.env`. */
export function envOptions(text: string): DockerdOptions {
  return combineFlags(parseDockerdFlags((/^DOCKER_OPTS="(.*)"$/m.exec(text)?.[1] ?? '').split(' ')));
}

/** Reads address and MTU of docker0, and the pools; undefined unless both of docker0 are there. */
export function bridgeSettings(options: DockerdOptions): Pick<DockerPlan, 'bridge' | 'mtu' | 'pools'> | undefined {
  const bridge = readInterfaceAddress(options.get('bip') ?? '');
  const mtu = options.get('mtu') ?? '';
  const pools = (options.get('default-address-pools') ?? '').split(' ').flatMap(text => readPool(text) ?? []);
  return bridge && /^\d{2,5}$/.test(mtu) ? { bridge, mtu: Number(mtu), pools } : undefined;
}

function readPool(text: string): AddressPool | undefined {
  const [, base = '', size = ''] = /^base=([0-9.]+\/\d{1,2}),size=(\d{1,2})$/.exec(text) ?? [];
  const prefix = readInterfaceAddress(base);
  return prefix && { base: prefix, size: Number(size) };
}

export interface PlanTexts {
  readonly subnetEnv: string;
  /** Holds no flags where the settings are merged into daemon.json. */
  readonly dockerEnv: string;
  readonly daemonJson: string;
}

/**
 * Makes the plan from the files of a daemon that cannot be asked.
 * @returns undefined unless the files are complete
 */
export function planFromFiles(
  { subnetEnv, dockerEnv, daemonJson }: PlanTexts,
  rest: Pick<DockerPlan, 'envFile' | 'daemonJsonFile' | 'device'>,
): DockerPlan | undefined {
  const lease = parseSubnetEnv(subnetEnv);
  const variables = readVariables(subnetEnv);
  const network = readNetwork(variables.get('FLANNEL_NETWORK') ?? '');
  const flags = envOptions(dockerEnv);
  const config = flags.size > 0 ? 'env' : 'daemon-json';
  const settings = bridgeSettings(config === 'env' ? flags : fileOptions(daemonJson));
  if (!lease || !network || !settings) return undefined;
  const masquerade = variables.get('FLANNEL_IPMASQ') === 'true';
  return { source: 'files', network, lease, ...settings, masquerade, forward: true, config, peers: [], ...rest };
}

function fileOptions(text: string): DockerdOptions {
  try {
    return readDaemonOptions(text, '');
  } catch {
    return new Map();
  }
}

function readNetwork(text: string): Prefix | undefined {
  try {
    return parsePrefix(text);
  } catch {
    return undefined;
  }
}
