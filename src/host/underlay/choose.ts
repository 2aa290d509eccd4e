/**
 * Chooses the interface that carries the tunnel, in flannel's order: each --iface, each --iface-regex (addresses first,
 * then names), --iface-can-reach. Without these options --public-ip is used like an --iface, and without that the
 * default route. The error lists what was tried and which interfaces exist.
 */
import { messageOf, TartanError } from '../../lib/errors.js';
import { formatIpv4, isLinkLocal, isUnicastHost, readIpv4, type Ipv4 } from '../../model/ip.js';
import type { HostAddress, HostInterface, HostNetwork } from '../host.js';
import { carrierMtu } from './carrier.js';

/** A regular expression of any syntax. */
export interface Pattern {
  readonly source: string;
  test(text: string): boolean;
}

export interface UnderlayOptions {
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly Pattern[];
  readonly ifaceCanReach?: Ipv4;
  readonly publicIp?: Ipv4;
}

export interface UnderlayChoice {
  readonly name: string;
  /** The source of the outer packets. */
  readonly address: Ipv4;
  readonly mtu: number;
  /** The address that peers send to: --public-ip, or `address`. */
  readonly publicIp: Ipv4;
  /** `--iface eth1`, `default route` ... */
  readonly reason: string;
  /** Other addresses of the link that could be meant as well. */
  readonly rivals: readonly string[];
}

/** What a candidate finds, or for people why it finds nothing. */
type Found = { readonly link: HostInterface; readonly address: Ipv4 } | { readonly why: string };

interface Candidate {
  readonly reason: string;
  readonly find: () => Promise<Found> | Found;
}

type HostReader = Pick<HostNetwork, 'interfaces' | 'routeTo' | 'defaultRoute'>;

/** @throws TartanError HOST_REFUSED that lists what was tried and which interfaces exist */
export async function chooseUnderlay(host: HostReader, choice: UnderlayOptions): Promise<UnderlayChoice> {
  const links = await host.interfaces();
  const tried: string[] = [];
  for (const { reason, find } of candidates(host, links, choice)) {
    const found = await Promise.resolve()
      .then(find)
      .catch((error: unknown): Found => ({ why: messageOf(error) }));
    const why = 'why' in found ? found.why : whyUnusable(found.link, found.address, choice.publicIp);
    if (why !== undefined || 'why' in found) {
      tried.push(`${reason}: ${why}`);
      continue;
    }
    const { link, address } = found;
    const mtu = await carrierMtu(host, links, link, address, []);
    const rivals = rivalsOf(link, address).map(formatIpv4);
    return { name: link.name, address, mtu, publicIp: choice.publicIp ?? address, reason, rivals };
  }
  throw new TartanError(
    'HOST_REFUSED',
    `no interface for the tunnel: ${tried.join('; ')}. There is ${links.map(describe).join(', ') || 'none'}: ` +
      'name one with --iface',
  );
}

function candidates(host: HostReader, links: readonly HostInterface[], choice: UnderlayOptions): Candidate[] {
  const { iface, ifaceRegex, ifaceCanReach, publicIp } = choice;
  const named = [
    ...iface.map(value => ({ reason: `--iface ${value}`, find: () => byValue(links, value) })),
    ...ifaceRegex.map(regex => ({ reason: `--iface-regex ${regex.source}`, find: () => byRegex(links, regex) })),
    ...(ifaceCanReach === undefined
      ? []
      : [
          {
            reason: `--iface-can-reach ${formatIpv4(ifaceCanReach)}`,
            find: () => byRoute(host, links, ifaceCanReach),
          },
        ]),
  ];
  if (named.length > 0) return named;
  if (publicIp === undefined) return [{ reason: 'default route', find: () => byDefaultRoute(host, links) }];
  return [{ reason: `--public-ip ${formatIpv4(publicIp)}`, find: () => byPublicIp(links, publicIp) }];
}

function byValue(links: readonly HostInterface[], value: string): Found {
  const address = readIpv4(value);
  if (address !== undefined) return byAddress(links, address);
  const link = links.find(({ name }) => name === value);
  return link ? withFirstAddress(link) : { why: 'no such interface' };
}

function byAddress(links: readonly HostInterface[], address: Ipv4): Found {
  const link = links.find(({ addresses }) => addresses.some(found => found.address === address));
  return link ? { link, address } : { why: 'no interface has this address' };
}

function byPublicIp(links: readonly HostInterface[], publicIp: Ipv4): Found {
  const found = byAddress(links, publicIp);
  return 'why' in found ? { why: `${found.why}; behind NAT give --iface too` } : found;
}

function byRegex(links: readonly HostInterface[], regex: Pattern): Found {
  const ordered = [...links].sort((a, b) => a.index - b.index);
  for (const link of ordered) {
    const match = usableAddresses(link).find(({ address }) => regex.test(formatIpv4(address)));
    if (match) return { link, address: match.address };
  }
  const named = ordered.filter(({ name }) => regex.test(name)).map(withFirstAddress);
  return named.find(found => 'link' in found) ?? named[0] ?? { why: 'no address and no name of an interface matches' };
}

async function byRoute(host: HostReader, links: readonly HostInterface[], destination: Ipv4): Promise<Found> {
  const route = await host.routeTo(destination);
  const link = links.find(({ name }) => name === route?.interfaceName);
  return route && link ? { link, address: route.source } : { why: 'no route leads there' };
}

async function byDefaultRoute(host: HostReader, links: readonly HostInterface[]): Promise<Found> {
  const route = await host.defaultRoute();
  const link = links.find(({ name }) => name === route?.interfaceName);
  return link ? withFirstAddress(link) : { why: 'there is none in the main table' };
}

function withFirstAddress(link: HostInterface): Found {
  const [first] = usableAddresses(link);
  return first ? { link, address: first.address } : { why: `${link.name} has no usable IPv4 address` };
}

/**
 * Orders addresses: global before link-local, one with a network before a /32 beside it (which is often one that moves
 * between hosts), permanent before temporary, else as the kernel; never loopback.
 */
export function usableAddresses(link: HostInterface): readonly HostAddress[] {
  const rank = ({ address, permanent, prefix }: HostAddress): number =>
    (isUnicastHost(address) ? 0 : 4) + (prefix.length < 32 ? 0 : 2) + (permanent ? 0 : 1);
  // Array.sort is stable: addresses of equal rank keep the kernel's order.
  return link.addresses.filter(isUsable).sort((a, b) => rank(a) - rank(b));
}

/** Addresses of the same standing: nothing says which of them is meant. */
function rivalsOf(link: HostInterface, chosen: Ipv4): readonly Ipv4[] {
  const usable = usableAddresses(link).filter(({ address }) => isUnicastHost(address));
  const own = usable.find(({ address }) => address === chosen);
  const isAlike = (one: HostAddress): boolean => (one.prefix.length === 32) === (own?.prefix.length === 32);
  return usable.filter(one => one !== own && isAlike(one)).map(({ address }) => address);
}

function isUsable({ address, deprecated }: HostAddress): boolean {
  return !deprecated && (isUnicastHost(address) || isLinkLocal(address));
}

/** Returns why an interface cannot carry the tunnel; undefined when it can. */
function whyUnusable(link: HostInterface, address: Ipv4, publicIp: Ipv4 | undefined): string | undefined {
  const text = formatIpv4(address);
  if (link.mtu === 0) return `${link.name} says MTU 0`;
  if (!isUnicastHost(address) && !isLinkLocal(address)) return `${text} on ${link.name} is not reachable for peers`;
  if (isLinkLocal(address) && publicIp === undefined)
    return `${text} on ${link.name} is link-local, peers refuse it; give --public-ip too`;
  return undefined;
}

function describe(link: HostInterface): string {
  const addresses = link.addresses.map(({ address }) => formatIpv4(address)).join(' ');
  return `${link.name} (${addresses || 'no IPv4 address'}${link.up ? '' : ', down'})`;
}
