/** The peers of the daemon's Status as a document of `tartan/v1` and as a table, one line each. */
import { apiVersion, type Status, type StatusPeer } from '../agent/status.js';
import { formatDuration, formatTable, type Cell, type Column, type Output, type Paint } from './table.js';

export interface PeerList {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'PeerList';
  readonly items: readonly StatusPeer[];
}

/** The words of STATE, by which `--state` chooses. */
export const peerStates = ['up', 'silent', 'unknown', 'unwatched', 'held-down', 'forgotten', 'remembered'] as const;
export type PeerState = (typeof peerStates)[number];

/** What a peer's lease and its packets say together: trouble of the packets comes first. */
export function stateOf({ state, watched }: StatusPeer): PeerState {
  if (watched?.state === 'silent' || state === 'live') return watched?.state ?? 'unknown';
  return state;
}

/** @param state only peers in it */
export function peerListOf(status: Status, state?: PeerState): PeerList {
  const items = state === undefined ? status.peers : status.peers.filter(peer => stateOf(peer) === state);
  return { apiVersion, kind: 'PeerList', items };
}

/** How messages name a peer: `peer 10.5.3.0/24 (host-c, 192.0.2.3)`. */
export function peerLabel({ subnet, hostName, publicIp }: StatusPeer): string {
  return `peer ${subnet} (${hostName === null ? '' : `${hostName}, `}${publicIp})`;
}

const columns: readonly Column<StatusPeer>[] = [
  { title: 'PEER', cell: peer => peer.subnet },
  { title: 'HOST', cell: peer => peer.hostName ?? '-' },
  { title: 'PUBLIC IP', cell: peer => peer.publicIp },
  { title: 'BACKEND', cell: peer => peer.backend ?? '-' },
  { title: 'STATE', cell: stateCell },
  { title: 'ENGINE', cell: ({ watched }) => watched?.engine ?? '-' },
  { title: 'RTT', cell: ({ watched }) => milliseconds(watched?.roundTripMs?.p50) },
  { title: 'P99', cell: ({ watched }) => milliseconds(watched?.roundTripMs?.p99), wide: true },
  { title: 'LOSS', cell: lossCell },
  { title: 'MTU', cell: ({ watched }) => String(watched?.pathMtu.out ?? '-') },
  { title: 'MTU IN', cell: ({ watched }) => String(watched?.pathMtu.in ?? '-'), wide: true },
  { title: 'IN', cell: ({ watched }) => formatRate(watched?.receivedBitsPerSecond) },
  { title: 'OUT', cell: ({ watched }) => formatRate(watched?.sentBitsPerSecond) },
  { title: 'HEARD', cell: ({ watched }) => ago(watched?.heardSeconds), wide: true },
  { title: 'RECEIVED', cell: ({ watched }) => (watched ? formatBytes(watched.received.bytes) : '-'), wide: true },
  { title: 'SENT', cell: ({ watched }) => (watched ? formatBytes(watched.sent.bytes) : '-'), wide: true },
  { title: 'NODE', cell: peer => peer.nodeId ?? '-', wide: true },
  { title: 'REASON', cell: reasonOf },
];

export function peerTable(peers: readonly StatusPeer[], output: Exclude<Output, 'json'>, paint: Paint): string {
  return formatTable(columns, peers, output, paint);
}

function stateCell(peer: StatusPeer): Cell {
  const text = stateOf(peer);
  if (text === 'up') return { text, colour: 'good' };
  return text === 'unknown' || text === 'unwatched' ? text : { text, colour: 'bad' };
}

function reasonOf({ state, secondsLeft, watched }: StatusPeer): string {
  const left = secondsLeft === null ? '' : `, ${formatDuration(secondsLeft)} left`;
  const lease = {
    live: [],
    'held-down': [`vanished from etcd${left}`],
    forgotten: [`kept, forgotten by the store${left}`],
    remembered: ['of the state file, etcd has not confirmed it'],
  }[state];
  const seen = watched?.addressSeen ? [`its packets come from ${watched.addressSeen}`] : [];
  const engine = watched?.engineReason ? [`by user space: ${watched.engineReason}`] : [];
  return [...(watched?.reason ? [watched.reason] : []), ...lease, ...seen, ...engine].join('; ');
}

function lossCell({ watched }: StatusPeer): Cell {
  const loss = watched?.loss ?? undefined;
  if (loss === undefined) return '-';
  const text = `${Math.round(loss * 100)}%`;
  return loss > 0 ? { text, colour: 'bad' } : text;
}

function milliseconds(value: number | null = null): string {
  if (value === null) return '-';
  return `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
}

function ago(seconds: number | null = null): string {
  return seconds === null ? '-' : `${formatDuration(seconds)} ago`;
}

/** Bits per second, by powers of 1000 as links are sold: 1.2 Mbit/s. */
export function formatRate(bitsPerSecond: number | null = null): string {
  return bitsPerSecond === null ? '-' : `${scaled(bitsPerSecond, 1000, ['', 'k', 'M', 'G', 'T'])}bit/s`;
}

export function formatBytes(bytes: number): string {
  return `${scaled(bytes, 1024, ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'])}B`;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let [left, at] = [value, 0];
  while (left >= base && at + 1 < units.length) {
    left /= base;
    at++;
  }
  return `${at === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[at] ?? ''}`;
}
