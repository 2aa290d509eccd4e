/**
 * The HostNetwork of the Linux kernel: links, addresses and routes by netlink, settings by /proc/sys, packet filter
 * rules by iptables and nft, all in the network namespace of this process. One socket sends requests, one at a time.
 * Others only listen, so that a flood of foreign changes cannot displace a reply. Protocol 84 marks our routes and
 * addresses, the plan names our links, and a comment marks our rules.
 */
import { TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { native } from '../lib/native.js';
import { Serial } from '../lib/serial.js';
import { parsePrefix, prefixAround, type Ipv4, type Prefix } from '../model/ipv4.js';
import type { HostPlan } from '../model/plan.js';
import { Firewall } from './firewall/firewall.js';
import type { ApplyOptions, HostAddress, HostInterface, HostNetwork, HostState } from './host.js';
import { clearLink, diffLink, type LinkStep } from './links.js';
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

/** The links whose addresses `cleanup` removes. The backends choose these names for their plans. */
const overlayLinks: readonly string[] = ['tartan0'];
const allAddresses: Prefix = parsePrefix('0.0.0.0/0');

/** What a pass collects. */
interface Pass {
  readonly results: StepResults;
  readonly conflicts: string[];
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
      const { results, signal } = pass;
      await runSteps(await sysctlSteps(want.sysctls), results, signal);
      await attempt('read links', results, async () => runSteps(await this.#linkSteps(want), results, signal));
      await attempt('read routes', results, () => this.#applyRoutes(want.routes, pass));
      await attempt('read firewall', results, () => this.#applyFirewall(want.firewall, pass));
    });
  }

  cleanup(o: ApplyOptions): Promise<HostState> {
    return this.#runPass(o.signal, async pass => {
      const { results, signal } = pass;
      await attempt('read routes', results, () => this.#applyRoutes([], pass));
      await attempt('read links', results, async () => runSteps(await this.#clearSteps(), results, signal));
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
      const pass: Pass = { results: { changes: [], failures: [] }, conflicts: [], signal };
      await work(pass);
      return hostState(pass);
    });
  }

  async #linkSteps(want: HostPlan): Promise<Step[]> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    return want.links
      .flatMap(plan => {
        const routes = want.routes.filter(route => route.kind === 'device' && route.device === plan.name);
        const overlay = routes.map(route => route.destination);
        return diffLink(plan, links, addresses, { protocol: routeProtocol, overlay });
      })
      .map(step => this.#linkStep(step));
  }

  async #clearSteps(): Promise<Step[]> {
    const [links, addresses] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.addresses()]);
    const context = { protocol: routeProtocol, overlay: [allAddresses] };
    return links
      .filter(link => overlayLinks.includes(link.name))
      .flatMap(link => clearLink(link, addresses, context))
      .map(step => this.#linkStep(step));
  }

  async #applyRoutes(want: HostPlan['routes'], { results, conflicts, signal }: Pass): Promise<void> {
    const [links, routes] = await Promise.all([this.#rtnetlink.links(), this.#rtnetlink.routes()]);
    const context: RouteContext = { protocol: routeProtocol, links: linkNames(links) };
    const difference = diffRoutes(want, routes, context);
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

function linkNames(links: readonly KernelLink[]): ReadonlyMap<number, string> {
  return new Map(links.map(link => [link.index, link.name]));
}

function hostAddress({ address, peer, length, deprecated, permanent }: KernelAddress): HostAddress {
  return { address, prefix: prefixAround(peer, length), deprecated, permanent };
}
