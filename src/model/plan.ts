/**
 * The plan of a node: the state that its host must have, as whole sets that are compared by value. A backend makes the
 * plan from the own lease and the peers. The reconciler makes the host equal to the plan. Nothing here does I/O.
 */
import type { KernelOffer } from './features.js';
import { formatIpv4, formatPrefix, type AnyPrefix, type Ipv4, type Prefix } from './ip.js';

/** Packets to `prefixes` go to `endpoint`:`port` in UDP. */
export interface TunnelPeer {
  /** Names the owner of the prefixes: another text is another peer, and the same text at another endpoint is not. */
  readonly identity: string;
  /** One of any peer today. */
  readonly prefixes: readonly AnyPrefix[];
  readonly endpoint: Ipv4;
  readonly port: number;
  /** Bits of what the peer can receive beside bare IPv4 packets: `probeFeature`. */
  readonly features: number;
  /** Its kernel engine, where ours may send to it: both have the same port and VNI. */
  readonly kernel?: KernelOffer;
}

/** Packets to the peer may go by the kernel engine; PEER_ENGINE_KERNEL of native/shared/layout.h. */
export const peerEngineKernel = 1;

/** The UDP port of the kernel engine: that of VXLAN-GPE (IANA). */
export const kernelPort = 4790;

/** The name of the kernel link. */
export const kernelDevice = 'tartan-k';

/** What may carry packets between hosts of tartan: only the data process, or the kernel where both hosts can. */
export type EngineChoice = 'user' | 'kernel' | 'auto';

/** The peer answers probes; FEATURE_PROBE of native/shared/layout.h. */
export const probeFeature = 1;

/** Who makes and removes a link: the data plane makes a tun, the host adapter makes the others, called created links. */
export type LinkMake =
  | { readonly kind: 'tun' }
  /** The link learns nothing from packets (RFC 7348 section 4): where they go stands in the plan. */
  | {
      readonly kind: 'vxlan';
      /** VXLAN network identifier, 24 bits. */
      readonly vni: number;
      /** The UDP port that outer packets come to and go to. */
      readonly port: number;
      /** The source of the outer packets. */
      readonly local: Ipv4;
      /** See NeighbourPlan; without one the kernel chooses. */
      readonly mac?: string;
    };

export type CreatedMake = Exclude<LinkMake, { kind: 'tun' }>;

export interface LinkPlan {
  readonly name: string;
  readonly make: LinkMake;
  /** The size of the largest inner packet in bytes. */
  readonly mtu: number;
  /** The only IPv4 address that tartan sets on the link, if any. */
  readonly address: Prefix | undefined;
}

/** A permanent entry of the neighbour table (arp(7)), on a link that the same plan creates. */
export interface NeighbourPlan {
  readonly device: string;
  readonly address: Ipv4;
  /** Six octets in lower case: `02:00:00:00:00:01`. */
  readonly mac: string;
}

/** A permanent entry of a created link's forwarding table (bridge(8), fdb): outer packets to `mac` go to `destination`. */
export interface ForwardingPlan {
  readonly device: string;
  readonly mac: string;
  readonly destination: Ipv4;
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
  /** Accept forwarded packets of the overlay; with `elsewhere` another table of tartan does it. */
  readonly forward: boolean | 'elsewhere';
  /**
   * Masquerades packets that leave the overlay. Packets that stay in it keep their source, even with `off` and another
   * program that masquerades. With `elsewhere` another table of tartan does all of this.
   */
  readonly masquerade: 'off' | 'on' | 'not-fully-random' | 'elsewhere';
  /** The network document asks for nftables: rules go there wherever they work there. */
  readonly nftables: boolean;
  /**
   * Docker masquerades networks of the subnet, by rules that it puts before all others of iptables: nftables chooses the
   * sources where there is an nft, because its chain comes before iptables' whatever Docker inserts there.
   */
  readonly rivalMasquerade?: boolean;
  /** What the engine kernel needs while it receives. */
  readonly kernel?: KernelRulesPlan;
}

/**
 * What comes in by the kernel link goes to the tunnel's device, or nowhere: the host itself takes nothing from it. Its
 * outer packets are not tracked, because each inner flow has a source port, and an entry that never gets an answer.
 */
export interface KernelRulesPlan {
  readonly link: string;
  /** Of the outer packets, on this host. */
  readonly local: Ipv4;
  readonly port: number;
}

export interface HostPlan {
  readonly links: readonly LinkPlan[];
  readonly neighbours: readonly NeighbourPlan[];
  readonly forwarding: readonly ForwardingPlan[];
  readonly routes: readonly RoutePlan[];
  /** The path below /proc/sys with dots for slashes, and the wanted value. */
  readonly sysctls: readonly (readonly [name: string, value: string])[];
  /** Rules of all parts stand in the same chains, in this order. */
  readonly firewall: readonly FirewallPlan[];
}

export interface Plan {
  /** undefined when the backend needs no data plane: the kernel carries the packets. */
  readonly tunnel: readonly TunnelPeer[] | undefined;
  readonly host: HostPlan;
}

export function isCreated({ make }: LinkPlan): boolean {
  return make.kind !== 'tun';
}

/** Returns the plan without these links and without everything that goes through them. */
export function withoutLinks(plan: HostPlan, names: ReadonlySet<string>): HostPlan {
  if (names.size === 0) return plan;
  const isOther = ({ device }: { readonly device: string }): boolean => !names.has(device);
  return {
    links: plan.links.filter(({ name }) => !names.has(name)),
    neighbours: plan.neighbours.filter(isOther),
    forwarding: plan.forwarding.filter(isOther),
    routes: plan.routes.filter(route => !('device' in route && route.device !== undefined && names.has(route.device))),
    sysctls: plan.sysctls.filter(([name]) => !name.split('.').some(word => names.has(word))),
    firewall: plan.firewall.filter(isOther),
  };
}

export interface JoinedPlans {
  /** The plan of each network, without what a network before it has; their union is what the host must have. */
  readonly plans: ReadonlyMap<string, HostPlan>;
  /** What two networks plan differently. */
  readonly conflicts: readonly string[];
}

/**
 * Joins the plans of the networks of one host. Where two of them want one link, or one route or setting with two values,
 * the first network keeps it, and the other one has nothing that goes through that link.
 */
export function joinPlans(given: ReadonlyMap<string, HostPlan | undefined>): JoinedPlans {
  const owners = new Map<string, { readonly network: string; readonly value: string }>();
  const conflicts: string[] = [];
  const isFree = (network: string, key: string, value: string): boolean => {
    const owner = owners.get(key) ?? { network, value };
    owners.set(key, owner);
    if (owner.network === network) return true;
    if (owner.value !== value)
      conflicts.push(
        `plan_conflict ${key}: the networks ${owner.network} and ${network} plan it, ${owner.network} keeps it`,
      );
    return false;
  };
  const plans = [...given].flatMap(([network, plan]): [string, HostPlan][] => {
    if (!plan) return [];
    // A link belongs to one network, however it is made.
    const taken = plan.links.filter(({ name }) => !isFree(network, `link ${name}`, network));
    const own = withoutLinks(plan, new Set(taken.map(({ name }) => name)));
    const routes = own.routes.filter(route => isFree(network, `route ${routeKey(route)}`, formatRoute(route)));
    const sysctls = own.sysctls.filter(([name, value]) => isFree(network, `sysctl ${name}`, value));
    return [[network, { ...own, routes, sysctls }]];
  });
  return { plans: new Map(plans), conflicts };
}

/** The kernel keeps one route for each key. */
function routeKey({ destination, metric }: RoutePlan): string {
  return `${formatPrefix(destination)} metric ${metric}`;
}

export function formatRoute(route: RoutePlan): string {
  const destination = routeKey(route);
  if (route.kind === 'unreachable') return `${destination} unreachable`;
  if (route.kind === 'device') return `${destination} dev ${route.device}`;
  const device = route.device === undefined ? '' : ` dev ${route.device}`;
  return `${destination} via ${formatIpv4(route.gateway)}${device}${route.onlink ? ' onlink' : ''}`;
}
