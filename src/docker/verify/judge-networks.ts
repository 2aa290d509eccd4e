/**
 * Judges Docker's networks. For the default one: address, MTU and masquerade of its bridge, and the containers on it.
 * For the others: which of them overlap the overlay, and the options of those inside our lease.
 */
import {
  formatBridgeAddress,
  formatIpv4,
  formatPrefix,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  samePrefix,
  type Prefix,
} from '../../model/ip.js';
import type { DockerPlan } from '../settings/docker-plan.js';
import { mtuOption } from '../settings/settings.js';
import type { DockerNetwork, EngineState } from '../engine.js';
import { factValue } from '../../lib/fact.js';
import type { DockerFacts, LinkFacts } from './facts.js';
import { finding, listed, removeDropIn, restartDocker, shellName, uncheckedFact, type Finding } from './finding.js';

export const bridgeNetwork = 'bridge';
export const masqueradeOption = 'com.docker.network.bridge.enable_ip_masquerade';

export function judgeBridge(plan: DockerPlan, facts: DockerFacts, state: EngineState): readonly Finding[] {
  const network = state.networks.find(({ name }) => name === bridgeNetwork);
  if (!network)
    return [
      finding('note', 'docker0-none', [
        'Docker has no default network (bridge: none)',
        'containers get addresses of the overlay in networks of: tartan docker network create',
      ]),
    ];
  const unchecked = uncheckedFact('docker0-link', 'the link of docker0', facts.docker0);
  const placed = network.subnets.some(subnet => samePrefix(subnet, plan.bridge));
  return [
    ...unchecked,
    ...judgeRivals(factValue(facts.docker0)),
    ...(placed ? judgeBridgeLink(plan, facts, state) : [wrongSubnet(plan, network, state)]),
    ...judgeMtu(plan, facts, network, state),
    ...judgeMasquerade(plan, facts, network, state),
  ];
}

/** A bridge of CNI that takes the lease too is what mostly stands there. */
function judgeRivals(link: LinkFacts | undefined): readonly Finding[] {
  if (!link?.rivals || link.rivals.length === 0) return [];
  return [
    finding('error', 'docker0-shared', [
      `${link.name} and ${link.rivals.join(', ')} have one subnet: what is for containers on one goes to the other`,
      'one bridge on the lease: that of Docker or that of CNI',
      `${removeDropIn}, where it is to be that of CNI`,
    ]),
  ];
}

function onBridge(state: EngineState) {
  return state.containers.flatMap(({ name, addresses }) =>
    addresses.filter(({ network }) => network === bridgeNetwork).map(({ address }) => ({ name, address })),
  );
}

/** With live-restore dockerd keeps the bridge as it is for as long as a container runs. */
function wrongSubnet(plan: DockerPlan, network: DockerNetwork, state: EngineState): Finding {
  const names = onBridge(state).map(({ name }) => name);
  const subnets = network.subnets.map(formatPrefix).join(', ') || 'no IPv4 subnet';
  const containers = names.length === 0 ? '' : `, and containers run on it: ${listed(names)}`;
  const stuck = state.liveRestore && names.length > 0;
  return finding('error', 'docker0-subnet', [
    `docker0 is on ${subnets}${containers}${stuck ? '; live-restore keeps it there while they run' : ''}`,
    formatBridgeAddress(plan.bridge),
    stuck ? `docker stop ${names.map(shellName).join(' ')} && ${restartDocker}` : restartDocker,
  ]);
}

/** Docker has the right subnet: this judges whether the link and every container have addresses of it. */
function judgeBridgeLink(plan: DockerPlan, facts: DockerFacts, state: EngineState): readonly Finding[] {
  const outside = onBridge(state).filter(({ address }) => !prefixContains(plan.bridge, address));
  const old =
    outside.length === 0
      ? []
      : [
          finding('error', 'containers-old-subnet', [
            `containers run with addresses of another subnet: ${listed(
              outside.map(({ name, address }) => `${name} (${formatIpv4(address)})`),
            )}`,
            `addresses of ${formatPrefix(plan.bridge)}`,
            `docker restart ${outside.map(({ name }) => shellName(name)).join(' ')}`,
          ]),
        ];
  return facts.docker0.known ? [...judgeLink(plan, facts.docker0.value), ...old] : old;
}

function judgeLink(plan: DockerPlan, link: LinkFacts | undefined): readonly Finding[] {
  const wanted = formatBridgeAddress(plan.bridge);
  if (!link)
    return [finding('error', 'docker0-address', ["the link of Docker's bridge is gone", wanted, restartDocker])];
  const texts = link.addresses.map(({ address, prefix }) => `${formatIpv4(address)}/${prefix.length}`);
  if (texts.includes(wanted)) return [];
  const found = `${link.name} has ${texts.join(', ') || 'no IPv4 address'}`;
  return [finding('error', 'docker0-address', [found, wanted, restartDocker])];
}

/**
 * Docker gives containers the MTU of the network's option. The bridge follows its ports; older engines leave a bridge
 * without ports at 1500, which becomes right with the first port.
 */
function judgeMtu(
  plan: DockerPlan,
  facts: DockerFacts,
  { options }: DockerNetwork,
  state: EngineState,
): readonly Finding[] {
  const given = options[mtuOption] ?? '1500';
  const wanted = `MTU ${plan.mtu}`;
  if (given !== String(plan.mtu))
    return [finding('error', 'docker0-mtu', [`docker0 gives its containers MTU ${given}`, wanted, restartDocker])];
  const link = factValue(facts.docker0);
  if (!link || link.mtu === plan.mtu || (link.mtu > plan.mtu && onBridge(state).length === 0)) return [];
  return [
    finding('error', 'docker0-mtu', [
      `${link.name} has MTU ${link.mtu}`,
      wanted,
      `ip link set ${link.name} mtu ${plan.mtu}`,
    ]),
  ];
}

function judgeMasquerade(
  plan: DockerPlan,
  facts: DockerFacts,
  { options }: DockerNetwork,
  { networks }: EngineState,
): readonly Finding[] {
  // The rules of other Docker networks are findings of those networks.
  const others = networks.filter(({ name }) => name !== bridgeNetwork).flatMap(({ subnets }) => subnets);
  const sources = factValue(facts.firewall.rules)?.masqueraded ?? [];
  const rule = sources.find(
    source => prefixesOverlap(source, plan.bridge) && !others.some(other => samePrefix(other, source)),
  );
  const asked = options[masqueradeOption] !== 'false';
  if (!asked && !rule) return [];
  return [
    finding('error', 'docker0-masquerade', [
      asked
        ? 'Docker masquerades what leaves docker0'
        : `a rule that is not tartan's masquerades ${rule ? formatPrefix(rule) : 'docker0'}`,
      'no masquerade but that of tartan: the containers of other hosts see the host and not the container',
      asked
        ? restartDocker
        : `iptables -t nat -S POSTROUTING, and remove the rule for ${rule ? formatPrefix(rule) : ''}`,
    ]),
  ];
}

export function judgeNetworks(plan: DockerPlan, state: EngineState): readonly Finding[] {
  const others = state.networks.filter(({ name }) => name !== bridgeNetwork);
  return others.flatMap(network =>
    network.subnets
      .filter(subnet => prefixesOverlap(subnet, plan.network))
      .flatMap(subnet =>
        prefixCovers(plan.lease, subnet)
          ? [...judgeBridgeOverlap(plan, network, subnet), ...judgeNetworkOptions(plan, network, subnet)]
          : [overlap(plan, network, subnet, state)],
      ),
  );
}

function overlap(plan: DockerPlan, network: DockerNetwork, subnet: Prefix, state: EngineState): Finding {
  const peer = plan.peers.find(one => prefixesOverlap(one.subnet, subnet));
  const whose = peer
    ? `which is of the host ${peer.name} (${formatPrefix(peer.subnet)})`
    : `which overlaps the overlay ${formatPrefix(plan.network)} outside of this host's lease`;
  const users = state.containers.filter(one => one.addresses.some(end => end.network === network.name)).length;
  const name = shellName(network.name);
  return finding('error', 'network-overlap', [
    `network ${network.name} has ${formatPrefix(subnet)}, ${whose}${users === 0 ? '' : `; ${users} containers run in it`}`,
    `a part of ${formatPrefix(plan.lease)}, or a range outside of ${formatPrefix(plan.network)}`,
    `docker network rm ${name} && tartan docker network create ${name}`,
  ]);
}

function judgeBridgeOverlap(plan: DockerPlan, network: DockerNetwork, subnet: Prefix): readonly Finding[] {
  if (!prefixesOverlap(subnet, plan.bridge)) return [];
  return [
    finding('error', 'network-blocks-docker0', [
      `network ${network.name} has ${formatPrefix(subnet)}, a part of what docker0 gets: dockerd will not start with it`,
      `a part of the lease outside of ${formatBridgeAddress(plan.bridge)}`,
      `docker network rm ${shellName(network.name)}`,
    ]),
  ];
}

function judgeNetworkOptions(plan: DockerPlan, network: DockerNetwork, subnet: Prefix): readonly Finding[] {
  if (network.driver !== 'bridge') return [];
  const name = shellName(network.name);
  const isOfPool = plan.pools.some(({ base }) => prefixCovers(base, subnet));
  const repair = isOfPool
    ? `docker network rm ${name} && docker network create -o ${mtuOption}=${plan.mtu} ${name}`
    : `docker network rm ${name} && tartan docker network create ${name} --subnet ${formatPrefix(subnet)}`;
  const mtu = network.options[mtuOption] ?? '1500';
  const severity = Number(mtu) > plan.mtu ? 'error' : 'warning';
  return [
    // Beside pools Docker may masquerade: sources are chosen before its rules.
    ...(network.options[masqueradeOption] === 'false' || isOfPool
      ? []
      : [
          finding('error', 'network-masquerade', [
            `Docker masquerades what leaves network ${network.name} (${formatPrefix(subnet)})`,
            'no masquerade but that of tartan: containers of other hosts see the host and not the container',
            repair,
          ]),
        ]),
    ...(mtu === String(plan.mtu)
      ? []
      : [
          finding(severity, 'network-mtu', [
            `network ${network.name} (${formatPrefix(subnet)}) gives its containers MTU ${mtu}`,
            `MTU ${plan.mtu}`,
            repair,
          ]),
        ]),
  ];
}
