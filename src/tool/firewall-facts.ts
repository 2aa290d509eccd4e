/**
 * The packet filter as `tartan docker verify` needs it: which programs there are, which rules of ours are in force, what
 * others masquerade, whether two kinds of iptables are in use. Only lists, never changes.
 */
import { readTextFile } from '../lib/file.js';
import type { FirewallFacts, OtherKind, RuleFacts } from '../docker/verify/facts.js';
import { known, unknown, factValue, type Fact } from '../lib/fact.js';
import { isAbsent, runCommand } from '../host/firewall/command.js';
import { parseListing } from '../host/firewall/nft-table.js';
import { isOwnRule, masqueradedSource } from '../host/firewall/rules.js';
import {
  parseSaveText,
  policyOf,
  targetOf,
  optionValue as optionOf,
  type SavedTable,
} from '../host/firewall/save-text.js';
import { otherVariant, saysTheSame } from '../host/firewall/variants.js';
import { messageOf } from '../lib/errors.js';

/** What a program wrote; undefined when there is no such program. */
type Listing = Fact<string | undefined>;

const nothing: SavedTable = new Map();

export async function readFirewallFacts(): Promise<FirewallFacts> {
  const [saved, tables] = await Promise.all([list('iptables-save'), list('nft', 'list', 'tables')]);
  const names = (factValue(tables) ?? '').split('\n').map(line => line.replace(/^table /, ''));
  const ours = names.includes('ip tartan')
    ? await list('nft', '--numeric', '--handle', '--stateless', 'list', 'table', 'ip', 'tartan')
    : known('');
  const text = factValue(saved);
  return {
    iptables: !saved.known || saved.value !== undefined,
    nft: !tables.known || tables.value !== undefined,
    rules: ruleFactsOf(saved, ours),
    otherKind: text === undefined ? known(undefined) : await readOtherKind(text, names),
    rivals: [
      ...(names.includes('inet firewalld') || isRunning('/run/firewalld.pid') ? ['firewalld'] : []),
      ...(/^:ufw-/m.test(text ?? '') ? ['ufw'] : []),
    ],
  };
}

async function list(program: string, ...args: readonly string[]): Promise<Listing> {
  try {
    return known(await runCommand(program, args, '', AbortSignal.timeout(20_000)));
  } catch (error) {
    return isAbsent(error) ? known(undefined) : unknown(messageOf(error));
  }
}

function ruleFactsOf(saved: Listing, ours: Listing): Fact<RuleFacts> {
  if (!saved.known) return saved;
  return ours.known ? known(readRules(saved.value ?? '', ours.value ?? '')) : ours;
}

/**
 * @param saved what iptables-save wrote
 * @param table our own table as nft lists it, '' when there is none
 */
export function readRules(saved: string, table: string): RuleFacts {
  const tables = parseSaveText(saved);
  const rules = (name: string) => [...(tables.get(name) ?? nothing).values()].flat();
  const has = (name: string, target: string): boolean =>
    rules(name).some(rule => isOwnRule(rule) && targetOf(rule) === target);
  const { chains } = parseListing(table);
  const hasNft = (chain: string, statement: RegExp): boolean =>
    chains.get(chain)?.rules.some(rule => rule.isOurs && statement.test(rule.text)) ?? false;
  const byIptables = has('filter', 'ACCEPT');
  const mark = hasNft('forward', / accept$/);
  return {
    ours: {
      forward: byIptables || mark,
      // Only iptables has that drop: where we filter by nftables alone there is nothing to pass.
      raw: has('raw', 'ACCEPT') || (mark && !byIptables),
      masquerade: has('nat', 'MASQUERADE') || hasNft('postrouting', / masquerade\b/),
      sources: has('nat', 'ACCEPT') || hasNft('postrouting', / snat to ip saddr$/),
      mark,
    },
    forwardDrops: dropsForwarded(saved),
    // Not the hairpin rules of published ports, which name a destination.
    masqueraded: rules('nat').flatMap(rule =>
      isOwnRule(rule) || optionOf(rule, '-d') ? [] : (masqueradedSource(rule) ?? []),
    ),
  };
}

function dropsForwarded(saved: string): boolean {
  return policyOf(saved, 'filter', 'FORWARD') === 'DROP';
}

/** Looked at only where the kernel has something of it: listing legacy tables would bring them into being. */
async function readOtherKind(saved: string, names: readonly string[]): Promise<Fact<OtherKind | undefined>> {
  const legacy = (factValue(readTextFile('/proc/net/ip_tables_names')) ?? '').split('\n').filter(name => name !== '');
  const nft = names.flatMap(name => /^ip (\S+)/.exec(name)?.[1] ?? []);
  const program = otherVariant(saved, legacy, nft);
  if (!program) return known(undefined);
  const other = await list(`${program}-save`);
  if (!other.known) return other;
  if (other.value !== undefined)
    return known(saysTheSame(other.value, saved) ? undefined : otherKindOf(program, other.value));
  return unknown(`there are tables of ${program} and no program to list them`);
}

export function otherKindOf(program: OtherKind['program'], saved: string): OtherKind | undefined {
  const all = [...parseSaveText(saved).values()].flatMap(table => [...table.values()].flat());
  const rules = all.filter(rule => !isOwnRule(rule)).length;
  const forwardDrops = dropsForwarded(saved);
  return rules === 0 && !forwardDrops ? undefined : { program, rules, forwardDrops };
}

function isRunning(pidFile: string): boolean {
  const number = (factValue(readTextFile(pidFile)) ?? '').trim();
  return /^[1-9]\d{0,9}$/.test(number) && factValue(readTextFile(`/proc/${number}/comm`)) !== undefined;
}
