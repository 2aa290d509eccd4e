/**
 * Decides which of our rules go where: to iptables where it is installed, to our nftables table where it is not or
 * where the network document asks for it, and to both where Docker filters by the other kind. Pure.
 */
import type { FirewallPlan } from '../../model/plan.js';
import { endsChain, policyOf, targetOf, type SavedText } from './save-text.js';

/** The filters that a pass found on the host. */
export interface HostView {
  /** What iptables-save wrote; undefined without the program. */
  readonly iptables: SavedText | undefined;
  /** Names of the IPv4 tables of nftables; undefined without the program. */
  readonly nft: readonly string[] | undefined;
}

export interface Placement {
  readonly iptables: readonly FirewallPlan[];
  readonly nftables: readonly FirewallPlan[];
  readonly conflicts: readonly string[];
}

/** The table of Docker 29 and later with --firewall-backend=nftables. */
const dockerTable = 'docker-bridges';

/** @param parts none when no rule of ours is to stay */
export function placeFirewall(parts: readonly FirewallPlan[], view: HostView): Placement {
  // Only a plan that asks for nftables has rules in both.
  const drops = parts.some(plan => plan.nftables) && view.iptables !== undefined && dropsForwarded(view.iptables);
  const places = parts.map(plan => placeOne(plan, view, drops));
  return {
    iptables: places.flatMap(place => place.iptables),
    nftables: places.flatMap(place => place.nftables),
    conflicts: [...new Set(places.flatMap(place => place.conflicts))],
  };
}

/** @param drops whether iptables drops forwarded packets */
function placeOne(plan: FirewallPlan, { iptables, nft }: HostView, drops: boolean): Placement {
  // A drop of either is final, and what one does not track no other does.
  const { kernel: _, ...withoutKernel } = plan;
  const forwardOnly: FirewallPlan = { ...withoutKernel, masquerade: 'elsewhere' };
  const isNft = nft !== undefined && (plan.nftables || iptables === undefined);
  if (isNft) {
    // A drop by iptables is final, whatever our table accepts: the rules of iptables must accept the packets too.
    return { iptables: drops ? [forwardOnly] : [], nftables: [plan], conflicts: [] };
  }
  if (plan.rivalMasquerade && iptables !== undefined && nft?.includes(dockerTable) === false) {
    const sources: FirewallPlan = { ...withoutKernel, forward: plan.forward && 'elsewhere' };
    return { iptables: [{ ...plan, masquerade: 'elsewhere' }], nftables: [sources], conflicts: [] };
  }
  return {
    iptables: iptables === undefined ? [] : [plan],
    // Docker on nftables needs all rules: an iptables ACCEPT keeps no source from the masquerade of another nat chain.
    nftables: nft?.includes(dockerTable) ? [iptables === undefined ? plan : withoutKernel] : [],
    conflicts:
      plan.nftables && iptables !== undefined
        ? ['EnableNFTables: there is no nft program, so rules go by iptables; install nftables']
        : [],
  };
}

/**
 * Tells whether iptables drops forwarded packets that no rule accepts: by chains of Docker, by the policy of FORWARD or
 * by its last rule. A DOCKER-USER alone does not count, it may be ours.
 */
export function dropsForwarded({ text, tables }: SavedText): boolean {
  const filter = tables.get('filter') ?? new Map<string, never>();
  const isDockers = [...filter.keys()].some(chain => chain.startsWith('DOCKER') && chain !== 'DOCKER-USER');
  const last = filter.get('FORWARD')?.find(endsChain);
  return (
    isDockers || policyOf(text, 'filter', 'FORWARD') === 'DROP' || (last !== undefined && targetOf(last) !== 'ACCEPT')
  );
}
