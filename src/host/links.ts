/**
 * The links that the plan names: MTU, transmit queue, state and the one address. The data plane makes and removes the
 * link itself. All other links and addresses are foreign. The functions are pure: they compare the plan with the host
 * and return ordered steps.
 */
import { formatPrefix, prefixContains, type Prefix } from '../model/ipv4.js';
import type { LinkPlan } from '../model/plan.js';
import { scopeUniverse, type KernelAddress, type KernelLink, type LinkChange } from './netlink/messages.js';

/** Packets that a TUN keeps while its reader is paused. The kernel's 500 would lose packets in half a second. */
export const tunQueueLength = 5000;

export type LinkStep =
  | { readonly action: 'change'; readonly text: string; readonly index: number; readonly change: LinkChange }
  | { readonly action: 'add address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'remove address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string };

export interface LinkContext {
  /** Marks our addresses, where the kernel supports IFA_PROTO (Linux 5.18). */
  readonly protocol: number;
  /** The ranges that the link carries. An unmarked /32 in one of them is ours too. */
  readonly overlay: readonly Prefix[];
}

export function diffLink(
  plan: LinkPlan,
  links: readonly KernelLink[],
  addresses: readonly KernelAddress[],
  context: LinkContext,
): LinkStep[] {
  const link = links.find(({ name }) => name === plan.name);
  if (!link) {
    const reason = `there is no link ${plan.name}; the data plane makes it`;
    return [{ action: 'refuse', text: `link set ${plan.name} up`, reason }];
  }
  const { index } = link;
  const hasAddress = addresses.some(address => address.linkIndex === index && isAddress(address, plan.address));
  const setsQueue = link.kind === 'tun' && link.queueLength !== tunQueueLength;
  const set = (what: string, change: LinkChange): LinkStep => ({
    action: 'change',
    text: `link set ${plan.name} ${what}`,
    index,
    change,
  });
  const add: LinkStep = {
    action: 'add address',
    text: `address add ${formatPrefix(plan.address)} dev ${plan.name}`,
    index,
    address: plan.address,
  };
  return [
    ...(link.mtu === plan.mtu ? [] : [set(`mtu ${plan.mtu}`, { mtu: plan.mtu })]),
    ...(setsQueue ? [set(`txqueuelen ${tunQueueLength}`, { queueLength: tunQueueLength })] : []),
    ...(hasAddress ? [] : [add]),
    ...(link.up ? [] : [set('up', { up: true })]),
    ...removals(link, addresses, context, plan.address),
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
  return isHostAddress && protocol === 0 && context.overlay.some(range => prefixContains(range, address));
}
