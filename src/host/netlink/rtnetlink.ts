/** The rtnetlink(7) requests of this program. A request succeeds when the host is already as requested. */
import { errnoOf } from '../../lib/errors.js';
import type { Ipv4, Prefix } from '../../model/ipv4.js';
import {
  changeLink,
  dumpAddresses,
  dumpLinks,
  dumpRoutes,
  linkAddress,
  lookUpRoute,
  messageTypes,
  readAddress,
  readLink,
  readRoute,
  routeMessage,
  type KernelAddress,
  type KernelLink,
  type KernelRoute,
  type LinkChange,
  type RouteTarget,
} from './messages.js';
import { addFlags, type NetlinkSocket } from './socket.js';

/** RTM_GETROUTE returns one of these errors for an address that no route reaches. */
const noRoute = ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL'];

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

  /** Returns the routes of every table, in the kernel's order. */
  async routes(): Promise<KernelRoute[]> {
    return this.#socket.dump(messageTypes.getRoute, dumpRoutes(), readRoute);
  }

  async routeTo(destination: Ipv4): Promise<KernelRoute | undefined> {
    try {
      return await this.#socket.get(messageTypes.getRoute, lookUpRoute(destination), readRoute);
    } catch (error) {
      if (noRoute.includes(errnoOf(error) ?? '')) return undefined;
      throw error;
    }
  }

  async changeLink(index: number, change: LinkChange): Promise<void> {
    return this.#socket.change(messageTypes.newLink, 0, changeLink(index, change));
  }

  async addAddress(index: number, address: Prefix, protocol: number): Promise<void> {
    const body = linkAddress(index, address, protocol);
    return unless('EEXIST', this.#socket.change(messageTypes.newAddress, addFlags.exclusive, body));
  }

  async removeAddress(index: number, address: Prefix): Promise<void> {
    const body = linkAddress(index, address, 0);
    return unless('EADDRNOTAVAIL', this.#socket.change(messageTypes.deleteAddress, 0, body));
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
