/** The rtnetlink(7) requests of this program. A request succeeds when the host is already as requested. */
import { errnoOf } from '../../lib/errors.js';
import type { Ipv4, Prefix } from '../../model/ip.js';
import type { CreatedMake } from '../../model/plan.js';
import {
  changeLink,
  createLink,
  dumpAddresses,
  dumpLinks,
  dumpNeighbours,
  dumpRoutes,
  linkAddress,
  linkByIndex,
  lookUpNeighbour,
  lookUpRoute,
  messageTypes,
  neighbourMessage,
  readAddress,
  readIsDead,
  readLink,
  readNeighbour,
  readRoute,
  routeMessage,
  type ForwardedFrom,
  type KernelAddress,
  type KernelLink,
  type KernelNeighbour,
  type KernelRoute,
  type LinkChange,
  type NeighbourTarget,
  type RouteTarget,
} from './messages.js';
import { dumpRules, readRule, type KernelRule } from './policy-rules.js';
import type { MessageFilter } from './route-filter.js';
import { addFlags, type NetlinkSocket } from './socket.js';

/** RTM_GETROUTE returns one of these errors for an address that no route reaches. */
const noRoute = ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL', 'EXDEV'];

export class Rtnetlink {
  readonly #open: () => NetlinkSocket;
  #current: NetlinkSocket;
  #closed = false;

  /** @throws what `open` throws */
  constructor(open: () => NetlinkSocket) {
    this.#open = open;
    this.#current = open();
  }

  /** The socket is opened again after a read error, which fails only the pending request. */
  get #socket(): NetlinkSocket {
    if (this.#current.ended && !this.#closed) this.#current = this.#open();
    return this.#current;
  }

  async links(): Promise<KernelLink[]> {
    return this.#socket.dump(messageTypes.getLink, dumpLinks(), readLink);
  }

  async addresses(): Promise<KernelAddress[]> {
    return this.#socket.dump(messageTypes.getAddress, dumpAddresses(), readAddress);
  }

  /** Returns the routes of every table that the filter keeps, in the kernel's order. */
  async routes(keeps: MessageFilter): Promise<KernelRoute[]> {
    return this.#socket.dump(messageTypes.getRoute, dumpRoutes(), readRoute, keeps);
  }

  /** Returns the policy rules in the order in which the kernel asks them. */
  async rules(): Promise<KernelRule[]> {
    const rules = await this.#socket.dump(messageTypes.getRule, dumpRules(), readRule);
    return rules.sort((a, b) => a.priority - b.priority);
  }

  async neighbours(kind: KernelNeighbour['kind']): Promise<KernelNeighbour[]> {
    return this.#socket.dump(messageTypes.getNeighbour, dumpNeighbours(kind), readNeighbour);
  }

  /** Whether the kernel got no answer when it asked for the neighbour's hardware address; false where it did not ask. */
  async isDead(linkIndex: number, address: Ipv4): Promise<boolean> {
    try {
      const body = lookUpNeighbour(linkIndex, address);
      return (await this.#socket.get(messageTypes.getNeighbour, body, readIsDead)) ?? false;
    } catch (error) {
      // Linux before 5.0 knows no question for one neighbour.
      if (['ENOENT', 'EOPNOTSUPP', 'EINVAL'].includes(errnoOf(error) ?? '')) return false;
      throw error;
    }
  }

  async routeTo(destination: Ipv4): Promise<KernelRoute | undefined> {
    const decision = await this.decide(destination);
    return typeof decision === 'string' ? undefined : decision;
  }

  /**
   * Asks what the kernel would do with a packet. An answer is valid for no longer than the routes and rules are.
   * @param from undefined: this host sends it
   * @returns the errno by which it refuses the packet: EXDEV by rp_filter, EHOSTUNREACH also without forwarding
   */
  async decide(destination: Ipv4, from?: ForwardedFrom): Promise<KernelRoute | string | undefined> {
    try {
      return await this.#socket.get(messageTypes.getRoute, lookUpRoute(destination, from), readRoute);
    } catch (error) {
      const code = errnoOf(error) ?? '';
      if (noRoute.includes(code)) return code;
      throw error;
    }
  }

  /**
   * Creates a link with a name and an alias. It gets both in one change, because the kernel sets no alias when it creates:
   * until then it has the temporary name, so that a link of the final name is never without its alias.
   * @throws EEXIST when another link has one of the names, or such a link exists
   */
  async createLink(temporary: string, make: CreatedMake, named: LinkChange): Promise<void> {
    await this.#socket.change(messageTypes.newLink, addFlags.exclusive, createLink(temporary, make));
    const link = (await this.links()).find(({ name }) => name === temporary);
    if (link) await this.changeLink(link.index, named);
  }

  async removeLink(index: number): Promise<void> {
    return unless('ENODEV', this.#socket.change(messageTypes.deleteLink, 0, linkByIndex(index)));
  }

  async changeLink(index: number, change: LinkChange): Promise<void> {
    return this.#socket.change(messageTypes.newLink, 0, changeLink(index, change));
  }

  /** Adds the address, or gives an address that exists the protocol. */
  async addAddress(index: number, address: Prefix, protocol: number): Promise<void> {
    const body = linkAddress(index, address, protocol);
    return unless('EEXIST', this.#socket.change(messageTypes.newAddress, addFlags.replace, body));
  }

  async removeAddress(index: number, address: Prefix): Promise<void> {
    const body = linkAddress(index, address, 0);
    return unless('EADDRNOTAVAIL', this.#socket.change(messageTypes.deleteAddress, 0, body));
  }

  /** Adds the entry, or replaces one of the same neighbour or, in a forwarding table, of the same MAC. */
  async setNeighbour(entry: NeighbourTarget): Promise<void> {
    return this.#socket.change(messageTypes.newNeighbour, addFlags.replace, neighbourMessage(entry));
  }

  async removeNeighbour(entry: NeighbourTarget): Promise<void> {
    return unless('ENOENT', this.#socket.change(messageTypes.deleteNeighbour, 0, neighbourMessage(entry)));
  }

  /** @throws EEXIST when another route has this destination and metric */
  async addRoute(route: RouteTarget): Promise<void> {
    return this.#socket.change(messageTypes.newRoute, addFlags.exclusive, routeMessage(route));
  }

  /** Adds the route after the old one, then removes that. NLM_F_REPLACE could replace a foreign route. */
  async replaceRoute(route: RouteTarget, old: RouteTarget): Promise<void> {
    await unless('EEXIST', this.#socket.change(messageTypes.newRoute, addFlags.append, routeMessage(route)));
    await this.removeRoute(old);
  }

  async removeRoute(route: RouteTarget): Promise<void> {
    return unless('ESRCH', this.#socket.change(messageTypes.deleteRoute, 0, routeMessage(route)));
  }

  close(): void {
    this.#closed = true;
    this.#current.close();
  }
}

async function unless(code: string, request: Promise<void>): Promise<void> {
  try {
    await request;
  } catch (error) {
    if (errnoOf(error) !== code) throw error;
  }
}
