/** Reads what this host would do with one packet: route, policy rules, packet filters. It changes and sends nothing. */
import { runCommand } from '../host/firewall/command.js';
import type { JudgedPacket } from '../host/firewall/judged-packet.js';
import { openFilterJudges, readOuterDrops, type FilterJudge, type OuterDrop } from '../host/firewall/outer-drops.js';
import { routeTypes, type KernelRoute } from '../host/netlink/messages.js';
import { Rtnetlink } from '../host/netlink/rtnetlink.js';
import { NetlinkSocket } from '../host/netlink/socket.js';
import { messageOf } from '../lib/errors.js';
import { factValue, known, unknown, type Fact } from '../lib/fact.js';
import { native } from '../lib/native.js';
import { parsePrefix, type Ipv4, type Prefix } from '../model/ip.js';

export interface WayRequest {
  readonly to: Ipv4;
  /** undefined: this host sends the packet, from the address that the kernel chooses. */
  readonly from: Ipv4 | undefined;
  /** What the outer packet would be; undefined where no peer has the address. */
  readonly outer:
    | {
        readonly device: string;
        readonly address: Ipv4;
        readonly port: number;
        readonly peer: Ipv4;
        readonly isKernel?: boolean;
      }
    | undefined;
}

export interface WayRoute {
  readonly link: string;
  readonly gateway: Ipv4 | undefined;
  /** The source that the kernel chooses for a packet of this host. */
  readonly source: Ipv4 | undefined;
  readonly table: number;
  /** The address is one of this host. */
  readonly isLocal: boolean;
  /** Policy rules that ask this table, by priority; without those of the kernel. */
  readonly rules: readonly number[];
}

/** A rule that drops the packet. */
export interface WayDrop {
  readonly hook: JudgedPacket['hook'];
  readonly rule: string;
}

export interface WayFacts {
  /** The link at which the packet comes in; undefined: this host sends it. */
  readonly inLink: Fact<string | undefined>;
  /** A text: the errno by which the kernel refuses the packet. */
  readonly route: Fact<WayRoute | string>;
  /** The packet itself on its way to where the route leads; undefined: nothing drops it. */
  readonly innerDrop: Fact<WayDrop | undefined>;
  /** The tunnel's packets to and from the peer. */
  readonly outerDrops: Fact<readonly OuterDrop[]>;
}

const limitMs = 5000;
/** The rules of the kernel itself: local, main, default. */
const kernelPriorities = [0, 32_766, 32_767];
/** No service listens there, so what rules accept by port is not accepted. */
const port = 49_151;

export async function readWay(request: WayRequest): Promise<WayFacts> {
  const signal = AbortSignal.timeout(limitMs);
  const { inLink, route } = await readRoutes(request);
  const { outer } = request;
  const [innerDrop, outerDrops] = await Promise.all([
    readInnerDrop(request, inLink, route, signal),
    outer ? readOuterDrops({ ...outer, peers: [outer.peer] }, runCommand, signal) : known([]),
  ]);
  return { inLink, route, innerDrop, outerDrops };
}

async function readRoutes({ to, from }: WayRequest): Promise<Pick<WayFacts, 'inLink' | 'route'>> {
  let rtnetlink: Rtnetlink;
  try {
    rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
  } catch (error) {
    const failure = unknown(messageOf(error));
    return { inLink: failure, route: failure };
  }
  try {
    const links = new Map((await rtnetlink.links()).map(({ index, name }) => [index, name]));
    const nameOf = (index: number | undefined): string => links.get(index ?? -1) ?? `#${index}`;
    const source = from === undefined ? undefined : await rtnetlink.decide(from);
    const way = typeof source === 'object' && source.typeNumber !== routeTypes.local ? source : undefined;
    if (from !== undefined && source !== undefined && typeof source === 'string')
      return { inLink: unknown(`this host has no route to the source (${source})`), route: unknown('no source') };
    const at =
      from === undefined || way?.linkIndex === undefined ? undefined : { source: from, linkIndex: way.linkIndex };
    const decision = await rtnetlink.decide(to, at);
    const inLink = known(at && nameOf(at.linkIndex));
    if (decision === undefined) return { inLink, route: unknown('the kernel gave no answer') };
    if (typeof decision === 'string') return { inLink, route: known(decision) };
    const rules = (await rtnetlink.rules()).filter(
      ({ table, action, priority }) =>
        action === 'table' && table === decision.table && !kernelPriorities.includes(priority),
    );
    return {
      inLink,
      route: known(
        wayRoute(
          decision,
          nameOf(decision.linkIndex),
          rules.map(({ priority }) => priority),
        ),
      ),
    };
  } catch (error) {
    const failure = unknown(messageOf(error));
    return { inLink: failure, route: failure };
  } finally {
    rtnetlink.close();
  }
}

function wayRoute(route: KernelRoute, link: string, rules: readonly number[]): WayRoute {
  const { gateway, source, table, typeNumber } = route;
  return { link, gateway, source, table, isLocal: typeNumber === routeTypes.local, rules };
}

async function readInnerDrop(
  { to, from }: WayRequest,
  inLink: WayFacts['inLink'],
  route: WayFacts['route'],
  signal: AbortSignal,
): Promise<WayFacts['innerDrop']> {
  const way = factValue(route);
  if (!inLink.known || way === undefined || typeof way === 'string') return known(undefined);
  const judges = await openFilterJudges(runCommand, signal);
  if (!judges.known) return judges;
  const source = from ?? way.source;
  const packet = {
    from: inLink.value === undefined ? undefined : { is: inLink.value },
    to: way.isLocal ? undefined : { is: way.link },
    source: source === undefined ? anybody : host(source),
    destination: host(to),
    transport: { protocol: 'tcp', port },
    state: 'new',
  } as const;
  return known(await firstDrop(judges.value, hooksOf(inLink.value !== undefined, way.isLocal), packet));
}

const anybody = parsePrefix('0.0.0.0/0');

function host(base: Ipv4): Prefix {
  return { base, length: 32 };
}

function hooksOf(isForwarded: boolean, isLocal: boolean): readonly JudgedPacket['hook'][] {
  if (isLocal) return isForwarded ? ['prerouting', 'input'] : ['output'];
  return isForwarded ? ['prerouting', 'forward', 'postrouting'] : ['output', 'postrouting'];
}

async function firstDrop(
  judges: readonly FilterJudge[],
  hooks: readonly JudgedPacket['hook'][],
  packet: Omit<JudgedPacket, 'hook'>,
): Promise<WayDrop | undefined> {
  for (const hook of hooks)
    for (const judge of judges) {
      const drop = await judge({ ...packet, hook });
      if (drop) return { hook, rule: drop.rule };
    }
  return undefined;
}
