/**
 * One packet at one hook of netfilter, and how conditions of rules match it. What cannot be known of a condition counts
 * for the rule's owner: `maybe` neither drops nor accepts for certain. Pure.
 */
import { parsePrefix, prefixCovers, prefixesOverlap, readIpv4, type Prefix } from '../../model/ip.js';

/** A link by its name, or any that has not this name: some bridge of containers. */
export type JudgedLink = { readonly is: string } | { readonly isNot: string };

export interface JudgedPacket {
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  /** undefined: this host itself sends it. */
  readonly from: JudgedLink | undefined;
  /** undefined: it is for this host itself. */
  readonly to: JudgedLink | undefined;
  /** Some address of the range, not known which. */
  readonly source: Prefix;
  readonly destination: Prefix;
  readonly transport: Transport;
  /** As conntrack sees it; no packet here is translated. Our own rules keep the kernel engine's from being tracked. */
  readonly state: 'new' | 'established' | 'related' | 'untracked';
}

export type Transport =
  /** `anySource`: the port is that of the destination alone. */
  | { readonly protocol: 'tcp' | 'udp'; readonly port: number; readonly anySource?: boolean }
  /** RFC 792; the names of types as nft writes them. */
  | { readonly protocol: 'icmp'; readonly type: number; readonly typeName: string; readonly code: number };

export interface DroppingRule {
  readonly chain: string;
  /** undefined: the policy of the chain drops. */
  readonly handle: number | undefined;
}

export type Match = 'yes' | 'no' | 'maybe';

const numbers = { tcp: 6, udp: 17, icmp: 1 } as const;

export function yesOrNo(is: boolean): Match {
  return is ? 'yes' : 'no';
}

export function opposite(match: Match): Match {
  return match === 'maybe' ? 'maybe' : yesOrNo(match === 'no');
}

export function both(a: Match, b: Match): Match {
  if (a === 'no' || b === 'no') return 'no';
  return a === 'maybe' || b === 'maybe' ? 'maybe' : 'yes';
}

export function anyOf(all: readonly Match[]): Match {
  if (all.includes('yes')) return 'yes';
  return all.includes('maybe') ? 'maybe' : 'no';
}

/** @param side which link a condition names */
export function matchesLink(packet: JudgedPacket, side: 'from' | 'to', name: string, wildcard: '*' | '+'): Match {
  const { hook } = packet;
  // The link that a packet leaves by is not chosen yet; the one that it came by is not always kept.
  if (side === 'to' && (hook === 'prerouting' || hook === 'input')) return 'no';
  if (side === 'from' && hook === 'postrouting') return packet.from ? 'maybe' : 'no';
  const link = packet[side];
  if (!link) return 'no';
  if ('is' in link) return yesOrNo(name.endsWith(wildcard) ? link.is.startsWith(name.slice(0, -1)) : link.is === name);
  return name === link.isNot || name === 'lo' ? 'no' : 'maybe';
}

/** @param text an address, or an address and a length */
export function matchesRange(range: Prefix, text: string): Match {
  const [address = '', length = '32'] = text.split('/');
  if (readIpv4(address) === undefined || !/^\d{1,2}$/.test(length) || Number(length) > 32) return 'maybe';
  const found = parsePrefix(`${address}/${length}`);
  if (prefixCovers(found, range)) return 'yes';
  return prefixesOverlap(found, range) ? 'maybe' : 'no';
}

/** @param protocol a name or a number */
export function matchesProtocol({ transport }: JudgedPacket, protocol: string): Match {
  if (protocol === 'all' || protocol === '0') return 'yes';
  return yesOrNo(protocol === transport.protocol || protocol === String(numbers[transport.protocol]));
}

/** Source and destination have the same port, unless the source may have any. */
export function matchesPorts(
  { transport }: JudgedPacket,
  side: 'source' | 'destination' | 'either',
  first: number,
  last = first,
): Match {
  if (transport.protocol === 'icmp') return 'no';
  const isPort = yesOrNo(transport.port >= first && transport.port <= last);
  if (!transport.anySource || side === 'destination') return isPort;
  return side === 'source' || isPort === 'no' ? 'maybe' : 'yes';
}

export function matchesState({ state }: JudgedPacket, wanted: string): Match {
  const text = wanted.toLowerCase();
  // Where nobody tracks, every packet is untracked.
  return yesOrNo(text === state || (text === 'untracked' && state === 'new'));
}

/** @param wanted the name or the number of the type */
export function matchesIcmpType({ transport }: JudgedPacket, wanted: string): Match {
  if (transport.protocol !== 'icmp') return 'no';
  return yesOrNo(wanted === transport.typeName || wanted === String(transport.type));
}
