/**
 * The HostNetwork of the Linux kernel: links, addresses, neighbours and routes by netlink, settings by /proc/sys, packet
 * filter rules by iptables and nft, all in the network namespace of this process. One socket sends requests, one at a
 * time. Others only listen, so that a flood of foreign changes cannot displace a reply. Protocol 167 marks our routes and
 * addresses, an alias our created links, and a comment our rules; the plan names the links that the data plane makes.
 */
import { messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { native } from '../lib/native.js';
import { Serial } from '../lib/serial.js';
import { defaultNetworkName } from '../model/network.js';
import { parsePrefix, prefixAround, type Ipv4, type Prefix } from '../model/ip.js';
import { isCreated, joinPlans, withoutLinks, type HostPlan, type LinkPlan } from '../model/plan.js';
import { isOwnCommand } from './firewall/command.js';
import { Firewall } from './firewall/firewall.js';
import { Repairs } from './firewall/repairs.js';
import { findDiversions, type DiversionContext } from './diversions.js';
import type { ApplyOptions, Diversion, HostAddress, HostInterface, HostNetwork, HostState } from './host.js';
import { clearLink, diffCreated, diffLink, linkAlias, removeCreated, temporaryName } from './links.js';
import type { LinkContext, LinkStep } from './links.js';
import { diffNeighbours, type NeighbourStep } from './neighbours.js';
import { Changes } from './netlink/changes.js';
import { isDefaultRoute, routesTouching } from './netlink/route-filter.js';
import { NetlinkSocket } from './netlink/socket.js';
import { mainTable, type KernelAddress, type KernelLink } from './netlink/messages.js';
import { Rtnetlink } from './netlink/rtnetlink.js';
import { diffRoutes, earlierProtocol, routeProtocol, type RouteStep } from './routes.js';
import { attempt, impossible, runSteps, type Step, type StepResults } from './step.js';
import { sysctlSteps } from './sysctl.js';

export interface KernelHostOptions {
  readonly log: Log;
  /**
   * The networks of the host, the default one if absent: nothing is removed until each has given a plan. Where their plans
   * clash the first of these networks goes first.
   */
  readonly networks?: readonly string[];
  /** How often rules are put back; the tests pass one that always does. */
  readonly repairs?: Repairs;
}

/** @throws an errno error when the kernel gives no netlink socket */
export function openKernelHost(options: KernelHostOptions): HostNetwork {
  return new KernelHost(options);
}

/** The rest after a reading of the rules, as a multiple of the time that it took: changes of others may be many. */
const rulesRest = { factor: 4, mostMs: 4_000 } as const;

const allAddresses: Prefix = parsePrefix('0.0.0.0/0');

/** What a pass collects. */
interface Pass {
  readonly results: StepResults;
  readonly conflicts: string[];
  readonly diversions: Diversion[];
  /** Steps that remove what routes may lead to until they are as planned. */
  readonly removals: Step[];
  readonly signal: AbortSignal;
  /** Nothing is removed: what is wanted is not known as a whole. */
  keeps: boolean;
  /** See ApplyOptions. */
  readonly heardOnly: boolean;
}

/** A part of the plans, as text, and the conflicts that were found. */
interface Applied {
  readonly plan: string;
  readonly conflicts: readonly string[];
  readonly diversions?: readonly Diversion[];
}

/** The plan of one network, and where the results of its steps belong. */
interface Part {
  readonly plan: HostPlan;
  readonly results: StepResults;
}

class KernelHost implements HostNetwork {
  readonly #rtnetlink: Rtnetlink;
  readonly #changes: Changes;
  readonly #firewall: Firewall;
  readonly #repairs: Repairs;
  /** What the last good pass has applied of routes and of rules. */
  #lastRoutes: Applied | undefined;
  #lastRules: Applied | undefined;
  readonly #passes = new Serial();
  /** The latest plan of each network. */
  readonly #given: Map<string, HostPlan | undefined>;
  /** The networks that have given no plan yet. */
  readonly #awaited: Set<string>;

  constructor({ log, networks = [defaultNetworkName], repairs = new Repairs() }: KernelHostOptions) {
    this.#repairs = repairs;
    this.#given = new Map(networks.map(network => [network, undefined]));
    this.#awaited = new Set(networks);
    this.#firewall = new Firewall({ log });
    this.#rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
    this.#changes = new Changes({ calls: native(), log, isOwnCommand });
  }

  async interfaces(): Promise<readonly HostInterface[]> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    return links.map(({ index, name, mtu, up }) => ({
      index,
      name,
      mtu,
      up,
      addresses: addresses.filter(address => address.linkIndex === index).map(hostAddress),
    }));
  }

  async routeTo(address: Ipv4): Promise<{ readonly interfaceName: string; readonly source: Ipv4 } | undefined> {
    const route = await this.#rtnetlink.routeTo(address);
    if (route?.linkIndex === undefined || route.source === undefined) return undefined;
    const name = linkNames(await this.#rtnetlink.links()).get(route.linkIndex);
    return name === undefined ? undefined : { interfaceName: name, source: route.source };
  }

  async deadNeighbour(address: Ipv4): Promise<{ readonly address: Ipv4; readonly device: string } | undefined> {
    const route = await this.#rtnetlink.routeTo(address);
    if (route?.linkIndex === undefined) return undefined;
    const next = route.gateway ?? address;
    if (!(await this.#rtnetlink.isDead(route.linkIndex, next))) return undefined;
    const device = linkNames(await this.#rtnetlink.links()).get(route.linkIndex);
    return device === undefined ? undefined : { address: next, device };
  }

  async defaultRoute(): Promise<{ readonly interfaceName: string; readonly gateway: Ipv4 | undefined } | undefined> {
    const [links, routes] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.routes(isDefaultRoute)]);
    const first = routes.find(
      route => route.table === mainTable && route.destination.length === 0 && route.type === 'unicast',
    );
    if (first?.multipath)
      throw new TartanError('HOST_REFUSED', 'the default route has several next hops: name the interface with --iface');
    const name = first && linkNames(links).get(first.linkIndex ?? -1);
    return first && name !== undefined ? { interfaceName: name, gateway: first.gateway } : undefined;
  }

  apply(network: string, want: HostPlan | undefined, o: ApplyOptions): Promise<HostState> {
    this.#given.set(network, want);
    this.#awaited.delete(network);
    return this.#runPass(o, async pass => {
      pass.keeps = this.#awaited.size > 0;
      const { plans, conflicts } = joinPlans(this.#given);
      pass.conflicts.push(...conflicts);
      const elsewhere: StepResults = { changes: pass.results.changes, failures: [] };
      const parts: Part[] = [];
      for (const [name, plan] of plans)
        parts.push(
          await this.#applyNetwork(name, { plan, results: name === network ? pass.results : elsewhere }, pass),
        );
      await attempt('read routes', pass.results, () => this.#applyRoutes(parts, pass));
      await attempt('read firewall', pass.results, () => this.#applyFirewall(parts, pass));
    });
  }

  cleanup(names: readonly string[], o: ApplyOptions): Promise<HostState> {
    return this.#runPass(o, async pass => {
      const { results, signal } = pass;
      await attempt('read routes', results, () => this.#applyRoutes([], pass));
      await attempt('read links', results, async () => runSteps(await this.#clearSteps(names), results, signal));
      await attempt('read firewall', results, () => this.#applyFirewall([], pass));
    });
  }

  onChange(listener: () => void): void {
    this.#changes.onChange(listener);
  }

  get hearsAll(): boolean {
    return this.#changes.hearsAll && this.#firewall.isHeard;
  }

  async close(): Promise<void> {
    this.#changes.close();
    await this.#passes.drained();
    this.#rtnetlink.close();
  }

  /** Runs one pass at a time: each of two would read what the other one has half done. */
  #runPass({ signal, heardOnly = false }: ApplyOptions, work: (pass: Pass) => Promise<void>): Promise<HostState> {
    return this.#passes.run(async () => {
      signal.throwIfAborted();
      const results: StepResults = { changes: [], failures: [] };
      const pass: Pass = { results, conflicts: [], diversions: [], removals: [], signal, keeps: false, heardOnly };
      await work(pass);
      return hostState(pass);
    });
  }

  /** Applies what concerns one network alone. @returns the part without what would go through links of somebody else */
  async #applyNetwork(network: string, planned: Part, pass: Pass): Promise<Part> {
    const { results } = planned;
    const plan = await this.#createLinks(network, planned, pass);
    await runSteps(sysctlSteps(plan.sysctls), results, pass.signal);
    await attempt('read links', results, () => this.#applyLinks({ plan, results }, pass));
    await attempt('read neighbours', results, () => this.#applyNeighbours({ plan, results }, pass));
    return { plan, results };
  }

  /** Runs before all that needs the links. */
  async #createLinks(network: string, { plan, results }: Part, pass: Pass): Promise<HostPlan> {
    const planned = plan.links.filter(isCreated);
    if (planned.length === 0) return plan;
    try {
      const { steps, foreign, conflicts } = diffCreated(planned, await this.#rtnetlink.links(), linkAlias(network));
      pass.conflicts.push(...conflicts);
      await runSteps(
        steps.map(step => this.#linkStep(step)),
        results,
        pass.signal,
      );
      return withoutLinks(plan, foreign);
    } catch (error) {
      pass.signal.throwIfAborted();
      // What is not known to be ours is not used, and what is there stays.
      pass.keeps = true;
      results.failures.push(`read links: ${messageOf(error)}`);
      return withoutLinks(plan, new Set(planned.map(({ name }) => name)));
    }
  }

  async #applyLinks({ plan, results }: Part, pass: Pass): Promise<void> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    const steps = plan.links.flatMap(link =>
      diffLink(link, links, addresses, linkContext(overlayOf(link, plan.routes))),
    );
    await runSteps(
      allowed(steps, pass).map(step => this.#linkStep(step)),
      results,
      pass.signal,
    );
  }

  async #applyNeighbours({ plan, results }: Part, pass: Pass): Promise<void> {
    const created = plan.links.filter(isCreated);
    if (created.length + plan.neighbours.length + plan.forwarding.length === 0) return;
    const links = await this.#rtnetlink.links();
    const have = [await this.#rtnetlink.neighbours('neighbour'), await this.#rtnetlink.neighbours('forwarding')].flat();
    const indexes = new Map(created.map(({ name }) => [name, links.find(link => link.name === name)?.index]));
    const { additions, removals } = diffNeighbours(plan, have, indexes);
    pass.removals.push(...allowed(removals, pass).map(step => this.#neighbourStep(step)));
    await runSteps(
      additions.map(step => this.#neighbourStep(step)),
      results,
      pass.signal,
    );
  }

  async #clearSteps(names: readonly string[]): Promise<Step[]> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    const context = linkContext([allAddresses]);
    return links
      .filter(link => names.includes(link.name))
      .flatMap(link => clearLink(link, addresses, context))
      .map(step => this.#linkStep(step));
  }

  /** Applies the routes, and then removes what they may have led to: neighbours, and created links. */
  async #applyRoutes(parts: readonly Part[], pass: Pass): Promise<void> {
    const wanted = parts.flatMap(({ plan }) => plan.routes);
    const text = JSON.stringify([wanted, parts.flatMap(({ plan }) => plan.links), pass.keeps]);
    const last = this.#lastRoutes;
    if (pass.heardOnly && last?.plan === text && pass.removals.length === 0 && !this.#changes.isDue('routing')) {
      pass.conflicts.push(...last.conflicts);
      pass.diversions.push(...(last.diversions ?? []));
      return;
    }
    this.#lastRoutes = undefined;
    const filter = routesTouching(
      wanted.map(({ destination }) => destination),
      [routeProtocol, earlierProtocol],
    );
    this.#changes.watchRoutes(filter);
    this.#changes.begin('routing');
    const failed = failuresOf(parts, pass);
    const [links, routes, rules] = await Promise.all([
      this.#rtnetlink.links(),
      this.#rtnetlink.routes(filter),
      this.#rtnetlink.rules(),
    ]);
    const planned = parts.flatMap(({ plan }) => plan.links);
    const created = new Set(planned.filter(isCreated).map(({ name }) => name));
    const context: DiversionContext = {
      protocol: routeProtocol,
      links: linkNames(links),
      created,
      networks: parts.length === 0 ? undefined : wanted.map(({ destination }) => destination),
      own: parts.flatMap(({ plan }) => plan.firewall.map(({ subnet }) => subnet)),
    };
    const resultsOf = new Map(parts.flatMap(({ plan, results }) => plan.routes.map(route => [route, results])));
    const difference = diffRoutes(wanted, routes, context);
    const { steps } = difference;
    const diversions = findDiversions(wanted, difference.foreign, rules, context);
    const conflicts = [...difference.conflicts, ...diversions.map(({ text }) => text)];
    pass.conflicts.push(...conflicts);
    pass.diversions.push(...diversions);
    for (const step of allowed(steps, pass)) {
      const results = step.action === 'remove' ? undefined : resultsOf.get(step.plan);
      await runSteps([this.#routeStep(step)], results ?? pass.results, pass.signal);
    }
    const unwanted = allowed(removeCreated(planned, links), pass).map(step => this.#linkStep(step));
    await runSteps([...pass.removals, ...unwanted], pass.results, pass.signal);
    if (failuresOf(parts, pass) === failed) this.#lastRoutes = { plan: text, conflicts, diversions };
  }

  async #applyFirewall(parts: readonly Part[], pass: Pass): Promise<void> {
    const { results, conflicts, keeps, signal } = pass;
    const rules = parts.flatMap(({ plan }) => plan.firewall);
    const plan = JSON.stringify([rules, keeps]);
    const last = this.#lastRules;
    const isSame = last?.plan === plan;
    if (pass.heardOnly && isSame && !this.#changes.isDue('rules')) {
      conflicts.push(...last.conflicts, ...this.#repairs.conflicts);
      return;
    }
    this.#lastRules = undefined;
    this.#changes.begin('rules');
    const [beganMs, failed] = [performance.now(), results.failures.length];
    const firewall = await this.#firewall.steps(rules, signal, keeps);
    const readMs = performance.now() - beganMs;
    const steps = isSame ? this.#repairs.limit(firewall.steps, this.#changes.lastRemover) : firewall.steps;
    conflicts.push(...firewall.conflicts, ...this.#repairs.conflicts);
    await runSteps(steps, results, signal);
    this.#changes.rest(
      'rules',
      this.#repairs.fighting ? rulesRest.mostMs : Math.min(rulesRest.mostMs, rulesRest.factor * readMs),
    );
    if (results.failures.length === failed) this.#lastRules = { plan, conflicts: firewall.conflicts };
  }

  #linkStep(step: LinkStep): Step {
    const rtnetlink = this.#rtnetlink;
    switch (step.action) {
      case 'create':
        return { text: step.text, run: () => rtnetlink.createLink(temporaryName, step.make, step.named) };
      case 'remove':
        return { text: step.text, run: () => rtnetlink.removeLink(step.index) };
      case 'change':
        return { text: step.text, run: () => rtnetlink.changeLink(step.index, step.change) };
      case 'add address':
        return { text: step.text, run: () => rtnetlink.addAddress(step.index, step.address, routeProtocol) };
      case 'remove address':
        return { text: step.text, run: () => rtnetlink.removeAddress(step.index, step.address) };
      case 'refuse':
        return impossible(step.text, step.reason);
    }
  }

  #neighbourStep(step: NeighbourStep): Step {
    const rtnetlink = this.#rtnetlink;
    switch (step.action) {
      case 'set':
        return { text: step.text, run: () => rtnetlink.setNeighbour(step.entry) };
      case 'remove':
        return { text: step.text, run: () => rtnetlink.removeNeighbour(step.entry) };
      case 'refuse':
        return impossible(step.text, step.reason);
    }
  }

  #routeStep(step: RouteStep): Step {
    const rtnetlink = this.#rtnetlink;
    switch (step.action) {
      case 'add':
        return { text: step.text, run: () => rtnetlink.addRoute(step.route) };
      case 'replace':
        return { text: step.text, run: () => rtnetlink.replaceRoute(step.route, step.old) };
      case 'remove':
        return { text: step.text, run: () => rtnetlink.removeRoute(step.route) };
      case 'refuse':
        return impossible(step.text, step.reason);
    }
  }
}

function failuresOf(parts: readonly Part[], pass: Pass): number {
  const all = new Set([pass.results, ...parts.map(({ results }) => results)]);
  return [...all].reduce((sum, { failures }) => sum + failures.length, 0);
}

function allowed<T extends { readonly action: string }>(steps: readonly T[], { keeps }: Pass): readonly T[] {
  return steps.filter(({ action }) => !keeps || !action.startsWith('remove'));
}

function hostState({ results, conflicts, diversions, signal }: Pass): HostState {
  signal.throwIfAborted();
  if (results.failures.length > 0) {
    throw new TartanError('HOST_REFUSED', `the host is not as planned: ${results.failures.join('; ')}`);
  }
  return { changes: results.changes, conflicts, ...(diversions.length > 0 && { diversions }) };
}

/** Returns the ranges in which an unmarked address on the link is ours: nobody else has one on a link that we made. */
function overlayOf(link: LinkPlan, routes: HostPlan['routes']): readonly Prefix[] {
  if (isCreated(link)) return [allAddresses];
  return routes.flatMap(route => (route.kind === 'device' && route.device === link.name ? [route.destination] : []));
}

function linkContext(overlay: readonly Prefix[]): LinkContext {
  const { tunQueueLength, tunQueueLengthWithoutTso } = native().limits;
  return { protocol: routeProtocol, earlierProtocol, overlay, tunQueueLength, tunQueueLengthWithoutTso };
}

function linkNames(links: readonly KernelLink[]): ReadonlyMap<number, string> {
  return new Map(links.map(link => [link.index, link.name]));
}

function hostAddress({ address, peer, length, deprecated, permanent }: KernelAddress): HostAddress {
  return { address, prefix: prefixAround(peer, length), deprecated, permanent };
}
