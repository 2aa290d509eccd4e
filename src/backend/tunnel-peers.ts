/**
 * The peers of the tunnel in the order of their subnets. Of many leases few differ from one plan to the next, so the
 * order of the last one is kept: a lease that came is put in its place, and one that was rewritten takes that of before.
 */
import type { Lease } from '../model/lease.js';
import { comparePrefixes, samePrefix, type Prefix } from '../model/ip.js';
import type { TunnelPeer } from '../model/plan.js';

/** With more differences all leases are sorted. */
const fewMax = 100;

export class TunnelPeers {
  readonly #make: (lease: Lease) => TunnelPeer;
  /** A lease that did not change is the same peer object: whoever packs the table packs only what changed. */
  readonly #known = new WeakMap<Lease, TunnelPeer>();
  #leases: readonly Lease[] = [];
  #sorted: readonly Lease[] = [];
  #peers: readonly TunnelPeer[] = [];

  /** @param make pure */
  constructor(make: (lease: Lease) => TunnelPeer) {
    this.#make = make;
  }

  /** @param leases of disjoint subnets, in any order; not changed later */
  of(leases: readonly Lease[]): readonly TunnelPeer[] {
    if (leases === this.#leases) return this.#peers;
    if (leases.length === 0) return [];
    if (!this.#alter(leases)) {
      this.#sorted = leases.toSorted((a, b) => comparePrefixes(a.subnet, b.subnet));
      this.#peers = this.#sorted.map(lease => this.#peerOf(lease));
    }
    this.#leases = leases;
    return this.#peers;
  }

  /** @returns false when a lease has left, or many came */
  #alter(leases: readonly Lease[]): boolean {
    const before = this.#leases;
    if (before.length === 0 || leases.length < before.length) return false;
    const changed: Lease[] = [];
    for (let i = 0; i < leases.length; i++) {
      const [lease, old] = [leases[i], before[i]];
      if (lease === old || !lease) continue;
      if ((old && !samePrefix(old.subnet, lease.subnet)) || changed.length === fewMax) return false;
      changed.push(lease);
    }
    const [sorted, peers] = [[...this.#sorted], [...this.#peers]];
    for (const lease of changed) {
      const at = placeOf(sorted, lease.subnet);
      const found = sorted[at];
      const replaced = found && samePrefix(found.subnet, lease.subnet) ? 1 : 0;
      sorted.splice(at, replaced, lease);
      peers.splice(at, replaced, this.#peerOf(lease));
    }
    [this.#sorted, this.#peers] = [sorted, peers];
    return true;
  }

  #peerOf(lease: Lease): TunnelPeer {
    const peer = this.#known.get(lease) ?? this.#make(lease);
    this.#known.set(lease, peer);
    return peer;
  }
}

/** @returns the place of the first lease that is not before the subnet */
function placeOf(sorted: readonly Lease[], subnet: Prefix): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const lease = sorted[middle];
    if (lease && comparePrefixes(lease.subnet, subnet) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
