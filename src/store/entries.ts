/**
 * The entries below `subnets/` and `held/`: how one is read, the table of those last listed, and the snapshot of all.
 * An entry below `subnets/` is a lease, or it is refused alone with a reason. A refused entry still occupies its range
 * when a subnet is chosen. A dual-stack lease of flannel's is a peer for its IPv4 part; nobody here writes such a key.
 */
import { messageOf } from '../lib/errors.js';
import type { Tombstone } from '../model/allocation.js';
import type { Prefix } from '../model/ip.js';
import {
  formatLeaseKey,
  parseLeaseValue,
  readDualStackKey,
  readLeaseKey,
  type Lease,
  type LeaseSet,
  type LeaseValue,
  type RejectedEntry,
} from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { KvContext } from './context.js';
import { nameBelow, occupiedBy, onlyKey, printable, type Keys } from './keys.js';
import type { KeyEvent, KeyValue, Listing, Position } from './kv.js';

interface EntryBase {
  /** The subnet that the key names, undefined when the key is no lease key. */
  readonly key: Prefix | undefined;
  /** The range that the key occupies, also where it is no lease key. */
  readonly occupied: Prefix | undefined;
  readonly revision: bigint;
}

export type Entry = EntryBase &
  (
    | { readonly kind: 'lease' | 'dual-stack'; readonly lease: Lease }
    | { readonly kind: 'rejected'; readonly rejected: RejectedEntry; readonly kv: KeyValue }
  );

/** A name of this length is no lease key, and its rest tells nothing. */
const longestName = 200;

function sizeOf(bytes: number): string {
  return bytes === Infinity ? 'more bytes than a message may have' : `${bytes} bytes`;
}

export function readEntry(keys: Keys, kv: KeyValue): Entry {
  const name = nameBelow(keys.subnets, kv.key);
  const occupied = occupiedBy(name);
  const revision = kv.modRevision;
  const subnet = readLeaseKey(name);
  const base: EntryBase = { key: subnet, occupied, revision };
  const refuse = (reason: string): Entry => ({
    ...base,
    kind: 'rejected',
    rejected: { key: printable(name.slice(0, longestName)), revision, reason },
    kv,
  });
  const leased = subnet ?? readDualStackKey(name);
  if (!leased) return refuse('is not a lease key such as 10.5.1.0-24');
  if (kv.omittedBytes !== undefined) return refuse(`has a value of ${sizeOf(kv.omittedBytes)}, expected a lease`);
  try {
    const value = parseLeaseValue(kv.value.toString('latin1'));
    const lease = { ...value, subnet: leased, createRevision: kv.createRevision, revision, leaseId: kv.leaseId };
    return { ...base, kind: subnet ? 'lease' : 'dual-stack', lease };
  } catch (error) {
    return refuse(messageOf(error));
  }
}

/**
 * The suffix of the node id in a tombstone that an operator wrote for a node that has not taken the subnet yet. A
 * version that does not know the suffix reads the id of another node, and leaves the subnet alone.
 */
const reservedMark = ' reserved';

/** @returns undefined for a key that names no subnet; a value that is no node id counts as the id of another node */
export function readTombstone(keys: Keys, kv: KeyValue): Tombstone | undefined {
  const subnet = readLeaseKey(nameBelow(keys.tombstones, kv.key));
  const text = kv.value.toString('latin1');
  const reserved = kv.leaseId === '0' && text.endsWith(reservedMark);
  const nodeId = reserved ? text.slice(0, -reservedMark.length) : text;
  return subnet && { subnet, nodeId, reserved, revision: kv.modRevision, leaseId: kv.leaseId };
}

export function formatReservedFor(nodeId: string): string {
  return `${nodeId}${reservedMark}`;
}

/** @returns undefined when the lease key of the subnet is absent */
export async function getEntry(
  { kv, keys }: KvContext,
  subnet: Prefix,
  signal: AbortSignal,
): Promise<Entry | undefined> {
  const [found] = (await kv.list(onlyKey(keys.subnet(subnet)), { signal })).entries;
  return found && readEntry(keys, found);
}

/** @returns undefined when the subnet has no tombstone */
export async function getTombstone(
  { kv, keys }: KvContext,
  subnet: Prefix,
  signal: AbortSignal,
): Promise<Tombstone | undefined> {
  const [found] = (await kv.list(onlyKey(keys.tombstone(subnet)), { signal })).entries;
  return found && readTombstone(keys, found);
}

export function revisionOf(event: KeyEvent): bigint {
  return event.kind === 'put' ? event.entry.modRevision : event.revision;
}

/** The entries as last read, by their exact key bytes. */
export class LeaseTable {
  readonly #keys: Keys;
  #entries = new Map<string, Entry>();
  /** The entries as a set of leases, in their order; undefined when it must be made. */
  #listed: Pick<LeaseSet, 'leases' | 'rejected'> | undefined;
  #revision = 0n;
  #clusterId = '';

  constructor(keys: Keys) {
    this.#keys = keys;
  }

  /** @returns whether any entry differs from the ones before */
  replace(listing: Listing): boolean {
    const before = this.#entries;
    this.#listed = undefined;
    this.#entries = new Map(listing.entries.map(kv => [nameBelow(this.#keys.subnets, kv.key), this.#read(kv, before)]));
    this.#revision = listing.revision;
    this.#clusterId = listing.clusterId;
    if (before.size !== this.#entries.size) return true;
    for (const [name, entry] of this.#entries) if (before.get(name) !== entry) return true;
    return false;
  }

  apply(events: readonly KeyEvent[]): void {
    for (const event of events) {
      const key = event.kind === 'put' ? event.entry.key : event.key;
      const name = nameBelow(this.#keys.subnets, key);
      if (event.kind === 'put') {
        const entry = withoutContent(readEntry(this.#keys, event.entry));
        this.#list(this.#entries.get(name), entry);
        this.#entries.set(name, entry);
      } else {
        this.#list(this.#entries.get(name), undefined);
        this.#entries.delete(name);
      }
      this.#revision = revisionOf(event);
    }
  }

  /** Changes the list in one place: the lease stands where its entry before stood, or at the end. */
  #list(before: Entry | undefined, entry: Entry | undefined): void {
    const listed = this.#listed;
    this.#listed = undefined;
    if (!listed || entry?.kind === 'rejected' || before?.kind === 'rejected') return;
    const leases = [...listed.leases];
    const at = before ? leases.indexOf(before.lease) : leases.length;
    leases.splice(at, before ? 1 : 0, ...(entry ? [entry.lease] : []));
    this.#listed = { leases, rejected: listed.rejected };
  }

  /** Tells whether a listing has an entry that is older than ours, or another at the same revision. */
  isNewerThan(listing: Listing): boolean {
    return listing.entries.some(kv => {
      const entry = this.#entries.get(nameBelow(this.#keys.subnets, kv.key));
      return entry !== undefined && isOlder(kv, entry.kind === 'rejected' ? entry.rejected : entry.lease);
    });
  }

  /** Tells whether a listing has none of our keys as they were created. */
  sharesNothing(listing: Listing): boolean {
    return (
      this.#entries.size > 0 &&
      !listing.entries.some(kv => {
        const entry = this.#entries.get(nameBelow(this.#keys.subnets, kv.key));
        return entry !== undefined && (entry.kind === 'rejected' || entry.lease.createRevision === kv.createRevision);
      })
    );
  }

  /** Adds a lease that this node has written since the listing. */
  add(lease: Lease): void {
    const { subnet, revision } = lease;
    this.#listed = undefined;
    this.#entries.set(formatLeaseKey(subnet), { kind: 'lease', key: subnet, occupied: subnet, revision, lease });
  }

  /** The position up to which the table has every change. */
  get position(): Position {
    return { revision: this.#revision, clusterId: this.#clusterId };
  }

  get size(): number {
    return this.#entries.size;
  }

  entries(): readonly Entry[] {
    return [...this.#entries.values()];
  }

  snapshot(): LeaseSet {
    this.#listed ??= listOf(this.#entries.values());
    return { ...this.#listed, revision: this.#revision };
  }

  /** Returns the entry that the table has already, if the key is unchanged: it is not parsed again. */
  #read(kv: KeyValue, before: ReadonlyMap<string, Entry>): Entry {
    const known = before.get(nameBelow(this.#keys.subnets, kv.key));
    const same = known?.revision === kv.modRevision && (known.kind === 'rejected' || sameVersion(known.lease, kv));
    return known && same ? known : withoutContent(readEntry(this.#keys, kv));
  }
}

function listOf(entries: Iterable<Entry>): Pick<LeaseSet, 'leases' | 'rejected'> {
  const leases: Lease[] = [];
  const rejected: RejectedEntry[] = [];
  for (const entry of entries) {
    if (entry.kind === 'rejected') rejected.push(entry.rejected);
    else leases.push(entry.lease);
  }
  return { leases, rejected };
}

/** Returns an entry that keeps no junk in memory. */
function withoutContent(entry: Entry): Entry {
  return entry.kind !== 'rejected' ? entry : { ...entry, kv: { ...entry.kv, key: nothing, value: nothing } };
}

const nothing = Buffer.alloc(0);

/** Equal revisions can belong to different writes after a restore of the store, so the other members are compared. */
function sameVersion(lease: Lease, kv: KeyValue): boolean {
  const { leaseId, createRevision, text } = lease;
  return leaseId === kv.leaseId && createRevision === kv.createRevision && text === kv.value.toString('latin1');
}

/** Tells whether a key is older than it was, or another one at the same revision: no history leads from that to this. */
export function isOlder(kv: KeyValue, before: Lease | RejectedEntry): boolean {
  if (kv.modRevision !== before.revision) {
    const createdEarlier = 'createRevision' in before && kv.createRevision < before.createRevision;
    return createdEarlier || kv.modRevision < before.revision;
  }
  return 'text' in before && !sameVersion(before, kv);
}

export interface ClusterSnapshot {
  readonly entries: readonly Entry[];
  readonly leases: readonly Lease[];
  /** The ranges that a new subnet must not overlap. */
  readonly taken: readonly Prefix[];
  readonly tombstones: readonly Tombstone[];
  /** The revision of the list of leases, with which a transaction is guarded. */
  readonly revision: bigint;
  readonly clusterId: string;
  /** The older revision of the list of tombstones: a subnet of another length may have been leased and left since. */
  readonly tombstonesRevision: bigint;
}

/** Reads one snapshot after another, as a host does that loses races. An unchanged entry is not parsed again. */
export class SnapshotReader {
  readonly #context: KvContext;
  /** The leases as last listed. After the last snapshot another owner may take the table. */
  readonly table: LeaseTable;

  constructor(context: KvContext) {
    this.#context = context;
    this.table = new LeaseTable(context.keys);
  }

  /** Reads the leases last: races are lost only to writes between their revision and the transaction. */
  async readSnapshot(network: NetworkConfig, signal: AbortSignal): Promise<ClusterSnapshot> {
    const { kv, keys } = this.#context;
    const tombstones = await kv.list(keys.tombstones, { signal });
    const listing = await kv.list(keys.subnets, { signal });
    this.table.replace(listing);
    const entries = this.table.entries();
    return {
      entries,
      leases: entries.flatMap(entry => (entry.kind === 'lease' ? [entry.lease] : [])),
      // An entry as large as the network is no lease of it, and must not block the whole network.
      taken: entries.flatMap(({ occupied }) =>
        occupied && occupied.length > network.network.length ? [occupied] : [],
      ),
      tombstones: tombstones.entries.flatMap(entry => readTombstone(keys, entry) ?? []),
      revision: listing.revision,
      clusterId: listing.clusterId,
      tombstonesRevision: tombstones.revision,
    };
  }
}

/** Tells whether an entry is this node's: by node id, by boot id and address, or written by flannel for the address. */
export function isOwnLease(value: LeaseValue, node: Node): boolean {
  if (value.nodeId === node.id) return true;
  const here = value.publicIp === node.publicIp;
  return here && (value.nodeId === undefined || value.bootId === node.bootId);
}
