/**
 * What Docker should have: by what the daemon says of itself or, while it is away, by the files that it wrote last.
 * Docker0's part may be smaller than the lease; the rest is for networks of the operator's.
 */
import { formatIpv4, ipv4FromNumber, parsePrefix, prefixAround, readIpv4, type Prefix } from '../model/ipv4.js';
import { parseSubnetEnv } from './settings.js';

export interface DockerPlan {
  readonly source: 'daemon' | 'files';
  readonly network: Prefix;
  /** This host's part of the network. */
  readonly lease: Prefix;
  /** Docker0's part of the lease; the bridge has its first address. */
  readonly bridge: Prefix;
  /** Bytes of the largest packet that a container may send. */
  readonly mtu: number;
  /** Whether tartan masquerades what leaves the overlay; Docker never does. */
  readonly masquerade: boolean;
  /** Whether tartan accepts forwarded packets of the overlay. */
  readonly forward: boolean;
  /** Where Docker's unit finds its flags. */
  readonly envFile: string;
  /** The overlay device. */
  readonly device: string;
  /** Subnets of the other hosts. */
  readonly peers: readonly { readonly subnet: Prefix; readonly name: string }[];
}

/** `10.5.1.1/24`, as --bip takes it. */
export function formatBridgeAddress(bridge: Prefix): string {
  return `${formatIpv4(ipv4FromNumber(bridge.base + 1))}/${bridge.length}`;
}

/** dockerd's flags. */
export function dockerFlags(plan: DockerPlan): readonly string[] {
  return [`--bip=${formatBridgeAddress(plan.bridge)}`, '--ip-masq=false', `--mtu=${plan.mtu}`];
}

/** An address with the length of its prefix, as the prefix around it; undefined for anything else. */
export function readInterfaceAddress(text: string): Prefix | undefined {
  const [, host = '', length = ''] = /^([0-9.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const address = readIpv4(host);
  return address === undefined || Number(length) > 32 ? undefined : prefixAround(address, Number(length));
}

export interface HandedOver {
  readonly bridge: Prefix;
  readonly mtu: number;
}

/** dockerd's flags in a `docker.env`. */
export function envWords(text: string): readonly string[] {
  return (/^DOCKER_OPTS="(.*)"$/m.exec(text)?.[1] ?? '').split(' ').filter(word => word !== '');
}

/** What a `docker.env` hands over; undefined unless it is whole. */
export function parseDockerEnv(text: string): HandedOver | undefined {
  const words = envWords(text);
  const value = (flag: string): string =>
    words.find(word => word.startsWith(`--${flag}=`))?.slice(flag.length + 3) ?? '';
  const bridge = readInterfaceAddress(value('bip'));
  return bridge && /^\d{2,5}$/.test(value('mtu')) ? { bridge, mtu: Number(value('mtu')) } : undefined;
}

type FromElsewhere = Pick<DockerPlan, 'envFile' | 'device'>;

/**
 * The plan by the files of a daemon that cannot be asked.
 * @returns undefined unless both are whole
 */
export function planFromFiles(subnetEnv: string, dockerEnv: string, rest: FromElsewhere): DockerPlan | undefined {
  const lease = parseSubnetEnv(subnetEnv);
  const network = readNetwork(/^FLANNEL_NETWORK=["']?([0-9./]+)["']?$/m.exec(subnetEnv)?.[1] ?? '');
  const told = parseDockerEnv(dockerEnv);
  if (!lease || !network || !told) return undefined;
  const masquerade = /^FLANNEL_IPMASQ=["']?true["']?$/m.test(subnetEnv);
  return { source: 'files', network, lease, ...told, masquerade, forward: true, peers: [], ...rest };
}

function readNetwork(text: string): Prefix | undefined {
  try {
    return parsePrefix(text);
  } catch {
    return undefined;
  }
}
