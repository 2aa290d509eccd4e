/** Docker networks besides the default one: which of them overlap the overlay, and how those inside our lease are made. */
import { formatBridgeAddress, formatPrefix, prefixCovers, prefixesOverlap, type Prefix } from '../../model/ipv4.js';
import type { DockerPlan } from '../settings/docker-plan.js';
import type { DockerNetwork, EngineState } from '../engine-state.js';
import { finding, shellName, type Finding } from './finding.js';
import { bridgeNetwork, masqueradeOption, mtuOption } from './judge-bridge.js';

export function judgeNetworks(plan: DockerPlan, state: EngineState): readonly Finding[] {
  const others = state.networks.filter(({ name }) => name !== bridgeNetwork);
  return others.flatMap(network =>
    network.subnets
      .filter(subnet => prefixesOverlap(subnet, plan.network))
      .flatMap(subnet =>
        prefixCovers(plan.lease, subnet)
          ? [...judgePlace(plan, network, subnet), ...judgeMake(plan, network, subnet)]
          : [overlapping(plan, network, subnet, state)],
      ),
  );
}

function overlapping(plan: DockerPlan, network: DockerNetwork, subnet: Prefix, state: EngineState): Finding {
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

function judgePlace(plan: DockerPlan, network: DockerNetwork, subnet: Prefix): readonly Finding[] {
  if (!prefixesOverlap(subnet, plan.bridge)) return [];
  return [
    finding('error', 'network-blocks-docker0', [
      `network ${network.name} has ${formatPrefix(subnet)}, a part of what docker0 gets: dockerd will not start with it`,
      `a part of the lease outside of ${formatBridgeAddress(plan.bridge)}`,
      `docker network rm ${shellName(network.name)}`,
    ]),
  ];
}

function judgeMake(plan: DockerPlan, network: DockerNetwork, subnet: Prefix): readonly Finding[] {
  if (network.driver !== 'bridge') return [];
  const name = shellName(network.name);
  const again = `docker network rm ${name} && tartan docker network create ${name} --subnet ${formatPrefix(subnet)}`;
  const mtu = network.options[mtuOption] ?? '1500';
  const wrong = Number(mtu) > plan.mtu ? 'error' : 'warning';
  return [
    ...(network.options[masqueradeOption] === 'false'
      ? []
      : [
          finding('error', 'network-masquerade', [
            `Docker masquerades what leaves network ${network.name} (${formatPrefix(subnet)})`,
            'no masquerade but that of tartan: containers of other hosts see the host and not the container',
            again,
          ]),
        ]),
    ...(mtu === String(plan.mtu)
      ? []
      : [
          finding(wrong, 'network-mtu', [
            `network ${network.name} (${formatPrefix(subnet)}) gives its containers MTU ${mtu}`,
            `MTU ${plan.mtu}`,
            again,
          ]),
        ]),
  ];
}
