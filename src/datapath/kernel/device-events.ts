/** What the kernel tells of links, their filters and settings at once: the next look of our own is up to ten seconds away. */
import { endianness } from 'node:os';
import { native, type NativeWatch } from '../../lib/native.js';

/** NETLINK_ROUTE, RTNLGRP_LINK and RTNLGRP_TC of linux/rtnetlink.h. */
const [netlinkRoute, linkGroup, filterGroup] = [0, 1, 4];
/** RTNLGRP_IPV4_NETCONF; RTNLGRP_IPV6_IFADDR: a link on which IPv6 is switched on gets an address. */
const [settingGroup, address6Group] = [24, 9];
/** RTM_NEWLINK and RTM_DELLINK of linux/rtnetlink.h, IFF_UP of netdevice(7). */
const [newLink, deleteLink, isUp] = [16, 17, 1];
/** Of struct nlmsghdr and, behind its 16 bytes, struct ifinfomsg. */
const [typeAt, indexAt, flagsAt, linkBytes] = [4, 20, 24, 32];
const isLittle = endianness() === 'LE';

export class DeviceEvents {
  readonly #fd: number;
  readonly #watch: NativeWatch;

  /** @param listener gets the index of a link that has gone down or is gone, undefined for all other changes */
  constructor(listener: (downIndex: number | undefined) => void) {
    this.#fd = native().netlinkOpen(netlinkRoute, [linkGroup, filterGroup, settingGroup, address6Group], 256 * 1024);
    this.#watch = native().watch(this.#fd, 64 * 1024, (_error, message) => listener(message && downIndexOf(message)));
    this.#watch.unref();
  }

  close(): void {
    this.#watch.close();
    native().closeFd(this.#fd);
  }
}

/** @param message one datagram of the kernel, which is one message of a multicast group (netlink(7)) */
export function downIndexOf(message: Buffer): number | undefined {
  if (message.length < linkBytes) return undefined;
  const type = isLittle ? message.readUInt16LE(typeAt) : message.readUInt16BE(typeAt);
  const isDown = type === deleteLink || (type === newLink && (wordOf(message, flagsAt) & isUp) === 0);
  return isDown ? wordOf(message, indexAt) : undefined;
}

function wordOf(message: Buffer, at: number): number {
  return isLittle ? message.readUInt32LE(at) : message.readUInt32BE(at);
}
