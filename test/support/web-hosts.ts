/** Documents of many hosts as `tartan status -o json` would write them, with troubles of every kind among them. */
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { sampleStatus } from './samples.js';

const subnetOf = (index: number): string => `10.${5 + (index >> 8)}.${index & 255}.0/24`;
const addressOf = (index: number): string => `198.18.${index >> 8}.${(index & 255) + 1}`;
const nameOf = (index: number): string => `worker-${String(index + 1).padStart(2, '0')}`;

/** `off` is dead, `oneWay` hears nobody, `lossy` loses packets to each fifth host. */
const [off, oneWay, lossy] = [4, 7, 2];

const troubles = {
  off: {
    reason: 'no ARP answer: the host is off, or not in this network',
    nextStep: 'start it, or release its lease: tartan lease release',
  },
  oneWay: {
    reason: 'heard but not answered: one direction is shut',
    nextStep: 'open UDP port 8285 towards this host',
  },
} as const;

/** @param count at least 10 */
export function webHosts(count: number): readonly Status[] {
  return Array.from({ length: count }, (_, index) => hostAt(index, count)).filter((_, index) => index !== off);
}

function hostAt(own: number, count: number): Status {
  const peers = Array.from({ length: count }, (_, index) => peerAt(own, index)).toSpliced(own, 1);
  const silent = peers.filter(({ watched }) => watched?.state === 'silent').length;
  const answering = `${count - 1 - silent} of ${count - 1} peers answer`;
  const problems = silent > 1 ? [`${silent} peers are silent, ${nameOf(off)} for 42 minutes`] : [];
  return {
    ...sampleStatus,
    summary: `ready, ${answering}, etcd answered 4 s ago`,
    problems,
    placedProblems: problems.map(text => ({ place: 'peers' as const, text })),
    health: problems.length === 0 ? { state: 'ok', reasons: [] } : { state: 'impaired', reasons: problems },
    node: { id: `node-${own}`, bootId: 'boot', publicIp: addressOf(own) },
    lease: { subnet: subnetOf(own), state: 'held', deadlineSeconds: 86_371 },
    interface: { name: 'eth0', address: addressOf(own), mtu: 1500 },
    docker: sampleStatus.docker && { ...sampleStatus.docker, bip: subnetOf(own).replace('.0/', '.1/') },
    peers,
    datapath: {
      engine: 'tun',
      pid: 4711,
      threads: 3,
      generationPublished: 12,
      generationAdopted: 12,
      respawns: 0,
      features: ['tso', 'gro'],
      warnings: [],
      kernel: null,
      counters: { rx_ok: 81_234, rx_bytes: 9_000_000, tx_ok: 79_001, tx_no_route: 312, rx_source: 41, rx_checksum: 2 },
    },
    store: {
      answeredSeconds: 4,
      watchSeconds: 5_400,
      refused: null,
      endpoints: [{ url: 'https://198.18.255.254:2379', state: 'answers', reason: null }],
    },
  };
}

function peerAt(own: number, index: number): StatusPeer {
  return {
    subnet: subnetOf(index),
    publicIp: addressOf(index),
    nodeId: `node-${index}`,
    state: 'live',
    secondsLeft: null,
    hostName: nameOf(index),
    backend: 'udp',
    watched: watchedOf(own, index),
  };
}

function watchedOf(own: number, index: number): PeerWatched {
  const trouble = index === off ? troubles.off : index === oneWay && own % 3 === 0 ? troubles.oneWay : null;
  const p50 = 0.2 + ((own * 7 + index * 13) % 40) / 10;
  const well = trouble === null;
  return {
    state: well ? 'up' : 'silent',
    stateSeconds: well ? 5_400 : 2_520,
    reason: trouble?.reason ?? null,
    nextStep: trouble?.nextStep ?? null,
    heardSeconds: well ? 1 : 2_520,
    roundTripMs: well ? { p50, p99: p50 * 3 } : null,
    loss: well ? (own === lossy && index % 5 === 0 ? 0.06 : 0) : 1,
    pathMtu: { out: well ? 1472 : null, in: well ? 1472 : null },
    addressSeen: null,
    engine: 'user' as const,
    engineReason: null,
    sent: { packets: 1000, bytes: 1_000_000 },
    received: { packets: 1000, bytes: 1_000_000 },
    sentBitsPerSecond: well ? 1000 * ((own * 31 + index * 97) % 9000) : 0,
    receivedBitsPerSecond: well ? 900 * ((own * 89 + index * 17) % 9000) : 0,
  };
}
