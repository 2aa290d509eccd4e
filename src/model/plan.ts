/**
 * The plan of a node: the state that its host must have, as whole sets that are compared by value. A backend makes the
 * plan from the own lease and the peers. The reconciler makes the host equal to the plan. Nothing here does I/O.
 */
import { comparePrefixes, formatIpv4, formatPrefix, type Ipv4, type Prefix } from './ipv4.js';

/** Sends packets for `subnet` to `endpoint`:`port` by UDP. */
export interface TunnelRoute {
  readonly subnet: Prefix;
  readonly endpoint: Ipv4;
  readonly port: number;
}

export interface LinkPlan {
  readonly name: string;
  /** The size of the largest inner packet in bytes. */
  readonly mtu: number;
  /** The only IPv4 address that tartan sets on the link. */
  readonly address: Prefix;
}

export type RoutePlan =
  | { readonly kind: 'device'; readonly destination: Prefix; readonly device: string; readonly metric: number }
  | {
      readonly kind: 'gateway';
      readonly destination: Prefix;
      readonly gateway: Ipv4;
      /** Without a device the kernel finds the link of the gateway. */
      readonly device?: string;
      /** The gateway is a neighbour on the device, which must be named, whatever addresses the device has. */
      readonly onlink?: boolean;
      readonly metric: number;
    }
  | { readonly kind: 'unreachable'; readonly destination: Prefix; readonly metric: number };

/**
 * The bit of the packet mark, value and mask, that marks overlay traffic for other users of nftables. Docker 29 accepts
 * marked packets when it runs with `--bridge-accept-fwmark`.
 */
export const acceptMark = 0x0100_0000;

/**
 * A part of the packet filter rules, in the words of iptables, that accept overlay traffic even where Docker's rules do
 * not: those for one network and one device.
 */
export interface FirewallPlan {
  readonly network: Prefix;
  readonly subnet: Prefix;
  readonly device: string;
  /** Accept forwarded packets of the overlay. */
  readonly forward: boolean;
  /**
   * Masquerades packets that leave the overlay. Packets that stay in it keep their source, even with `off` and another
   * program that masquerades. With `elsewhere` another table of tartan does all of this.
   */
  readonly masquerade: 'off' | 'on' | 'not-fully-random' | 'elsewhere';
  /** The network document asks for nftables: rules go there wherever they work there. */
  readonly nftables: boolean;
}

export interface HostPlan {
  readonly links: readonly LinkPlan[];
  readonly routes: readonly RoutePlan[];
  /** The path below /proc/sys with dots for slashes, and the wanted value. */
  readonly sysctls: readonly (readonly [name: string, value: string])[];
  /** Rules of all parts stand in the same chains, in this order. */
  readonly firewall: readonly FirewallPlan[];
}

export interface Plan {
  readonly tunnel: readonly TunnelRoute[];
  readonly host: HostPlan;
}

export function formatRoute(route: RoutePlan): string {
  const destination = `${formatPrefix(route.destination)} metric ${route.metric}`;
  if (route.kind === 'unreachable') return `${destination} unreachable`;
  if (route.kind === 'device') return `${destination} dev ${route.device}`;
  const device = route.device === undefined ? '' : ` dev ${route.device}`;
  return `${destination} via ${formatIpv4(route.gateway)}${device}${route.onlink ? ' onlink' : ''}`;
}

/** Sorts by subnet, the order that the route table in shared memory requires. */
export function sortTunnelRoutes(routes: readonly TunnelRoute[]): TunnelRoute[] {
  return [...routes].sort((a, b) => comparePrefixes(a.subnet, b.subnet));
}
