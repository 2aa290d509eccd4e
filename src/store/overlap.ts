/** The names of the keys whose subnets overlap a subnet, as few ranges: a key begins with the text of its address. */
import { formatIpv4, prefixAround, type Prefix } from '../model/ip.js';
import { formatLeaseKey } from '../model/lease.js';
import type { KeyRange } from './kv.js';

/** The names from `start` up to `end`, which is not included. */
export interface NameRange {
  readonly start: string;
  readonly end: string;
}

/** More ranges than this would not fit into a transaction; one for all of them refuses a little too often. */
const mostInside = 16;

export function within({ start }: KeyRange, name: NameRange): KeyRange {
  const keyOf = (text: string): Buffer => Buffer.concat([start, Buffer.from(text)]);
  return { start: keyOf(name.start), end: keyOf(name.end) };
}

export function overlappingNames(subnet: Prefix): readonly NameRange[] {
  const covering = Array.from({ length: subnet.length - 1 }, (_, index) => {
    const name = formatLeaseKey(prefixAround(subnet.base, index + 1));
    // Also the key of a dual-stack lease, which goes on with '&': the next character ends the range.
    return { start: name, end: `${name}'` };
  });
  return [...covering, ...insideNames(subnet)];
}

/** The names of the subnet and of all inside of it begin with the same octets. */
function insideNames({ base, length }: Prefix): readonly NameRange[] {
  const octets = formatIpv4(base).split('.').map(Number);
  const fixed = Math.min(Math.floor(length / 8), 3);
  const count = length > 24 ? 1 : 2 ** ((8 - (length % 8)) % 8);
  const head = octets.slice(0, fixed);
  if (fixed === 3 || count === 1 || count > mostInside) return [beginning(head)];
  const first = octets[fixed] ?? 0;
  return Array.from({ length: count }, (_, index) => beginning([...head, first + index]));
}

function beginning(octets: readonly number[]): NameRange {
  const text = octets.join('.');
  // A slash is the character after the dot.
  return octets.length === 0 ? { start: '', end: ':' } : { start: `${text}.`, end: `${text}/` };
}
