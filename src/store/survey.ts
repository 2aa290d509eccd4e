/** One consistent look at the cluster before a guarded write. */
import type { Tombstone } from '../model/allocation.js';
import type { Prefix } from '../model/ipv4.js';
import type { Lease, LeaseValue } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { StoreContext } from './context.js';
import { LeaseTable, readTombstone, type Entry } from './entries.js';

export interface Survey {
  readonly entries: readonly Entry[];
  readonly leases: readonly Lease[];
  /** Ranges that a new subnet must not overlap. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  /** Of the list of leases: the guard of the transaction. */
  readonly revision: bigint;
}

/** How long the quarantine entries of one survey serve the next: the transaction guards against a change of them. */
const heldAgeMs = 10_000;

/** Surveys in a row, as a host makes them that loses races: what is known is not read again. */
export class Surveyor {
  readonly #context: Pick<StoreContext, 'kv' | 'keys' | 'clock'>;
  readonly #table: LeaseTable;
  #surveyed = false;
  #held: { readonly tombstones: readonly Tombstone[]; readonly atMs: number } | undefined;

  constructor(context: Pick<StoreContext, 'kv' | 'keys' | 'clock'>) {
    this.#context = context;
    this.#table = new LeaseTable(context.keys);
  }

  /** The leases are read last: between their revision and the transaction lies the race. */
  async take(network: NetworkConfig, signal: AbortSignal): Promise<Survey> {
    const { kv, keys } = this.#context;
    let tombstones = await this.#tombstones(signal);
    const listing = await kv.list(keys.subnets, { signal });
    // Refused though nothing happened among the leases: the quarantine entries are not what we think.
    if (!this.#table.replace(listing) && this.#surveyed) {
      this.#held = undefined;
      tombstones = await this.#tombstones(signal);
    }
    this.#surveyed = true;
    const entries = this.#table.entries();
    return {
      entries,
      leases: entries.flatMap(entry => (entry.kind === 'lease' ? [entry.lease] : [])),
      // An entry as large as the network is no lease of it: it must not make all of it unusable.
      taken: entries.flatMap(({ occupied }) =>
        occupied && occupied.length > network.network.length ? [occupied] : [],
      ),
      tombstones,
      revision: listing.revision,
    };
  }

  async #tombstones(signal: AbortSignal): Promise<readonly Tombstone[]> {
    const { kv, keys, clock } = this.#context;
    const atMs = clock.now();
    if (this.#held && atMs - this.#held.atMs < heldAgeMs) return this.#held.tombstones;
    const { entries } = await kv.list(keys.held, { signal });
    this.#held = { tombstones: entries.flatMap(entry => readTombstone(keys, entry) ?? []), atMs };
    return this.#held.tombstones;
  }
}

/** Our own entry: by identity, by this very boot at this address, or one that flannel wrote for this address. */
export function isOurs(value: LeaseValue, node: Node): boolean {
  if (value.nodeId === node.id) return true;
  const here = value.publicIp === node.publicIp;
  return here && (value.nodeId === undefined || value.bootId === node.bootId);
}
