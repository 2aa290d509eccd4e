/**
 * The links that the plan names: MTU, transmit queue, state and the one address; created links are also made and
 * removed. The data plane makes and removes a tun itself. A created link is ours by its alias. All other links and
 * addresses are foreign. The functions are pure: they compare the plan with the host and return ordered steps.
 */
import { formatIpv4, formatPrefix, prefixContains, type Prefix } from '../model/ip.js';
import { isCreated, type CreatedMake, type LinkPlan } from '../model/plan.js';
import { scopeUniverse, type KernelAddress, type KernelLink, type LinkChange } from './netlink/messages.js';

/** The name of a created link until it has its alias; a link of this name is ours. */
export const temporaryName = 'tartan-new';

export type LinkStep =
  | {
      readonly action: 'create';
      readonly text: string;
      readonly make: CreatedMake;
      readonly named: { readonly name: string; readonly alias: string };
    }
  | { readonly action: 'remove'; readonly text: string; readonly index: number }
  | { readonly action: 'change'; readonly text: string; readonly index: number; readonly change: LinkChange }
  | { readonly action: 'add address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'remove address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string };

export interface LinkContext {
  /** Marks our addresses, where the kernel supports IFA_PROTO (Linux 5.18). */
  readonly protocol: number;
  /** What an earlier version marked them with, on the links that we make. */
  readonly earlierProtocol?: number;
  /** The ranges that the link carries. An unmarked /32 in one of them is ours too. */
  readonly overlay: readonly Prefix[];
  /** What the queue of a tunnel link gets that has neither of the two lengths that the data plane sets. */
  readonly tunQueueLength: number;
  readonly tunQueueLengthWithoutTso: number;
}

export interface CreatedDifference {
  readonly steps: readonly LinkStep[];
  /** Names of planned links that somebody else has made. */
  readonly foreign: ReadonlySet<string>;
  readonly conflicts: readonly string[];
}

/**
 * Compares the created links of the plan with the host. One that is set otherwise is made again: the kernel changes
 * neither the port nor the identifier of a vxlan link.
 */
export function diffCreated(
  plans: readonly LinkPlan[],
  links: readonly KernelLink[],
  alias: string,
): CreatedDifference {
  // What a death left half made stands in the way of the same link.
  const steps = links.filter(({ name }) => name === temporaryName).map(removal);
  const foreign = new Set<string>();
  for (const plan of plans) {
    const { name, make } = plan;
    if (make.kind === 'tun') continue;
    const link = links.find(found => found.name === name);
    if (link && !isOwnLink(link)) {
      foreign.add(name);
      continue;
    }
    if (link && link.alias === alias && isMadeSo(link, make)) continue;
    if (link) steps.push(removal(link));
    steps.push({ action: 'create', text: `link add ${name} ${formatMake(make)}`, make, named: { name, alias } });
  }
  const conflicts = [...foreign].map(name => `link_conflict ${name}: not ours, and has the name of a link of ours`);
  return { steps, foreign, conflicts };
}

/** Returns the steps that remove the created links of ours that no plan wants. */
export function removeCreated(plans: readonly LinkPlan[], links: readonly KernelLink[]): LinkStep[] {
  const wanted = new Set(plans.filter(isCreated).map(({ name }) => name));
  return links.filter(link => isOwnLink(link) && !wanted.has(link.name)).map(removal);
}

function removal({ name, index }: KernelLink): LinkStep {
  return { action: 'remove', text: `link remove ${name}`, index };
}

const aliasPrefix = 'tartan ';

/** @param network the name of the network whose plan has the link */
export function linkAlias(network: string): string {
  return `${aliasPrefix}${network}`;
}

export function isOwnLink({ alias, name }: KernelLink): boolean {
  return alias?.startsWith(aliasPrefix) === true || name === temporaryName;
}

function isMadeSo({ kind, mac, vxlan }: KernelLink, make: CreatedMake): boolean {
  return (
    kind === make.kind &&
    vxlan?.vni === make.vni &&
    vxlan.port === make.port &&
    vxlan.local === make.local &&
    !vxlan.learning &&
    (make.mac === undefined || make.mac === mac)
  );
}

function formatMake({ kind, vni, port, local, mac }: CreatedMake): string {
  return `${kind} id ${vni} port ${port} local ${formatIpv4(local)}${mac === undefined ? '' : ` mac ${mac}`}`;
}

export function diffLink(
  plan: LinkPlan,
  links: readonly KernelLink[],
  addresses: readonly KernelAddress[],
  context: LinkContext,
): LinkStep[] {
  const link = links.find(({ name }) => name === plan.name);
  if (!link) {
    const reason = `there is no link ${plan.name}${isCreated(plan) ? '' : '; the data plane makes it'}`;
    return [{ action: 'refuse', text: `link set ${plan.name} up`, reason }];
  }
  const { index } = link;
  const { tunQueueLength, tunQueueLengthWithoutTso } = context;
  const { address: wanted } = plan;
  const hasAddress =
    wanted &&
    addresses.some(
      found => found.linkIndex === index && isAddress(found, wanted) && found.protocol !== context.earlierProtocol,
    );
  const isQueueSet = link.queueLength === tunQueueLength || link.queueLength === tunQueueLengthWithoutTso;
  const setsQueue = link.kind === 'tun' && !isQueueSet;
  const set = (what: string, change: LinkChange): LinkStep => ({
    action: 'change',
    text: `link set ${plan.name} ${what}`,
    index,
    change,
  });
  const add = (address: Prefix): LinkStep => ({
    action: 'add address',
    text: `address add ${formatPrefix(address)} dev ${plan.name}`,
    index,
    address,
  });
  return [
    ...(link.mtu === plan.mtu ? [] : [set(`mtu ${plan.mtu}`, { mtu: plan.mtu })]),
    ...(setsQueue ? [set(`txqueuelen ${tunQueueLength}`, { queueLength: tunQueueLength })] : []),
    ...(!wanted || hasAddress ? [] : [add(wanted)]),
    ...(link.up ? [] : [set('up', { up: true })]),
    ...removals(link, addresses, context, wanted),
  ];
}

/** Returns the steps that remove each of our addresses from a link. */
export function clearLink(link: KernelLink, addresses: readonly KernelAddress[], context: LinkContext): LinkStep[] {
  return removals(link, addresses, context, undefined);
}

function removals(
  link: KernelLink,
  addresses: readonly KernelAddress[],
  context: LinkContext,
  kept: Prefix | undefined,
): LinkStep[] {
  return addresses
    .filter(found => found.linkIndex === link.index && isOwnAddress(found, context))
    .filter(found => !(kept && isAddress(found, kept)))
    .map(found => {
      const address = { base: found.address, length: found.length };
      const text = `address remove ${formatPrefix(address)} dev ${link.name}`;
      return { action: 'remove address', text, index: link.index, address };
    });
}

function isAddress({ address, peer, length }: KernelAddress, prefix: Prefix): boolean {
  return address === prefix.base && peer === prefix.base && length === prefix.length;
}

function isOwnAddress({ address, peer, length, scope, protocol }: KernelAddress, context: LinkContext): boolean {
  if (protocol === context.protocol) return true;
  const isHostAddress = length === 32 && scope === scopeUniverse && peer === address;
  const isUnmarked = protocol === 0 || protocol === context.earlierProtocol;
  return isHostAddress && isUnmarked && context.overlay.some(range => prefixContains(range, address));
}
