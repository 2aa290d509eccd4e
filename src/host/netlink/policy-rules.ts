/** The policy rules of the kernel (ip-rule(8)), as rtnetlink(7) tells them. */
import { formatRoute as formatRouteHeader } from 'netlink/dist/rt/gen_structs.js';
import { getU32 } from 'netlink/dist/structs.js';
import { prefixAround, type Prefix } from '../../model/ip.js';
import { address, afInet, body, number, split } from './messages.js';

export interface KernelRule {
  readonly priority: number;
  readonly table: number;
  /** `table`: looks the packet up there; `refuse`: drops or rejects it; `other`: goes on with another rule. */
  readonly action: 'table' | 'refuse' | 'other';
  readonly source: Prefix | undefined;
  readonly destination: Prefix | undefined;
  /** The rule has conditions that are not read here, such as a mark, a user or a link. */
  readonly hasOther: boolean;
  /** The rule is for packets that do not meet its conditions. */
  readonly inverts: boolean;
  /** Routes of at most this length in the table do not count. */
  readonly suppress: number | undefined;
}

/** The header of a rule has the length of that of a route. */
export function dumpRules(): Uint8Array {
  return body(formatRouteHeader({ family: afInet }), []);
}

/** linux/fib_rules.h */
const fra = { destination: 1, source: 2, priority: 6, mark: 10, suppressLength: 14, table: 15 } as const;
/** Conditions: the links of both ways, marks, tunnels, users, ports and protocols. */
const ruleConditions = [3, 10, 12, 13, 17, 19, 20, 22, 23, 24];
const ruleActions = { table: 1, refuse: [6, 7, 8] } as const;
const invertFlag = 2;

export function readRule(message: Buffer): KernelRule | undefined {
  const parts = split(message, 12);
  if (!parts || parts.header[0] !== afInet) return undefined;
  const { header, attributes } = parts;
  const inverts = (getU32(header.subarray(8)) & invertFlag) !== 0;
  const prefix = (type: number, length = 0): Prefix | undefined => {
    const found = address(attributes, type);
    return found === undefined ? undefined : prefixAround(found, length);
  };
  const action = header[7] ?? 0;
  const suppress = number(attributes, fra.suppressLength);
  const conditions = ruleConditions.filter(type => attributes.has(type));
  // `not fwmark M` holds for all packets without that mark, as those of containers are.
  const isOnlyInvertedMark = inverts && conditions.every(type => type === fra.mark);
  return {
    priority: number(attributes, fra.priority) ?? 0,
    table: number(attributes, fra.table) ?? header[4] ?? 0,
    action:
      action === ruleActions.table ? 'table' : ruleActions.refuse.some(one => one === action) ? 'refuse' : 'other',
    source: prefix(fra.source, header[2]),
    destination: prefix(fra.destination, header[1]),
    hasOther: (conditions.length > 0 && !isOnlyInvertedMark) || header[3] !== 0,
    inverts,
    suppress: suppress === undefined || suppress === 0xffffffff ? undefined : suppress,
  };
}
