/**
 * Judges nftables of others by what they do to one packet of the overlay: a new TCP connection between two containers,
 * in at the tunnel or out at it. A drop is final, whatever our own tables accept. What cannot be known of a rule counts
 * for the others: only a packet that is certainly dropped is told. Pure.
 */
import { parsePrefix, prefixCovers, prefixesOverlap, readIpv4, type Prefix } from '../../model/ip.js';

/** The packet at one hook. `other` is a link that is not the tunnel. */
export interface JudgedPacket {
  readonly hook: 'prerouting' | 'forward' | 'postrouting';
  readonly device: string;
  readonly from: 'tunnel' | 'other';
  readonly source: Prefix;
  readonly destination: Prefix;
}

export interface DroppingRule {
  readonly chain: string;
  /** undefined: the policy of the chain drops. */
  readonly handle: number | undefined;
}

type Json = unknown;
type Match = 'yes' | 'no' | 'maybe';
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
  // A connection that is new, and translated by nobody.
  if (state === 'state') return typeof right === 'string' ? yesOrNo(right === 'new' || right === 'untracked') : 'maybe';
  if (state === 'status') return typeof right === 'string' ? 'no' : 'maybe';
  return matchesField(memberOf(left, 'payload'), right, packet);
}

function matchesMeta(key: string, right: Json, packet: JudgedPacket): Match {
  const isIn = packet.from === 'tunnel';
  if (key === 'iifname' || key === 'iif') return packet.hook === 'postrouting' ? 'maybe' : ofLink(isIn, right, packet);
  if (key === 'oifname' || key === 'oif') return packet.hook === 'prerouting' ? 'no' : ofLink(!isIn, right, packet);
  if (key === 'nfproto') return yesOrNo(right === 'ipv4');
  if (key === 'protocol') return yesOrNo(right === 'ip');
  if (key === 'l4proto') return yesOrNo(right === 'tcp' || right === 6);
  return 'maybe';
}

function ofLink(isTunnel: boolean, right: Json, { device }: JudgedPacket): Match {
  if (typeof right !== 'string') return 'maybe';
  const isNamed = right.endsWith('*') ? device.startsWith(right.slice(0, -1)) : device === right;
  if (isTunnel) return yesOrNo(isNamed);
  // The other link is some bridge of containers.
  return right === device || right === 'lo' ? 'no' : 'maybe';
}

/** No service listens there, so what is accepted by port is not accepted. */
const port = 49_151;

function matchesField(payload: Json, right: Json, packet: JudgedPacket): Match {
  const [protocol, field] = [textOf(memberOf(payload, 'protocol')), textOf(memberOf(payload, 'field'))];
  if (protocol === undefined) return 'maybe';
  if (protocol === 'ip' && (field === 'saddr' || field === 'daddr'))
    return ofRange(field === 'saddr' ? packet.source : packet.destination, right);
  if (protocol === 'ip' && field === 'protocol') return yesOrNo(right === 'tcp' || right === 6);
  if (['ip6', 'icmp', 'icmpv6', 'udp', 'sctp', 'udplite', 'dccp', 'arp'].includes(protocol)) return 'no';
  if ((protocol !== 'tcp' && protocol !== 'th') || (field !== 'sport' && field !== 'dport')) return 'maybe';
  const range = listOf(memberOf(right, 'range')).map(Number);
  if (range.length === 2) return yesOrNo(port >= (range[0] ?? 0) && port <= (range[1] ?? 0));
  return typeof right === 'number' ? yesOrNo(right === port) : 'maybe';
}

/** Some address of the range, not known which. */
function ofRange(range: Prefix, right: Json): Match {
  const prefix = memberOf(right, 'prefix');
  const text = textOf(prefix === undefined ? right : memberOf(prefix, 'addr'));
  if (text === undefined || readIpv4(text) === undefined) return 'maybe';
  const found = parsePrefix(`${text}/${prefix === undefined ? 32 : String(memberOf(prefix, 'len'))}`);
  if (prefixCovers(found, range)) return 'yes';
  return prefixesOverlap(found, range) ? 'maybe' : 'no';
}

function yesOrNo(is: boolean): Match {
  return is ? 'yes' : 'no';
}

function opposite(match: Match): Match {
  return match === 'maybe' ? 'maybe' : yesOrNo(match === 'no');
}

function both(a: Match, b: Match): Match {
  if (a === 'no' || b === 'no') return 'no';
  return a === 'maybe' || b === 'maybe' ? 'maybe' : 'yes';
}

function anyOf(all: readonly Match[]): Match {
  if (all.includes('yes')) return 'yes';
  return all.includes('maybe') ? 'maybe' : 'no';
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
