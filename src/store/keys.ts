/**
 * The keys of the store: `<prefix>/config`, `<prefix>/subnets/<key>` and `<prefix>/held/<key>`, joined as Go's
 * path.Join does. Only leases may be created below `subnets`, because flannel watches that name without a slash at its
 * end.
 */
import { posix } from 'node:path';
import { readIpv4, prefixAround, type Prefix } from '../model/ip.js';
import { formatLeaseKey } from '../model/lease.js';
import type { KeyRange } from './kv.js';

export class Keys {
  readonly prefix: string;
  readonly config: Buffer;
  readonly subnets: KeyRange;
  readonly tombstones: KeyRange;

  constructor(prefix: string) {
    // Go's path.Join drops a trailing slash, and posix.join keeps it.
    this.prefix = posix.join(prefix, '.').replace(/(?<=.)\/$/, '');
    this.config = Buffer.from(posix.join(this.prefix, 'config'));
    this.subnets = rangeBelow(posix.join(this.prefix, 'subnets/'));
    this.tombstones = rangeBelow(posix.join(this.prefix, 'held/'));
  }

  subnet(subnet: Prefix): Buffer {
    return Buffer.concat([this.subnets.start, Buffer.from(formatLeaseKey(subnet))]);
  }

  tombstone(subnet: Prefix): Buffer {
    return Buffer.concat([this.tombstones.start, Buffer.from(formatLeaseKey(subnet))]);
  }
}

/** Returns the range of one key. */
export function onlyKey(key: Buffer): KeyRange {
  return { start: key, end: Buffer.concat([key, Buffer.from([0])]) };
}

/** Returns the part of a key below its range as latin1, which keeps every byte: a key may have any bytes. */
export function nameBelow(range: KeyRange, key: Buffer): string {
  return key.subarray(range.start.length).toString('latin1');
}

/** Returns a name for people, with all but printable ASCII as \xNN. */
export function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]|\\/g, character => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/**
 * Returns the range that a key occupies. It accepts more keys than readLeaseKey does: an entry that is refused as a
 * peer (host bits, the IPv4 half of a dual-stack key) still occupies its range.
 */
export function occupiedBy(name: string): Prefix | undefined {
  const [address, length] = (name.split('&')[0] ?? '').split('-');
  const base = readIpv4(address ?? '');
  if (base === undefined || !/^0*([1-9]|[12]\d|3[0-2])$/.test(length ?? '')) return undefined;
  return prefixAround(base, Number(length));
}

/** Returns the range of the keys below `start`. Its end is `start` with '0', the byte after '/', as its last byte. */
function rangeBelow(start: string): KeyRange {
  return { start: Buffer.from(start), end: Buffer.from(start.replace(/\/$/, '0')) };
}

/** Returns the range of the nodes that joined by a user of etcd; a user's name has no slash. */
export function joinedRange(prefix: string, user: string): KeyRange {
  return rangeBelow(posix.join(new Keys(prefix).prefix, 'joined', user, '/'));
}
