/**
 * A network that covers what carries it would cut the host off from its peers, its gateway or its own etcd: refused
 * before anything is changed.
 */
import { TartanError } from '../lib/errors.js';
import { formatIpv4, formatPrefix, prefixContains, prefixesOverlap, type Ipv4, type Prefix } from '../model/ipv4.js';

export interface Underlay {
  readonly interfaceName: string;
  /** Prefix of the address that peers send to. */
  readonly prefix: Prefix | undefined;
  readonly address: Ipv4;
  readonly publicIp: Ipv4;
  readonly gateway: Ipv4 | undefined;
  readonly etcdAddresses: readonly Ipv4[];
}

/** @throws TartanError CONFIG_INVALID */
export function refuseOwnUnderlay(network: Prefix, underlay: Underlay): void {
  const inside: readonly (readonly [string, Ipv4 | undefined])[] = [
    [`the address of ${underlay.interfaceName}`, underlay.address],
    ['the public address', underlay.publicIp],
    ['the default gateway', underlay.gateway],
    ...underlay.etcdAddresses.map(address => ['an etcd endpoint', address] as const),
  ];
  const range = formatPrefix(network);
  for (const [what, address] of inside) {
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
