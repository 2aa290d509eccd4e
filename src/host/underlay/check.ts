/**
 * The underlay of this host, and the check of a network against it. A network that contains an address of the underlay
 * would cut the host off from its peers, its gateway or its own etcd. It is refused before anything is changed.
 */
import { TartanError } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import {
  formatIpv4,
  formatPrefix,
  prefixContains,
  prefixesOverlap,
  readIpv4,
  type Ipv4,
  type Prefix,
} from '../../model/ip.js';
import type { UnderlayAddress } from '../../model/node.js';
import type { HostNetwork, Underlay } from '../host.js';
import { chooseUnderlay, type UnderlayChoice, type UnderlayOptions } from './choose.js';

export interface UnderlayFacts {
  readonly interfaceName: string;
  /** The prefix of `address`. */
  readonly prefix: Prefix | undefined;
  readonly address: Ipv4;
  readonly publicIp: Ipv4;
  readonly gateway: Ipv4 | undefined;
  readonly etcdAddresses: readonly Ipv4[];
}

export function openUnderlay(
  host: HostNetwork,
  options: UnderlayOptions & { readonly etcd: { readonly endpoints: readonly string[] } },
  log: Log,
): Underlay {
  /** The facts of the last choice, whether the agent used it or not. */
  let facts: UnderlayFacts | undefined;
  return {
    async choose(): Promise<UnderlayAddress> {
      const chosen = await chooseUnderlay(host, options);
      const { publicIp, name, address, mtu, reason } = chosen;
      if (!facts) log.info('interface.chosen', `${name}: ${reason}`, { name, mtu });
      facts = await readFacts(host, chosen, options.etcd.endpoints);
      return { publicIp, interface: { name, address, mtu } };
    },
    check(network) {
      if (facts) refuseOwnUnderlay(network, facts);
    },
  };
}

async function readFacts(
  host: HostNetwork,
  chosen: UnderlayChoice,
  endpoints: readonly string[],
): Promise<UnderlayFacts> {
  // A default route with several next hops is an error, which does not matter when an option named the interface.
  const route = await host.defaultRoute().catch(() => undefined);
  const link = (await host.interfaces()).find(({ name }) => name === chosen.name);
  return {
    interfaceName: chosen.name,
    prefix: link?.addresses.find(({ address }) => address === chosen.address)?.prefix,
    address: chosen.address,
    publicIp: chosen.publicIp,
    gateway: route?.gateway,
    etcdAddresses: endpoints.map(endpointAddress).filter(address => address !== undefined),
  };
}

function endpointAddress(endpoint: string): Ipv4 | undefined {
  return readIpv4(new URL(endpoint).hostname);
}

/** @throws TartanError CONFIG_INVALID */
export function refuseOwnUnderlay(network: Prefix, underlay: UnderlayFacts): void {
  const outerAddresses: readonly (readonly [string, Ipv4 | undefined])[] = [
    [`the address of ${underlay.interfaceName}`, underlay.address],
    ['the public address', underlay.publicIp],
    ['the default gateway', underlay.gateway],
    ...underlay.etcdAddresses.map(address => ['an etcd endpoint', address] as const),
  ];
  const range = formatPrefix(network);
  for (const [what, address] of outerAddresses) {
    if (address !== undefined && prefixContains(network, address)) {
      throw new TartanError(
        'CONFIG_INVALID',
        `network document: Network ${range} contains ${formatIpv4(address)}, ${what}: choose a range that no host's underlay uses`,
      );
    }
  }
  if (underlay.prefix && prefixesOverlap(network, underlay.prefix)) {
    throw new TartanError(
      'CONFIG_INVALID',
      `network document: Network ${range} overlaps ${formatPrefix(underlay.prefix)} of ${underlay.interfaceName}: choose a range that no host's underlay uses`,
    );
  }
}
