/** Carves a part out of this host's lease for one more Docker network: aligned, free, the lowest that fits. Pure. */
import {
  formatPrefix,
  nthPrefix,
  placesBehind,
  prefixAround,
  prefixCovers,
  prefixesOverlap,
  prefixLast,
  type Prefix,
} from '../model/ip.js';

export type CarveRequest =
  | { readonly kind: 'exact'; readonly subnet: Prefix }
  | { readonly kind: 'length'; readonly length: number }
  /** Asks for the largest free part of 8 to 64 addresses. */
  | { readonly kind: 'any' };

export interface UsedSubnet {
  readonly subnet: Prefix;
  /** Names the user of the subnet in a message. */
  readonly by: string;
}

export type Carving =
  | { readonly kind: 'carved'; readonly subnet: Prefix }
  /** Nothing of that size is free; `all` is set when one user has the whole lease. */
  | { readonly kind: 'full'; readonly all: UsedSubnet | undefined }
  | { readonly kind: 'refused'; readonly reason: string };

/** A /30 holds the network address, the gateway, one container and the broadcast address. */
export const longestLength = 30;
const shortestDefaultLength = 26;
const longestDefaultLength = 29;

export function carve(lease: Prefix, used: readonly UsedSubnet[], request: CarveRequest): Carving {
  if (request.kind === 'exact') return carveExact(lease, used, request.subnet);
  const lengths = request.kind === 'length' ? [request.length] : lengthsToTry(lease);
  for (const length of lengths) {
    const subnet = firstFree(lease, used, length);
    if (subnet) return { kind: 'carved', subnet };
  }
  return { kind: 'full', all: used.find(one => prefixCovers(one.subnet, lease)) };
}

function carveExact(lease: Prefix, used: readonly UsedSubnet[], subnet: Prefix): Carving {
  const text = formatPrefix(subnet);
  if (subnet.length > longestLength)
    return { kind: 'refused', reason: `${text} has no room for a container, expected /${longestLength} or shorter` };
  if (!prefixCovers(lease, subnet))
    return { kind: 'refused', reason: `${text} is not a part of this host's lease ${formatPrefix(lease)}` };
  const rival = used.find(one => prefixesOverlap(one.subnet, subnet));
  if (!rival) return { kind: 'carved', subnet };
  return { kind: 'refused', reason: `${text} overlaps ${formatPrefix(rival.subnet)} of ${rival.by}` };
}

function lengthsToTry(lease: Prefix): readonly number[] {
  const first = Math.max(shortestDefaultLength, lease.length);
  const last = Math.max(longestDefaultLength, first);
  return Array.from({ length: last - first + 1 }, (_, more) => first + more);
}

function firstFree(lease: Prefix, used: readonly UsedSubnet[], length: number): Prefix | undefined {
  if (length < lease.length || length > longestLength) return undefined;
  const first = prefixAround(lease.base, length);
  for (let place = 0; place < 2 ** (length - lease.length);) {
    const subnet = nthPrefix(first, place);
    const rival = used.find(one => prefixesOverlap(one.subnet, subnet));
    if (!rival) return subnet;
    // The search goes on behind the rival: a short prefix holds millions of small parts.
    place = placesBehind(first, prefixLast(rival.subnet)) + 1;
  }
  return undefined;
}
