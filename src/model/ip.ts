/**
 * IP addresses and prefixes of either family. An address is opaque: only this file computes with it. Addresses of one
 * family compare by `===` and by `<`, and are keys of a Map.
 *
 * Text of IPv4 is accepted in its canonical form only: four decimal octets without leading zeros (RFC 6943 section 3.1.1
 * lists the loose forms). Text of IPv6 is accepted in each form of RFC 4291 section 2.2 without a zone, and written as
 * RFC 5952 says.
 */
import { isIPv6, SocketAddress } from 'node:net';

declare const ipv4: unique symbol;
declare const ipv6: unique symbol;

/** Holds an unsigned 32-bit number in host order. */
export interface Ipv4 {
  readonly [ipv4]: true;
}

/** Holds an unsigned 128-bit bigint in host order. */
export interface Ipv6 {
  readonly [ipv6]: true;
}

export type Address = Ipv4 | Ipv6;

/** The host bits of `base` are zero. */
export interface Prefix<A extends Address = Ipv4> {
  readonly base: A;
  readonly length: number;
}

export type AnyPrefix = Prefix<Address>;

/** A key of a Map: equal for equal prefixes only. */
export type PrefixKey = number | bigint;

const octet = '(0|[1-9]\\d?|1\\d\\d|2[0-4]\\d|25[0-5])';
const dottedQuad = new RegExp(`^${octet}\\.${octet}\\.${octet}\\.${octet}$`);

/** @returns undefined unless `text` is exactly four decimal octets */
export function readIpv4(text: string): Ipv4 | undefined {
  const match = dottedQuad.exec(text);
  return match ? addressFromBytes(match.slice(1).map(Number)) : undefined;
}

/** @returns undefined unless `text` is an address without a zone */
export function readIpv6(text: string): Ipv6 | undefined {
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const [head = '', tail] = text.split('::');
  const groups = groupsOf(head);
  const last = groupsOf(tail ?? '');
  const zeros = Array.from({ length: 8 - groups.length - last.length }, () => 0);
  return unchecked([...groups, ...zeros, ...last].reduce((value, group) => value * 65_536n + BigInt(group), 0n));
}

/** @throws RangeError whose message quotes the text */
export function parseIpv4(text: string): Ipv4 {
  const address = readIpv4(text);
  if (address === undefined) throw new RangeError(`'${shown(text)}' is not an IPv4 address such as 192.0.2.1`);
  return address;
}

/** @throws RangeError whose message quotes the text */
export function parseAddress(text: string): Address {
  const address = readIpv4(text) ?? readIpv6(text);
  if (address === undefined)
    throw new RangeError(`'${shown(text)}' is not an IP address such as 192.0.2.1 or 2001:db8::1`);
  return address;
}

/** @throws RangeError outside 0 .. 2^32-1 */
export function ipv4FromNumber(value: number): Ipv4 {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new RangeError(`${value} is not an IPv4 address`);
  return value as unknown as Ipv4;
}

/** Returns the unsigned number of host order, for the formats of the kernel and of the data process. */
export function ipv4Number(address: Ipv4): number {
  return address as unknown as number;
}

/** @param bytes in network order @returns undefined for another count than 4 */
export function addressFromBytes(bytes: readonly number[] | Uint8Array): Ipv4 | undefined {
  const [a = 0, b = 0, c = 0, d = 0] = bytes;
  return bytes.length === 4 ? ipv4FromNumber(((a * 256 + b) * 256 + c) * 256 + d) : undefined;
}

/** Returns 4 or 16 bytes in network order. */
export function addressBytes(address: Address): Uint8Array {
  const bits = bitsOf(address);
  return Uint8Array.from({ length: bits / 8 }, (_, at) =>
    Number((valueOf(address) >> BigInt(bits - 8 - 8 * at)) & 255n),
  );
}

/** Returns four words of host order; an IPv4 address is the first of them (layout.h). */
export function addressWords(address: Address): readonly [number, number, number, number] {
  if (isIpv4(address)) return [ipv4Number(address), 0, 0, 0];
  const word = (shift: bigint): number => Number((valueOf(address) >> shift) & 0xffffffffn);
  return [word(96n), word(64n), word(32n), word(0n)];
}

export function familyOf(address: Address): 4 | 6 {
  return typeof address === 'number' ? 4 : 6;
}

export const unspecifiedIpv4 = ipv4FromNumber(0);

export function formatIpv4(address: Ipv4): string {
  const value = ipv4Number(address);
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

export function formatAddress(address: Address): string {
  if (isIpv4(address)) return formatIpv4(address);
  const groups = Array.from({ length: 8 }, (_, at) =>
    ((valueOf(address) >> BigInt(112 - 16 * at)) & 0xffffn).toString(16),
  );
  return new SocketAddress({ family: 'ipv6', address: groups.join(':') }).address;
}

/** @throws RangeError unless `a.b.c.d/length` with no host bits */
export function parsePrefix(text: string): Prefix {
  return readPrefix(text, readIpv4, 'an IPv4 prefix such as 10.5.1.0/24');
}

/** @throws RangeError unless it is a prefix of either family with no host bits */
export function parseAnyPrefix(text: string): AnyPrefix {
  return text.includes(':')
    ? readPrefix(text, readIpv6, 'an IPv6 prefix such as fd00:5::/64')
    : readPrefix(text, readIpv4, 'a prefix such as 10.5.1.0/24 or fd00:5::/64');
}

function readPrefix<A extends Address>(
  text: string,
  read: (address: string) => A | undefined,
  expected: string,
): Prefix<A> {
  const [address, length, ...rest] = text.split('/');
  const bits = /^(0|[1-9]\d{0,2})$/.test(length ?? '') ? Number(length) : NaN;
  const base = read(address ?? '');
  if (base === undefined || rest.length > 0 || !(bits <= bitsOf(base)))
    throw new RangeError(`'${shown(text)}' is not ${expected}`);
  const prefix = prefixAround(base, bits);
  if (prefix.base !== base)
    throw new RangeError(`'${shown(text)}' has host bits set, did you mean ${formatPrefix(prefix)}?`);
  return prefix;
}

export function formatPrefix(prefix: AnyPrefix): string {
  return `${formatAddress(prefix.base)}/${prefix.length}`;
}

/** Returns the prefix of this length that contains the address. */
export function prefixAround<A extends Address>(address: A, length: number): Prefix<A> {
  if (isIpv4(address)) return { base: unchecked((ipv4Number(address) & maskNumber(length)) >>> 0), length };
  const hostBits = BigInt(128 - length);
  return { base: unchecked((valueOf(address) >> hostBits) << hostBits), length };
}

/** Returns the prefix of the same length that many places further. @throws RangeError outside of the address space */
export function nthPrefix<A extends Address>(first: Prefix<A>, places: number): Prefix<A> {
  const { base, length } = first;
  return { base: plus(base, BigInt(places) << BigInt(bitsOf(base) - length)), length };
}

/** Returns how many places of the prefix's length the address is behind it; negative before it. */
export function placesBehind<A extends Address>(first: Prefix<A>, address: A): number {
  const hostBits = BigInt(bitsOf(first.base) - first.length);
  return Number((valueOf(address) - valueOf(first.base)) >> hostBits);
}

/** Returns the address of the subnet's bridge, which is the gateway of its containers. */
export function bridgeAddress(subnet: Prefix): Ipv4 {
  return plus(subnet.base, 1n);
}

/** Returns text such as `10.5.1.1/24`, the form of Docker's --bip. */
export function formatBridgeAddress(subnet: Prefix): string {
  return `${formatIpv4(bridgeAddress(subnet))}/${subnet.length}`;
}

/** Returns the mask as a number in host order. */
export function maskNumber(length: number): number {
  // JavaScript computes a shift by 32 as a shift by 0, so /0 needs its own branch.
  return length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
}

export function prefixLast<A extends Address>({ base, length }: Prefix<A>): A {
  if (isIpv4(base)) return unchecked(ipv4Number(base) + 2 ** (32 - length) - 1);
  return plus(base, (1n << BigInt(128 - length)) - 1n);
}

export function prefixContains(prefix: AnyPrefix, address: Address): boolean {
  return familyOf(prefix.base) === familyOf(address) && address >= prefix.base && address <= prefixLast(prefix);
}

export function prefixCovers(outer: AnyPrefix, inner: AnyPrefix): boolean {
  return outer.length <= inner.length && prefixContains(outer, inner.base);
}

export function prefixesOverlap(a: AnyPrefix, b: AnyPrefix): boolean {
  return prefixCovers(a, b) || prefixCovers(b, a);
}

export function samePrefix(a: AnyPrefix, b: AnyPrefix): boolean {
  return a.base === b.base && a.length === b.length;
}

/** Orders prefixes by family, then by base, then by length. */
export function comparePrefixes(a: AnyPrefix, b: AnyPrefix): number {
  const byFamily = familyOf(a.base) - familyOf(b.base);
  if (byFamily !== 0) return byFamily;
  if (a.base === b.base) return a.length - b.length;
  return a.base < b.base ? -1 : 1;
}

export function prefixKey({ base, length }: AnyPrefix): PrefixKey {
  return isIpv4(base) ? ipv4Number(base) * 64 + length : valueOf(base) * 256n + BigInt(length);
}

/** 0/8, loopback, link-local, multicast and class E: no host has such an address on an underlay. */
export const nonUnicastRanges = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'].map(
  parsePrefix,
);

/** Tells whether a host can have the address on an underlay. */
export function isUnicastHost(address: Ipv4): boolean {
  return !nonUnicastRanges.some(range => prefixContains(range, address));
}

const linkLocalRanges = ['169.254.0.0/16', 'fe80::/10'].map(parseAnyPrefix);

/** RFC 3927 and RFC 4291 section 2.5.6. */
export function isLinkLocal(address: Address): boolean {
  return linkLocalRanges.some(range => prefixContains(range, address));
}

/** Returns the text for an error message: at most 60 characters, all of them printable ASCII. */
export function shown(text: string): string {
  const plain = text.replace(/[^\x20-\x7e]/g, '?');
  return plain.length > 60 ? `${plain.slice(0, 57)}...` : plain;
}

function isIpv4(address: Address): address is Ipv4 {
  return familyOf(address) === 4;
}

function bitsOf(address: Address): 32 | 128 {
  return isIpv4(address) ? 32 : 128;
}

function valueOf(address: Address): bigint {
  return BigInt(address as unknown as number | bigint);
}

/** The caller has computed a number for Ipv4, a bigint for Ipv6. */
function unchecked<A extends Address>(value: number | bigint): A {
  return value as unknown as A;
}

/** @throws RangeError outside of the address space */
function plus<A extends Address>(address: A, offset: bigint): A {
  const value = valueOf(address) + offset;
  if (value < 0n || value >> BigInt(bitsOf(address)) !== 0n)
    throw new RangeError(`${formatAddress(address)} plus ${offset} is not an address`);
  return unchecked(isIpv4(address) ? Number(value) : value);
}

/** Returns the 16-bit groups of a part of an IPv6 address, whose end may be a dotted quad. */
function groupsOf(text: string): readonly number[] {
  if (text === '') return [];
  return text.split(':').flatMap(group => {
    const quad = readIpv4(group);
    return quad === undefined ? [Number.parseInt(group, 16)] : [ipv4Number(quad) >>> 16, ipv4Number(quad) & 0xffff];
  });
}
