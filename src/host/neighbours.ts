/**
 * Neighbours and forwarding entries of created links: compares the plan with the host and returns ordered steps. Every
 * permanent entry on such a link is ours. Entries that the kernel has learnt stay, and no other link is looked at.
 */
import { formatIpv4 } from '../model/ip.js';
import type { HostPlan } from '../model/plan.js';
import type { KernelNeighbour, NeighbourTarget } from './netlink/messages.js';

export type NeighbourStep =
  | { readonly action: 'set' | 'remove'; readonly text: string; readonly entry: NeighbourTarget }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string };

export interface NeighbourDifference {
  readonly additions: readonly NeighbourStep[];
  readonly removals: readonly NeighbourStep[];
}

/** @param created the created links of the plan by name; a link that does not exist has no index */
export function diffNeighbours(
  plan: Pick<HostPlan, 'neighbours' | 'forwarding'>,
  have: readonly KernelNeighbour[],
  created: ReadonlyMap<string, number | undefined>,
): NeighbourDifference {
  const names = new Map([...created].map(([name, index]) => [index, name]));
  const ours = have.filter(({ permanent, linkIndex }) => permanent && names.has(linkIndex));
  const byKey = new Map(ours.map(entry => [keyOf(entry), entry]));
  const wanted = new Set<string>();
  const additions: NeighbourStep[] = [];
  for (const { device, ...entry } of plannedEntries(plan)) {
    const linkIndex = created.get(device);
    if (linkIndex === undefined) {
      const reason = created.has(device) ? `there is no link ${device}` : `${device} is no link that the plan creates`;
      additions.push({ action: 'refuse', text: textOf('add', entry, device), reason });
      continue;
    }
    const target = { ...entry, linkIndex };
    const found = byKey.get(keyOf(target));
    wanted.add(keyOf(target));
    if (found?.mac === target.mac && found.address === target.address) continue;
    additions.push({ action: 'set', text: textOf(found ? 'replace' : 'add', entry, device), entry: target });
  }
  const removals = ours
    .filter(entry => !wanted.has(keyOf(entry)))
    .map(entry => ({
      action: 'remove' as const,
      text: textOf('remove', entry, names.get(entry.linkIndex) ?? ''),
      entry,
    }));
  return { additions, removals };
}

type Entry = Omit<NeighbourTarget, 'linkIndex'>;

function plannedEntries({
  neighbours,
  forwarding,
}: Pick<HostPlan, 'neighbours' | 'forwarding'>): readonly (Entry & { readonly device: string })[] {
  return [
    ...neighbours.map(plan => ({ kind: 'neighbour' as const, ...plan })),
    ...forwarding.map(({ destination, ...plan }) => ({ kind: 'forwarding' as const, ...plan, address: destination })),
  ];
}

/** A link has one neighbour of an address, and forwards the packets to a MAC to one destination. */
function keyOf({ kind, linkIndex, mac, address }: NeighbourTarget): string {
  return `${kind} ${linkIndex} ${kind === 'neighbour' ? address : mac}`;
}

/** Formats an entry in the words of `ip neighbour` and `bridge fdb`. */
function textOf(verb: string, { kind, mac, address }: Entry, device: string): string {
  const text = formatIpv4(address);
  return `${kind} ${verb} ${kind === 'neighbour' ? `${text} lladdr ${mac}` : `${mac} dst ${text}`} dev ${device}`;
}
