/** Reads the nftables of others, and names the rules that drop packets of the overlay. It never changes anything. */
import { factValue } from '../../lib/fact.js';
import { programFact, type RunCommand } from './command.js';
import type { FirewallPlan } from '../../model/plan.js';
import { findDrop, readChains, type DroppingRule, type JudgedPacket } from './foreign-chains.js';
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
  const foreign = parts.length === 0 ? [] : tables.filter(name => mayDrop(name, saved));
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

function mayDrop(table: string, saved: string | undefined): boolean {
  const [family = '', name = ''] = table.split(' ');
  if ((family !== 'inet' && family !== 'ip') || knownTables.includes(table)) return false;
  // What is in tables of iptables on nftables is judged by what iptables-save writes.
  if (family !== 'ip' || saved === undefined || !iptablesTables.includes(name)) return true;
  // Somebody made the table with nft, in a way that iptables does not know.
  return new RegExp(`[Tt]able .${name}. is incompatible`).test(saved);
}

function packetsOf(plan: FirewallPlan): readonly JudgedPacket[] {
  const device = deviceOf(plan);
  const inward = { device, from: 'tunnel', source: plan.network, destination: plan.subnet } as const;
  const outward = { device, from: 'other', source: plan.subnet, destination: plan.network } as const;
  return (['prerouting', 'forward', 'postrouting'] as const).flatMap(hook => [
    { ...inward, hook },
    { ...outward, hook },
  ]);
}

async function describe(
  table: string,
  { chain, handle }: DroppingRule,
  { device, from }: JudgedPacket,
  run: RunCommand,
  signal: AbortSignal,
): Promise<string> {
  const what =
    handle === undefined ? 'its policy drop' : `its rule '${await textOf(table, chain, handle, run, signal)}'`;
  const way = from === 'tunnel' ? `come in at ${device}` : `go out at ${device}`;
  const insert = (option: string): string => `nft insert rule ${table} ${chain} ${option} ${device} accept`;
  const repair =
    table === 'inet firewalld'
      ? `firewall-cmd --permanent --zone=trusted --add-interface=${device} && firewall-cmd --reload`
      : `${insert('iifname')} && ${insert('oifname')}, there and where the table is made`;
  return `rule_conflict ${table} ${chain}: ${what} drops packets between containers that ${way}; accept them: ${repair}`;
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
