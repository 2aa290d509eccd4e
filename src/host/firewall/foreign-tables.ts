/** Reads the nftables of others, and names the rules that drop packets of the overlay. It never changes anything. */
import { factValue } from '../../lib/fact.js';
import { programFact, type RunCommand } from './command.js';
import type { FirewallPlan } from '../../model/plan.js';
import { findDrop, readChains } from './foreign-chains.js';
import type { DroppingRule, JudgedPacket } from './judged-packet.js';
import { iptablesTables } from './listing.js';
import { deviceOf } from './rules.js';

/** Ours, and those of Docker: Docker accepts our mark (`--bridge-accept-fwmark`). */
const knownTables = ['ip tartan', 'ip docker-bridges'];

/**
 * @param tables family and name of each nftables table
 * @param saved what iptables-save wrote; undefined without the program
 */
export async function dropConflicts(
  parts: readonly FirewallPlan[],
  tables: readonly string[],
  saved: string | undefined,
  run: RunCommand,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const foreign = parts.length === 0 ? [] : tables.filter(name => isForeignTable(name, saved));
  if (foreign.length === 0) return [];
  const packets = parts.flatMap(packetsOf);
  const found: string[] = [];
  for (const table of foreign) {
    const [family = '', name = ''] = table.split(' ');
    const json = factValue(await programFact(() => run('nft', ['-j', 'list', 'table', family, name], '', signal)));
    if (json === undefined) continue;
    const chains = readChains(json);
    const drops = new Map<string, readonly [rule: DroppingRule, packet: JudgedPacket]>();
    for (const packet of packets) {
      const rule = findDrop(chains, packet);
      if (rule) drops.set(`${rule.chain} ${rule.handle}`, [rule, packet]);
    }
    for (const [rule, packet] of drops.values()) found.push(await describe(table, rule, packet, run, signal));
  }
  return found;
}

/** Tells whether a table has rules of others that iptables-save does not write. */
export function isForeignTable(table: string, saved: string | undefined): boolean {
  const [family = '', name = ''] = table.split(' ');
  if ((family !== 'inet' && family !== 'ip') || knownTables.includes(table)) return false;
  // What is in tables of iptables on nftables is judged by what iptables-save writes.
  if (family !== 'ip' || saved === undefined || !iptablesTables.includes(name)) return true;
  // Somebody made the table with nft, in a way that iptables does not know.
  return new RegExp(`[Tt]able .${name}. is incompatible`).test(saved);
}

/** No service listens there, so what is accepted by port is not accepted. */
const port = 49_151;

/** A new TCP connection between two containers, in at the tunnel and out at it. */
function packetsOf(plan: FirewallPlan): readonly JudgedPacket[] {
  const device = deviceOf(plan);
  const [tunnel, other] = [{ is: device }, { isNot: device }];
  const connection = { transport: { protocol: 'tcp', port }, state: 'new' } as const;
  const inward = { ...connection, from: tunnel, to: other, source: plan.network, destination: plan.subnet };
  const outward = { ...connection, from: other, to: tunnel, source: plan.subnet, destination: plan.network };
  return (['prerouting', 'forward', 'postrouting'] as const).flatMap(hook => [
    { ...inward, hook },
    { ...outward, hook },
  ]);
}

async function describe(
  table: string,
  rule: DroppingRule,
  { from, to }: JudgedPacket,
  run: RunCommand,
  signal: AbortSignal,
): Promise<string> {
  const { chain } = rule;
  const isIn = from !== undefined && 'is' in from;
  const device = isIn ? from.is : to !== undefined && 'is' in to ? to.is : '';
  const way = isIn ? `come in at ${device}` : `go out at ${device}`;
  const insert = (option: string): string => `nft insert rule ${table} ${chain} ${option} ${device} accept`;
  const repair =
    table === 'inet firewalld'
      ? `firewall-cmd --permanent --zone=trusted --add-interface=${device} && firewall-cmd --reload`
      : `${insert('iifname')} && ${insert('oifname')}, there and where the table is made`;
  return `rule_conflict ${table} ${chain}: ${await describeRule(table, rule, run, signal)} packets between containers that ${way}; accept them: ${repair}`;
}

/** @returns `its rule 'udp dport 8285 drop' drops` */
export async function describeRule(
  table: string,
  { chain, handle }: DroppingRule,
  run: RunCommand,
  signal: AbortSignal,
): Promise<string> {
  if (handle === undefined) return 'its policy drop drops';
  return `its rule '${await textOf(table, chain, handle, run, signal)}' drops`;
}

async function textOf(
  table: string,
  chain: string,
  handle: number,
  run: RunCommand,
  signal: AbortSignal,
): Promise<string> {
  const listing = await programFact(() =>
    run('nft', ['--handle', 'list', 'chain', ...table.split(' '), chain], '', signal),
  );
  const text = factValue(listing) ?? '';
  return new RegExp(`^\\s*(\\S.*) # handle ${handle}$`, 'm').exec(text)?.[1] ?? `handle ${handle}`;
}
