/**
 * Finds rules of this host that drop what the tunnel lives on: the UDP packets of its peers, both ways, and the ICMP
 * errors that tell a path MTU. Of what it carries, rules of iptables are judged here; those of nftables are conflicts of
 * each pass (foreign-tables.ts). It only lists, and never changes anything.
 */
import { factValue, known, unknown, type Fact } from '../../lib/fact.js';
import { parsePrefix, type Ipv4, type Prefix } from '../../model/ip.js';
import { programFact, type RunCommand } from './command.js';
import { findDrop, readChains } from './foreign-chains.js';
import { describeRule, isForeignTable } from './foreign-tables.js';
import type { JudgedPacket } from './judged-packet.js';
import { ipv4Tables, listOtherVariant, listTables, saveRules, type IptablesProgram } from './listing.js';
import { findSavedDrop, type SavedDrop } from './saved-drop.js';
import { readSaveText } from './save-text.js';

/** The tunnel as the rules of this host see it. */
export interface OuterTunnel {
  /** The link and the address that outer packets leave from. */
  readonly device: string;
  readonly address: Ipv4;
  readonly port: number;
  readonly peers: readonly Ipv4[];
  /** Packets of the engine kernel: from any port, and not tracked. */
  readonly isKernel?: boolean;
  /** The tunnel's own link, and what it carries; undefined: that is not asked. */
  readonly overlay?: { readonly link: string; readonly network: Prefix; readonly subnet: Prefix } | undefined;
}

export interface OuterDrop {
  /** `new`: only packets of a peer that nothing was sent to lately; `forward`: packets of containers. */
  readonly what: 'in' | 'new' | 'out' | 'icmp' | 'forward';
  /** The table, the chain and the rule, for people. */
  readonly rule: string;
  /** A command that accepts the packets. */
  readonly repair: string;
  /** Whose packets; empty: those of anybody. */
  readonly peers: readonly Ipv4[];
}

/** Peers whose packets are judged each for itself; a rule that names one of many more is not found. */
const peersMax = 16;
const anybody = parsePrefix('0.0.0.0/0');

interface Question {
  readonly what: OuterDrop['what'];
  readonly peer: Ipv4 | undefined;
  readonly packets: readonly JudgedPacket[];
}

/** What one filter says: the rule that drops, and what accepts instead. */
export type FilterJudge = (packet: JudgedPacket) => Promise<Pick<OuterDrop, 'rule' | 'repair'> | undefined>;

/** @returns unknown where a program that lists rules fails, as for want of a right */
export async function readOuterDrops(
  tunnel: OuterTunnel,
  run: RunCommand,
  signal: AbortSignal,
): Promise<Fact<readonly OuterDrop[]>> {
  const judges = await listJudges(run, signal);
  if (!judges.known) return judges;
  const { saved, nft } = judges.value;
  const found: OuterDrop[] = [];
  for (const question of questionsOf(tunnel)) for (const judge of [...saved, ...nft]) await ask(question, judge, found);
  for (const question of forwarded(tunnel)) for (const judge of saved) await ask(question, judge, found);
  return known(merge(found));
}

/**
 * Lists every filter of this host, for any number of packets.
 * @returns a judge for each; unknown where a program that lists rules fails, as for want of a right
 */
export async function openFilterJudges(run: RunCommand, signal: AbortSignal): Promise<Fact<readonly FilterJudge[]>> {
  const judges = await listJudges(run, signal);
  return judges.known ? known([...judges.value.saved, ...judges.value.nft]) : judges;
}

/** Those of iptables, and those of nftables. */
interface Judges {
  readonly saved: readonly FilterJudge[];
  readonly nft: readonly FilterJudge[];
}

async function listJudges(run: RunCommand, signal: AbortSignal): Promise<Fact<Judges>> {
  const [saved, tables] = await Promise.all([
    programFact(() => saveRules('iptables', run, signal)),
    programFact(() => listTables(run, signal)),
  ]);
  if (!saved.known) return saved;
  if (!tables.known) return tables;
  if (saved.value === undefined && tables.value === undefined)
    return unknown('there is neither an iptables-save nor an nft program that lists them');
  const names = tables.value ?? [];
  const other =
    saved.value === undefined ? known(undefined) : await listOtherVariant(saved.value, ipv4Tables(names), run, signal);
  const variant = factValue(other);
  return known({
    saved: [
      ...(saved.value === undefined ? [] : [savedJudge('iptables', saved.value)]),
      ...(variant === undefined ? [] : [savedJudge(variant.program, variant.text)]),
    ],
    nft: await nftJudges(names, saved.value, run, signal),
  });
}

function questionsOf({ device, address, port, peers, isKernel = false }: OuterTunnel): readonly Question[] {
  const own: Prefix = { base: address, length: 32 };
  const ends = peers.length === 0 ? [undefined] : peers.slice(0, peersMax);
  return ends.flatMap((peer): readonly Question[] => {
    const far: Prefix = peer === undefined ? anybody : { base: peer, length: 32 };
    const transport = { protocol: 'udp', port, anySource: isKernel } as const;
    const udp = { transport, state: isKernel ? ('untracked' as const) : ('established' as const) };
    const inward = { ...udp, from: { is: device }, to: undefined, source: far, destination: own };
    const outward = { ...udp, from: undefined, to: { is: device }, source: own, destination: far };
    const tooBig = { protocol: 'icmp', type: 3, typeName: 'destination-unreachable', code: 4 } as const;
    const error = { ...inward, transport: tooBig, state: 'related' } as const;
    const arriving = <P extends Omit<JudgedPacket, 'hook'>>(packet: P): readonly JudgedPacket[] =>
      (['prerouting', 'input'] as const).map(hook => ({ ...packet, hook }));
    const ways: readonly Question[] = [
      { what: 'in', peer, packets: arriving(inward) },
      { what: 'out', peer, packets: (['output', 'postrouting'] as const).map(hook => ({ ...outward, hook })) },
    ];
    if (isKernel) return ways;
    return [
      ...ways,
      { what: 'new', peer, packets: arriving({ ...inward, state: 'new' as const }) },
      { what: 'icmp', peer, packets: arriving(error) },
    ];
  });
}

/** A new connection between containers of two hosts, both ways. */
function forwarded({ overlay }: OuterTunnel): readonly Question[] {
  if (!overlay) return [];
  const { link, network, subnet } = overlay;
  const [tunnel, other] = [{ is: link }, { isNot: link }];
  // No service listens there, so what is accepted by port is not accepted.
  const connection = { transport: { protocol: 'tcp', port: 49_151 }, state: 'new', hook: 'forward' } as const;
  const packets = [
    { ...connection, from: tunnel, to: other, source: network, destination: subnet },
    { ...connection, from: other, to: tunnel, source: subnet, destination: network },
  ];
  return [{ what: 'forward', peer: undefined, packets }];
}

async function ask({ what, peer, packets }: Question, judge: FilterJudge, found: OuterDrop[]): Promise<void> {
  // What drops every packet drops the first one too.
  const isTold = what === 'new' && found.some(drop => drop.what === 'in' && drop.peers[0] === peer);
  for (const packet of isTold ? [] : packets) {
    const drop = await judge(packet);
    if (drop) found.push({ what, ...drop, peers: peer === undefined ? [] : [peer] });
  }
}

/** Joins what one rule does to several peers. */
function merge(found: readonly OuterDrop[]): readonly OuterDrop[] {
  const byRule = new Map<string, OuterDrop>();
  for (const drop of found) {
    const key = `${drop.what} ${drop.rule}`;
    const before = byRule.get(key);
    byRule.set(key, before ? { ...before, peers: [...new Set([...before.peers, ...drop.peers])] } : drop);
  }
  return [...byRule.values()];
}

function savedJudge(program: IptablesProgram, text: string): FilterJudge {
  const saved = readSaveText(text);
  return async packet => {
    const drop = findSavedDrop(saved, packet);
    return drop && { rule: `${program} ${describeSaved(drop)}`, repair: savedRepair(program, drop, packet) };
  };
}

function describeSaved({ table, chain, rule }: SavedDrop): string {
  return `${table} ${chain}: ${rule === undefined ? 'its policy drops' : `its rule '${rule}' drops`}`;
}

function savedRepair(program: IptablesProgram, { table }: SavedDrop, packet: JudgedPacket): string {
  const chain = packet.hook.toUpperCase();
  return `${program} -t ${table} -I ${chain} ${savedMatch(packet)} -j ACCEPT`;
}

function savedMatch({ transport, hook, from, to }: JudgedPacket): string {
  if (hook === 'forward') return from && 'is' in from ? `-i ${from.is}` : `-o ${to && 'is' in to ? to.is : ''}`;
  if (transport.protocol === 'icmp') return '-p icmp --icmp-type fragmentation-needed';
  return `-p udp --${sideOf({ transport, hook })} ${transport.port}`;
}

function sideOf({ transport, hook }: Pick<JudgedPacket, 'transport' | 'hook'>): 'dport' | 'sport' {
  const isTo = hook === 'input' || hook === 'prerouting' || ('anySource' in transport && transport.anySource);
  return isTo ? 'dport' : 'sport';
}

/** A judge for each table of others; those of iptables are judged by what iptables-save writes. */
async function nftJudges(
  names: readonly string[],
  saved: string | undefined,
  run: RunCommand,
  signal: AbortSignal,
): Promise<readonly FilterJudge[]> {
  const foreign = names.filter(name => isForeignTable(name, saved));
  return Promise.all(
    foreign.map(async (table): Promise<FilterJudge> => {
      const json = await programFact(() => run('nft', ['-j', 'list', 'table', ...table.split(' ')], '', signal));
      const chains = readChains(factValue(json) ?? '');
      return async packet => {
        const drop = findDrop(chains, packet);
        if (!drop) return undefined;
        const rule = `nft ${table} ${drop.chain}: ${await describeRule(table, drop, run, signal)}`;
        return { rule, repair: nftRepair(table, drop.chain, packet) };
      };
    }),
  );
}

function nftRepair(table: string, chain: string, { transport, hook }: JudgedPacket): string {
  if (table === 'inet firewalld' && transport.protocol === 'udp')
    return `firewall-cmd --permanent --add-port=${transport.port}/udp && firewall-cmd --reload`;
  const udp = `udp ${sideOf({ transport, hook })} ${'port' in transport ? transport.port : ''}`;
  const what = transport.protocol === 'icmp' ? 'icmp type destination-unreachable' : udp;
  return `nft insert rule ${table} ${chain} ${what} accept`;
}
