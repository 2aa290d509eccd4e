/**
 * The texts handed to Docker. `subnet.env` is byte for byte what flannel writes (flannel-compat section 3.1);
 * `docker.env` has the variables of flannel's mk-docker-opts.sh and of the Red Hat units. Both are read by shells:
 * only digits, dots, slashes, words and dashes ever stand in them.
 */
import { formatIpv4, formatPrefix, ipv4FromNumber, prefixAround, readIpv4, type Prefix } from '../model/ipv4.js';
import type { DockerSettings } from './docker.js';

export function formatSubnetEnv(settings: DockerSettings): string {
  return [
    `FLANNEL_NETWORK=${formatPrefix(settings.network)}`,
    `FLANNEL_SUBNET=${bridgeAddress(settings.subnet)}`,
    `FLANNEL_MTU=${settings.mtu}`,
    `FLANNEL_IPMASQ=${settings.ipMasquerade}`,
    '',
  ].join('\n');
}

export function formatDockerEnv(settings: DockerSettings): string {
  const bip = `--bip=${bridgeAddress(settings.subnet)}`;
  // Docker's own masquerade would hide the containers' addresses from each other: it is always off.
  const masquerade = '--ip-masq=false';
  const mtu = `--mtu=${settings.mtu}`;
  const all = ` ${bip} ${masquerade} ${mtu}`;
  return [
    `DOCKER_OPT_BIP="${bip}"`,
    `DOCKER_OPT_IPMASQ="${masquerade}"`,
    `DOCKER_OPT_MTU="${mtu}"`,
    `DOCKER_OPTS="${all}"`,
    `DOCKER_NETWORK_OPTIONS="${all}"`,
    '',
  ].join('\n');
}

/**
 * FLANNEL_SUBNET of a `subnet.env`, as base/length.
 * @returns undefined unless there is exactly one sound value
 */
export function parseSubnetEnv(text: string): Prefix | undefined {
  const line = /^(?:export )?FLANNEL_SUBNET=["']?([0-9.]+)\/(\d{1,2})["']?$/gm;
  const found = [...text.matchAll(line)];
  const address = readIpv4(found[0]?.[1] ?? '');
  const length = Number(found[0]?.[2]);
  if (found.length !== 1 || address === undefined || length < 1 || length > 31) return undefined;
  return prefixAround(address, length);
}

/** The bridge takes the first address of the subnet; its base is the tunnel's. */
function bridgeAddress(subnet: Prefix): string {
  return `${formatIpv4(ipv4FromNumber(subnet.base + 1))}/${subnet.length}`;
}
