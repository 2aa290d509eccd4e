/**
 * Where things stand in the store: `<prefix>/config`, `<prefix>/subnets/<key>`, `<prefix>/held/<key>`, joined as Go's
 * path.Join does. Below `subnets` nothing but leases may ever be created (flannel watches it by that bare name).
 */
import { posix } from 'node:path';
import { readIpv4, prefixAround, type Prefix } from '../model/ipv4.js';
import { formatLeaseKey } from '../model/lease.js';
import type { KeyRange } from './kv.js';

export class Keys {
  readonly prefix: string;
  readonly config: Buffer;
  readonly subnets: KeyRange;
  readonly tombstones: KeyRange;

  constructor(prefix: string) {
    // path.Join drops a trailing slash, posix.join keeps it.
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

/** The range of one key. */
export function onlyKey(key: Buffer): KeyRange {
  return { start: key, end: Buffer.concat([key, Buffer.from([0])]) };
}

/** The part of a key below its range, byte for byte as latin1: any bytes can stand there. */
export function nameBelow(range: KeyRange, key: Buffer): string {
  return key.subarray(range.start.length).toString('latin1');
}

/** A name for people: what is not printable ASCII as \xNN. */
export function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]|\\/g, character => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/**
 * What a key occupies, read more loosely than a lease is: entries that we refuse as peers (host bits, the IPv4 half of
 * a dual-stack key) still stand where they stand.
 */
export function occupiedBy(name: string): Prefix | undefined {
  const [address, length] = (name.split('&')[0] ?? '').split('-');
  const base = readIpv4(address ?? '');
  if (base === undefined || !/^0*([1-9]|[12]\d|3[0-2])$/.test(length ?? '')) return undefined;
  return prefixAround(base, Number(length));
}

/** `end` is the start with its closing '/' raised to '0', the next byte. */
function rangeBelow(start: string): KeyRange {
  return { start: Buffer.from(start), end: Buffer.from(start.replace(/\/$/, '0')) };
}
