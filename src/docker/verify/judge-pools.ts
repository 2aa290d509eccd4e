/** Judges whether the networks that Docker makes by itself are parts of the lease, as --docker-pools wants it. */
import { formatPrefix } from '../../model/ip.js';
import type { AddressPool } from '../../model/lease-parts.js';
import { carve } from '../carve.js';
import { isAtLeast, type EngineState } from '../engine.js';
import type { DockerPlan } from '../settings/docker-plan.js';
import { effectiveOptions, type DockerdSettings } from './judge-settings.js';
import { firstWithNetworkOptions, firstWithPools, mtuOption } from '../settings/settings.js';
import { finding, restartDocker, type Finding } from './finding.js';

export function judgePools(plan: DockerPlan, state: EngineState, settings: DockerdSettings): readonly Finding[] {
  if (plan.pools.length === 0) return [];
  if (!isAtLeast(state.version, firstWithPools))
    return [
      finding('warning', 'engine-pools', [
        `engine ${state.version} makes no networks where a route of the host leads, so that it gets no pools of the lease`,
        `Docker ${firstWithPools} or later, or networks by the tool`,
        'tartan docker network create NAME',
      ]),
    ];
  const [wanted, given] = [formatPools(plan.pools), formatPools(state.pools)];
  // Those of the administrator's file are a conflict, which is told as one.
  const isOfFile = settings.file.has('default-address-pools') && plan.config === 'env';
  if (wanted !== given && isOfFile) return [];
  if (wanted !== given)
    return [
      finding('error', 'pools-not-taken', [
        `Docker makes its own networks ${given === '' ? 'outside of the overlay' : given}`,
        wanted,
        restartDocker,
      ]),
    ];
  return [...judgeRoom(plan, state), ...judgeNetworkMtu(plan, state, settings)];
}

function formatPools(pools: readonly AddressPool[]): string {
  const texts = pools.map(({ base, size }) => `of /${size} in ${formatPrefix(base)}`);
  return texts.sort().join(' and ');
}

function judgeRoom({ pools }: DockerPlan, { networks }: EngineState): readonly Finding[] {
  const used = networks.flatMap(({ name, subnets }) => subnets.map(subnet => ({ subnet, by: name })));
  if (pools.some(({ base, size }) => carve(base, used, { kind: 'length', length: size }).kind === 'carved')) return [];
  return [
    finding('warning', 'pools-full', [
      `no network ${formatPools(pools)} is free: Docker refuses the next one that names no subnet`,
      'room for one more',
      'docker network prune',
    ]),
  ];
}

function judgeNetworkMtu(plan: DockerPlan, state: EngineState, settings: DockerdSettings): readonly Finding[] {
  const wanted = `${mtuOption}=${plan.mtu}`;
  if (!isAtLeast(state.version, firstWithNetworkOptions))
    return [
      finding('warning', 'engine-network-mtu', [
        `engine ${state.version} gives its own networks MTU 1500, which has no setting before Docker ${firstWithNetworkOptions}`,
        `MTU ${plan.mtu}`,
        `docker network create -o ${wanted} NAME`,
      ]),
    ];
  const given = effectiveOptions(settings).get('default-network-opts');
  if (given?.split(' ').includes(`bridge=${wanted}`)) return [];
  return [
    finding('error', 'network-mtu-not-taken', [
      'Docker gives its own networks MTU 1500: it was started without the default option',
      `--default-network-opt=bridge=${wanted}`,
      restartDocker,
    ]),
  ];
}
