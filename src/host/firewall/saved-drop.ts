/**
 * Judges rules as `iptables-save` writes them by what they do to one packet, as foreign-chains.ts judges nftables: only a
 * packet that is certainly dropped is told. Pure.
 */
import {
  anyOf,
  both,
  matchesIcmpType,
  matchesLink,
  matchesPorts,
  matchesProtocol,
  matchesRange,
  matchesState,
  opposite,
  type JudgedPacket,
  type Match,
} from './judged-packet.js';
import { optionGroups, policyOf, type SavedRule, type SavedTable, type SavedText } from './save-text.js';

export interface SavedDrop {
  readonly table: string;
  readonly chain: string;
  /** undefined: the policy of the chain drops. */
  readonly rule: string | undefined;
}

type Verdict = { readonly kind: 'accept' | 'maybe' | 'fall' } | { readonly kind: 'drop'; readonly drop: SavedDrop };

/** The order in which the kernel asks the tables; nat drops nothing. */
const tableOrder = ['raw', 'mangle', 'filter', 'security'];
const deepest = 16;

/** @returns the first rule that certainly drops the packet */
export function findSavedDrop(saved: SavedText, packet: JudgedPacket): SavedDrop | undefined {
  const chain = packet.hook.toUpperCase();
  for (const table of tableOrder) {
    const chains = saved.tables.get(table);
    if (!chains?.has(chain)) continue;
    const verdict = walk({ table, chains, packet }, chain, 0);
    if (verdict.kind === 'drop') return verdict.drop;
    if (verdict.kind === 'fall' && policyOf(saved.text, table, chain) === 'DROP')
      return { table, chain, rule: undefined };
  }
  return undefined;
}

interface Place {
  readonly table: string;
  readonly chains: SavedTable;
  readonly packet: JudgedPacket;
}

/** Targets that decide nothing. */
const harmless = ['LOG', 'NFLOG', 'ULOG', 'MARK', 'CONNMARK', 'CT', 'NOTRACK', 'TRACE', 'CHECKSUM', 'TCPMSS', 'DSCP'];

function walk(place: Place, chain: string, depth: number): Verdict {
  if (depth > deepest) return { kind: 'maybe' };
  for (const rule of place.chains.get(chain) ?? []) {
    const groups = optionGroups(rule.words);
    const match = groups.reduce<Match>((all, group) => both(all, matches(group, place.packet)), 'yes');
    if (match === 'no') continue;
    const { verdict, ends } = targetVerdict(place, { chain, rule, groups }, depth);
    if (match === 'maybe') {
      // A rule that may drop is no certain drop; one that may accept or leave the chain makes the rest uncertain.
      if (verdict.kind === 'drop' || (verdict.kind === 'fall' && !ends)) continue;
      return { kind: 'maybe' };
    }
    if (verdict.kind !== 'fall' || ends) return verdict;
  }
  return { kind: 'fall' };
}

interface RulePlace {
  readonly chain: string;
  readonly rule: SavedRule;
  readonly groups: readonly (readonly string[])[];
}

/** `ends`: after the target the chain is over, as after a goto. */
function targetVerdict(
  place: Place,
  { chain, rule, groups }: RulePlace,
  depth: number,
): { readonly verdict: Verdict; readonly ends: boolean } {
  const [option, target] = groups.find(([name]) => name === '-j' || name === '-g') ?? [];
  const ends = option === '-g';
  if (target === undefined || harmless.includes(target)) return { verdict: { kind: 'fall' }, ends: false };
  if (target === 'ACCEPT') return { verdict: { kind: 'accept' }, ends };
  if (target === 'RETURN') return { verdict: { kind: 'fall' }, ends: true };
  if (target === 'DROP' || target === 'REJECT')
    return { verdict: { kind: 'drop', drop: { table: place.table, chain, rule: rule.text } }, ends };
  if (place.chains.has(target)) return { verdict: walk(place, target, depth + 1), ends };
  return { verdict: { kind: 'maybe' }, ends };
}

/** Options of modules that only name, and those of targets. */
const withoutCondition =
  /^(-m|-j|-g|--comment|--reject-with|--log-.*|--nflog-.*|--set-x?mark|--zone|--helper|--notrack)$/;

function matches([name = '', ...values]: readonly string[], packet: JudgedPacket): Match {
  if (withoutCondition.test(name)) return 'yes';
  const negated = name.startsWith('! ');
  const match = matchesOption(negated ? name.slice(2) : name, values[0] ?? '', packet);
  return negated ? opposite(match) : match;
}

function matchesOption(name: string, value: string, packet: JudgedPacket): Match {
  switch (name) {
    case '-p':
      return matchesProtocol(packet, value);
    case '-s':
      return matchesRange(packet.source, value);
    case '-d':
      return matchesRange(packet.destination, value);
    case '-i':
      return matchesLink(packet, 'from', value, '+');
    case '-o':
      return matchesLink(packet, 'to', value, '+');
    case '--dport':
    case '--dports':
      return anyOf(value.split(',').map(range => matchesPortRange(packet, 'destination', range)));
    case '--sport':
    case '--sports':
      return anyOf(value.split(',').map(range => matchesPortRange(packet, 'source', range)));
    case '--ports':
      return anyOf(value.split(',').map(range => matchesPortRange(packet, 'either', range)));
    case '--ctstate':
    case '--state':
      return anyOf(value.split(',').map(state => matchesState(packet, state)));
    case '--icmp-type':
      return matchesIcmp(packet, value);
    default:
      return 'maybe';
  }
}

function matchesPortRange(packet: JudgedPacket, side: 'source' | 'destination' | 'either', text: string): Match {
  const [first = NaN, last = first] = text.split(':').map(Number);
  return Number.isNaN(first) || Number.isNaN(last) ? 'maybe' : matchesPorts(packet, side, first, last);
}

function matchesIcmp(packet: JudgedPacket, text: string): Match {
  if (text === 'any' || text === '255') return 'yes';
  const [type = '', code] = text.split('/');
  const found = matchesIcmpType(packet, type);
  const { transport } = packet;
  return code === undefined || transport.protocol !== 'icmp' || Number(code) === transport.code ? found : 'no';
}
