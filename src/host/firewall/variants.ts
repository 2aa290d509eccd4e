/**
 * iptables exists twice on many hosts: built on nftables and legacy, each with rules that the other does not show, and
 * the kernel asks both. Pure.
 */
import { isOwnRule } from './rules.js';
import type { IptablesVariant } from './iptables.js';
import { parseSaveText, policyOf } from './save-text.js';

const builtIn = ['INPUT', 'FORWARD', 'OUTPUT', 'PREROUTING', 'POSTROUTING'];
const tables = ['raw', 'mangle', 'nat', 'filter', 'security'];

/**
 * The variant that `iptables` is not, if it may have rules.
 * @param text what iptables-save says
 * @param legacyTables names that the kernel has for legacy iptables
 * @param nftTables names of the IPv4 tables of nftables, those of others too
 */
export function otherVariant(
  text: string,
  legacyTables: readonly string[],
  nftTables: readonly string[],
): IptablesVariant | undefined {
  const isEmpty = !/^\*/m.test(text);
  // The legacy program would show the tables, also those without rules.
  const isNft =
    /\(nf_tables\)|xtables-save|iptables-legacy tables present/.test(text) || (isEmpty && legacyTables.length > 0);
  if (isNft) return legacyTables.length > 0 ? 'iptables-legacy' : undefined;
  return nftTables.some(name => tables.includes(name)) ? 'iptables-nft' : undefined;
}

/** Whether two programs say the same, counters and comments aside: then they are one. */
export function saysTheSame(text: string, other: string): boolean {
  const rules = (of: string): string => of.replace(/^#.*\n?/gm, '').replace(/\[\d+:\d+\]/g, '');
  return rules(text) === rules(other);
}

/** Tables in which others accept, drop or change something. */
export function foreignTables(text: string): readonly string[] {
  return [...parseSaveText(text)]
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
