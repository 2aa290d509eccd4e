/**
 * Judges nftables of others by what they do to one packet. A drop is final, whatever our own tables accept. What cannot
 * be known of a rule counts for the others: only a packet that is certainly dropped is told. Pure.
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
  yesOrNo,
  type DroppingRule,
  type JudgedPacket,
  type Match,
} from './judged-packet.js';

type Json = unknown;
type Verdict =
  | { readonly kind: 'accept' | 'maybe' | 'fall' }
  | { readonly kind: 'drop'; readonly chain: string; readonly handle: number | undefined };

interface Chain {
  readonly name: string;
  readonly hook: string | undefined;
  readonly drops: boolean;
  readonly rules: { readonly handle: number; readonly expressions: readonly Json[] }[];
}

/** The chains of a table by name. */
type Chains = ReadonlyMap<string, Chain>;

/** Chains that jump deeper than this are not followed. The kernel allows 16. */
const deepest = 16;

/** @returns the first rule that certainly drops the packet */
export function findDrop(chains: Chains, packet: JudgedPacket): DroppingRule | undefined {
  for (const chain of chains.values()) {
    if (chain.hook !== packet.hook) continue;
    const verdict = walk(chain, chains, packet, 0);
    if (verdict.kind === 'drop') return { chain: verdict.chain, handle: verdict.handle };
    if (verdict.kind === 'fall' && chain.drops) return { chain: chain.name, handle: undefined };
  }
  return undefined;
}

/** @param json what `nft -j list table` wrote */
export function readChains(json: string): Chains {
  const chains = new Map<string, Chain>();
  const items = listOf(memberOf(parse(json), 'nftables'));
  for (const item of items) {
    const [chain, rule] = [memberOf(item, 'chain'), memberOf(item, 'rule')];
    const name = textOf(memberOf(chain, 'name'));
    if (name !== undefined)
      chains.set(name, {
        name,
        hook: memberOf(chain, 'type') === 'filter' ? textOf(memberOf(chain, 'hook')) : undefined,
        drops: memberOf(chain, 'policy') === 'drop',
        rules: [],
      });
    const handle = Number(memberOf(rule, 'handle'));
    chains
      .get(textOf(memberOf(rule, 'chain')) ?? '')
      ?.rules.push({ handle, expressions: listOf(memberOf(rule, 'expr')) });
  }
  return chains;
}

function walk(chain: Chain, chains: Chains, packet: JudgedPacket, depth: number): Verdict {
  if (depth > deepest) return { kind: 'maybe' };
  const follow = (target: Json): Verdict => {
    const next = chains.get(textOf(memberOf(target, 'target')) ?? '');
    return next ? walk(next, chains, packet, depth + 1) : { kind: 'maybe' };
  };
  for (const { handle, expressions } of chain.rules) {
    let match: Match = 'yes';
    for (const expression of expressions) {
      const verdict = verdictOf(expression, { packet, follow, at: { chain: chain.name, handle } });
      if (!verdict) {
        match = both(match, matches(expression, packet));
        if (match === 'no') break;
        continue;
      }
      if (match === 'maybe') {
        // A rule that may drop is no certain drop; one that may accept or leave the chain makes the rest uncertain.
        if (verdict.kind !== 'drop' && verdict.kind !== 'fall') return { kind: 'maybe' };
        if (verdict.kind === 'fall' && endsChain(expression)) return { kind: 'maybe' };
        break;
      }
      if (verdict.kind !== 'fall' || endsChain(expression)) return verdict;
    }
  }
  return { kind: 'fall' };
}

interface Place {
  readonly packet: JudgedPacket;
  readonly follow: (target: Json) => Verdict;
  readonly at: { readonly chain: string; readonly handle: number };
}

/** @returns undefined for an expression that decides nothing */
function verdictOf(expression: Json, { packet, follow, at }: Place): Verdict | undefined {
  if (has(expression, 'accept')) return { kind: 'accept' };
  if (has(expression, 'drop') || has(expression, 'reject')) return { kind: 'drop', ...at };
  if (has(expression, 'return')) return { kind: 'fall' };
  if (has(expression, 'queue')) return { kind: 'maybe' };
  for (const jump of ['jump', 'goto']) if (has(expression, jump)) return follow(memberOf(expression, jump));
  if (!has(expression, 'vmap')) return undefined;
  const map = memberOf(expression, 'vmap');
  const elements = memberOf(memberOf(map, 'data'), 'set');
  if (!Array.isArray(elements)) return { kind: 'maybe' };
  for (const element of elements) {
    const [value, inner] = listOf(element);
    const match = matchesValue(memberOf(map, 'key'), value, packet);
    if (match === 'no') continue;
    const verdict = verdictOf(inner, { packet, follow, at }) ?? { kind: 'fall' };
    if (match === 'yes') return verdict;
    if (verdict.kind !== 'drop') return { kind: 'maybe' };
  }
  return { kind: 'fall' };
}

/** After the target of a goto, and after a return, the chain is over; after a jump or a map it goes on. */
function endsChain(expression: Json): boolean {
  return has(expression, 'goto') || has(expression, 'return');
}

const harmless = ['counter', 'log', 'mangle', 'notrack', 'quota', 'ct helper', 'flow', 'meter', 'dup', 'secmark'];

function matches(expression: Json, packet: JudgedPacket): Match {
  const match = memberOf(expression, 'match');
  if (match === undefined) return harmless.some(name => has(expression, name)) ? 'yes' : 'maybe';
  const found = matchesValue(memberOf(match, 'left'), memberOf(match, 'right'), packet);
  const operator = memberOf(match, 'op');
  if (operator === '==' || operator === 'in') return found;
  return operator === '!=' ? opposite(found) : 'maybe';
}

function matchesValue(left: Json, right: Json, packet: JudgedPacket): Match {
  const values = memberOf(right, 'set') ?? right;
  if (Array.isArray(values)) return anyOf(values.map((value: Json) => matchesValue(left, value, packet)));
  const key = textOf(memberOf(memberOf(left, 'meta'), 'key'));
  if (key !== undefined) return matchesMeta(key, right, packet);
  const state = textOf(memberOf(memberOf(left, 'ct'), 'key'));
  if (state === 'state') return typeof right === 'string' ? matchesState(packet, right) : 'maybe';
  // Nobody translates the packet.
  if (state === 'status') return typeof right === 'string' ? 'no' : 'maybe';
  return matchesField(memberOf(left, 'payload'), right, packet);
}

function matchesMeta(key: string, right: Json, packet: JudgedPacket): Match {
  const link = /^([io])if(?:name)?$/.exec(key)?.[1];
  if (link !== undefined)
    return typeof right === 'string' ? matchesLink(packet, link === 'i' ? 'from' : 'to', right, '*') : 'maybe';
  if (key === 'nfproto') return yesOrNo(right === 'ipv4');
  if (key === 'protocol') return yesOrNo(right === 'ip');
  if (key === 'l4proto') return matchesProtocol(packet, String(right));
  return 'maybe';
}

const otherProtocols = ['ip6', 'icmpv6', 'sctp', 'udplite', 'dccp', 'arp', 'tcp', 'udp', 'icmp'];

function matchesField(payload: Json, right: Json, packet: JudgedPacket): Match {
  const [protocol, field] = [textOf(memberOf(payload, 'protocol')), textOf(memberOf(payload, 'field'))];
  if (protocol === undefined) return 'maybe';
  if (protocol === 'ip' && (field === 'saddr' || field === 'daddr'))
    return matchesAddress(field === 'saddr' ? packet.source : packet.destination, right);
  if (protocol === 'ip' && field === 'protocol') return matchesProtocol(packet, String(right));
  const own = packet.transport.protocol;
  if (protocol !== own && protocol !== 'th') return otherProtocols.includes(protocol) ? 'no' : 'maybe';
  if (own === 'icmp') return matchesIcmp(field, right, packet);
  if (field !== 'sport' && field !== 'dport') return 'maybe';
  const range = listOf(memberOf(right, 'range')).map(Number);
  const side = field === 'sport' ? 'source' : 'destination';
  if (range.length === 2) return matchesPorts(packet, side, range[0] ?? 0, range[1] ?? 0);
  return typeof right === 'number' ? matchesPorts(packet, side, right) : 'maybe';
}

function matchesIcmp(field: string | undefined, right: Json, packet: JudgedPacket): Match {
  if (typeof right !== 'string' && typeof right !== 'number') return 'maybe';
  return field === 'type' ? matchesIcmpType(packet, String(right)) : 'maybe';
}

function matchesAddress(range: JudgedPacket['source'], right: Json): Match {
  const prefix = memberOf(right, 'prefix');
  const text = textOf(prefix === undefined ? right : memberOf(prefix, 'addr'));
  if (text === undefined) return 'maybe';
  return matchesRange(range, `${text}/${prefix === undefined ? 32 : String(memberOf(prefix, 'len'))}`);
}

function parse(json: string): Json {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function has(value: Json, name: string): boolean {
  return typeof value === 'object' && value !== null && name in value;
}

function memberOf(value: Json, name: string): Json {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, Json>>)[name] : undefined;
}

function listOf(value: Json): readonly Json[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: Json): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
