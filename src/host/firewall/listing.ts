/**
 * Runs and reads each listing of iptables and nft, for the passes of tartand and for `tartan docker verify`; a listing
 * changes nothing. iptables exists twice on many hosts, built on nftables and legacy: each variant has rules that the
 * other does not show, and the kernel asks both.
 */
import { factValue, known, unknown, type Fact } from '../../lib/fact.js';
import { readTextFile } from '../../lib/file.js';
import { programFact, type RunCommand } from './command.js';
import { parseListing, type NftListing } from './nft-table.js';
import { isOwnRule } from './rules.js';
import { policyOf, type SavedText } from './save-text.js';

/** `iptables` is the variant that the host has chosen, for Docker too. */
export type IptablesProgram = 'iptables' | IptablesVariant;
export type IptablesVariant = 'iptables-nft' | 'iptables-legacy';

/**
 * Lists all rules, ours and those of others, as `iptables-save` writes them.
 * @throws an error that isAbsent knows when there is no such program
 */
export function saveRules(program: IptablesProgram, run: RunCommand, signal: AbortSignal): Promise<string> {
  return run(`${program}-save`, [], '', signal);
}

/** @returns family and name of each nftables table, such as `ip tartan` */
export async function listTables(run: RunCommand, signal: AbortSignal): Promise<readonly string[]> {
  const text = await run('nft', ['list', 'tables'], '', signal);
  return [...text.matchAll(/^table (\w+ \S+)/gm)].map(([, table = '']) => table);
}

/** @returns the names of the IPv4 tables among those that `listTables` returned */
export function ipv4Tables(tables: readonly string[]): readonly string[] {
  return tables.flatMap(table => /^ip (\S+)/.exec(table)?.[1] ?? []);
}

/** Lists our own nftables table, which must exist. */
export async function listOwnTable(run: RunCommand, signal: AbortSignal): Promise<NftListing> {
  const options = ['--numeric', '--handle', '--stateless'];
  return parseListing(await run('nft', [...options, 'list', 'table', 'ip', 'tartan'], '', signal));
}

/**
 * Lists the rules behind the variant that `iptables` is not, only where the kernel has tables of it: listing legacy
 * tables would create them.
 * @param saved what iptables-save wrote
 * @param nftTables names of the IPv4 tables of nftables
 * @param legacyTablesFile see legacyTables
 * @returns undefined when there are no other rules
 */
export async function listOtherVariant(
  saved: string,
  nftTables: readonly string[],
  run: RunCommand,
  signal: AbortSignal,
  legacyTablesFile?: string,
): Promise<Fact<{ readonly program: IptablesVariant; readonly text: string } | undefined>> {
  const program = otherVariant(saved, legacyTables(legacyTablesFile), nftTables);
  if (!program) return known(undefined);
  const text = await programFact(() => saveRules(program, run, signal));
  if (!text.known) return text;
  if (text.value === undefined) return unknown(`there are tables of ${program} and no program to list them`);
  return known(sameRules(text.value, saved) ? undefined : { program, text: text.value });
}

/**
 * Reads the names of the tables of legacy iptables without its programs: listing the tables would create them.
 * @param file the one in which the kernel names them
 */
export function legacyTables(file = '/proc/net/ip_tables_names'): readonly string[] {
  return (factValue(readTextFile(file)) ?? '').split('\n').filter(name => name !== '');
}

const builtIn = ['INPUT', 'FORWARD', 'OUTPUT', 'PREROUTING', 'POSTROUTING'];
export const iptablesTables = ['raw', 'mangle', 'nat', 'filter', 'security'];

/**
 * @param text what iptables-save wrote
 * @param legacy names that the kernel has for legacy iptables
 * @param nftTables names of the IPv4 tables of nftables, those of others too
 * @returns the variant that `iptables` is not, if it may have rules
 */
export function otherVariant(
  text: string,
  legacy: readonly string[],
  nftTables: readonly string[],
): IptablesVariant | undefined {
  const isEmpty = !/^\*/m.test(text);
  // The legacy program would show the tables, also those without rules.
  const isNft =
    /\(nf_tables\)|xtables-save|iptables-legacy tables present/.test(text) || (isEmpty && legacy.length > 0);
  if (isNft) return legacy.length > 0 ? 'iptables-legacy' : undefined;
  return nftTables.some(name => iptablesTables.includes(name)) ? 'iptables-nft' : undefined;
}

/** Compares what two programs wrote, counters and comments aside: where the rules are equal, the programs are one. */
export function sameRules(text: string, other: string): boolean {
  const rules = (of: string): string => of.replace(/^#.*\n?/gm, '').replace(/\[\d+:\d+\]/g, '');
  return rules(text) === rules(other);
}

/** @returns the tables in which others accept, drop or change something */
export function foreignTables({ text, tables }: SavedText): readonly string[] {
  return [...tables]
    .filter(
      ([table, chains]) =>
        [...chains.values()].some(rules => rules.some(rule => !isOwnRule(rule))) ||
        builtIn.some(chain => policyOf(text, table, chain) === 'DROP'),
    )
    .map(([table]) => table);
}

export function variantConflict(program: IptablesVariant, foreign: readonly string[]): string {
  const advice = `move them there (${program}-save, iptables-restore) and flush ${program}, or choose ${program} for all with update-alternatives --set iptables`;
  return `iptables_variants: ${program} has rules of others too (${foreign.join(', ')}), which can drop what the rules of iptables accept; ${advice}`;
}
