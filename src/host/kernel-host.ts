/**
 * The HostNetwork of the Linux kernel: links, addresses, neighbours and routes by netlink, settings by /proc/sys, packet
 * filter rules by iptables and nft, all in the network namespace of this process. One socket sends requests, one at a
 * time. Others only listen, so that a flood of foreign changes cannot displace a reply. Protocol 84 marks our routes and
 * addresses, an alias our created links, and a comment our rules; the plan names the links that the data plane makes.
 */
import { TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { native } from '../lib/native.js';
import { Serial } from '../lib/serial.js';
import { defaultNetworkName } from '../model/network.js';
import { parsePrefix, prefixAround, type Ipv4, type Prefix } from '../model/ipv4.js';
import { isCreated, withoutLinks, type HostPlan, type LinkPlan } from '../model/plan.js';
import { Firewall } from './firewall/firewall.js';
import type { ApplyOptions, HostAddress, HostInterface, HostNetwork, HostState } from './host.js';
import { clearLink, diffCreated, diffLink, linkAlias, removeCreated, temporaryName, type LinkStep } from './links.js';
import { diffNeighbours, type CreatedIndexes, type NeighbourStep } from './neighbours.js';
import { Changes } from './netlink/changes.js';
import { NetlinkSocket } from './netlink/socket.js';
import { mainTable, type KernelAddress, type KernelLink } from './netlink/messages.js';
import { Rtnetlink } from './netlink/rtnetlink.js';
import { diffRoutes, routeProtocol, type RouteContext, type RouteStep } from './routes.js';
import { attempt, impossible, runSteps, type Step, type StepResults } from './step.js';
import { sysctlSteps } from './sysctl.js';

/** @throws an errno error when the kernel gives no netlink socket */
export function openKernelHost(options: { readonly log: Log }): HostNetwork {
  return new KernelHost(options.log);
}

const allAddresses: Prefix = parsePrefix('0.0.0.0/0');

/** What a pass collects. */
interface Pass {
  readonly results: StepResults;
  readonly conflicts: string[];
  /** What routes may lead to until they are as planned. */
  readonly removals: Step[];
  readonly signal: AbortSignal;
}

class KernelHost implements HostNetwork {
  readonly #rtnetlink: Rtnetlink;
  readonly #changes: Changes;
  readonly #firewall: Firewall;
  readonly #passes = new Serial();

  constructor(log: Log) {
    this.#firewall = new Firewall({ log });
    this.#rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
    this.#changes = new Changes(native(), log);
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

  async defaultRoute(): Promise<{ readonly interfaceName: string; readonly gateway: Ipv4 | undefined } | undefined> {
    const [links, routes] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.routes()]);
    const first = routes.find(
      route => route.table === mainTable && route.destination.length === 0 && route.type === 'unicast',
    );
    if (first?.multipath)
      throw new TartanError('HOST_REFUSED', 'the default route has several next hops: name the interface with --iface');
    const name = first && linkNames(links).get(first.linkIndex ?? -1);
    return first && name !== undefined ? { interfaceName: name, gateway: first.gateway } : undefined;
  }

  apply(want: HostPlan, o: ApplyOptions): Promise<HostState> {
    return this.#runPass(o.signal, async pass => {
      const { results, removals, signal } = pass;
      const plan = await this.#createLinks(want, pass);
      await runSteps(await sysctlSteps(plan.sysctls), results, signal);
      await attempt('read links', results, () => this.#applyLinks(plan, want.links, pass));
      if (want.links.some(isCreated))
        await attempt('read neighbours', results, () => this.#applyNeighbours(plan, pass));
      await attempt('read routes', results, () => this.#applyRoutes(plan, pass));
      await runSteps(removals, results, signal);
      await attempt('read firewall', results, () => this.#applyFirewall(plan.firewall, pass));
    });
  }

  cleanup(names: readonly string[], o: ApplyOptions): Promise<HostState> {
    return this.#runPass(o.signal, async pass => {
      const { results, signal } = pass;
      await attempt('read routes', results, () => this.#applyRoutes({ links: [], routes: [] }, pass));
      await attempt('read links', results, async () => runSteps(await this.#clearSteps(names), results, signal));
      await attempt('read firewall', results, () => this.#applyFirewall([], pass));
    });
  }

  onChange(listener: () => void): void {
    this.#changes.onChange(listener);
  }

  async close(): Promise<void> {
    this.#changes.close();
    await this.#passes.drained();
    this.#rtnetlink.close();
  }

  /** Runs one pass at a time: each of two would read what the other one has half done. */
  #runPass(signal: AbortSignal, work: (pass: Pass) => Promise<void>): Promise<HostState> {
    return this.#passes.run(async () => {
      const pass: Pass = { results: { changes: [], failures: [] }, conflicts: [], removals: [], signal };
      await work(pass);
      return hostState(pass);
    });
  }

  /** Runs before all that needs the links. @returns the plan without what would go through links of somebody else */
  async #createLinks(want: HostPlan, { results, conflicts, signal }: Pass): Promise<HostPlan> {
    const planned = want.links.filter(isCreated);
    if (planned.length === 0) return want;
    let unusable: ReadonlySet<string> = new Set(planned.map(({ name }) => name));
    await attempt('read links', results, async () => {
      const difference = diffCreated(planned, await this.#rtnetlink.links(), () => linkAlias(defaultNetworkName));
      unusable = difference.foreign;
      conflicts.push(...difference.conflicts);
      await runSteps(
        difference.steps.map(step => this.#linkStep(step)),
        results,
        signal,
      );
    });
    return withoutLinks(want, unusable);
  }

  /** @param planned all links of the plan, those of somebody else's making too */
  async #applyLinks(plan: HostPlan, planned: readonly LinkPlan[], { results, removals, signal }: Pass): Promise<void> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    const steps = plan.links.flatMap(link =>
      diffLink(link, links, addresses, { protocol: routeProtocol, overlay: overlayOf(link, plan.routes) }),
    );
    removals.push(...removeCreated(planned, links).map(step => this.#linkStep(step)));
    await runSteps(
      steps.map(step => this.#linkStep(step)),
      results,
      signal,
    );
  }

  async #applyNeighbours(plan: HostPlan, { results, removals, signal }: Pass): Promise<void> {
    const links = await this.#rtnetlink.links();
    const have = [await this.#rtnetlink.neighbours('neighbour'), await this.#rtnetlink.neighbours('forwarding')].flat();
    const created: CreatedIndexes = new Map(
      plan.links.filter(isCreated).map(({ name }) => [name, links.find(link => link.name === name)?.index]),
    );
    const difference = diffNeighbours(plan, have, created);
    removals.unshift(...difference.removals.map(step => this.#neighbourStep(step)));
    await runSteps(
      difference.additions.map(step => this.#neighbourStep(step)),
      results,
      signal,
    );
  }

  async #clearSteps(names: readonly string[]): Promise<Step[]> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    const context = { protocol: routeProtocol, overlay: [allAddresses] };
    const cleared = links
      .filter(link => names.includes(link.name))
      .flatMap(link => clearLink(link, addresses, context));
    return [...cleared, ...removeCreated([], links)].map(step => this.#linkStep(step));
  }

  async #applyRoutes(plan: Pick<HostPlan, 'links' | 'routes'>, { results, conflicts, signal }: Pass): Promise<void> {
    const [links, routes] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.routes()]);
    const created = new Set(plan.links.filter(isCreated).map(({ name }) => name));
    const context: RouteContext = { protocol: routeProtocol, links: linkNames(links), created };
    const difference = diffRoutes(plan.routes, routes, context);
    conflicts.push(...difference.conflicts);
    const steps = difference.steps.map(step => this.#routeStep(step));
    await runSteps(steps, results, signal);
  }

  async #applyFirewall(want: HostPlan['firewall'], { results, conflicts, signal }: Pass): Promise<void> {
    const firewall = await this.#firewall.steps(want, signal);
    conflicts.push(...firewall.conflicts);
    await runSteps(firewall.steps, results, signal);
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

function hostState({ results, conflicts, signal }: Pass): HostState {
  signal.throwIfAborted();
  if (results.failures.length > 0) {
    throw new TartanError('HOST_REFUSED', `the host is not as planned: ${results.failures.join('; ')}`);
  }
  return { changes: results.changes, conflicts };
}

/** Returns the ranges in which an unmarked address on the link is ours: nobody else has one on a link that we made. */
function overlayOf(link: LinkPlan, routes: HostPlan['routes']): readonly Prefix[] {
  if (isCreated(link)) return [allAddresses];
  return routes.flatMap(route => (route.kind === 'device' && route.device === link.name ? [route.destination] : []));
}

function linkNames(links: readonly KernelLink[]): ReadonlyMap<number, string> {
  return new Map(links.map(link => [link.index, link.name]));
}

function hostAddress({ address, peer, length, deprecated, permanent }: KernelAddress): HostAddress {
  return { address, prefix: prefixAround(peer, length), deprecated, permanent };
}
