/**
 * Which of our rules go where: to those who decide about the packets. iptables where it is installed, our nftables table
 * where it is not or where the network document asks for it; and to whatever of Docker is seen. Pure.
 */
import type { FirewallPlan } from '../../model/plan.js';
import { endsChain, parseSaveText, policyOf, targetOf } from './save-text.js';

/** What a look at the host found. */
export interface HostView {
  /** What iptables-save says, undefined without the program. */
  readonly iptables: string | undefined;
  /** Names of the IPv4 tables of nftables, undefined without the program. */
  readonly nft: readonly string[] | undefined;
}

export interface Placement {
  readonly iptables: FirewallPlan | undefined;
  readonly nftables: FirewallPlan | undefined;
  readonly conflicts: readonly string[];
}

/** Docker's own table, since 29, with --firewall-backend=nftables. */
const dockerTable = 'docker-bridges';

/** @param plan undefined when nothing of ours is to stay */
export function placeFirewall(plan: FirewallPlan | undefined, { iptables, nft }: HostView): Placement {
  if (!plan) return { iptables: undefined, nftables: undefined, conflicts: [] };
  const forwardOnly: FirewallPlan = { ...plan, masquerade: 'elsewhere' };
  const isNft = nft !== undefined && (plan.nftables || iptables === undefined);
  if (isNft) {
    // Whatever our table accepts, a drop of these is final: what they need is put before them.
    const beside = iptables !== undefined && dropsForwarded(iptables) ? forwardOnly : undefined;
    return { iptables: beside, nftables: plan, conflicts: [] };
  }
  return {
    iptables: iptables === undefined ? undefined : plan,
    // All of it: an iptables ACCEPT keeps no source from the masquerade of another nat chain.
    nftables: nft?.includes(dockerTable) ? plan : undefined,
    conflicts:
      plan.nftables && iptables !== undefined
        ? ['EnableNFTables: there is no nft program, so rules go by iptables; install nftables']
        : [],
  };
}

/**
 * Whether iptables drops forwarded packets that nothing accepts: by chains of Docker, by the policy of FORWARD or by a
 * last rule of it. A DOCKER-USER alone may be ours.
 * @param text what iptables-save wrote
 */
export function dropsForwarded(text: string): boolean {
  const filter = parseSaveText(text).get('filter') ?? new Map<string, never>();
  const isDockers = [...filter.keys()].some(chain => chain.startsWith('DOCKER') && chain !== 'DOCKER-USER');
  const last = filter.get('FORWARD')?.find(endsChain);
  return (
    isDockers || policyOf(text, 'filter', 'FORWARD') === 'DROP' || (last !== undefined && targetOf(last) !== 'ACCEPT')
  );
}
