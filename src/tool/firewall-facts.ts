/**
 * Reads the packet filter for `tartan docker verify`: which programs exist, which rules of ours are in force, what
 * others masquerade, whether two variants of iptables are in use. It only lists, and never changes anything.
 */
import type { FirewallFacts, OtherVariant, RuleFacts } from '../docker/verify/facts.js';
import { factValue, known, type Fact } from '../lib/fact.js';
import { readTextFile } from '../lib/file.js';
import { programFact, runCommand } from '../host/firewall/command.js';
import { ipv4Tables, listOtherVariant, listOwnTable, listTables, saveRules } from '../host/firewall/listing.js';
import type { NftListing } from '../host/firewall/nft-table.js';
import { dropsForwarded } from '../host/firewall/placement.js';
import { isOwnRule, masqueradedSource } from '../host/firewall/rules.js';
import {
  optionValue,
  parseSaveText,
  policyOf,
  readSaveText,
  targetOf,
  type SavedTable,
} from '../host/firewall/save-text.js';

const nothing: SavedTable = new Map();

/** @param limitMs how long each listing may take */
export async function readFirewallFacts(limitMs: number): Promise<FirewallFacts> {
  const signal = (): AbortSignal => AbortSignal.timeout(limitMs);
  const [saved, tables] = await Promise.all([
    programFact(() => saveRules('iptables', runCommand, signal())),
    programFact(() => listTables(runCommand, signal())),
  ]);
  const names = factValue(tables) ?? [];
  const ours = names.includes('ip tartan')
    ? await programFact(() => listOwnTable(runCommand, signal()))
    : known(undefined);
  const text = factValue(saved);
  const other =
    text === undefined ? known(undefined) : await listOtherVariant(text, ipv4Tables(names), runCommand, signal());
  return {
    iptables: !saved.known || saved.value !== undefined,
    nft: !tables.known || tables.value !== undefined,
    rules: ruleFactsOf(saved, ours),
    otherVariant: other.known ? known(other.value && otherVariantFacts(other.value.program, other.value.text)) : other,
    rivals: [
      ...(names.includes('inet firewalld') || isRunning('/run/firewalld.pid') ? ['firewalld'] : []),
      ...(/^:ufw-/m.test(text ?? '') ? ['ufw'] : []),
    ],
  };
}

function ruleFactsOf(saved: Fact<string | undefined>, ours: Fact<NftListing | undefined>): Fact<RuleFacts> {
  if (!saved.known) return saved;
  return ours.known ? known(readRules(saved.value ?? '', ours.value)) : ours;
}

/**
 * @param saved what iptables-save wrote
 * @param table our own nftables table, undefined when there is none
 */
export function readRules(saved: string, table: NftListing | undefined): RuleFacts {
  const listing = readSaveText(saved);
  const rules = (name: string) => [...(listing.tables.get(name) ?? nothing).values()].flat();
  const has = (name: string, target: string): boolean =>
    rules(name).some(rule => isOwnRule(rule) && targetOf(rule) === target);
  const hasNft = (chain: string, statement: RegExp): boolean =>
    table?.chains.get(chain)?.rules.some(rule => rule.isOurs && statement.test(rule.text)) ?? false;
  const byIptables = has('filter', 'ACCEPT');
  const mark = hasNft('forward', / accept$/);
  return {
    ours: {
      forward: byIptables || mark,
      // Only Docker's iptables rules drop in raw: where we filter by nftables alone there is nothing to pass.
      raw: has('raw', 'ACCEPT') || (mark && !byIptables),
      masquerade: has('nat', 'MASQUERADE') || hasNft('postrouting', / masquerade\b/),
      sources: has('nat', 'ACCEPT') || hasNft('postrouting', / snat to ip saddr$/),
      mark,
    },
    forwardDrops: dropsForwarded(listing),
    // The hairpin rules of published ports name a destination and do not count.
    masqueraded: rules('nat').flatMap(rule =>
      isOwnRule(rule) || optionValue(rule, '-d') ? [] : (masqueradedSource(rule) ?? []),
    ),
  };
}

export function otherVariantFacts(program: OtherVariant['program'], saved: string): OtherVariant | undefined {
  const all = [...parseSaveText(saved).values()].flatMap(table => [...table.values()].flat());
  const rules = all.filter(rule => !isOwnRule(rule)).length;
  const policyDrops = policyOf(saved, 'filter', 'FORWARD') === 'DROP';
  return rules === 0 && !policyDrops ? undefined : { program, rules, policyDrops };
}

function isRunning(pidFile: string): boolean {
  const number = (factValue(readTextFile(pidFile)) ?? '').trim();
  return /^[1-9]\d{0,9}$/.test(number) && factValue(readTextFile(`/proc/${number}/comm`)) !== undefined;
}
