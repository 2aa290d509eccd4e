/**
 * Links named in the plan: MTU, queue, up, the one address. The data plane makes and removes the link itself; all
 * other links and addresses are somebody else's. Pure: what is planned against what is there, as ordered steps.
 */
import { formatPrefix, prefixContains, type Prefix } from '../model/ipv4.js';
import type { LinkPlan } from '../model/plan.js';
import { scopeUniverse, type KernelAddress, type KernelLink, type LinkChange } from './netlink/messages.js';

/** Packets that a TUN holds while its reader is paused; the kernel's 500 lose what half a second brings. */
export const tunQueueLength = 5000;

export type LinkStep =
  | { readonly action: 'change'; readonly text: string; readonly index: number; readonly change: LinkChange }
  | { readonly action: 'add address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'remove address'; readonly text: string; readonly index: number; readonly address: Prefix }
  | { readonly action: 'refuse'; readonly text: string; readonly reason: string };

export interface LinkContext {
  /** Marks addresses of ours where the kernel knows IFA_PROTO (Linux 5.18). */
  readonly protocol: number;
  /** Ranges carried by the link: an unmarked /32 of these is ours too. */
  readonly overlay: readonly Prefix[];
}

export function diffLink(
  plan: LinkPlan,
  links: readonly KernelLink[],
  addresses: readonly KernelAddress[],
  context: LinkContext,
): LinkStep[] {
  const link = links.find(one => one.name === plan.name);
  if (!link) {
    const reason = `there is no link ${plan.name}; the data plane makes it`;
    return [{ action: 'refuse', text: `link set ${plan.name} up`, reason }];
  }
  const { index } = link;
  const present = addresses.some(one => one.linkIndex === index && isAddress(one, plan.address));
  const longer = link.kind === 'tun' && link.queueLength !== tunQueueLength;
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
    ...(longer ? [set(`txqueuelen ${tunQueueLength}`, { queueLength: tunQueueLength })] : []),
    ...(present ? [] : [add]),
    ...(link.up ? [] : [set('up', { up: true })]),
    ...removals(link, addresses, context, plan.address),
  ];
}

/** Removes every address of ours from a link. */
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
    .filter(one => one.linkIndex === link.index && isOwnAddress(one, context) && !(kept && isAddress(one, kept)))
    .map(one => {
      const address = { base: one.address, length: one.length };
      return {
        action: 'remove address',
        text: `address remove ${formatPrefix(address)} dev ${link.name}`,
        index: link.index,
        address,
      };
    });
}

function isAddress(one: KernelAddress, prefix: Prefix): boolean {
  return one.address === prefix.base && one.peer === prefix.base && one.length === prefix.length;
}

function isOwnAddress(one: KernelAddress, context: LinkContext): boolean {
  if (one.protocol === context.protocol) return true;
  const host = one.length === 32 && one.scope === scopeUniverse && one.peer === one.address;
  return host && one.protocol === 0 && context.overlay.some(range => prefixContains(range, one.address));
}
