/**
 * Plans the packet filter rules of the overlay for iptables and, from what `iptables-save` wrote, the commands that
 * make them. Pure. Every rule of ours carries one comment. Only those rules, the chain that we made, and a DOCKER-USER
 * that we made and nobody uses are ever removed. Comments say why each rule exists, for Docker 20.10 to 28.5.
 */
import { formatIpv4, formatPrefix, parsePrefix, prefixesOverlap, readIpv4, type Prefix } from '../../model/ip.js';
import type { FirewallPlan, KernelRulesPlan } from '../../model/plan.js';
import {
  canonicalRule,
  endsChain,
  splitWords,
  targetOf,
  optionValue,
  type SavedRule,
  type SavedTable,
} from './save-text.js';
import { marking, leftoverIn, type Leftover } from './leftovers.js';

export type TableName = 'raw' | 'filter' | 'nat';

export interface TableChange {
  readonly table: TableName;
  /** The built-in chains from which our rules are reached. */
  readonly builtIns: readonly string[];
  /** The commands of one iptables-restore, which makes all of them or none. */
  readonly commands: readonly string[];
}

export interface FirewallDifference {
  readonly changes: readonly TableChange[];
  /** Tables and chains that tartan created, where no rule of ours is wanted any more. */
  readonly leftovers: readonly Leftover[];
  readonly conflicts: readonly string[];
}

export interface FirewallContext {
  /** iptables knows --random-fully (1.6.2). */
  readonly randomFully: boolean;
  /** Rules of ours that no part wants stay, because the plan that wants them may not be known yet. */
  readonly keeps?: boolean;
}

export const comment = 'tartan';
const marked = `-m comment --comment ${comment}`;
const dockerUser = 'DOCKER-USER';
const masqueradeChain = 'TARTAN-POSTRTG';
export const multicast = '224.0.0.0/4';

/** @param parts none when no rule of ours is to stay */
export function diffFirewall(
  parts: readonly FirewallPlan[],
  saved: ReadonlyMap<string, SavedTable>,
  context: FirewallContext,
): FirewallDifference {
  const table = (name: TableName): SavedTable => saved.get(name) ?? new Map();
  const conflicts: string[] = [];
  const all = [
    {
      table: 'raw',
      chains: [
        { name: 'PREROUTING', isWanted: parts.some(plan => forwards(plan) || plan.kernel) },
        { name: 'OUTPUT', isWanted: parts.some(plan => plan.kernel) },
      ],
      commands: syncRaw(parts, table('raw'), context),
    },
    {
      table: 'filter',
      chains: [{ name: 'FORWARD', isWanted: parts.some(forwards) }],
      commands: syncFilter(parts, table('filter'), context),
    },
    {
      table: 'nat',
      chains: [{ name: 'POSTROUTING', isWanted: parts.some(choosesSources) }],
      commands: syncNat(parts, table('nat'), context, conflicts),
    },
  ] as const;
  return {
    changes: all
      .filter(({ commands }) => commands.length > 0)
      .map(one => {
        const builtIns = one.chains.map(({ name }) => name);
        const marks = marking(saved.get(one.table), builtIns, one.commands);
        return { table: one.table, builtIns, commands: [...marks, ...one.commands] };
      }),
    leftovers: all.flatMap(one =>
      context.keeps ? [] : (leftoverIn(one.table, saved.get(one.table), one.chains) ?? []),
    ),
    conflicts,
  };
}

/**
 * Docker 28 drops in raw PREROUTING what goes to a container and does not come in on its bridge, before the filter
 * table is asked. Our rule comes first, and accepts only what comes in on the overlay device, so that nobody on the
 * underlay can use it by forging a source.
 */
function rawRules(plan: FirewallPlan): readonly string[] {
  const { network, subnet } = texts(plan);
  const { kernel } = plan;
  return [
    ...(forwards(plan) ? [`-s ${network} -d ${subnet} -i ${deviceOf(plan)} ${marked} -j ACCEPT`] : []),
    ...(kernel ? [`-i ${linkName(kernel.link)} ${marked} -j DROP`] : []),
    ...(kernel ? [`-d ${formatIpv4(kernel.local)}/32 ${untracked(kernel)}`] : []),
  ];
}

/** For what this host sends by the kernel link. */
function rawOutputRules({ kernel }: FirewallPlan): readonly string[] {
  return kernel ? [`-s ${formatIpv4(kernel.local)}/32 ${untracked(kernel)}`] : [];
}

function untracked({ port }: KernelRulesPlan): string {
  return `-p udp -m udp --dport ${port} ${marked} -j CT --notrack`;
}

/**
 * Accepts both directions of the tunnel, by device: between two local containers Docker's own rules decide
 * (`--icc=false`, isolation of networks). flannel accepts all from and to the network; these rules accept less.
 * Docker's own rules pass container to world and its answers in every version, and world to container for published
 * ports. DOCKER-USER comes before those rules: accepting more here would open every unpublished port.
 */
function forwardRules(plan: FirewallPlan): readonly string[] {
  const { network } = texts(plan);
  const device = deviceOf(plan);
  if (!forwards(plan)) return [];
  return [
    `-s ${network} -d ${network} -i ${device} ${marked} -j ACCEPT`,
    `-s ${network} -d ${network} -o ${device} ${marked} -j ACCEPT`,
  ];
}

export function forwards({ forward }: FirewallPlan): boolean {
  return forward === true;
}

/** Keeps sources within the overlay without --ip-masq too: an administrator may have left Docker's masquerade on. */
export function choosesSources({ masquerade, forward }: FirewallPlan): boolean {
  return masquerade === 'off' ? forward !== false : masquerade !== 'elsewhere';
}

/**
 * A packet that enters the tunnel keeps its source (ACCEPT and not RETURN: a masquerade of Docker's further down must
 * not see it). A source from outside of the network becomes the tunnel's address, because peers take packets of the
 * network only. What leaves the overlay gets the host's address. Nothing is decided between local bridges: Docker's
 * hairpin rules come after ours.
 */
function masqueradeRules(plan: FirewallPlan, randomFully: boolean): readonly string[] {
  if (!choosesSources(plan)) return [];
  const { network, subnet } = texts(plan);
  const device = deviceOf(plan);
  const keep = `-s ${network} -d ${network} -o ${device} ${marked} -j ACCEPT`;
  if (plan.masquerade === 'off') return [keep];
  const masquerade = `-j MASQUERADE${randomFully && plan.masquerade === 'on' ? ' --random-fully' : ''}`;
  return [
    keep,
    `-s ${subnet} -d ${multicast} ${marked} -j RETURN`,
    `-s ${subnet} ! -d ${network} ${marked} ${masquerade}`,
    `! -s ${network} -d ${network} -o ${device} ${marked} ${masquerade}`,
  ];
}

/** Returns the wanted rules, and after them those of ours that are to be kept. */
function withKept(
  want: readonly string[],
  have: readonly SavedRule[] = [],
  { keeps }: FirewallContext,
): readonly string[] {
  const wanted = new Set(want.map(rule => canonicalRule(splitWords(rule))));
  const kept = have.filter(rule => keeps && isOwnRule(rule) && !wanted.has(canonicalRule(rule.words)));
  return [...want, ...kept.map(rule => rule.text)];
}

function syncRaw(parts: readonly FirewallPlan[], table: SavedTable, context: FirewallContext): readonly string[] {
  return (
    [
      ['PREROUTING', rawRules],
      ['OUTPUT', rawOutputRules],
    ] as const
  ).flatMap(([chain, rules]) => {
    const want = withKept(parts.flatMap(rules), table.get(chain), context);
    return syncChain(table, chain, want, have => isOwnRule(have[0]));
  });
}

/** Docker keeps a DOCKER-USER that it finds, with its rules, and jumps to it before all of its own (since 17.06). */
function syncFilter(parts: readonly FirewallPlan[], table: SavedTable, context: FirewallContext): readonly string[] {
  const want = withKept(parts.flatMap(forwardRules), table.get(dockerUser), context);
  const rules = syncChain(
    table,
    dockerUser,
    want,
    have => lastOurs(have) < firstAt(have, rule => !isOwnRule(rule) && endsChain(rule)),
  );
  const forward = table.get('FORWARD') ?? [];
  const jump = `${marked} -j ${dockerUser}`;
  const reached = (have: readonly SavedRule[]): boolean =>
    firstAt(have, rule => targetOf(rule) === dockerUser) < firstAt(have, comesTooLate);
  if (want.length > 0) {
    const needed = forward.some(isOwnRule) || !reached(forward) ? [jump] : [];
    const create = table.has(dockerUser) ? [] : [`-N ${dockerUser}`];
    return [...create, ...rules, ...syncChain(table, 'FORWARD', needed, reached)];
  }
  const madeByUs = forward.some(isOwnRule) && isUnused(table, dockerUser);
  return [...syncChain(table, 'FORWARD', [], reached), ...rules, ...(madeByUs ? [`-X ${dockerUser}`] : [])];
}

function syncNat(
  parts: readonly FirewallPlan[],
  table: SavedTable,
  context: FirewallContext,
  conflicts: string[],
): readonly string[] {
  const planned = parts.flatMap(plan => masqueradeRules(plan, context.randomFully));
  const want = withKept(planned, table.get(masqueradeChain), context);
  const rules = syncChain(table, masqueradeChain, want, have => have.slice(0, want.length).every(isOwnRule));
  const jumps = syncChain(table, 'POSTROUTING', want.length > 0 ? [`${marked} -j ${masqueradeChain}`] : [], have => {
    const rival = firstAt(have, rule => !isOwnRule(rule) && parts.some(({ network }) => hidesSources(rule, network)));
    return firstAt(have, isOwnRule) < rival;
  });
  if (want.length > 0) return [...(table.has(masqueradeChain) ? [] : [`-N ${masqueradeChain}`]), ...rules, ...jumps];
  if (!table.has(masqueradeChain)) return jumps;
  const unused = isUnused(table, masqueradeChain);
  if (!unused) conflicts.push(`rule_conflict nat ${masqueradeChain}: rules that are not ours use this chain, it stays`);
  return [...jumps, ...rules, ...(unused ? [`-X ${masqueradeChain}`] : [])];
}

/** @param placed whether our rules work where they are; it is asked when all of them exist */
function syncChain(
  table: SavedTable,
  chain: string,
  want: readonly string[],
  placed: (have: readonly SavedRule[]) => boolean,
): readonly string[] {
  const have = table.get(chain) ?? [];
  const ours = have.filter(isOwnRule);
  const same =
    ours.length === want.length &&
    ours.every((rule, i) => canonicalRule(rule.words) === canonicalRule(splitWords(want[i] ?? '')));
  if (same && (want.length === 0 || placed(have))) return [];
  return [
    ...ours.map(rule => `-D ${chain} ${rule.text}`),
    // Each rule is inserted at the top, the last one first: a position would have to be counted among others' rules.
    ...[...want].reverse().map(rule => `-I ${chain} ${rule}`),
  ];
}

export function isOwnRule(rule: SavedRule | undefined): boolean {
  return rule !== undefined && rule.text.includes(comment) && optionValue(rule, '--comment') === comment;
}

/** Returns the position of the first such rule, beyond the end when there is none. */
function firstAt(have: readonly SavedRule[], is: (rule: SavedRule) => boolean): number {
  const at = have.findIndex(is);
  return at < 0 ? have.length : at;
}

function lastOurs(have: readonly SavedRule[]): number {
  return have.findLastIndex(isOwnRule);
}

/** Recognizes, in FORWARD, a jump to chains of Docker that drop, or a rule that ends the chain. */
function comesTooLate(rule: SavedRule): boolean {
  const target = targetOf(rule) ?? '';
  return (target.startsWith('DOCKER') && target !== dockerUser) || endsChain(rule);
}

/** Tells whether the chain holds only rules of ours, and only rules of ours lead to it. */
function isUnused(table: SavedTable, chain: string): boolean {
  const elsewhere = [...table].filter(([name]) => name !== chain).flatMap(([, rules]) => rules);
  const foreignJump = elsewhere.some(rule => targetOf(rule) === chain && !isOwnRule(rule));
  return table.has(chain) && !foreignJump && (table.get(chain) ?? []).every(isOwnRule);
}

/** Recognizes Docker's rule with --ip-masq=true, which masquerades a bridge that is part of the overlay. */
function hidesSources(rule: SavedRule, network: Prefix): boolean {
  const source = masqueradedSource(rule);
  return source !== undefined && prefixesOverlap(source, network);
}

/** @returns undefined for a rule that does something else, or names no source */
export function masqueradedSource(rule: SavedRule): Prefix | undefined {
  const source = optionValue(rule, '-s');
  if (targetOf(rule) !== 'MASQUERADE' || source === undefined) return undefined;
  const [address = '', length = '32'] = source.split('/');
  if (readIpv4(address) === undefined || !/^([12]?\d|3[0-2])$/.test(length)) return undefined;
  return parsePrefix(`${address}/${length}`);
}

function texts(plan: FirewallPlan): { readonly network: string; readonly subnet: string } {
  return { network: formatPrefix(plan.network), subnet: formatPrefix(plan.subnet) };
}

export function deviceOf(plan: FirewallPlan): string {
  return linkName(plan.device);
}

/** Checks the one text among the values of a rule: it must be one word for the programs that read it. */
export function linkName(name: string): string {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(name)) throw new RangeError(`'${name}' is not the name of a link`);
  return name;
}
