/**
 * Plans our own nftables table and, from what `nft` lists, the commands that change it in one transaction. Pure. Every
 * rule of ours carries one comment; a rule without it, a chain or a set that somebody put into the table stays there.
 * Other tables are left alone: no verdict here decides for them, and later tables see only the mark and a source that
 * is already chosen.
 */
import { formatIpv4, formatPrefix } from '../../model/ip.js';
import { acceptMark, type FirewallPlan, type KernelRulesPlan } from '../../model/plan.js';
import { choosesSources, comment, deviceOf, forwards, linkName, multicast } from './rules.js';

const table = 'ip tartan';
const commented = ` comment "${comment}"`;

/** A chain as `nft --numeric` lists it. */
export interface OwnChain {
  readonly name: string;
  readonly header: string;
  readonly rules: readonly string[];
}

interface ListedRule {
  readonly text: string;
  readonly handle: string;
  readonly isOurs: boolean;
}

interface ListedChain {
  header: string;
  readonly rules: ListedRule[];
  /** The chain also holds something of others. */
  isShared: boolean;
}

export interface NftListing {
  readonly chains: ReadonlyMap<string, ListedChain>;
  /** The table holds sets and the like. */
  readonly hasMore: boolean;
}

export interface NftDifference {
  /** The commands of one transaction; none when all is as planned. */
  readonly commands: readonly string[];
  readonly conflicts: readonly string[];
}

/** What the table holds of ours, or should hold: two of these are compared. */
export type NftContent = string;

/**
 * Chooses sources before priority 100, where Docker and others do. What stays in the overlay gets a source: `accept`
 * would leave the choice to a later chain, a source that was chosen is not chosen again. The other rules do what the
 * iptables rules do.
 */
function postrouting(plan: FirewallPlan): OwnChain {
  const [network, subnet, device] = [formatPrefix(plan.network), formatPrefix(plan.subnet), deviceOf(plan)];
  const masquerade = plan.masquerade === 'on' ? 'masquerade fully-random' : 'masquerade';
  const keep = `ip saddr ${network} ip daddr ${network} oifname "${device}" snat to ip saddr`;
  return {
    name: 'postrouting',
    header: 'type nat hook postrouting priority 90; policy accept;',
    rules:
      plan.masquerade === 'off'
        ? [keep]
        : [
            keep,
            `ip saddr ${subnet} ip daddr ${multicast} return`,
            `ip saddr ${subnet} ip daddr != ${network} ${masquerade}`,
            `ip saddr != ${network} ip daddr ${network} oifname "${device}" ${masquerade}`,
          ],
  };
}

/** Accepts before priority 0, where others filter. Only our bit of the mark is changed. */
function forward(plan: FirewallPlan): OwnChain {
  const network = formatPrefix(plan.network);
  const mark = `0x${acceptMark.toString(16).padStart(8, '0')}`;
  const rule = (direction: string): string =>
    `ip saddr ${network} ip daddr ${network} ${direction} "${deviceOf(plan)}" meta mark set meta mark | ${mark} accept`;
  return {
    name: 'forward',
    header: 'type filter hook forward priority -10; policy accept;',
    rules: [rule('iifname'), rule('oifname')],
  };
}

/** At the priority of raw: before connections are tracked. */
const beforeTracking = 'priority -300; policy accept;';

function kernelChains({ link, local, port }: KernelRulesPlan): readonly OwnChain[] {
  const outer = `udp dport ${port} notrack`;
  const address = formatIpv4(local);
  return [
    {
      name: 'prerouting',
      header: `type filter hook prerouting ${beforeTracking}`,
      rules: [`iifname "${linkName(link)}" drop`, `ip daddr ${address} ${outer}`],
    },
    { name: 'output', header: `type filter hook output ${beforeTracking}`, rules: [`ip saddr ${address} ${outer}`] },
  ];
}

const chainNames: readonly string[] = ['postrouting', 'forward', 'prerouting', 'output'];

/** Joins the chains of all parts: one of each name, with the rules of every part and then those that are kept. */
function wantedChains(parts: readonly FirewallPlan[], kept: readonly OwnChain[]): readonly OwnChain[] {
  const planned = [
    ...parts.filter(choosesSources).map(postrouting),
    ...parts.filter(forwards).map(forward),
    ...parts.flatMap(({ kernel }) => (kernel ? kernelChains(kernel) : [])),
  ];
  return chainNames.flatMap(name => {
    const isNamed = (chain: OwnChain): boolean => chain.name === name;
    const first = [...planned, ...kept].find(isNamed);
    const rules = planned.filter(isNamed).flatMap(chain => chain.rules);
    const others = kept.filter(isNamed).flatMap(chain => chain.rules.filter(rule => !rules.includes(rule)));
    return first ? [{ ...first, rules: [...rules, ...others] }] : [];
  });
}

/** @param parts none when no rule of ours is to stay, but for those that are kept */
export function wantedContent(parts: readonly FirewallPlan[], kept: readonly OwnChain[] = []): NftContent {
  return contentOf(wantedChains(parts, kept));
}

/** Returns what the table holds of ours; a chain of ours that others use as well counts by our rules. */
export function ownChains(listing: NftListing): readonly OwnChain[] {
  return chainNames.flatMap(name => {
    const chain = listing.chains.get(name);
    const rules = chain?.rules.filter(rule => rule.isOurs).map(rule => rule.text) ?? [];
    return chain && (rules.length > 0 || !chain.isShared) ? [{ name, header: chain.header, rules }] : [];
  });
}

export function listedContent(listing: NftListing): NftContent {
  return contentOf(ownChains(listing));
}

function contentOf(chains: readonly OwnChain[]): NftContent {
  return chains.map(({ name, header, rules }) => [`${name} ${header}`, ...rules].join('\n')).join('\n');
}

/** @param listing undefined when there is no such table */
export function diffTable(
  parts: readonly FirewallPlan[],
  listing: NftListing | undefined,
  kept: readonly OwnChain[] = [],
): NftDifference {
  const wanted = wantedChains(parts, kept);
  if (!listing) return { commands: wanted.length === 0 ? [] : [`add table ${table}`, ...add(wanted)], conflicts: [] };
  const chains = [...listing.chains];
  const shared = chains.filter(([name, chain]) => chain.isShared || !chainNames.includes(name)).map(([name]) => name);
  if (wanted.length === 0 && shared.length === 0 && !listing.hasMore)
    return { commands: [`delete table ${table}`], conflicts: [] };
  const conflicts =
    wanted.length === 0
      ? [`rule_conflict ${table}: what is not ours is in this table (${shared.join(', ')}), it stays`]
      : [];
  if (contentOf(wanted) === listedContent(listing)) return { commands: [], conflicts };
  const removals = chains
    .filter(([name]) => chainNames.includes(name))
    .flatMap(([name, chain]) => [
      ...chain.rules.filter(rule => rule.isOurs).map(rule => `delete rule ${table} ${name} handle ${rule.handle}`),
      ...(chain.isShared || wanted.some(one => one.name === name) ? [] : [`delete chain ${table} ${name}`]),
    ]);
  return { commands: [...removals, ...add(wanted)], conflicts };
}

/** Keeps a chain that exists already, with the rules of others in it: ours come first. */
function add(chains: readonly OwnChain[]): readonly string[] {
  return chains.flatMap(({ name, header, rules }) => [
    `add chain ${table} ${name} { ${header} }`,
    ...[...rules].reverse().map(rule => `insert rule ${table} ${name} ${rule}${commented}`),
  ]);
}

/** @param text what `nft --numeric --handle list table` wrote */
export function parseListing(text: string): NftListing {
  const chains = new Map<string, ListedChain>();
  let chain: ListedChain | undefined;
  let hasMore = false;
  for (const line of text.split('\n').slice(1)) {
    const opened = /^\tchain (\S+) \{/.exec(line)?.[1];
    if (opened !== undefined) {
      chain = { header: '', rules: [], isShared: false };
      chains.set(opened, chain);
    } else if (line === '\t}') chain = undefined;
    else if (chain && /^\t\ttype \w+ hook /.test(line)) chain.header = line.trim();
    else if (chain) readRule(chain, line);
    else hasMore ||= !/^\}?\s*$/.test(line);
  }
  return { chains, hasMore };
}

function readRule(chain: ListedChain, line: string): void {
  // A line without a handle is a part of a rule of several lines, which none of ours is.
  const [, body = '', handle = ''] = /^\t\t(\S.*) # handle (\d+)$/.exec(line) ?? [];
  const isOurs = body.endsWith(commented);
  if (handle !== '') chain.rules.push({ text: isOurs ? body.slice(0, -commented.length) : body, handle, isOurs });
  chain.isShared ||= !isOurs;
}
