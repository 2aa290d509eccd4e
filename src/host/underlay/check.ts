/**
 * The underlay of this host, and the check of a network against it. A network that contains an address of the underlay
 * would cut the host off from its peers, its gateway or its own etcd. It is refused before anything is changed.
 */
import { lookup } from 'node:dns/promises';
import { TartanError } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import {
  formatIpv4,
  formatPrefix,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  readIpv4,
  type Ipv4,
  type Prefix,
} from '../../model/ip.js';
import type { UnderlayAddress } from '../../model/node.js';
import type { HostNetwork, Underlay } from '../host.js';
import { carrierMtu } from './carrier.js';
import { chooseUnderlay, type UnderlayChoice, type UnderlayOptions } from './choose.js';

export interface UnderlayFacts {
  readonly interfaceName: string;
  /** The prefix of `address`. */
  readonly prefix: Prefix | undefined;
  readonly address: Ipv4;
  readonly publicIp: Ipv4;
  readonly gateway: Ipv4 | undefined;
  readonly etcdAddresses: readonly Endpoint[];
  /** The networks of all links. */
  readonly connected: readonly { readonly name: string; readonly prefix: Prefix }[];
}

interface Endpoint {
  readonly address: Ipv4;
  /** undefined when the endpoint is given by its address. */
  readonly name: string | undefined;
}

/** How long a name of an endpoint counts as looked up, and how long a look-up may take. */
const names = { freshMs: 30_000, timeoutMs: 2_000 } as const;

export interface UnderlaySources {
  /** @returns the IPv4 addresses of a name. @throws when it has none */
  readonly lookUp?: (name: string) => Promise<readonly string[]>;
}

export function openUnderlay(
  host: HostNetwork,
  options: UnderlayOptions & { readonly etcd: { readonly endpoints: readonly string[] } },
  log: Log,
  { lookUp = lookUpName }: UnderlaySources = {},
): Underlay {
  /** The facts of the last choice, whether the agent used it or not. */
  let facts: Omit<UnderlayFacts, 'etcdAddresses'> | undefined;
  const endpoints = new Endpoints(options.etcd.endpoints, lookUp);
  return {
    async choose(): Promise<UnderlayAddress> {
      const chosen = await chooseUnderlay(host, options);
      const { publicIp, name, address, mtu, reason, rivals } = chosen;
      if (!facts) {
        log.info('interface.chosen', `${name}: ${reason}`, { name, mtu });
        const text = formatIpv4(address);
        if (rivals.length > 0)
          log.warn(
            'interface.several',
            `${name} has ${text} and ${rivals.join(', ')}: peers send to ${text}; if another one is meant, name it with --iface`,
          );
      }
      await endpoints.refresh();
      facts = await readFacts(host, chosen);
      return { publicIp, interface: { name, address, mtu } };
    },
    check(network) {
      if (facts) refuseOwnUnderlay(network, { ...facts, etcdAddresses: endpoints.addresses });
    },
    async refresh(network) {
      await endpoints.refresh();
      refuseAddresses(network, endpoints.addresses.map(outerEndpoint));
    },
    async current(of, peers) {
      const links = await host.interfaces();
      const link = links.find(({ name }) => name === of.interface.name);
      const { address } = of.interface;
      if (!link?.addresses.some(found => found.address === address)) return undefined;
      const mtu = await carrierMtu(host, links, link, address, peers);
      return { ...of, interface: { ...of.interface, mtu } };
    },
  };
}

/** The endpoints of etcd, by address or by name; a name has every address that it was seen to have last. */
class Endpoints {
  readonly #hosts: readonly string[];
  readonly #lookUp: (name: string) => Promise<readonly string[]>;
  #named = new Map<string, readonly Ipv4[]>();
  #lookedUpMs = -Infinity;

  constructor(endpoints: readonly string[], lookUp: (name: string) => Promise<readonly string[]>) {
    const hosts = endpoints.map(endpoint => new URL(endpoint).hostname);
    // An IPv6 address, which a URL has in brackets, is in no IPv4 network.
    this.#hosts = [...new Set(hosts.filter(host => !host.startsWith('[')))];
    this.#lookUp = lookUp;
  }

  get addresses(): readonly Endpoint[] {
    return this.#hosts.flatMap(host => {
      const address = readIpv4(host);
      const found = address === undefined ? (this.#named.get(host) ?? []) : [address];
      return found.map(one => ({ address: one, name: address === undefined ? host : undefined }));
    });
  }

  /** A name that cannot be looked up keeps the addresses that it had. */
  async refresh(): Promise<void> {
    if (performance.now() - this.#lookedUpMs < names.freshMs) return;
    this.#lookedUpMs = performance.now();
    const looked = this.#hosts.filter(host => readIpv4(host) === undefined);
    await Promise.all(
      looked.map(async host => {
        let timer: NodeJS.Timeout | undefined;
        const late = new Promise<readonly string[]>(resolve => {
          timer = setTimeout(() => resolve([]), names.timeoutMs).unref();
        });
        const texts = await Promise.race([this.#lookUp(host).catch(() => []), late]);
        clearTimeout(timer);
        if (texts.length > 0)
          this.#named.set(
            host,
            texts.flatMap(text => readIpv4(text) ?? []),
          );
      }),
    );
  }
}

async function lookUpName(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, family: 4 })).map(({ address }) => address);
}

async function readFacts(host: HostNetwork, chosen: UnderlayChoice): Promise<Omit<UnderlayFacts, 'etcdAddresses'>> {
  // A default route with several next hops is an error, which does not matter when an option named the interface.
  const route = await host.defaultRoute().catch(() => undefined);
  const links = await host.interfaces();
  const link = links.find(({ name }) => name === chosen.name);
  return {
    interfaceName: chosen.name,
    prefix: link?.addresses.find(({ address }) => address === chosen.address)?.prefix,
    address: chosen.address,
    publicIp: chosen.publicIp,
    gateway: route?.gateway,
    connected: links.flatMap(({ name, addresses }) => addresses.map(({ prefix }) => ({ name, prefix }))),
  };
}

/** @throws TartanError CONFIG_INVALID */
export function refuseOwnUnderlay(network: Prefix, underlay: UnderlayFacts): void {
  refuseAddresses(network, [
    [`the address of ${underlay.interfaceName}`, underlay.address],
    ['the public address', underlay.publicIp],
    ['the default gateway', underlay.gateway],
    ...underlay.etcdAddresses.map(outerEndpoint),
  ]);
  const range = formatPrefix(network);
  if (underlay.prefix && prefixesOverlap(network, underlay.prefix)) {
    throw new TartanError(
      'CONFIG_INVALID',
      `network document: Network ${range} overlaps ${formatPrefix(underlay.prefix)} of ${underlay.interfaceName}: choose a range that no host's underlay uses`,
    );
  }
  const whole = underlay.connected.find(({ name, prefix }) => name !== 'tartan0' && prefixCovers(prefix, network));
  if (whole)
    throw new TartanError(
      'CONFIG_INVALID',
      `network document: Network ${range} lies inside ${formatPrefix(whole.prefix)} of ${whole.name}, whose hosts could not be reached any more: choose a range that no host's links use, or take the address from ${whole.name}`,
    );
}

/** What an address is, for people. */
type OuterAddress = readonly [what: string, address: Ipv4 | undefined];

function outerEndpoint({ address, name }: Endpoint): OuterAddress {
  return [`an etcd endpoint${name === undefined ? '' : ` (${name})`}`, address];
}

function refuseAddresses(network: Prefix, addresses: readonly OuterAddress[]): void {
  for (const [what, address] of addresses) {
    if (address !== undefined && prefixContains(network, address)) {
      throw new TartanError(
        'CONFIG_INVALID',
        `network document: Network ${formatPrefix(network)} contains ${formatIpv4(address)}, ${what}: choose a range that no host's underlay uses`,
      );
    }
  }
}
