/**
 * Decides which leases of a set are peers of this node. A bad entry is refused alone, and the others stay. The result
 * does not depend on the order of the input.
 */
import {
  comparePrefixes,
  formatPrefix,
  prefixAround,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  samePrefix,
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
  /** The ranges of the peers, for the caller to go on with. */
  readonly taken: Prefixes;
}

export function vetLeases(set: LeaseSet, self: LocalView): VettedLeases {
  const peers: Lease[] = [];
  const rejected = [...set.rejected];
  // The older lease keeps its range, so an entry that was created later cannot take traffic away from it.
  const byAge = sortByAge(set.leases);
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
  return { peers, rejected, taken };
}

/** Revisions are numbers in the comparison, because a bigint costs ten times as much; etcd counts far below 2^53. */
function sortByAge(leases: readonly Lease[]): readonly Lease[] {
  return leases
    .map(lease => ({ lease, created: Number(lease.createRevision) }))
    .sort((a, b) => a.created - b.created || comparePrefixes(a.lease.subnet, b.lease.subnet))
    .map(({ lease }) => lease);
}

function refuse(lease: Lease, self: LocalView, taken: Prefixes): string | undefined {
  const reason = refuseAlone(lease, self);
  if (reason !== undefined) return reason;
  const other = taken.overlapping(lease.subnet);
  return other && `overlaps the older lease ${formatPrefix(other)}`;
}

/** Returns why a lease is no peer, whatever other leases there are. */
export function refuseAlone(lease: Lease, self: LocalView): string | undefined {
  const { network, subnet, publicIp } = self;
  if (lease.subnet.length <= network.length || !prefixCovers(network, lease.subnet))
    return `is not a part of the network ${formatPrefix(network)}`;
  if (prefixesOverlap(lease.subnet, subnet)) return `overlaps our own subnet ${formatPrefix(subnet)}`;
  if (lease.publicIp === publicIp) return 'has our own public address';
  return prefixContains(network, lease.publicIp) ? 'has a public address inside the overlay network' : undefined;
}

/**
 * A set of disjoint prefixes. It finds an overlap by a look-up for each length that the set has, and by one look-up for
 * the prefixes inside.
 */
export class Prefixes {
  /** The prefixes of each length by base. */
  readonly #byLength = new Map<number, Map<Ipv4, Prefix>>();
  /** The bases of every prefix that covers one of the set, by length. */
  readonly #covering = new Map<number, Set<Ipv4>>();

  add(prefix: Prefix): void {
    entryOf(this.#byLength, prefix.length, () => new Map<Ipv4, Prefix>()).set(prefix.base, prefix);
    // Where one covering prefix is known, all shorter ones are known too.
    for (let length = prefix.length; length >= 0; length--) {
      const known = entryOf(this.#covering, length, () => new Set<Ipv4>());
      const { base } = prefixAround(prefix.base, length);
      if (known.has(base)) return;
      known.add(base);
    }
  }

  /** What covers the prefix stays known: a later look-up may take longer, and finds the same. */
  remove({ base, length }: Prefix): void {
    this.#byLength.get(length)?.delete(base);
  }

  has({ base, length }: Prefix): boolean {
    return this.#byLength.get(length)?.has(base) === true;
  }

  overlapping(prefix: Prefix): Prefix | undefined {
    for (const [length, prefixes] of this.#byLength) {
      const found = length <= prefix.length && prefixes.get(prefixAround(prefix.base, length).base);
      if (found) return found;
    }
    if (!this.#covering.get(prefix.length)?.has(prefix.base)) return undefined;
    const all = [...this.#byLength.values()].flatMap(prefixes => [...prefixes.values()]);
    return all.find(found => prefixesOverlap(found, prefix));
  }
}

function entryOf<T>(map: Map<number, T>, length: number, make: () => T): T {
  const found = map.get(length) ?? make();
  map.set(length, found);
  return found;
}
