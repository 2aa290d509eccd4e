/**
 * The rtnetlink(7) messages that this program sends and reads: links, IPv4 addresses, IPv4 routes, neighbours. The netlink
 * package does the framing and the fixed structures. This module reads attributes one by one, so that an attribute that
 * a later kernel changes affects no other. The results are typed; a malformed message is undefined.
 */
import {
  formatAddress,
  formatLink,
  formatNeighbor,
  formatRoute as formatRouteHeader,
  parseAddress,
  parseLink,
  parseNeighbor,
  parseRoute,
} from 'netlink/dist/rt/gen_structs.js';
import { AttrStream, getU32, parseAttributes, putU32, type NetlinkAttribute } from 'netlink/dist/structs.js';
import {
  addressBytes,
  addressFromBytes,
  prefixAround,
  unspecifiedIpv4,
  shown,
  type Ipv4,
  type Prefix,
} from '../../model/ip.js';
import type { CreatedMake } from '../../model/plan.js';

/** linux/rtnetlink.h */
export const messageTypes = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  deleteNeighbour: 29,
  getNeighbour: 30,
  getRule: 34,
} as const;

/**
 * Multicast groups of linux/rtnetlink.h: RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, and
 * RTNLGRP_IPV4_NETCONF, which tells of forwarding and rp_filter.
 */
export const changeGroups: readonly number[] = [1, 5, 7, 8, 24];

export interface KernelLink {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly queueLength: number;
  /** `tun`, `veth`, `bridge` ...; undefined for hardware. */
  readonly kind: string | undefined;
  /** A free text (IFLA_IFALIAS) by which a program can mark its links. */
  readonly alias: string | undefined;
  readonly mac: string | undefined;
  readonly vxlan: KernelVxlan | undefined;
}

/** What a link of kind vxlan is set to (IFLA_INFO_DATA); the kernel leaves out what is not set. */
export interface KernelVxlan {
  readonly vni: number | undefined;
  readonly port: number | undefined;
  readonly local: Ipv4 | undefined;
  readonly learning: boolean;
}

/** An entry of the neighbour table, or of the forwarding table of a link (NTF_SELF). */
export interface KernelNeighbour {
  readonly kind: 'neighbour' | 'forwarding';
  readonly linkIndex: number;
  readonly mac: string;
  /** The address of the neighbour, or where outer packets to `mac` go. */
  readonly address: Ipv4;
  readonly permanent: boolean;
}

export type NeighbourTarget = Omit<KernelNeighbour, 'permanent'>;

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
export const routeTypes = { unicast: 1, local: 2, blackhole: 6, unreachable: 7, prohibit: 8, throw: 9 } as const;
/** RTNH_F_ONLINK of linux/rtnetlink.h, which stands in rtm_flags too. */
const onlinkFlag = 4;

export const afInet = 2;
const afBridge = 7;
const ifla = { mac: 1, name: 3, mtu: 4, queueLength: 13, linkInfo: 18, alias: 20, extMask: 29 } as const;
const iflaInfo = { kind: 1, data: 2 } as const;
const iflaVxlan = { vni: 1, local: 4, learning: 7, port: 15 } as const;
/** NUD_INCOMPLETE and NUD_FAILED; ndm_state is the lower half of that word. */
const deadStates = 0x21;
const nda = { destination: 1, mac: 2 } as const;
/** RTEXT_FILTER_SKIP_STATS: a dump leaves out the counters of the links. */
const skipStats = 8;
const ifa = { address: 1, local: 2, flags: 8, protocol: 11 } as const;
const ifaFlags = { deprecated: 0x20, permanent: 0x80 } as const;
const rta = {
  destination: 1,
  from: 2,
  inLink: 3,
  link: 4,
  gateway: 5,
  metric: 6,
  source: 7,
  multipath: 9,
  table: 15,
} as const;

type Attributes = ReadonlyMap<number, Buffer>;

export function body(
  header: Uint8Array,
  attributes: readonly (readonly [type: number, value: Uint8Array])[],
): Uint8Array {
  const stream = new AttrStream();
  stream.emit(header);
  for (const [type, value] of attributes) stream.push(type, value);
  return Buffer.concat(stream.bufs);
}

export function split(message: Buffer, headerBytes: number): { header: Buffer; attributes: Attributes } | undefined {
  if (message.length < headerBytes) return undefined;
  const attributes = new Map<number, Buffer>();
  try {
    parseAttributes(message.subarray(headerBytes), (item: NetlinkAttribute) => attributes.set(item.type, item.data));
  } catch {
    return undefined;
  }
  return { header: message.subarray(0, headerBytes), attributes };
}

export function number(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  return value?.length === 4 ? getU32(value) : undefined;
}

export function address(attributes: Attributes, type: number): Ipv4 | undefined {
  return addressFromBytes(attributes.get(type) ?? []);
}

export function text(value: Buffer | undefined): string | undefined {
  return value?.toString('utf8').replace(/\0.*$/s, '');
}

function textBytes(value: string): Uint8Array {
  return Buffer.from(`${value}\0`);
}

/** @throws RangeError whose message quotes the text */
function macBytes(value: string): Uint8Array {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(value)) throw new RangeError(`'${shown(value)}' is not six octets in hex`);
  return Buffer.from(value.replaceAll(':', ''), 'hex');
}

function readMac(value: Buffer | undefined): string | undefined {
  return value?.length === 6 ? value.toString('hex').replace(/..(?=.)/g, '$&:') : undefined;
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

/** A packet that another host or a container sends: its source, and the link at which it comes in. */
export interface ForwardedFrom {
  readonly source: Ipv4;
  readonly linkIndex: number;
}

/** RTM_F_LOOKUP_TABLE: the answer names the table that decided. */
const tableFlag = 0x1000;

/**
 * For RTM_GETROUTE: asks for the route that the kernel would use for a packet to this address.
 * @param from undefined: this host sends it
 */
export function lookUpRoute(destination: Ipv4, from?: ForwardedFrom): Uint8Array {
  const lengths = { family: afInet, dstLen: 32, ...(from && { srcLen: 32 }) };
  return body(formatRouteHeader({ ...lengths, flags: { __unknown: tableFlag } }), [
    [rta.destination, addressBytes(destination)],
    ...(from ? [[rta.from, addressBytes(from.source)] as const, [rta.inLink, putU32(from.linkIndex)] as const] : []),
  ]);
}

export function dumpNeighbours(kind: KernelNeighbour['kind']): Uint8Array {
  return body(formatNeighbor({ family: kind === 'neighbour' ? afInet : afBridge }), []);
}

/** For RTM_GETNEIGH: asks for one entry. */
export function lookUpNeighbour(ifindex: number, destination: Ipv4): Uint8Array {
  return body(formatNeighbor({ family: afInet, ifindex }), [[nda.destination, addressBytes(destination)]]);
}

/** Whether an entry is NUD_INCOMPLETE or NUD_FAILED (rtnetlink(7)): it has no hardware address then. */
export function readIsDead(message: Buffer): boolean | undefined {
  return message.length < 12 ? undefined : (getU32(message.subarray(8)) & deadStates) !== 0;
}

export interface LinkChange {
  readonly name?: string;
  readonly alias?: string;
  readonly mtu?: number;
  readonly queueLength?: number;
  readonly up?: true;
}

export function changeLink(index: number, change: LinkChange): Uint8Array {
  const header = formatLink({ index, ...(change.up ? { flags: { up: true }, change: { up: true } } : {}) });
  return body(header, [
    ...(change.name === undefined ? [] : [[ifla.name, textBytes(change.name)] as const]),
    ...(change.alias === undefined ? [] : [[ifla.alias, textBytes(change.alias)] as const]),
    ...(change.mtu === undefined ? [] : [[ifla.mtu, putU32(change.mtu)] as const]),
    ...(change.queueLength === undefined ? [] : [[ifla.queueLength, putU32(change.queueLength)] as const]),
  ]);
}

/** For RTM_NEWLINK that creates: the kernel sets no alias then. */
export function createLink(name: string, make: CreatedMake): Uint8Array {
  const port = Buffer.alloc(2);
  port.writeUInt16BE(make.port);
  const nested = (attributes: Parameters<typeof body>[1]): Uint8Array => body(Buffer.alloc(0), attributes);
  const data = nested([
    [iflaVxlan.vni, putU32(make.vni)],
    [iflaVxlan.local, addressBytes(make.local)],
    [iflaVxlan.learning, Uint8Array.of(0)],
    [iflaVxlan.port, port],
  ]);
  const info = nested([
    [iflaInfo.kind, textBytes(make.kind)],
    [iflaInfo.data, data],
  ]);
  return body(formatLink({}), [
    [ifla.name, textBytes(name)],
    ...(make.mac === undefined ? [] : [[ifla.mac, macBytes(make.mac)] as const]),
    [ifla.linkInfo, info],
  ]);
}

/** For RTM_DELLINK. */
export function linkByIndex(index: number): Uint8Array {
  return body(formatLink({ index }), []);
}

/** For RTM_NEWNEIGH and RTM_DELNEIGH. */
export function neighbourMessage({ kind, linkIndex: ifindex, mac, address: destination }: NeighbourTarget): Uint8Array {
  const isNeighbour = kind === 'neighbour';
  const family = isNeighbour ? afInet : afBridge;
  const header = formatNeighbor({
    family,
    ifindex,
    state: { permanent: true },
    flags: isNeighbour ? {} : { self: true },
  });
  return body(header, [
    [nda.destination, addressBytes(destination)],
    [nda.mac, macBytes(mac)],
  ]);
}

/** For RTM_NEWADDR and RTM_DELADDR. */
export function linkAddress(linkIndex: number, prefix: Prefix, protocol: number): Uint8Array {
  const bytes = addressBytes(prefix.base);
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
    [rta.destination, addressBytes(route.destination.base)],
    [rta.metric, putU32(route.metric)],
    ...(route.linkIndex === undefined ? [] : [[rta.link, putU32(route.linkIndex)] as const]),
    ...(route.gateway === undefined ? [] : [[rta.gateway, addressBytes(route.gateway)] as const]),
  ]);
}

export function readLink(message: Buffer): KernelLink | undefined {
  const parts = split(message, 16);
  const name = text(parts?.attributes.get(ifla.name));
  if (!parts || !name) return undefined;
  const { index = 0, flags } = parseLink(parts.header);
  const info = split(parts.attributes.get(ifla.linkInfo) ?? Buffer.alloc(0), 0)?.attributes;
  const kind = text(info?.get(iflaInfo.kind));
  return {
    index,
    name,
    mtu: number(parts.attributes, ifla.mtu) ?? 0,
    up: flags?.up === true,
    queueLength: number(parts.attributes, ifla.queueLength) ?? 0,
    kind,
    alias: text(parts.attributes.get(ifla.alias)),
    mac: readMac(parts.attributes.get(ifla.mac)),
    vxlan: kind === 'vxlan' ? readVxlan(info?.get(iflaInfo.data)) : undefined,
  };
}

function readVxlan(data: Buffer | undefined): KernelVxlan | undefined {
  const attributes = data && split(data, 0)?.attributes;
  const port = attributes?.get(iflaVxlan.port);
  return (
    attributes && {
      vni: number(attributes, iflaVxlan.vni),
      port: port?.length === 2 ? port.readUInt16BE() : undefined,
      local: address(attributes, iflaVxlan.local),
      learning: attributes.get(iflaVxlan.learning)?.[0] !== 0,
    }
  );
}

/** @returns undefined for entries of IPv6 and of other forwarding tables too */
export function readNeighbour(message: Buffer): KernelNeighbour | undefined {
  const parts = split(message, 12);
  if (!parts) return undefined;
  const { family, ifindex = 0, state, flags } = parseNeighbor(parts.header);
  const mac = readMac(parts.attributes.get(nda.mac));
  const destination = address(parts.attributes, nda.destination);
  const isForwarding = family === afBridge && flags?.self === true;
  if (mac === undefined || destination === undefined || !(isForwarding || family === afInet)) return undefined;
  const kind = isForwarding ? 'forwarding' : 'neighbour';
  return { kind, linkIndex: ifindex, mac, address: destination, permanent: state?.permanent === true };
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
  const destination = address(parts.attributes, rta.destination) ?? unspecifiedIpv4;
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
