/**
 * Routes: compares the plan with the host and returns ordered steps. Our routes have our protocol number and are in the
 * main table. Routes are added before others are removed. A foreign route with the same destination and metric stays,
 * and is reported as a conflict.
 */
import { formatIpv4, formatPrefix, samePrefix, type Prefix } from '../model/ip.js';
import { formatRoute, type RoutePlan } from '../model/plan.js';
import { mainTable, routeTypes, scopeUniverse, type KernelRoute, type RouteTarget } from './netlink/messages.js';

/**
 * rtm_protocol of every route of this program. It stands in no list of the kernel (linux/rtnetlink.h of 6.18), of iproute2
 * (rt_protos of Debian 12 and 13), of FRR and of OVN.
 */
export const routeProtocol = 167;
/** What the routes of earlier versions carry. OVN uses it too. */
export const earlierProtocol = 84;
const earlierMetric = 4096;
const earlierDevice = 'tartan0';

/** `plan` is the route that the step makes as planned. */
export type RouteStep =
  | { readonly action: 'add'; readonly text: string; readonly route: RouteTarget; readonly plan: RoutePlan }
  /** The new route is added after the old one, then the old one is removed: a route is there at every moment. */
  | {
      readonly action: 'replace';
      readonly text: string;
      readonly route: RouteTarget;
      readonly old: RouteTarget;
      readonly plan: RoutePlan;
    }
  | { readonly action: 'remove'; readonly text: string; readonly route: RouteTarget }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string; readonly plan: RoutePlan };

export interface RouteDifference {
  readonly steps: readonly RouteStep[];
  readonly conflicts: readonly string[];
  /** The routes of all tables that are not ours. */
  readonly foreign: readonly KernelRoute[];
}

export interface RouteContext {
  readonly protocol: number;
  /** Names of links by index. */
  readonly links: ReadonlyMap<number, string>;
  /** Names of the links that the plan creates; the data plane makes the others. */
  readonly created?: ReadonlySet<string>;
  /** The networks whose unreachable routes an earlier version may have made; every one when that is not known. */
  readonly networks?: readonly Prefix[] | undefined;
}

/** @param have every route of the host, ours and foreign ones */
export function diffRoutes(
  want: readonly RoutePlan[],
  have: readonly KernelRoute[],
  context: RouteContext,
): RouteDifference {
  const inMain = have.filter(route => route.table === mainTable);
  const isOwnRoute = (route: KernelRoute): boolean =>
    route.protocol === context.protocol || isOfEarlierVersion(route, context);
  const bases = new Set(want.map(({ destination }) => destination.base));
  const byKey = groupByKey(inMain.filter(({ destination }) => bases.has(destination.base)));
  const indexes = new Map([...context.links].map(([index, name]) => [name, index]));
  const steps: RouteStep[] = [];
  const conflicts: string[] = [];
  const kept = new Set<KernelRoute>();
  for (const plan of want) {
    const target = targetOf(plan, indexes, context);
    const here = byKey.get(keyOf(plan)) ?? [];
    const ours = here.filter(isOwnRoute);
    const conflict = here.find(route => !isOwnRoute(route));
    if (conflict)
      conflicts.push(`route_conflict ${formatKernelRoute(conflict, context)}: not ours, and where ours belongs`);
    if (!target) {
      steps.push({
        action: 'refuse',
        text: `route add ${formatRoute(plan)}`,
        reason: missingLink(plan, context),
        plan,
      });
      continue;
    }
    const exact = ours.find(route => isAsPlanned(route, target));
    const old = exact ? undefined : ours.find(route => !kept.has(route));
    if (exact) kept.add(exact);
    else if (conflict) continue;
    else if (old) {
      kept.add(old);
      steps.push({ action: 'replace', text: `route replace ${formatRoute(plan)}`, route: target, old, plan });
    } else steps.push({ action: 'add', text: `route add ${formatRoute(plan)}`, route: target, plan });
  }
  const removed = inMain.filter(route => isOwnRoute(route) && !kept.has(route));
  return {
    steps: [...steps, ...removalSteps(removed, context)],
    conflicts,
    foreign: have.filter(route => route.table !== mainTable || !isOwnRoute(route)),
  };
}

/** Only what an earlier version made looks so; its other routes are those of links that we make anew. */
function isOfEarlierVersion(route: KernelRoute, { links, networks }: RouteContext): boolean {
  if (route.protocol !== earlierProtocol || route.multipath) return false;
  if (route.type === 'unicast')
    return route.gateway === undefined && links.get(route.linkIndex ?? -1) === earlierDevice;
  const isOurs = !networks || networks.some(network => samePrefix(network, route.destination));
  return route.type === 'unreachable' && route.metric === earlierMetric && isOurs;
}

/** Formats a route as `ip route` does. */
export function formatKernelRoute(route: KernelRoute, context: RouteContext): string {
  const link =
    route.linkIndex === undefined ? undefined : (context.links.get(route.linkIndex) ?? `#${route.linkIndex}`);
  return [
    formatPrefix(route.destination),
    `metric ${route.metric}`,
    ...(route.gateway === undefined ? [] : [`via ${formatIpv4(route.gateway)}`]),
    ...(link === undefined ? [] : [`dev ${link}`]),
    ...(route.onlink ? ['onlink'] : []),
    ...(route.type === 'unicast' ? [] : [nameOfType(route.typeNumber)]),
    ...(route.protocol === context.protocol ? [] : [`proto ${route.protocol}`]),
  ].join(' ');
}

/** The words of `ip route`. */
function nameOfType(number: number): string {
  return Object.entries(routeTypes).find(([, value]) => value === number)?.[0] ?? `type ${number}`;
}

function missingLink(plan: RoutePlan, { created }: RouteContext): string {
  if (plan.kind === 'unreachable') return 'no such route';
  const reason = `there is no link ${plan.device}`;
  return plan.kind === 'device' && !created?.has(plan.device) ? `${reason}; the data plane makes it` : reason;
}

function targetOf(
  plan: RoutePlan,
  indexes: ReadonlyMap<string, number>,
  context: RouteContext,
): RouteTarget | undefined {
  const common = {
    destination: plan.destination,
    metric: plan.metric,
    tos: 0,
    table: mainTable,
    protocol: context.protocol,
    gateway: undefined,
    onlink: false,
  };
  if (plan.kind === 'unreachable')
    return { ...common, typeNumber: routeTypes.unreachable, scope: scopeUniverse, linkIndex: undefined };
  const linkIndex = plan.device === undefined ? undefined : indexes.get(plan.device);
  if (plan.device !== undefined && linkIndex === undefined) return undefined;
  // Docker takes the destination of a route of scope link for a range in use, and makes no network of its pools there.
  const unicast = { ...common, typeNumber: routeTypes.unicast, linkIndex, scope: scopeUniverse };
  return plan.kind === 'device' ? unicast : { ...unicast, gateway: plan.gateway, onlink: plan.onlink === true };
}

/** The kernel keeps one route per destination, TOS and metric, unless a request appends; ours have TOS 0. */
function keyOf({ destination, metric }: Pick<KernelRoute, 'destination' | 'metric'>): string {
  return `${formatPrefix(destination)} ${metric}`;
}

function groupByKey(routes: readonly KernelRoute[]): ReadonlyMap<string, readonly KernelRoute[]> {
  const groups = new Map<string, KernelRoute[]>();
  for (const route of routes) {
    if (route.tos !== 0) continue;
    const group = groups.get(keyOf(route));
    if (group) group.push(route);
    else groups.set(keyOf(route), [route]);
  }
  return groups;
}

/** @param route one with the key of the target */
function isAsPlanned(route: KernelRoute, target: RouteTarget): boolean {
  return (
    route.protocol === target.protocol &&
    route.typeNumber === target.typeNumber &&
    route.scope === target.scope &&
    (target.linkIndex === undefined || route.linkIndex === target.linkIndex) &&
    route.gateway === target.gateway &&
    route.onlink === target.onlink &&
    !route.multipath
  );
}

/** Removes the routes that carry packets before the unreachable ones, which catch those packets in between. */
function removalSteps(routes: readonly KernelRoute[], context: RouteContext): RouteStep[] {
  const carrying = routes.filter(route => route.type !== 'unreachable');
  const unreachable = routes.filter(route => route.type === 'unreachable');
  return [...carrying, ...unreachable].map(route => ({
    action: 'remove',
    text: `route remove ${formatKernelRoute(route, context)}`,
    route,
  }));
}
