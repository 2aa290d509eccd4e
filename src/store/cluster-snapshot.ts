/** One consistent look at the cluster before a guarded write. */
import type { Tombstone } from '../model/allocation.js';
import type { Prefix } from '../model/ipv4.js';
import type { Lease, LeaseValue } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { StoreContext } from './context.js';
import { LeaseTable, readTombstone, type Entry } from './entries.js';

export interface ClusterSnapshot {
  readonly entries: readonly Entry[];
  readonly leases: readonly Lease[];
  /** Ranges that a new subnet must not overlap. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  /** Of the list of leases: the guard of the transaction. */
  readonly revision: bigint;
  /** Of the list of tombstones: a subnet may have been leased and left since, in another length than the one wanted. */
  readonly tombstonesRevision: bigint;
}

/** Looks again and again, as a host does that loses races: an entry that is as it was is not parsed again. */
export class SnapshotReader {
  readonly #context: Pick<StoreContext, 'kv' | 'keys'>;
  /** The leases as last listed; who surveys no more may give it away. */
  readonly table: LeaseTable;

  constructor(context: Pick<StoreContext, 'kv' | 'keys'>) {
    this.#context = context;
    this.table = new LeaseTable(context.keys);
  }

  /** The leases are read last: between their revision and the transaction lies the race. */
  async readSnapshot(network: NetworkConfig, signal: AbortSignal): Promise<ClusterSnapshot> {
    const { kv, keys } = this.#context;
    const tombstones = await kv.list(keys.tombstones, { signal });
    const listing = await kv.list(keys.subnets, { signal });
    this.table.replace(listing);
    const entries = this.table.entries();
    return {
      entries,
      leases: entries.flatMap(entry => (entry.kind === 'lease' ? [entry.lease] : [])),
      // An entry as large as the network is no lease of it: it must not make all of it unusable.
      taken: entries.flatMap(({ occupied }) =>
        occupied && occupied.length > network.network.length ? [occupied] : [],
      ),
      tombstones: tombstones.entries.flatMap(entry => readTombstone(keys, entry) ?? []),
      revision: listing.revision,
      tombstonesRevision: tombstones.revision,
    };
  }
}

/** Our own entry: by identity, by this very boot at this address, or one that flannel wrote for this address. */
export function isOwnLease(value: LeaseValue, node: Node): boolean {
  if (value.nodeId === node.id) return true;
  const here = value.publicIp === node.publicIp;
  return here && (value.nodeId === undefined || value.bootId === node.bootId);
}
