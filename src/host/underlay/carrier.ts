/**
 * The MTU of the path to the peers. It is the one of the link that has the underlay address, except where packets leave
 * by other links: an address of /32 on lo or on a dummy, with routed uplinks.
 */
import { parseIpv4, type Ipv4 } from '../../model/ip.js';
import type { HostInterface, HostNetwork, PeerAddresses } from '../host.js';

/** Stands for any peer while none is known (RFC 5737: nobody has it, so the default route leads there). */
const anywhere = parseIpv4('198.51.100.1');
/** Of many peers some are asked for: hosts of one cluster are reached by few links. */
const peersAsked = 8;

/**
 * @param links all links of the host
 * @param link the one that has the address
 * @param peers addresses of peers, as far as they are known
 * @returns the smallest MTU of the links by which they are reached
 */
export async function carrierMtu(
  host: Pick<HostNetwork, 'routeTo'>,
  links: readonly HostInterface[],
  link: HostInterface,
  address: Ipv4,
  peers: PeerAddresses,
): Promise<number> {
  const isRouted = hasOnlyRoutes(link, address);
  const targets = peers.length > 0 ? spread(peers) : isRouted ? [anywhere] : [];
  const routes = await Promise.all(targets.map(target => host.routeTo(target).catch(() => undefined)));
  const names = new Set(routes.flatMap(route => route?.interfaceName ?? []));
  const carriers = links.filter(other => names.has(other.name) && !isLoopback(other) && other.mtu > 0);
  const own = isRouted && carriers.length > 0 ? [] : [link];
  return Math.min(...[...own, ...carriers].map(({ mtu }) => mtu));
}

/** Nobody is a neighbour of an address of /32. */
function hasOnlyRoutes(link: HostInterface, address: Ipv4): boolean {
  const found = link.addresses.find(one => one.address === address);
  return isLoopback(link) || found?.prefix.length === 32;
}

function isLoopback({ name }: HostInterface): boolean {
  return name === 'lo';
}

/** Looks at no more peers than it returns. */
function spread(peers: PeerAddresses): readonly Ipv4[] {
  const step = Math.max(1, Math.ceil(peers.length / peersAsked));
  const count = Math.ceil(peers.length / step);
  return Array.from({ length: count }, (_, at) => peers[at * step]?.publicIp ?? anywhere);
}
