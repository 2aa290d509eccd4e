/** What the kernel tells of changes of nftables: whether IPv4 rules changed, and who removed some. */
import { parseMessages } from 'netlink/dist/structs.js';
import { split, text } from './messages.js';

/** Multicast group of linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES: it also tells what iptables does on nftables. */
export const ruleGroups: readonly number[] = [7];

/** linux/netfilter/nf_tables.h: messages about tables, chains and rules have the types up to `deleteRule`. */
const nftables = { subsystem: 10, deleteTable: 2, deleteChain: 5, deleteRule: 8, newGeneration: 15 } as const;
/** NFPROTO_INET and NFPROTO_IPV4: the families of tables that see IPv4 packets. */
const ruleFamilies: readonly number[] = [1, 2];
const generation = { pid: 2, name: 3 } as const;

/** Who made a transaction of nftables, as the kernel tells at its end. */
export interface RuleAuthor {
  readonly pid: number;
  readonly name: string;
}

export interface RuleNews {
  /** IPv4 tables, chains or rules changed. Elements of sets, which some programs change all day, do not count. */
  readonly changes: boolean;
  /** A table, a chain or a rule was removed. */
  readonly removes: boolean;
  /** Stands in the last datagram of a transaction. */
  readonly author: RuleAuthor | undefined;
}

/** A malformed datagram counts as a change. */
export function readRuleNews(datagram: Buffer): RuleNews {
  let [changes, removes] = [false, false];
  let author: RuleAuthor | undefined;
  try {
    for (const { type, data } of parseMessages(datagram)) {
      if (type >> 8 !== nftables.subsystem) continue;
      const what = type & 0xff;
      if (what === nftables.newGeneration) author = readAuthor(data);
      if (what > nftables.deleteRule || !ruleFamilies.includes(data[0] ?? 0)) continue;
      changes = true;
      removes ||= [nftables.deleteTable, nftables.deleteChain, nftables.deleteRule].some(one => one === what);
    }
  } catch {
    changes = true;
  }
  return { changes, removes, author };
}

/** The numbers of nftables are in network byte order, after a header of four bytes. */
function readAuthor(data: Buffer): RuleAuthor | undefined {
  const attributes = split(data, 4)?.attributes;
  const pid = attributes?.get(generation.pid);
  const name = text(attributes?.get(generation.name));
  return pid?.length === 4 && name ? { pid: pid.readUInt32BE(), name } : undefined;
}
