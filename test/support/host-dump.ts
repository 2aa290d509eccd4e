/**
 * What a host's kernel is set to, as `ip -j` and `nft -j` say it: all of it, or only what is not ours. Two dumps are
 * compared as text.
 */
import type { LabHost } from './lab-host.js';

type Item = Readonly<Record<string, unknown>>;

const questions = [
  ['ip', '-j', 'link'],
  ['ip', '-j', 'address'],
  ['ip', '-j', 'rule'],
  ['ip', '-j', '-4', 'route', 'show', 'table', 'all'],
  ['ip', '-j', '-6', 'route', 'show', 'table', 'all'],
  // Without counters, which every packet changes.
  ['nft', '-j', '-s', 'list', 'ruleset'],
] as const;

/** One line a link, address, rule, route, chain ... */
export async function dumpHost(host: LabHost): Promise<string> {
  const parts = await Promise.all(
    questions.map(async words => (await ask(host, words)).map(item => JSON.stringify(item))),
  );
  return parts.map((lines, i) => [`== ${questions[i]?.join(' ')}`, ...lines].join('\n')).join('\n');
}

/** Without our link, our addresses and routes, and the rules and chains of our making. */
export async function dumpForeign(host: LabHost): Promise<string> {
  const parts = await Promise.all(
    questions.map(async words =>
      (await ask(host, words)).filter(item => !isOurs(item)).map(item => JSON.stringify(item)),
    ),
  );
  return parts.flat().join('\n');
}

async function ask(host: LabHost, words: readonly string[]): Promise<readonly Item[]> {
  const answer: unknown = JSON.parse((await host.run(...words)) || '[]');
  const items = words[0] === 'nft' ? (answer as { nftables: readonly Item[] }).nftables : (answer as readonly Item[]);
  return items.filter(item => !('metainfo' in item) && !isLinkLocal(item)).map(settled);
}

/** The kernel's own, which come and go by themselves while addresses are checked for duplicates. */
function isLinkLocal({ dst }: Item): boolean {
  return typeof dst === 'string' && /^(fe80|ff00):/.test(dst);
}

/** Without those too, and without what nobody sets: a bridge says UP a moment after its first port does. */
function settled(item: Item): Item {
  const { addr_info: addresses } = item;
  const members = Object.entries(item).filter(([name]) => name !== 'operstate');
  if (Array.isArray(addresses))
    members.push(['addr_info', addresses.filter((address: Item) => address['scope'] !== 'link')]);
  return Object.fromEntries(members);
}

function isOurs(item: Item): boolean {
  const text = JSON.stringify(item);
  return (
    // The text of a comment that iptables made is not among what nft shows: a rule for UDP 4790 is ours.
    /"(ifname|dev)":"tartan0"|"protocol":"167"|tartan|TARTAN|"(name|target)":"DOCKER-USER"|"right":4790/.test(text) ||
    isMade(text)
  );
}

/** Tables and built-in chains that iptables makes for the rules in them. */
function isMade(text: string): boolean {
  const named = /^\{"(?:table":\{"family":"ip","name|chain":\{"family":"ip","table)":"(?:raw|filter|nat)"/.test(text);
  return named && (text.startsWith('{"table"') || text.includes('"prio":'));
}
