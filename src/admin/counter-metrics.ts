/**
 * Metrics from the counters of the data process, by the names that native/shared/counters.h gives them: what passed,
 * what was dropped and why, and what was counted beside.
 */
import type { MetricFamily, MetricSample } from './metric-family.js';

type Counters = Readonly<Record<string, number>>;

/** What names alone do not tell: counted in addition to what happened to the packet, or the end of one that no container misses. */
export const noteCounters: ReadonlySet<string> = new Set([
  'rx_trimmed',
  'rx_opts',
  'rx_port',
  'rx_probe',
  'rx_socket_errors',
  'tx_tun_errors',
  'tx_gso_off',
]);

/** The counter of an earlier or later data process that is not known here is a note, or a drop where its name says so. */
export function counterFamilies(counters: Counters): readonly MetricFamily[] {
  const drops: MetricSample[] = [];
  const notes: MetricSample[] = [];
  for (const [name, value] of Object.entries(counters)) {
    const [, direction, reason] = /^([rt]x)_(.+)$/.exec(name) ?? [];
    if (reason === 'ok' || reason === 'bytes') continue;
    if (direction === undefined || reason === undefined || noteCounters.has(name))
      notes.push({ labels: { event: name }, value });
    else drops.push({ labels: { direction, reason }, value });
  }
  return [
    plain('tartan_tx_packets_total', 'Inner packets sent to peers.', counters['tx_ok']),
    plain('tartan_tx_bytes_total', 'Bytes of inner packets sent to peers.', counters['tx_bytes']),
    plain('tartan_rx_packets_total', 'Inner packets received from peers.', counters['rx_ok']),
    plain('tartan_rx_bytes_total', 'Bytes of inner packets received from peers.', counters['rx_bytes']),
    {
      name: 'tartan_drops_total',
      help: 'Packets that were not passed on, by direction and reason.',
      kind: 'counter',
      samples: drops,
    },
    {
      name: 'tartan_datapath_events_total',
      help: 'What the data process counts beside the fate of packets.',
      kind: 'counter',
      samples: notes,
    },
  ];
}

function plain(name: string, help: string, value: number | undefined): MetricFamily {
  return { name, help, kind: 'counter', samples: value === undefined ? [] : [{ labels: {}, value }] };
}
