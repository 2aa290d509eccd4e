/**
 * `tartan docker network create` makes a bridge network on a part of this host's lease. Its containers reach those of
 * other hosts, and are reached by them, as the containers on docker0 do.
 */
import { apiVersion } from '../agent/status.js';
import { carve, longestLength, type CarveRequest, type UsedSubnet } from '../docker/carve.js';
import type { DockerPlan } from '../docker/settings/docker-plan.js';
import { isAtLeast, type DockerNetwork, type EngineState } from '../docker/engine.js';
import { mtuOption } from '../docker/settings/settings.js';
import { bridgeNetwork, masqueradeOption } from '../docker/verify/judge-networks.js';
import {
  bridgeAddress,
  formatIpv4,
  formatPrefix,
  parsePrefix,
  prefixCovers,
  prefixesOverlap,
  samePrefix,
  shown,
  type Prefix,
} from '../model/ip.js';
import { messageOf } from '../lib/errors.js';
import { dockerSocket, readPlan } from './docker-commands.js';
import { daemonError, print, type Call } from './commands.js';
import { exitStatus, ToolError, usageError, type ExitStatus } from './error.js';

export interface CreateOptions {
  readonly length: string | undefined;
  readonly subnet: string | undefined;
}

const trustedOption = 'com.docker.network.bridge.trusted_host_interfaces';
/** The label names the overlay that the network is a part of. */
const label = 'tartan.network';
const reservedNames: readonly string[] = ['bridge', 'host', 'none', 'default', 'container'];

export async function createDockerNetwork(call: Call, name: string, options: CreateOptions): Promise<ExitStatus> {
  const { socketPath } = dockerSocket(call);
  refuseName(name);
  const request = readRequest(options);
  const { plan, reason, status } = await readPlan(call);
  // The files may name a subnet that another host has by now.
  if (reason !== undefined) throw daemonError(reason);
  if (status?.phase !== 'ready')
    throw failure(`tartand is not ready: it is in the phase ${status?.phase}`, 'see what it waits for: tartan status');
  const { docker } = call.io.ports;
  const engine = await docker.readEngine(socketPath);
  if (engine.kind !== 'answers') throw failure(`Docker cannot be asked: ${engine.reason}`, 'see tartan docker verify');
  const existing = engine.state.networks.find(network => network.name === name);
  if (existing) {
    const subnet = subnetOfExisting(plan, existing, request);
    printResult(call, plan, name, subnet, false);
    return exitStatus.ok;
  }
  const subnet = chooseSubnet(plan, engine.state, request);
  await docker.createNetwork(socketPath, {
    name,
    subnet,
    options: optionsOf(plan, engine.state.version),
    labels: { [label]: formatPrefix(plan.network) },
  });
  printResult(call, plan, name, subnet, true);
  return exitStatus.ok;
}

function optionsOf(plan: DockerPlan, version: string): Readonly<Record<string, string>> {
  return {
    [mtuOption]: String(plan.mtu),
    [masqueradeOption]: 'false',
    // An engine that does not know the option stores it and does not apply it.
    ...(isAtLeast(version, 28, 2) && { [trustedOption]: plan.device }),
  };
}

function chooseSubnet(plan: DockerPlan, state: EngineState, request: CarveRequest): Prefix {
  const used = state.networks.flatMap(({ name, subnets }): readonly UsedSubnet[] =>
    subnets.map(subnet => ({ subnet, by: name === bridgeNetwork ? 'docker0' : `network ${name}` })),
  );
  // docker0's planned part counts as used: dockerd would not start once it is to take all of it.
  const all = [...used, { subnet: plan.bridge, by: "docker0 at Docker's next start" }];
  const carving = carve(plan.lease, all, request);
  switch (carving.kind) {
    case 'carved':
      return carving.subnet;
    case 'refused':
      throw failure(carving.reason, 'choose another part with --subnet, or leave it to the tool');
    case 'full':
      throw fullError(plan, carving.all, request);
  }
}

function fullError(plan: DockerPlan, all: UsedSubnet | undefined, request: CarveRequest): ToolError {
  const lease = formatPrefix(plan.lease);
  const size = request.kind === 'length' ? `/${request.length}` : 'part of it';
  if (!all)
    return failure(`no ${size} of the lease ${lease} is free`, 'remove a network that nobody needs, or ask for less');
  if (!samePrefix(plan.bridge, plan.lease))
    return failure(
      `${all.by} has the whole lease ${lease} still`,
      'restart Docker when no container is needed: systemctl restart docker',
    );
  const length = plan.lease.length + 1;
  return failure(
    `${all.by} has the whole lease ${lease}`,
    length > longestLength - 1
      ? 'give hosts larger subnets: SubnetLen in the network document'
      : `set TARTAN_DOCKER_SUBNET_LEN=${length} in /etc/default/tartand, restart tartand, and then Docker when no container is needed`,
  );
}

/** @throws ToolError for a network of that name that differs */
function subnetOfExisting(plan: DockerPlan, network: DockerNetwork, request: CarveRequest): Prefix {
  const [subnet] = network.subnets;
  const differs =
    subnet && network.driver === 'bridge'
      ? difference(plan, network, subnet, request)
      : 'it is no bridge network with an IPv4 subnet';
  if (subnet && differs === undefined) return subnet;
  throw failure(
    `there is a network ${network.name} already, and ${differs}`,
    `choose another name, or remove it: docker network rm ${network.name}`,
  );
}

function difference(
  plan: DockerPlan,
  network: DockerNetwork,
  subnet: Prefix,
  request: CarveRequest,
): string | undefined {
  const text = formatPrefix(subnet);
  const { options } = network;
  if (!prefixCovers(plan.lease, subnet))
    return `its subnet ${text} is not a part of the lease ${formatPrefix(plan.lease)}`;
  if (prefixesOverlap(plan.bridge, subnet)) return `its subnet ${text} overlaps that of docker0`;
  if (request.kind === 'exact' && !samePrefix(request.subnet, subnet)) return `its subnet is ${text}`;
  if (request.kind === 'length' && request.length !== subnet.length) return `its subnet is ${text}`;
  if (options[mtuOption] !== String(plan.mtu))
    return `its MTU is ${options[mtuOption] ?? '1500'}, expected ${plan.mtu}`;
  return options[masqueradeOption] === 'false' ? undefined : 'Docker masquerades what leaves it';
}

function printResult(call: Call, plan: DockerPlan, name: string, subnet: Prefix, created: boolean): void {
  const [text, gateway] = [formatPrefix(subnet), formatIpv4(bridgeAddress(subnet))];
  const document = { apiVersion, kind: 'DockerNetwork', name, subnet: text, gateway, mtu: plan.mtu, created };
  const what = created ? 'was made' : 'is there already';
  print(call, document, () => `network ${name} ${what}: ${text}, gateway ${gateway}, MTU ${plan.mtu}\n`);
}

/** Allows names of Docker's own form, without those that mean something else to Docker. */
function refuseName(name: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name) && !reservedNames.includes(name)) return;
  throw usageError(
    `'${shown(name)}' cannot be the name of a network, expected letters, digits, _, . or -, up to 64 of them`,
  );
}

function readRequest({ length, subnet }: CreateOptions): CarveRequest {
  if (length !== undefined && subnet !== undefined)
    throw usageError('--length and --subnet are given, expected one of them');
  if (subnet !== undefined) {
    try {
      return { kind: 'exact', subnet: parsePrefix(subnet) };
    } catch (error) {
      throw usageError(`--subnet: ${messageOf(error)}`);
    }
  }
  if (length === undefined) return { kind: 'any' };
  if (!/^\d{1,2}$/.test(length) || Number(length) < 1 || Number(length) > longestLength)
    throw usageError(`--length '${shown(length)}' is not usable, expected a whole number up to ${longestLength}`);
  return { kind: 'length', length: Number(length) };
}

function failure(message: string, next: string): ToolError {
  return new ToolError(exitStatus.error, message, next);
}
