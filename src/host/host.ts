/** The port to the kernel's network configuration. */
import type { HostPlan } from '../model/plan.js';
import type { Ipv4, Prefix } from '../model/ip.js';
import type { UnderlayAddress } from '../model/node.js';

export interface HostInterface {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** In the order of the kernel. */
  readonly addresses: readonly HostAddress[];
}

export interface HostAddress {
  readonly address: Ipv4;
  readonly prefix: Prefix;
  readonly deprecated: boolean;
  readonly permanent: boolean;
}

/** The result of a pass over the host. */
export interface HostState {
  /** One line per change, in order, such as `route add 10.5.0.0/16 metric 0 dev tartan0`; empty when none was due. */
  readonly changes: readonly string[];
  /** Foreign objects that conflict with the plan; the pass left them alone. */
  readonly conflicts: readonly string[];
  /** Those of the conflicts that take packets away from our routes; absent when there are none. */
  readonly diversions?: readonly Diversion[];
}

/** A conflict, and the range that it takes away. */
export interface Diversion {
  readonly text: string;
  readonly range: Prefix;
}

export interface ApplyOptions {
  readonly signal: AbortSignal;
  /** What takes long to read is taken as the last pass left it, unless the kernel told that it changed since. */
  readonly heardOnly?: boolean;
}

export interface HostNetwork {
  interfaces(): Promise<readonly HostInterface[]>;
  /** Returns the interface and the source that the kernel uses for an address; undefined when no route leads there. */
  routeTo(address: Ipv4): Promise<{ readonly interfaceName: string; readonly source: Ipv4 } | undefined>;
  /** Returns the interface and the gateway of the first IPv4 default route in the main table. */
  defaultRoute(): Promise<{ readonly interfaceName: string; readonly gateway: Ipv4 | undefined } | undefined>;
  /**
   * Returns the neighbour that packets to the address go to, if the kernel has asked for it in vain (arp(7)): the host
   * itself or a gateway. undefined for one that answers, or that nobody asked for.
   */
  deadNeighbour(address: Ipv4): Promise<{ readonly address: Ipv4; readonly device: string } | undefined>;
  /**
   * Takes the plan of a network in the place of its last one, and makes the host equal to the plans of all networks: reads
   * what is ours, adds before it removes, attempts every step. The pass changes what another network plans too; its
   * failures there are left to the passes of that network.
   * @param want undefined: the network plans nothing any more
   * @throws TartanError HOST_REFUSED that lists the failed steps, after all were attempted
   */
  apply(network: string, want: HostPlan | undefined, o: ApplyOptions): Promise<HostState>;
  /**
   * Removes our routes, rules and created links, and nothing else.
   * @param links names of the links whose addresses of ours are removed too
   */
  cleanup(links: readonly string[], o: ApplyOptions): Promise<HostState>;
  /**
   * Rings after any change of links, addresses, routes that touch a plan, or (nftables only) packet filter rules, whoever
   * made it.
   */
  onChange(listener: () => void): void;
  /** Whether a change of anything that the last pass has read rings `onChange`, so that a look at all is seldom needed. */
  readonly hearsAll: boolean;
  close(): Promise<void>;
}

/** Peers, of which only the addresses are read. */
export type PeerAddresses = readonly { readonly publicIp: Ipv4 }[];

/** The port to the interface that carries the tunnel. */
export interface Underlay {
  /** Chooses by the options of the start. @throws TartanError HOST_REFUSED when no interface can carry the tunnel */
  choose(): Promise<UnderlayAddress>;
  /** Refuses a network that contains an address that the last choice depends on. @throws TartanError CONFIG_INVALID */
  check(network: Prefix): void;
  /**
   * Looks again, now and then, where the names of etcd's endpoints lead to.
   * @throws TartanError CONFIG_INVALID when the network contains one of them
   */
  refresh(network: Prefix): Promise<void>;
  /** Returns the same address with the MTU of now; undefined when the link does not have the address any more. */
  current(of: UnderlayAddress, peers: PeerAddresses): Promise<UnderlayAddress | undefined>;
}
