/**
 * IPv4 addresses and prefixes as unsigned 32-bit integers in host order. Text is accepted in its canonical form only:
 * four decimal octets without leading zeros (RFC 6943 section 3.1.1 lists the loose forms).
 */

/** The brand: only the functions of this file make an Ipv4 from a number or from text. */
export type Ipv4 = number & { readonly __brand: 'Ipv4' };

/** The host bits of `base` are zero. */
export interface Prefix {
  readonly base: Ipv4;
  readonly length: number;
}

const octet = '(0|[1-9]\\d?|1\\d\\d|2[0-4]\\d|25[0-5])';
const dottedQuad = new RegExp(`^${octet}\\.${octet}\\.${octet}\\.${octet}$`);

/** @returns undefined unless `text` is exactly four decimal octets */
export function readIpv4(text: string): Ipv4 | undefined {
  const match = dottedQuad.exec(text);
  if (!match) return undefined;
  return ipv4FromNumber(
    Number(match[1]) * 2 ** 24 + Number(match[2]) * 2 ** 16 + Number(match[3]) * 2 ** 8 + Number(match[4]),
  );
}

/** @throws RangeError whose message quotes the text */
export function parseIpv4(text: string): Ipv4 {
  const address = readIpv4(text);
  if (address === undefined) throw new RangeError(`'${shown(text)}' is not an IPv4 address such as 192.0.2.1`);
  return address;
}

/** @throws RangeError outside 0 .. 2^32-1 */
export function ipv4FromNumber(value: number): Ipv4 {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new RangeError(`${value} is not an IPv4 address`);
  return value as Ipv4;
}

export function formatIpv4(address: Ipv4): string {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
}

/** @throws RangeError unless `a.b.c.d/length` with no host bits */
export function parsePrefix(text: string): Prefix {
  const [address, length, ...rest] = text.split('/');
  const bits = /^(0|[1-9]\d?)$/.test(length ?? '') ? Number(length) : NaN;
  const base = readIpv4(address ?? '');
  if (base === undefined || rest.length > 0 || !(bits <= 32)) {
    throw new RangeError(`'${shown(text)}' is not an IPv4 prefix such as 10.5.1.0/24`);
  }
  const prefix = prefixAround(base, bits);
  if (prefix.base !== base)
    throw new RangeError(`'${shown(text)}' has host bits set, did you mean ${formatPrefix(prefix)}?`);
  return prefix;
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIpv4(prefix.base)}/${prefix.length}`;
}

/** Returns the prefix of this length that contains the address. */
export function prefixAround(address: Ipv4, length: number): Prefix {
  return { base: ipv4FromNumber((address & prefixMask(length)) >>> 0), length };
}

/** Returns the address of the subnet's bridge, which is the gateway of its containers. */
export function bridgeAddress(subnet: Prefix): Ipv4 {
  return ipv4FromNumber(subnet.base + 1);
}

/** Returns text such as `10.5.1.1/24`, the form of Docker's --bip. */
export function formatBridgeAddress(subnet: Prefix): string {
  return `${formatIpv4(bridgeAddress(subnet))}/${subnet.length}`;
}

export function prefixMask(length: number): Ipv4 {
  // JavaScript computes a shift by 32 as a shift by 0, so /0 needs its own branch.
  return ipv4FromNumber(length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0);
}

/** Returns the number of addresses in a prefix of this length. */
export function prefixSize(length: number): number {
  return 2 ** (32 - length);
}

export function prefixLast(prefix: Prefix): Ipv4 {
  return ipv4FromNumber(prefix.base + prefixSize(prefix.length) - 1);
}

export function prefixContains(prefix: Prefix, address: Ipv4): boolean {
  return address >= prefix.base && address <= prefixLast(prefix);
}

export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  return outer.length <= inner.length && prefixContains(outer, inner.base);
}

export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return prefixCovers(a, b) || prefixCovers(b, a);
}

export function samePrefix(a: Prefix, b: Prefix): boolean {
  return a.base === b.base && a.length === b.length;
}

/** Orders prefixes by base, then by length. */
export function comparePrefixes(a: Prefix, b: Prefix): number {
  return a.base - b.base || a.length - b.length;
}

/** 0/8, loopback, link-local, multicast and class E: no host has such an address on an underlay. */
export const nonUnicastRanges = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'].map(
  parsePrefix,
);

/** Tells whether a host can have the address on an underlay. */
export function isUnicastHost(address: Ipv4): boolean {
  return !nonUnicastRanges.some(range => prefixContains(range, address));
}

/** Returns the text for an error message: at most 60 characters, all of them printable ASCII. */
export function shown(text: string): string {
  const plain = text.replace(/[^\x20-\x7e]/g, '?');
  return plain.length > 60 ? `${plain.slice(0, 57)}...` : plain;
}
