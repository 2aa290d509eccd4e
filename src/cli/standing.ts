/** Where this host stands on its underlay: chosen at the start and, when that place is gone, again. */
import { refuseOwnUnderlay, type Underlay } from '../agent/underlay.js';
import type { Footprint } from '../agent/underlay-watch.js';
import type { HostNetwork } from '../host/host.js';
import { chooseInterface, type ChosenInterface, type InterfaceChoice } from '../host/interfaces.js';
import type { Log } from '../lib/log.js';
import { readIpv4, type Ipv4 } from '../model/ipv4.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';

export interface StandingOptions extends InterfaceChoice {
  readonly etcd: { readonly endpoints: readonly string[] };
}

type Identity = Pick<Node, 'id' | 'bootId'>;

/** @throws TartanError HOST_REFUSED where there is no interface for the tunnel */
export async function openStanding(host: HostNetwork, options: StandingOptions, identity: Identity, log: Log) {
  const chosen = await chooseInterface(host, options);
  log.info('interface.chosen', `${chosen.name}: ${chosen.reason}`, { name: chosen.name, mtu: chosen.mtu });
  return new Standing(host, options, identity, chosen, await readUnderlay(host, chosen, options));
}

export class Standing {
  readonly #host: HostNetwork;
  readonly #options: StandingOptions;
  #node: Node;
  /** Of the last choice, taken or not. */
  #underlay: Underlay;

  constructor(
    host: HostNetwork,
    options: StandingOptions,
    identity: Identity,
    chosen: ChosenInterface,
    underlay: Underlay,
  ) {
    this.#host = host;
    this.#options = options;
    this.#node = { ...identity, ...footprintOf(chosen) };
    this.#underlay = underlay;
  }

  get node(): Node {
    return this.#node;
  }

  /** @throws TartanError HOST_REFUSED */
  async choose(): Promise<Footprint> {
    const chosen = await chooseInterface(this.#host, this.#options);
    this.#underlay = await readUnderlay(this.#host, chosen, this.#options);
    return footprintOf(chosen);
  }

  take(footprint: Footprint): void {
    this.#node = { ...this.#node, ...footprint };
  }

  /** @throws TartanError CONFIG_INVALID */
  check({ network }: NetworkConfig): void {
    refuseOwnUnderlay(network, this.#underlay);
  }
}

function footprintOf({ publicIp, name, address, mtu }: ChosenInterface): Footprint {
  return { publicIp, interface: { name, address, mtu } };
}

async function readUnderlay(host: HostNetwork, chosen: ChosenInterface, options: StandingOptions): Promise<Underlay> {
  // A default route with several next hops is no reason to stop when the interface was named.
  const route = await host.defaultRoute().catch(() => undefined);
  const link = (await host.interfaces()).find(({ name }) => name === chosen.name);
  return {
    interfaceName: chosen.name,
    prefix: link?.addresses.find(({ address }) => address === chosen.address)?.prefix,
    address: chosen.address,
    publicIp: chosen.publicIp,
    gateway: route?.gateway,
    etcdAddresses: options.etcd.endpoints.map(endpointAddress).filter(address => address !== undefined),
  };
}

function endpointAddress(endpoint: string): Ipv4 | undefined {
  return readIpv4(new URL(endpoint).hostname);
}
