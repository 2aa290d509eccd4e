/**
 * Names what takes packets of the overlay away from its routes: more specific routes of others, and policy rules that
 * are asked before the main table. Pure. It changes nothing, because none of it is ours.
 */
import { formatIpv4, prefixCovers, prefixesOverlap, type Prefix } from '../model/ip.js';
import type { RoutePlan } from '../model/plan.js';
import type { Diversion } from './host.js';
import { mainTable, routeTypes, type KernelRoute } from './netlink/messages.js';
import type { KernelRule } from './netlink/policy-rules.js';
import { formatKernelRoute, type RouteContext } from './routes.js';

export interface DiversionContext extends RouteContext {
  /** The ranges of this host, where its own bridges are right. */
  readonly own: readonly Prefix[];
}

/** rtm_protocol of the routes that the kernel makes for an address (RTPROT_KERNEL). */
const kernelProtocol = 2;
const localTable = 255;
const maxNamed = 16;

/**
 * @param foreign routes of all tables
 * @param rules the policy rules in the order of their priority
 */
export function findDiversions(
  want: readonly RoutePlan[],
  foreign: readonly KernelRoute[],
  rules: readonly KernelRule[],
  context: DiversionContext,
): readonly Diversion[] {
  const ours = want.filter(plan => plan.kind !== 'unreachable');
  const byRoute = foreign.flatMap(route => {
    if (route.table !== mainTable && !(route.table === localTable && route.typeNumber === routeTypes.local)) return [];
    if (!hides(route, context)) return [];
    const plan = ours.find(one => isInside(route, one, context));
    return plan ? [diversion(formatKernelRoute(route, context), plan, route.destination)] : [];
  });
  const found = [...byRoute, ...ours.flatMap(plan => byRules(plan, foreign, rules, context))];
  const more = found.length - maxNamed;
  const [range] = found.slice(maxNamed);
  return range ? [...found.slice(0, maxNamed), { ...range, text: `route_conflict ${more} more like these` }] : found;
}

function diversion(what: string, plan: RoutePlan, range: Prefix): Diversion {
  const from = plan.kind === 'gateway' ? formatIpv4(plan.gateway) : plan.kind === 'device' ? plan.device : '';
  return { text: `route_conflict ${what}: not ours, takes packets from ${from}`, range };
}

/** Routes of the kernel inside of our own ranges are those of our bridges. */
function hides({ protocol, destination, type, typeNumber }: KernelRoute, { own }: DiversionContext): boolean {
  const isOfKernel = protocol === kernelProtocol && (type === 'unicast' || typeNumber === routeTypes.local);
  return !(isOfKernel && own.some(range => prefixCovers(range, destination)));
}

function isInside(route: KernelRoute, plan: RoutePlan, { links }: RouteContext): boolean {
  if (!prefixCovers(plan.destination, route.destination)) return false;
  if (route.destination.length <= plan.destination.length) return false;
  if (plan.kind === 'unreachable' || links.get(route.linkIndex ?? -1) !== plan.device) return true;
  // On the link itself, the kernel's route for an address of the link takes nothing away.
  return route.type !== 'unicast' && route.protocol !== kernelProtocol;
}

/** The rules that decide for packets of this range before a rule asks the main table, where ours is. */
function byRules(
  plan: RoutePlan,
  routes: readonly KernelRoute[],
  rules: readonly KernelRule[],
  context: DiversionContext,
): readonly Diversion[] {
  const found: Diversion[] = [];
  for (const rule of rules) {
    if (!concerns(rule, plan.destination, context.own)) continue;
    const isMain = rule.table === mainTable && rule.action === 'table';
    if (isMain && (rule.suppress === undefined || plan.destination.length > rule.suppress)) break;
    if (rule.action === 'other' || rule.table === mainTable || rule.table === localTable) continue;
    const text = `rule ${rule.priority}`;
    if (rule.action === 'refuse') {
      found.push(diversion(`${text} (it refuses)`, plan, rule.destination ?? plan.destination));
      continue;
    }
    const inTable = routes.filter(({ table, destination, typeNumber }) => {
      const isLong = rule.suppress === undefined || destination.length > rule.suppress;
      return (
        table === rule.table &&
        isLong &&
        typeNumber !== routeTypes.throw &&
        prefixesOverlap(destination, plan.destination)
      );
    });
    const thrown = routes.filter(route => route.table === rule.table && route.typeNumber === routeTypes.throw);
    const taking = inTable.find(
      route =>
        context.links.get(route.linkIndex ?? -1) !== (plan.kind === 'unreachable' ? '' : plan.device) &&
        !thrown.some(
          ({ destination }) =>
            prefixCovers(destination, plan.destination) && destination.length >= route.destination.length,
        ),
    );
    if (!taking) continue;
    const range = prefixCovers(plan.destination, taking.destination) ? taking.destination : plan.destination;
    found.push(diversion(`${text}, table ${rule.table}, ${formatKernelRoute(taking, context)}`, plan, range));
  }
  return found;
}

/** A rule with conditions that packets of containers do not surely meet is no conflict. */
function concerns(rule: KernelRule, range: Prefix, own: readonly Prefix[]): boolean {
  const { source, destination, hasOther, inverts } = rule;
  if (hasOther) return false;
  const meets = (condition: Prefix | undefined, prefixes: readonly Prefix[]): boolean =>
    condition === undefined || prefixes.some(prefix => prefixesOverlap(condition, prefix));
  const isMet = meets(source, own.length > 0 ? own : [range]) && meets(destination, [range]);
  if (!inverts) return isMet;
  // `not from X` holds for what is not in X; without such a condition the mark is what is inverted.
  const covers = (condition: Prefix | undefined): boolean => condition !== undefined && prefixCovers(condition, range);
  return source === undefined && destination === undefined ? true : !(covers(source) || covers(destination));
}
