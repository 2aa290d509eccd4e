/**
 * The rtnetlink(7) messages that this program sends and reads: links, IPv4 addresses and IPv4 routes. The netlink
 * package does the framing and the fixed structures. This module reads attributes one by one, so that an attribute that
 * a later kernel changes affects no other. The results are typed; a malformed message is undefined.
 */
import {
  formatAddress,
  formatLink,
  formatRoute as formatRouteHeader,
  parseAddress,
  parseLink,
  parseRoute,
} from 'netlink/dist/rt/gen_structs.js';
import {
  AttrStream,
  getU32,
  parseAttributes,
  parseMessages,
  putU32,
  type NetlinkAttribute,
} from 'netlink/dist/structs.js';
import { ipv4FromNumber, prefixAround, type Ipv4, type Prefix } from '../../model/ipv4.js';

/** linux/rtnetlink.h */
export const messageTypes = {
  newLink: 16,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
} as const;

/** Multicast groups of linux/rtnetlink.h: RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE. */
export const changeGroups: readonly number[] = [1, 5, 7];

/** Multicast group of linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES: it also tells what iptables does on nftables. */
export const ruleGroups: readonly number[] = [7];

/** linux/netfilter/nf_tables.h: messages about tables, chains and rules have the types up to `deleteRule`. */
const nftables = { subsystem: 10, deleteRule: 8, ipv4: 2 } as const;

/**
 * Whether a datagram tells of a change of IPv4 tables, chains or rules. Elements of sets, which some programs change
 * all day, and the end of each transaction do not count. A malformed datagram counts as a change.
 */
export function changesRules(datagram: Buffer): boolean {
  try {
    return parseMessages(datagram).some(
      ({ type, data }) =>
        type >> 8 === nftables.subsystem && (type & 0xff) <= nftables.deleteRule && data[0] === nftables.ipv4,
    );
  } catch {
    return true;
  }
}

export interface KernelLink {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly queueLength: number;
  /** `tun`, `veth`, `bridge` ...; undefined for hardware. */
  readonly kind: string | undefined;
}

export interface KernelAddress {
  readonly linkIndex: number;
  readonly address: Ipv4;
  /** The other end of a point-to-point link, else the address itself. */
  readonly peer: Ipv4;
  readonly length: number;
  readonly scope: number;
  readonly permanent: boolean;
  readonly deprecated: boolean;
  /** The program that added it (IFA_PROTO, since Linux 5.18); 0 when the kernel does not tell. */
  readonly protocol: number;
}

export interface KernelRoute {
  readonly destination: Prefix;
  readonly metric: number;
  readonly tos: number;
  readonly table: number;
  readonly protocol: number;
  readonly type: 'unicast' | 'unreachable' | 'other';
  readonly typeNumber: number;
  readonly scope: number;
  readonly linkIndex: number | undefined;
  readonly gateway: Ipv4 | undefined;
  /** RTNH_F_ONLINK: the gateway counts as a neighbour on the link. */
  readonly onlink: boolean;
  readonly source: Ipv4 | undefined;
  readonly multipath: boolean;
}

/** The members of a route that a request to add or remove it names. */
export type RouteTarget = Omit<KernelRoute, 'type' | 'multipath' | 'source'>;

export const mainTable = 254;
export const scopeUniverse = 0;
export const scopeLink = 253;
export const routeTypes = { unicast: 1, unreachable: 7 } as const;
/** RTNH_F_ONLINK of linux/rtnetlink.h, which stands in rtm_flags too. */
const onlinkFlag = 4;

const afInet = 2;
const ifla = { name: 3, mtu: 4, queueLength: 13, linkInfo: 18, extMask: 29 } as const;
const iflaInfoKind = 1;
/** RTEXT_FILTER_SKIP_STATS: a dump leaves out the counters of the links. */
const skipStats = 8;
const ifa = { address: 1, local: 2, flags: 8, protocol: 11 } as const;
const ifaFlags = { deprecated: 0x20, permanent: 0x80 } as const;
const rta = { destination: 1, link: 4, gateway: 5, metric: 6, source: 7, multipath: 9, table: 15 } as const;

type Attributes = ReadonlyMap<number, Buffer>;

function body(header: Uint8Array, attributes: readonly (readonly [type: number, value: Uint8Array])[]): Uint8Array {
  const stream = new AttrStream();
  stream.emit(header);
  for (const [type, value] of attributes) stream.push(type, value);
  return Buffer.concat(stream.bufs);
}

function split(message: Buffer, headerBytes: number): { header: Buffer; attributes: Attributes } | undefined {
  if (message.length < headerBytes) return undefined;
  const attributes = new Map<number, Buffer>();
  try {
    parseAttributes(message.subarray(headerBytes), (item: NetlinkAttribute) => attributes.set(item.type, item.data));
  } catch {
    return undefined;
  }
  return { header: message.subarray(0, headerBytes), attributes };
}

function number(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  return value?.length === 4 ? getU32(value) : undefined;
}

function address(attributes: Attributes, type: number): Ipv4 | undefined {
  const value = attributes.get(type);
  return value?.length === 4 ? ipv4FromNumber(value.readUInt32BE()) : undefined;
}

function text(value: Buffer | undefined): string | undefined {
  return value?.toString('utf8').replace(/\0.*$/s, '');
}

function ipv4Bytes(value: Ipv4): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function dumpLinks(): Uint8Array {
  return body(formatLink({}), [[ifla.extMask, putU32(skipStats)]]);
}

export function dumpAddresses(): Uint8Array {
  return body(formatAddress({ family: afInet }), []);
}

export function dumpRoutes(): Uint8Array {
  return body(formatRouteHeader({ family: afInet }), []);
}

/** For RTM_GETROUTE: asks for the route that the kernel would use for a packet to this address. */
export function lookUpRoute(destination: Ipv4): Uint8Array {
  return body(formatRouteHeader({ family: afInet, dstLen: 32 }), [[rta.destination, ipv4Bytes(destination)]]);
}

export interface LinkChange {
  readonly mtu?: number;
  readonly queueLength?: number;
  readonly up?: true;
}

export function changeLink(index: number, change: LinkChange): Uint8Array {
  const header = formatLink({ index, ...(change.up ? { flags: { up: true }, change: { up: true } } : {}) });
  return body(header, [
    ...(change.mtu === undefined ? [] : [[ifla.mtu, putU32(change.mtu)] as const]),
    ...(change.queueLength === undefined ? [] : [[ifla.queueLength, putU32(change.queueLength)] as const]),
  ]);
}

/** For RTM_NEWADDR and RTM_DELADDR. */
export function linkAddress(linkIndex: number, prefix: Prefix, protocol: number): Uint8Array {
  const bytes = ipv4Bytes(prefix.base);
  return body(formatAddress({ family: afInet, prefixlen: prefix.length, scope: scopeUniverse, index: linkIndex }), [
    [ifa.local, bytes],
    [ifa.address, bytes],
    [ifa.protocol, Uint8Array.of(protocol)],
  ]);
}

/** For RTM_NEWROUTE and RTM_DELROUTE: names every member, so that a removal removes this route and no other. */
export function routeMessage(route: RouteTarget): Uint8Array {
  const header = formatRouteHeader({
    family: afInet,
    dstLen: route.destination.length,
    tos: route.tos,
    table: route.table,
    protocol: route.protocol,
    scope: route.scope,
    type: route.typeNumber,
    flags: { __unknown: route.onlink ? onlinkFlag : 0 },
  });
  return body(header, [
    [rta.destination, ipv4Bytes(route.destination.base)],
    [rta.metric, putU32(route.metric)],
    ...(route.linkIndex === undefined ? [] : [[rta.link, putU32(route.linkIndex)] as const]),
    ...(route.gateway === undefined ? [] : [[rta.gateway, ipv4Bytes(route.gateway)] as const]),
  ]);
}

export function readLink(message: Buffer): KernelLink | undefined {
  const parts = split(message, 16);
  const name = text(parts?.attributes.get(ifla.name));
  if (!parts || !name) return undefined;
  const { index = 0, flags } = parseLink(parts.header);
  return {
    index,
    name,
    mtu: number(parts.attributes, ifla.mtu) ?? 0,
    up: flags?.up === true,
    queueLength: number(parts.attributes, ifla.queueLength) ?? 0,
    kind: linkKind(parts.attributes.get(ifla.linkInfo)),
  };
}

function linkKind(info: Buffer | undefined): string | undefined {
  return info && text(split(info, 0)?.attributes.get(iflaInfoKind));
}

export function readAddress(message: Buffer): KernelAddress | undefined {
  const parts = split(message, 8);
  if (!parts) return undefined;
  const header = parseAddress(parts.header);
  const peer = address(parts.attributes, ifa.address);
  const local = address(parts.attributes, ifa.local) ?? peer;
  if (header.family !== afInet || local === undefined) return undefined;
  // The attribute has all 32 bits, the header the lowest eight; both flags read here are among those eight.
  const flags = number(parts.attributes, ifa.flags) ?? parts.header.readUInt8(2);
  return {
    linkIndex: header.index ?? 0,
    address: local,
    peer: peer ?? local,
    length: header.prefixlen ?? 32,
    scope: header.scope ?? scopeUniverse,
    permanent: (flags & ifaFlags.permanent) !== 0,
    deprecated: (flags & ifaFlags.deprecated) !== 0,
    protocol: parts.attributes.get(ifa.protocol)?.[0] ?? 0,
  };
}

export function readRoute(message: Buffer): KernelRoute | undefined {
  const parts = split(message, 12);
  if (!parts) return undefined;
  const header = parseRoute(parts.header);
  if (header.family !== afInet) return undefined;
  const length = header.dstLen ?? 0;
  const destination = address(parts.attributes, rta.destination) ?? ipv4FromNumber(0);
  // These numbers are read from the header: the codec returns names for some values and numbers for others.
  const typeNumber = parts.header.readUInt8(7);
  return {
    destination: prefixAround(destination, length),
    metric: number(parts.attributes, rta.metric) ?? 0,
    tos: header.tos ?? 0,
    table: number(parts.attributes, rta.table) ?? header.table ?? 0,
    protocol: parts.header.readUInt8(5),
    type:
      typeNumber === routeTypes.unicast ? 'unicast' : typeNumber === routeTypes.unreachable ? 'unreachable' : 'other',
    typeNumber,
    scope: parts.header.readUInt8(6),
    linkIndex: number(parts.attributes, rta.link),
    gateway: address(parts.attributes, rta.gateway),
    onlink: (getU32(parts.header.subarray(8)) & onlinkFlag) !== 0,
    source: address(parts.attributes, rta.source),
    multipath: parts.attributes.has(rta.multipath),
  };
}
