/**
 * Decides which leases of a set are peers of this node. A bad entry is refused alone, and the others stay. The result
 * does not depend on the order of the input.
 */
import {
  formatPrefix,
  prefixAround,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  samePrefix,
  comparePrefixes,
  prefixKey,
  type PrefixKey,
  type Ipv4,
  type Prefix,
} from './ip.js';
import { formatLeaseKey, type Lease, type LeaseSet, type RejectedEntry } from './lease.js';

export interface LocalView {
  readonly network: Prefix;
  readonly subnet: Prefix;
  readonly publicIp: Ipv4;
}

export interface VettedLeases {
  readonly peers: readonly Lease[];
  readonly rejected: readonly RejectedEntry[];
}

export function vetLeases(set: LeaseSet, self: LocalView): VettedLeases {
  const peers: Lease[] = [];
  const rejected = [...set.rejected];
  // The older lease keeps its range, so an entry that was created later cannot take traffic away from it.
  const byAge = [...set.leases].sort(
    (a, b) => Number(a.createRevision - b.createRevision) || comparePrefixes(a.subnet, b.subnet),
  );
  const taken = new Prefixes();
  for (const lease of byAge) {
    if (samePrefix(lease.subnet, self.subnet)) continue;
    const reason = refuse(lease, self, taken);
    if (reason === undefined) {
      peers.push(lease);
      taken.add(lease.subnet);
    } else {
      rejected.push({ key: formatLeaseKey(lease.subnet), revision: lease.revision, reason });
    }
  }
  return { peers, rejected };
}

function refuse(lease: Lease, self: LocalView, taken: Prefixes): string | undefined {
  const { network, subnet, publicIp } = self;
  if (lease.subnet.length <= network.length || !prefixCovers(network, lease.subnet))
    return `is not a part of the network ${formatPrefix(network)}`;
  if (prefixesOverlap(lease.subnet, subnet)) return `overlaps our own subnet ${formatPrefix(subnet)}`;
  if (lease.publicIp === publicIp) return 'has our own public address';
  if (prefixContains(network, lease.publicIp)) return 'has a public address inside the overlay network';
  const other = taken.overlapping(lease.subnet);
  return other && `overlaps the older lease ${formatPrefix(other)}`;
}

/**
 * A set of disjoint prefixes. It finds an overlap by a look-up for each shorter length, at most 32, and by one look-up
 * for the prefixes inside.
 */
export class Prefixes {
  readonly #byBase = new Map<Ipv4, Prefix>();
  /** Every prefix that covers one of the set. */
  readonly #covering = new Set<PrefixKey>();

  add(prefix: Prefix): void {
    this.#byBase.set(prefix.base, prefix);
    // Where one covering prefix is known, all shorter ones are known too.
    for (let length = prefix.length; length >= 0; length--) {
      const name = prefixKey(prefixAround(prefix.base, length));
      if (this.#covering.has(name)) return;
      this.#covering.add(name);
    }
  }

  overlapping(prefix: Prefix): Prefix | undefined {
    for (let length = 0; length <= prefix.length; length++) {
      const found = this.#byBase.get(prefixAround(prefix.base, length).base);
      if (found && prefixesOverlap(found, prefix)) return found;
    }
    if (!this.#covering.has(prefixKey(prefix))) return undefined;
    return [...this.#byBase.values()].find(found => prefixesOverlap(found, prefix));
  }
}
