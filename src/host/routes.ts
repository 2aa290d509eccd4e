/**
 * Routes: compares the plan with the host and returns ordered steps. Our routes have our protocol number and are in the
 * main table. Routes are added before others are removed. A foreign route with the same destination and metric stays,
 * and is reported as a conflict.
 */
import { formatIpv4, formatPrefix, prefixCovers, samePrefix } from '../model/ipv4.js';
import { formatRoute, type RoutePlan } from '../model/plan.js';
import {
  mainTable,
  routeTypes,
  scopeLink,
  scopeUniverse,
  type KernelRoute,
  type RouteTarget,
} from './netlink/messages.js';

/** rtm_protocol of every route of this program. Neither the kernel's list nor iproute2's rt_protos use the number. */
export const routeProtocol = 84;

export type RouteStep =
  | { readonly action: 'add'; readonly text: string; readonly route: RouteTarget }
  /** The new route is added after the old one, then the old one is removed: a route is there at every moment. */
  | { readonly action: 'replace'; readonly text: string; readonly route: RouteTarget; readonly old: RouteTarget }
  | { readonly action: 'remove'; readonly text: string; readonly route: RouteTarget }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string };

export interface RouteDifference {
  readonly steps: readonly RouteStep[];
  readonly conflicts: readonly string[];
}

export interface RouteContext {
  readonly protocol: number;
  /** Names of links by index. */
  readonly links: ReadonlyMap<number, string>;
}

/** rtm_protocol of the routes that the kernel makes for an address (RTPROT_KERNEL). */
const kernelProtocol = 2;
const maxConflicts = 16;

/** @param have every route of the host, ours and foreign ones */
export function diffRoutes(
  want: readonly RoutePlan[],
  have: readonly KernelRoute[],
  context: RouteContext,
): RouteDifference {
  const inMain = have.filter(route => route.table === mainTable);
  const ours = inMain.filter(route => route.protocol === context.protocol);
  const foreign = inMain.filter(route => route.protocol !== context.protocol);
  const steps: RouteStep[] = [];
  const conflicts: string[] = [];
  const kept = new Set<KernelRoute>();
  for (const plan of want) {
    const target = targetOf(plan, context);
    const conflict = foreign.find(route => sameKey(route, plan));
    if (conflict)
      conflicts.push(`route_conflict ${formatKernelRoute(conflict, context)}: not ours, and where ours belongs`);
    if (!target) {
      steps.push({ action: 'refuse', text: `route add ${formatRoute(plan)}`, reason: missingLink(plan) });
      continue;
    }
    const exact = ours.find(route => isAsPlanned(route, target));
    const old = exact ? undefined : ours.find(route => sameKey(route, plan) && !kept.has(route));
    if (exact) kept.add(exact);
    else if (conflict) continue;
    else if (old) {
      kept.add(old);
      steps.push({ action: 'replace', text: `route replace ${formatRoute(plan)}`, route: target, old });
    } else steps.push({ action: 'add', text: `route add ${formatRoute(plan)}`, route: target });
  }
  const removed = ours.filter(route => !kept.has(route));
  return {
    steps: [...steps, ...removalSteps(removed, context)],
    conflicts: [...conflicts, ...diversions(want, foreign, context)],
  };
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
    ...(route.type === 'unicast' ? [] : [route.type === 'unreachable' ? 'unreachable' : `type ${route.typeNumber}`]),
    ...(route.protocol === context.protocol ? [] : [`proto ${route.protocol}`]),
  ].join(' ');
}

function missingLink(plan: RoutePlan): string {
  return plan.kind === 'device' ? `there is no link ${plan.device}; the data plane makes it` : 'no such route';
}

function targetOf(plan: RoutePlan, context: RouteContext): RouteTarget | undefined {
  const common = {
    destination: plan.destination,
    metric: plan.metric,
    tos: 0,
    table: mainTable,
    protocol: context.protocol,
    gateway: undefined,
  };
  if (plan.kind === 'unreachable')
    return { ...common, typeNumber: routeTypes.unreachable, scope: scopeUniverse, linkIndex: undefined };
  const linkIndex = [...context.links].find(([, name]) => name === plan.device)?.[0];
  return linkIndex === undefined
    ? undefined
    : { ...common, typeNumber: routeTypes.unicast, scope: scopeLink, linkIndex };
}

/** The kernel keeps one route per destination, TOS and metric, unless a request appends. */
function sameKey(route: KernelRoute, plan: RoutePlan): boolean {
  return samePrefix(route.destination, plan.destination) && route.metric === plan.metric && route.tos === 0;
}

function isAsPlanned(route: KernelRoute, target: RouteTarget): boolean {
  return (
    samePrefix(route.destination, target.destination) &&
    route.metric === target.metric &&
    route.tos === target.tos &&
    route.typeNumber === target.typeNumber &&
    route.scope === target.scope &&
    route.linkIndex === target.linkIndex &&
    route.gateway === undefined &&
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

/** Reports foreign routes that win over ours, as more specific ones. Those of the kernel, for our bridges, are right. */
function diversions(want: readonly RoutePlan[], foreign: readonly KernelRoute[], context: RouteContext): string[] {
  const ours = want.filter(plan => plan.kind === 'device');
  const found = foreign.flatMap(route => {
    if (route.protocol === kernelProtocol || route.type !== 'unicast') return [];
    const diverted = ours.find(
      plan =>
        prefixCovers(plan.destination, route.destination) &&
        route.destination.length > plan.destination.length &&
        context.links.get(route.linkIndex ?? -1) !== plan.device,
    );
    return diverted
      ? [`route_conflict ${formatKernelRoute(route, context)}: not ours, takes packets from ${diverted.device}`]
      : [];
  });
  const more = found.length - maxConflicts;
  return more > 0 ? [...found.slice(0, maxConflicts), `route_conflict ${more} more like these`] : found;
}
