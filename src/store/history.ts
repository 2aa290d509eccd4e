/**
 * Whether a store has the history that this host has seen. Neither revisions nor the cluster id tell: a store that was
 * restored may be ahead again, or have a new id, and a wiped one may have the old id. The create revisions of keys tell.
 *
 *   known      the document and another key have the create revision last seen there: whatever the store says is true
 *   new        no key has it, and our subnet is free there: the store was wiped, and we write ourselves again
 *   stranger   no key has it, and our subnet is another's there: another cluster answers by mistake, as if none did
 */
import { TartanError } from '../lib/errors.js';
import { formatIpv4, formatPrefix, prefixesOverlap, samePrefix, type Prefix } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import type { KvContext } from './context.js';
import { readEntry, type Entry, type LeaseTable } from './entries.js';
import { onlyKey } from './keys.js';
import type { KeyValue, Listing } from './kv.js';

/** The subnet of this host as it stands in `Lease`. */
export type OwnSubnet = Pick<Lease, 'subnet' | 'nodeId'>;

export class History {
  readonly #context: KvContext;
  /** The leases as last listed and followed. */
  table: LeaseTable | undefined;
  own: OwnSubnet | undefined;
  clusterId: string | undefined;
  #document: bigint | undefined;

  constructor(context: KvContext) {
    this.#context = context;
  }

  seeDocument(document: KeyValue | undefined): void {
    this.#document = document?.createRevision;
  }

  /**
   * Judges the store that gave a listing. It costs two reads, so it is asked only when something speaks against the
   * store, or before the own lease is given up.
   * @param rewound the listing is older than what was known
   * @returns whether the store went back
   * @throws TartanError STORE_UNAVAILABLE when a stranger answers, or another store than the one that gave the listing
   */
  async examine(listing: Pick<Listing, 'clusterId'>, rewound: boolean, signal: AbortSignal): Promise<boolean> {
    const { kv, keys } = this.#context;
    const config = await kv.list(onlyKey(keys.config), { signal });
    const subnets = await kv.list(keys.subnets, { signal });
    for (const { clusterId } of [config, subnets])
      if (clusterId !== listing.clusterId) throw mixedError(listing.clusterId, clusterId);
    const [document] = config.entries;
    const entries = subnets.entries.map(entry => readEntry(keys, entry));
    const sameCluster = this.clusterId === undefined || this.clusterId === listing.clusterId;
    const known = this.#isKnown(document, entries, sameCluster, rewound || !sameCluster);
    const owner = known ? undefined : this.#othersAt(entries);
    if (owner !== undefined) throw strangerError(this.clusterId, listing.clusterId, this.own?.subnet, owner);
    this.clusterId = listing.clusterId;
    return rewound || !known || !sameCluster;
  }

  #isKnown(document: KeyValue | undefined, entries: readonly Entry[], sameCluster: boolean, back: boolean): boolean {
    const others = (this.table?.entries() ?? []).filter(({ key }) => !this.#namesOwnSubnet(key));
    const same = sharesAny(others, entries);
    if (this.#document === undefined) return same || others.length === 0 || !back;
    if (document?.createRevision !== this.#document) return same;
    // Two clusters that one script has set up may well have documents of one revision.
    return same || (sameCluster && (others.length === 0 || !back));
  }

  #namesOwnSubnet(key: Prefix | undefined): boolean {
    return this.own !== undefined && key !== undefined && samePrefix(key, this.own.subnet);
  }

  /** Returns who has our subnet, in whole or part; undefined when it is free or ours. */
  #othersAt(entries: readonly Entry[]): string | undefined {
    const { own } = this;
    if (!own) return undefined;
    const other = entries.find(
      entry =>
        entry.occupied &&
        prefixesOverlap(entry.occupied, own.subnet) &&
        !(entry.kind === 'lease' && entry.lease.nodeId === own.nodeId),
    );
    if (other?.kind !== 'lease') return other && 'an entry that is no lease';
    const { nodeId, publicIp } = other.lease;
    return `${nodeId === undefined ? 'the host' : `node ${nodeId}`} at ${formatIpv4(publicIp)}`;
  }
}

/** Tells whether another listing has an entry with the same create revision and owner. */
function sharesAny(before: readonly Entry[], now: readonly Entry[]): boolean {
  const nowBySubnet = new Map(
    now.flatMap(entry => (entry.kind === 'lease' ? [[nameOf(entry.lease), entry.lease]] : [])),
  );
  return before.some(entry => {
    const lease = entry.kind === 'lease' ? nowBySubnet.get(nameOf(entry.lease)) : undefined;
    return (
      entry.kind === 'lease' && lease?.createRevision === entry.lease.createRevision && sameOwner(lease, entry.lease)
    );
  });
}

function nameOf({ subnet }: Lease): string {
  return formatPrefix(subnet);
}

function sameOwner(a: Lease, b: Lease): boolean {
  return a.nodeId === b.nodeId && (a.nodeId !== undefined || a.publicIp === b.publicIp);
}

/** Returns an id as etcdctl shows it. */
function hex(clusterId: string | undefined): string {
  return clusterId !== undefined && /^\d+$/.test(clusterId) ? BigInt(clusterId).toString(16) : String(clusterId);
}

function mixedError(listed: string, answers: string): TartanError {
  return new TartanError(
    'STORE_UNAVAILABLE',
    `cluster ${hex(listed)} answered, and now cluster ${hex(answers)} does: check where --etcd-endpoints leads`,
  );
}

/** The cause of an error of a stranger. */
const stranger = Symbol('stranger');

export function isStranger(error: unknown): error is TartanError {
  return error instanceof TartanError && error.cause === stranger;
}

function strangerError(from: string | undefined, to: string, subnet: Prefix | undefined, owner: string): TartanError {
  const what =
    from === to
      ? `another etcd answers: cluster ${hex(to)} as before, but with none of the keys that were there`
      : `another etcd answers: cluster ${hex(to)}, and not cluster ${hex(from)} as before`;
  return new TartanError(
    'STORE_UNAVAILABLE',
    `${what}. There ${subnet ? formatPrefix(subnet) : 'our subnet'} belongs to ${owner}, so what it says is not ` +
      'followed: traffic goes on until the deadline of our lease. Check where --etcd-endpoints leads',
    { cause: stranger },
  );
}
