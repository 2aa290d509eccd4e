/**
 * Metrics of peers. Sums are over all of them; a few have series of their own, so that the number of series is bounded
 * however many peers there are: the silent ones first, up to half of the places, then those with most traffic.
 */
import type { Status, StatusPeer } from '../agent/status.js';
import { countOf, gauge, info, labelText, perValue, type MetricFamily, type MetricSample } from './metric-family.js';

const watchStates = ['up', 'silent', 'unknown', 'unwatched'] as const;
const leaseStates = ['live', 'held-down', 'forgotten', 'remembered'] as const;

/** @param most how many peers have series of their own */
export function peerFamilies({ peers, docker }: Status, most: number): readonly MetricFamily[] {
  const states = peers.map(({ watched }) => watched?.state ?? 'unknown');
  const leases = peers.map(({ state }) => state);
  return [
    perValue('tartan_peers', 'Peers by what was seen of them.', 'state', countOf(watchStates, states)),
    perValue('tartan_peer_leases', 'Peers by what etcd says of their lease.', 'state', countOf(leaseStates, leases)),
    ...summaryFamilies(peers, docker?.mtu),
    ...detailFamilies(chosen(peers, most)),
  ];
}

function summaryFamilies(peers: readonly StatusPeer[], tunnelMtu: number | undefined): readonly MetricFamily[] {
  const losses = known(peers, peer => peer.watched?.loss);
  const roundTrips = known(peers, peer => peer.watched?.roundTripMs?.p50).sort((a, b) => a - b);
  const mtus = known(peers, peer => peer.watched?.pathMtu.out);
  const lossSum = losses.reduce((sum, loss) => sum + loss, 0);
  return [
    ofAll('tartan_peers_loss_ratio', 'Questions to peers that had no answer, over all peers.', {
      mean: losses.length > 0 ? lossSum / losses.length : undefined,
      max: largest(losses),
    }),
    ofAll('tartan_peers_rtt_seconds', 'Median round trip to peers, over all peers.', {
      median: seconds(roundTrips[Math.floor(roundTrips.length / 2)]),
      max: seconds(roundTrips.at(-1)),
    }),
    ofAll('tartan_peers_path_mtu_bytes', 'Longest inner packet known to reach a peer, over all peers.', {
      min: mtus.length > 0 ? mtus.reduce((a, b) => Math.min(a, b)) : undefined,
    }),
    gauge(
      'tartan_peers_lossy',
      'Peers that are up and in use and lose over 1 % of questions.',
      peers.filter(isLossy).length,
    ),
    gauge(
      'tartan_peers_path_mtu_reduced',
      'Peers whose path carries less than the MTU of the overlay.',
      tunnelMtu === undefined ? undefined : mtus.filter(mtu => mtu < tunnelMtu).length,
    ),
    gauge(
      'tartan_peers_address_changed',
      'Peers whose packets come from another address than that of their lease.',
      peers.filter(({ watched }) => typeof watched?.addressSeen === 'string').length,
    ),
  ];
}

const lossyRatio = 0.01;

/** A peer without traffic is asked rarely: one question without an answer would tell for hours. */
function isLossy(peer: StatusPeer): boolean {
  const { watched } = peer;
  return watched?.state === 'up' && rateOf(peer) > 0 && (watched.loss ?? 0) > lossyRatio;
}

function ofAll(name: string, help: string, values: Readonly<Record<string, number | undefined>>): MetricFamily {
  const given = Object.entries(values).flatMap(([text, value]) => (value === undefined ? [] : [[text, value]]));
  return perValue(name, help, 'over', Object.fromEntries(given));
}

function known(peers: readonly StatusPeer[], read: (peer: StatusPeer) => number | null | undefined): number[] {
  return peers.map(read).filter(value => value !== null && value !== undefined);
}

/** Math.max takes no list of any length. */
function largest(values: readonly number[]): number | undefined {
  return values.length > 0 ? values.reduce((a, b) => Math.max(a, b)) : undefined;
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

/** Sorted by subnet as the document is. */
function chosen(peers: readonly StatusPeer[], most: number): readonly StatusPeer[] {
  const byTraffic = peers
    .map(peer => ({ peer, rate: rateOf(peer), bytes: bytesOf(peer) }))
    .sort((a, b) => b.rate - a.rate || b.bytes - a.bytes)
    .map(({ peer }) => peer);
  const silent = byTraffic.filter(({ watched }) => watched?.state === 'silent').slice(0, Math.floor(most / 2));
  const taken = new Set(silent);
  for (const peer of byTraffic) {
    if (taken.size >= most) break;
    taken.add(peer);
  }
  return peers.filter(peer => taken.has(peer));
}

function rateOf({ watched }: StatusPeer): number {
  return (watched?.sentBitsPerSecond ?? 0) + (watched?.receivedBitsPerSecond ?? 0);
}

function bytesOf({ watched }: StatusPeer): number {
  return watched ? watched.sent.bytes + watched.received.bytes : 0;
}

type Read = (watched: NonNullable<StatusPeer['watched']>) => number | null | undefined;

function detailFamilies(peers: readonly StatusPeer[]): readonly MetricFamily[] {
  const each = (
    kind: MetricFamily['kind'],
    name: string,
    help: string,
    ...reads: readonly Labelled[]
  ): MetricFamily => ({
    name,
    help,
    kind,
    samples: peers.flatMap(peer => samplesOf(peer, reads)),
  });
  const scaled =
    (read: Read): Read =>
    watched =>
      seconds(read(watched) ?? undefined);
  return [
    {
      name: 'tartan_peer_info',
      help: 'Who a peer is, the value is 1.',
      kind: 'gauge',
      samples: peers.flatMap(
        ({ subnet, hostName, publicIp, backend }) =>
          info('', '', { peer: subnet, host: hostName, public_ip: publicIp, backend }).samples,
      ),
    },
    each('gauge', 'tartan_peer_up', 'Whether a peer was heard lately; absent while that is not known.', [
      {},
      ({ state }) => (state === 'up' ? 1 : state === 'silent' ? 0 : null),
    ]),
    each(
      'gauge',
      'tartan_peer_rtt_seconds',
      'Round trip of the last questions to a peer.',
      [{ percentile: '50' }, scaled(({ roundTripMs }) => roundTripMs?.p50)],
      [{ percentile: '99' }, scaled(({ roundTripMs }) => roundTripMs?.p99)],
    ),
    each('gauge', 'tartan_peer_loss_ratio', 'Last questions that had no answer.', [{}, ({ loss }) => loss]),
    each(
      'gauge',
      'tartan_peer_path_mtu_bytes',
      'Longest inner packet known to pass.',
      [{ direction: 'out' }, ({ pathMtu }) => pathMtu.out],
      [{ direction: 'in' }, ({ pathMtu }) => pathMtu.in],
    ),
    each('gauge', 'tartan_peer_by_kernel', 'Whether packets to a peer go by the engine kernel.', [
      {},
      ({ engine }) => (engine === 'kernel' ? 1 : 0),
    ]),
    byUserFamily(peers),
    each('counter', 'tartan_peer_tx_packets_total', 'Inner packets sent to a peer.', [{}, peer => peer.sent.packets]),
    each('counter', 'tartan_peer_tx_bytes_total', 'Their bytes.', [{}, peer => peer.sent.bytes]),
    each('counter', 'tartan_peer_rx_packets_total', 'Inner packets received from a peer.', [
      {},
      peer => peer.received.packets,
    ]),
    each('counter', 'tartan_peer_rx_bytes_total', 'Their bytes.', [{}, peer => peer.received.bytes]),
  ];
}

/** It grows, and a label that changes would be another series each time. */
const duration = / for \d+ (s|min)$/;

function byUserFamily(peers: readonly StatusPeer[]): MetricFamily {
  return {
    name: 'tartan_peer_by_user_info',
    help: 'Why packets to a peer go by user space where this host asks for the engine kernel, the value is 1.',
    kind: 'gauge',
    samples: peers.flatMap(({ subnet, watched }) => {
      const reason = watched?.engineReason;
      return reason ? info('', '', { peer: subnet, reason: reason.replace(duration, '') }).samples : [];
    }),
  };
}

type Labelled = readonly [labels: Readonly<Record<string, string>>, read: Read];

function samplesOf({ subnet, watched }: StatusPeer, reads: readonly Labelled[]): readonly MetricSample[] {
  if (!watched) return [];
  return reads.flatMap(([labels, read]) => {
    const value = read(watched) ?? undefined;
    return value === undefined ? [] : [{ labels: { peer: labelText(subnet), ...labels }, value }];
  });
}
