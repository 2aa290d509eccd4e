/** Judges what the overlay needs of the host for Docker: packet filter rules and kernel settings. */
import type { DockerPlan } from '../settings/docker-plan.js';
import { factValue } from '../../lib/fact.js';
import type { DockerdOptions } from '../settings/dockerd-options.js';
import type { DockerFacts, FirewallFacts, KernelFacts, OtherVariant } from './facts.js';
import { finding, uncheckedFact, type Finding } from './finding.js';

export function judgeHost(plan: DockerPlan, facts: DockerFacts, options: DockerdOptions): readonly Finding[] {
  const { engine, firewall, kernel } = facts;
  // Docker switches forwarding on at its start; with its nftables backend it does not, and does not start without it.
  const isDue = engine.kind === 'answers' || options.get('firewall-backend') === 'nftables';
  const byNft = engine.kind === 'answers' && engine.state.nftables;
  return [...judgeFirewall(plan, firewall, byNft), ...(isDue ? judgeForwarding(kernel) : []), ...judgeRoutes(kernel)];
}

/** @param byNft Docker filters by nftables */
function judgeFirewall(plan: DockerPlan, firewall: FirewallFacts, byNft: boolean): readonly Finding[] {
  if (!plan.forward && !plan.masquerade) return [];
  if (!firewall.iptables && !firewall.nft)
    return [
      finding('error', 'no-firewall-program', [
        'there is neither an iptables nor an nft program: forwarding and masquerading rules cannot be kept',
        'one of them',
        'apt-get install iptables',
      ]),
    ];
  return [
    ...uncheckedFact('firewall-rules', 'the packet filter rules', firewall.rules),
    ...uncheckedFact('firewall-kinds', 'rules of the other kind of iptables', firewall.otherVariant),
    ...judgeRules(plan, firewall, byNft),
    ...judgeOtherVariant(factValue(firewall.otherVariant)),
    ...firewall.rivals.map(rival => judgeRival(plan, rival)),
  ];
}

function judgeRules(plan: DockerPlan, { rules, rivals }: FirewallFacts, byNft: boolean): readonly Finding[] {
  const have = factValue(rules);
  if (!have) return [];
  const missing = [
    ...(plan.forward && !have.ours.forward ? ['forward'] : []),
    ...(plan.forward && !have.ours.raw ? ['raw'] : []),
    ...(plan.masquerade && !have.ours.masquerade ? ['masquerade'] : []),
    ...(have.ours.sources ? [] : ['sources']),
    ...(plan.forward && byNft && !have.ours.mark ? ['mark'] : []),
  ];
  const rival = rivals.length === 0 ? '' : `; ${rivals.join(' and ')} may have removed them`;
  if (missing.length > 0)
    return [
      finding('error', 'rules-missing', [
        `these rules of tartan are missing: ${missing.join(', ')}${rival}`,
        'all of them, put back within seconds by a running tartand',
        `systemctl ${plan.source === 'daemon' ? 'restart' : 'start'} tartand`,
      ]),
    ];
  if (plan.forward || !have.forwardDrops) return [];
  return [
    finding('warning', 'forward-dropped', [
      'the FORWARD chain drops by default, and tartand keeps no forward rules (--iptables-forward-rules=false)',
      'rules of yours that accept packets of the overlay',
      'set TARTAN_IPTABLES_FORWARD_RULES=true in /etc/default/tartand and restart tartand',
    ]),
  ];
}

/** A packet passes both variants, one after the other. */
function judgeOtherVariant(other: OtherVariant | undefined): readonly Finding[] {
  if (!other) return [];
  const { program } = other;
  const found = `${other.rules} rules stand behind ${program}, beside those of the iptables that tartan uses`;
  if (other.policyDrops)
    return [
      finding('error', 'both-iptables', [
        `${found}, and its FORWARD chain drops what they do not accept`,
        'rules behind one iptables',
        `${program} -P FORWARD ACCEPT`,
      ]),
    ];
  return [
    finding('warning', 'both-iptables', [found, 'rules behind one iptables', 'update-alternatives --config iptables']),
  ];
}

function judgeRival(plan: DockerPlan, rival: string): Finding {
  if (rival === 'firewalld')
    return finding('warning', 'firewall-manager', [
      'firewalld runs: a reload removes the rules of others for seconds, and it rejects what its zones do not allow',
      `${plan.device} in the zone trusted`,
      `firewall-cmd --permanent --zone=trusted --add-interface=${plan.device} && firewall-cmd --reload`,
    ]);
  return finding('note', 'firewall-manager', [
    `${rival} is active: a reload of it may remove the rules of others`,
    'tartand puts its rules back within seconds',
  ]);
}

function judgeForwarding({ ipForward }: KernelFacts): readonly Finding[] {
  if (factValue(ipForward) !== '0') return uncheckedFact('ip-forward', 'net.ipv4.ip_forward', ipForward);
  return [
    finding('error', 'ip-forward', [
      'net.ipv4.ip_forward is 0: nothing is forwarded from containers',
      'net.ipv4.ip_forward = 1',
      'sysctl -w net.ipv4.ip_forward=1',
    ]),
  ];
}

function judgeRoutes({ defaultRoutes, rpFilterAll, rpFilterUnderlay, underlay }: KernelFacts): readonly Finding[] {
  return [
    ...uncheckedFact('rp-filter', 'the default routes', defaultRoutes),
    ...uncheckedFact('rp-filter', 'net.ipv4.conf.all.rp_filter', rpFilterAll),
    ...judgeReversePath(
      factValue(defaultRoutes) ?? 0,
      Math.max(Number(factValue(rpFilterAll) ?? 0), Number(factValue(rpFilterUnderlay) ?? 0)),
      underlay,
    ),
  ];
}

/** In strict mode the kernel drops a packet that arrives on another link than the answer would leave by (RFC 3704). */
function judgeReversePath(defaultRoutes: number, rpFilter: number, underlay: string | undefined): readonly Finding[] {
  if (defaultRoutes < 2 || rpFilter !== 1) return [];
  return [
    finding('warning', 'rp-filter', [
      `${defaultRoutes} default routes, and rp_filter is strict${underlay ? ` on ${underlay}` : ''}: packets of peers may be dropped`,
      'net.ipv4.conf.all.rp_filter = 2 (loose)',
      'sysctl -w net.ipv4.conf.all.rp_filter=2',
    ]),
  ];
}
