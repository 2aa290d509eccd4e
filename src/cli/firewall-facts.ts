/**
 * The packet filter as `tartan docker verify` needs it: which programs there are, which rules of ours are in force, what
 * others masquerade, whether two kinds of iptables are in use. Only lists, never changes.
 */
import type { FirewallFacts, OtherKind, RuleFacts } from '../docker/facts.js';
import { known, unknown, type Fact } from '../docker/fact.js';
import { isAbsent, runCommand } from '../host/firewall/command.js';
import { parseSaveText, targetOf, valueOf, type SavedRule, type SavedTable } from '../host/firewall/save-text.js';
import { messageOf } from '../lib/errors.js';
import { parsePrefix, type Prefix } from '../model/ipv4.js';
import { readTextFile } from './text-file.js';

/** What a program wrote; undefined when there is no such program. */
type Listing = Fact<string | undefined>;

const comment = 'tartan';
const nothing: SavedTable = new Map();

export async function readFirewallFacts(): Promise<FirewallFacts> {
  const [saved, tables] = await Promise.all([list('iptables-save'), list('nft', 'list', 'tables')]);
  const ours =
    tables.known && hasTable(tables.value, 'ip tartan')
      ? await list('nft', 'list', 'table', 'ip', 'tartan')
      : known('');
  return {
    iptables: !saved.known || saved.value !== undefined,
    nft: !tables.known || tables.value !== undefined,
    rules: ruleFactsOf(saved, ours),
    otherKind: saved.known && saved.value !== undefined ? await readOtherKind(saved.value) : known(undefined),
    rivals: rivalsOf(saved, tables),
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
  const has = (name: string, target: string): boolean =>
    rulesOf(tables.get(name) ?? nothing).some(rule => isOurs(rule) && targetOf(rule) === target);
  const byIptables = has('filter', 'ACCEPT');
  const byNft = /\baccept comment "tartan"/.test(table);
  return {
    ours: {
      forward: byIptables || byNft,
      // Only iptables has that drop: where we filter by nftables alone there is nothing to pass.
      raw: has('raw', 'ACCEPT') || (byNft && !byIptables),
      masquerade: has('nat', 'MASQUERADE') || /\bmasquerade\b.* comment "tartan"/.test(table),
    },
    forwardDrops: forwardDrops(saved),
    masqueraded: rulesOf(tables.get('nat') ?? nothing).flatMap(rule => masqueradedBy(rule)),
  };
}

function rulesOf(table: SavedTable): readonly SavedRule[] {
  return [...table.values()].flat();
}

function isOurs(rule: SavedRule): boolean {
  return valueOf(rule, '--comment') === comment;
}

/** Not the hairpin rules of published ports, which name a destination. */
function masqueradedBy(rule: SavedRule): readonly Prefix[] {
  const source = valueOf(rule, '-s');
  if (isOurs(rule) || targetOf(rule) !== 'MASQUERADE' || source === undefined || valueOf(rule, '-d')) return [];
  try {
    return [parsePrefix(source.includes('/') ? source : `${source}/32`)];
  } catch {
    return [];
  }
}

/** The policy of FORWARD in the table filter. */
function forwardDrops(saved: string): boolean {
  const filter = saved.split(/^\*/m).find(part => part.startsWith('filter\n'));
  return /^:FORWARD DROP\b/m.test(filter ?? '');
}

/** Legacy tables are looked at only where the kernel has some: listing would bring them into being. */
async function readOtherKind(saved: string): Promise<Fact<OtherKind | undefined>> {
  const name = saved.includes('(nf_tables)') ? 'legacy' : 'nf_tables';
  if (name === 'legacy' && !readLegacyTables()) return known(undefined);
  const other = await list(name === 'legacy' ? 'iptables-legacy-save' : 'iptables-nft-save');
  if (!other.known) return other;
  if (other.value === undefined)
    return name === 'legacy'
      ? unknown('there are tables of iptables-legacy and no program to list them')
      : known(undefined);
  return known(otherKindOf(name, other.value));
}

export function otherKindOf(name: OtherKind['name'], saved: string): OtherKind | undefined {
  const rules = [...parseSaveText(saved).values()].flatMap(rulesOf).length;
  const drops = forwardDrops(saved);
  return rules === 0 && !drops ? undefined : { name, rules, forwardDrops: drops };
}

function readLegacyTables(): boolean {
  const names = readTextFile('/proc/net/ip_tables_names');
  return names.known && (names.value ?? '').trim() !== '';
}

function rivalsOf(saved: Listing, tables: Listing): readonly string[] {
  const firewalld = (tables.known && hasTable(tables.value, 'inet firewalld')) || isRunning('/run/firewalld.pid');
  const ufw = saved.known && /^:ufw-/m.test(saved.value ?? '');
  return [...(firewalld ? ['firewalld'] : []), ...(ufw ? ['ufw'] : [])];
}

function hasTable(listed: string | undefined, name: string): boolean {
  return (listed ?? '').split('\n').includes(`table ${name}`);
}

function isRunning(pidFile: string): boolean {
  const pid = readTextFile(pidFile);
  const number = pid.known ? (pid.value ?? '').trim() : '';
  if (!/^[1-9]\d{0,9}$/.test(number)) return false;
  const process = readTextFile(`/proc/${number}/comm`);
  return process.known && process.value !== undefined;
}
