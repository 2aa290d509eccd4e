/**
 * What stands below `subnets/` and `held/`, key by key: a lease, or an entry refused alone with its reason. A key that
 * is no lease of ours to use still occupies its range when a subnet is chosen.
 */
import { messageOf } from '../lib/errors.js';
import type { Tombstone } from '../model/allocation.js';
import type { Prefix } from '../model/ipv4.js';
import {
  formatLeaseKey,
  parseLeaseValue,
  readLeaseKey,
  type Lease,
  type LeaseSet,
  type RejectedEntry,
} from '../model/lease.js';
import { nameBelow, occupiedBy, printable, type Keys } from './keys.js';
import type { KeyEvent, KeyValue, Listing, Position } from './kv.js';

interface EntryBase {
  /** The subnet that the key names, undefined when it is no lease key. */
  readonly key: Prefix | undefined;
  /** What the key stands on, also where it is no lease key. */
  readonly occupied: Prefix | undefined;
  readonly revision: bigint;
}

export type Entry = EntryBase &
  ({ readonly kind: 'lease'; readonly lease: Lease } | { readonly kind: 'rejected'; readonly rejected: RejectedEntry });

export function readEntry(keys: Keys, kv: KeyValue): Entry {
  const name = nameBelow(keys.subnets, kv.key);
  const occupied = occupiedBy(name);
  const revision = kv.modRevision;
  const subnet = readLeaseKey(name);
  const base: EntryBase = { key: subnet, occupied, revision };
  const refuse = (reason: string): Entry => ({
    ...base,
    kind: 'rejected',
    rejected: { key: printable(name), revision, reason },
  });
  if (!subnet) return refuse('is not a lease key such as 10.5.1.0-24');
  try {
    const value = parseLeaseValue(kv.value.toString('utf8'));
    const lease = { ...value, subnet, createRevision: kv.createRevision, revision, leaseId: kv.leaseId };
    return { ...base, kind: 'lease', lease };
  } catch (error) {
    return refuse(messageOf(error));
  }
}

/**
 * Behind the node id in an entry under `held/`: kept by an operator for a node that has not taken it yet. To a version
 * that does not know the word it is another node's, which errs on the safe side.
 */
const reservedMark = ' reserved';

/** @returns undefined for a key that names no subnet; a value that is no node id is that of a node other than ours */
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

/** The entries as last seen, kept by their exact key bytes. */
export class LeaseTable {
  readonly #keys: Keys;
  #entries = new Map<string, Entry>();
  #revision = 0n;
  #clusterId = '';

  constructor(keys: Keys) {
    this.#keys = keys;
  }

  /** @returns whether anything differs from before */
  replace(listing: Listing): boolean {
    const before = this.#entries;
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
      if (event.kind === 'put') this.#entries.set(name, readEntry(this.#keys, event.entry));
      else this.#entries.delete(name);
      this.#revision = event.kind === 'put' ? event.entry.modRevision : event.revision;
    }
  }

  /** What the owner of the table has written since. */
  add(lease: Lease): void {
    const { subnet, revision } = lease;
    this.#entries.set(formatLeaseKey(subnet), { kind: 'lease', key: subnet, occupied: subnet, revision, lease });
  }

  /** Everything up to it is in the table. */
  get position(): Position {
    return { revision: this.#revision, clusterId: this.#clusterId };
  }

  entries(): readonly Entry[] {
    return [...this.#entries.values()];
  }

  snapshot(): LeaseSet {
    const leases: Lease[] = [];
    const rejected: RejectedEntry[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.kind === 'lease') leases.push(entry.lease);
      else rejected.push(entry.rejected);
    }
    return { leases, rejected, revision: this.#revision };
  }

  /** The entry of before when nothing changed: also saves reading it again. */
  #read(kv: KeyValue, before: ReadonlyMap<string, Entry>): Entry {
    const known = before.get(nameBelow(this.#keys.subnets, kv.key));
    const same = known?.revision === kv.modRevision && (known.kind === 'rejected' || sameVersion(known.lease, kv));
    return known && same ? known : readEntry(this.#keys, kv);
  }
}

/** After a restore from a backup equal revisions can mean different things: the lease and the creation tell. */
function sameVersion(lease: Lease, kv: KeyValue): boolean {
  return lease.leaseId === kv.leaseId && lease.createRevision === kv.createRevision;
}
