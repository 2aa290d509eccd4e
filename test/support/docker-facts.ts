/** A host where Docker is as it should be, to start from in the tests of what is judged. */
import type { DockerPlan } from '../../src/docker/settings/docker-plan.js';
import type { DockerContainer, DockerNetwork, EngineState } from '../../src/docker/engine.js';
import { known } from '../../src/lib/fact.js';
import type { DockerFacts, RuleFacts } from '../../src/docker/verify/facts.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';

export const samplePlan: DockerPlan = {
  source: 'daemon',
  network: parsePrefix('10.5.0.0/16'),
  lease: parsePrefix('10.5.1.0/24'),
  bridge: parsePrefix('10.5.1.0/24'),
  pools: [],
  mtu: 1472,
  masquerade: true,
  forward: true,
  config: 'env',
  envFile: '/run/tartan/docker.env',
  daemonJsonFile: '/etc/docker/daemon.json',
  device: 'tartan0',
  peers: [{ subnet: parsePrefix('10.5.2.0/24'), name: 'node-b' }],
};

export const sampleFlags = ['--bip=10.5.1.1/24', '--ip-masq=false', '--mtu=1472'];

/** As docker.env hands flags over. */
export function dockerEnv(flags: readonly string[]): string {
  return `DOCKER_OPT_BIP=""\nDOCKER_OPTS=" ${flags.join(' ')}"\nDOCKER_NETWORK_OPTIONS=" ${flags.join(' ')}"\n`;
}

export function dockerNetwork(name: string, subnet: string, changes: Partial<DockerNetwork> = {}): DockerNetwork {
  return {
    name,
    driver: 'bridge',
    subnets: [parsePrefix(subnet)],
    options: {
      'com.docker.network.bridge.enable_ip_masquerade': 'false',
      'com.docker.network.driver.mtu': '1472',
    },
    ...changes,
  };
}

export function dockerContainer(name: string, address: string, network = 'bridge'): DockerContainer {
  return { name, addresses: [{ network, address: parseIpv4(address) }] };
}

export const sampleEngine: EngineState = {
  version: '26.1.5+dfsg1',
  liveRestore: false,
  nftables: false,
  pools: [],
  networks: [
    dockerNetwork('bridge', '10.5.1.0/24'),
    { ...dockerNetwork('host', '10.5.1.0/24'), driver: 'host', subnets: [] },
  ],
  containers: [dockerContainer('web', '10.5.1.2')],
};

export const sampleRules: RuleFacts = {
  ours: { forward: true, raw: true, masquerade: true, sources: true, mark: false },
  forwardDrops: true,
  masqueraded: [],
};

export const sampleFacts: DockerFacts = {
  engine: { kind: 'answers', state: sampleEngine },
  program: '/usr/sbin/dockerd',
  commandLine: known(['-H', 'fd://', ...sampleFlags]),
  placedFlags: [],
  daemonJson: { path: '/etc/docker/daemon.json', text: known(undefined) },
  envFile: known(dockerEnv(sampleFlags)),
  unit: known({ environmentFiles: '/run/tartan/docker-gate.env (ignore_errors=yes)', needsReload: false }),
  dropIn: '/usr/share/tartan/systemd/docker.service.d/tartan.conf',
  docker0: known({
    name: 'docker0',
    mtu: 1472,
    addresses: [{ address: parseIpv4('10.5.1.1'), prefix: parsePrefix('10.5.1.0/24') }],
  }),
  firewall: {
    iptables: true,
    nft: true,
    rules: known(sampleRules),
    otherVariant: known(undefined),
    rivals: [],
  },
  kernel: {
    ipForward: known('1'),
    rpFilterAll: known('0'),
    rpFilterUnderlay: known('0'),
    underlay: 'eth0',
    defaultRoutes: known(1),
  },
};
