/**
 * What one node's host must look like: the whole set, compared by value. A backend makes a Plan from its lease and
 * its peers; the reconciler makes the host equal to it. Nothing here does I/O.
 */
import { comparePrefixes, formatPrefix, type Ipv4, type Prefix } from './ipv4.js';

/** Packets to `subnet` go to `endpoint`:`port` in UDP. */
export interface TunnelRoute {
  readonly subnet: Prefix;
  readonly endpoint: Ipv4;
  readonly port: number;
}

export interface LinkPlan {
  readonly name: string;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  /** The only IPv4 address of ours on the link. */
  readonly address: Prefix;
}

export type RoutePlan =
  | { readonly kind: 'device'; readonly destination: Prefix; readonly device: string; readonly metric: number }
  | { readonly kind: 'unreachable'; readonly destination: Prefix; readonly metric: number };

/**
 * The one bit of the packet mark, value and mask, that says "overlay traffic" to whoever filters with nftables: Docker
 * 29 lets it pass when it is told `--bridge-accept-fwmark`.
 */
export const acceptMark = 0x0100_0000;

/** Packet filter rules that let overlay traffic pass whatever Docker's own rules say (iptables vocabulary). */
export interface FirewallPlan {
  readonly network: Prefix;
  readonly subnet: Prefix;
  readonly device: string;
  /** Accept forwarded packets of the overlay. */
  readonly forward: boolean;
  /**
   * Masquerade what leaves the overlay. What stays in it keeps its source, also when `off` and others masquerade.
   * `elsewhere`: another of our tables sees to all of it.
   */
  readonly masquerade: 'off' | 'on' | 'not-fully-random' | 'elsewhere';
  /** The network document asks for nftables: rules go there as far as they work there. */
  readonly nftables: boolean;
}

export interface HostPlan {
  readonly links: readonly LinkPlan[];
  readonly routes: readonly RoutePlan[];
  /** Path below /proc/sys with dots for slashes, and the value it must have. */
  readonly sysctls: readonly (readonly [name: string, value: string])[];
  readonly firewall: FirewallPlan | undefined;
}

export interface Plan {
  readonly tunnel: readonly TunnelRoute[];
  readonly host: HostPlan;
}

export function formatRoute(route: RoutePlan): string {
  const destination = `${formatPrefix(route.destination)} metric ${route.metric}`;
  return route.kind === 'device' ? `${destination} dev ${route.device}` : `${destination} unreachable`;
}

/** Sorted by subnet, as the route table in shared memory must be. */
export function sortTunnelRoutes(routes: readonly TunnelRoute[]): TunnelRoute[] {
  return [...routes].sort((a, b) => comparePrefixes(a.subnet, b.subnet));
}
