/** Formats the daemon's Status for one screen. */
import type { Status, StatusDatapath, StatusPeer } from '../agent/status.js';
import {
  formatDuration,
  formatFields,
  formatTable,
  type Cell,
  type Column,
  type Field,
  type Output,
  type Paint,
} from './table.js';

const peerColumns: readonly Column<StatusPeer>[] = [
  { title: 'PEER', cell: peer => peer.subnet },
  { title: 'PUBLIC IP', cell: peer => peer.publicIp },
  { title: 'NODE', cell: peer => peer.nodeId ?? '-' },
  { title: 'STATE', cell: peerState },
];

/** `wide` adds every peer, every refused entry and the counters that are not zero. */
export function formatStatus(status: Status, output: Exclude<Output, 'json'>, paint: Paint): string {
  const summary = formatFields([...fieldsOf(status), ...problemFields(status)], paint);
  if (output === 'table') return summary;
  const peers = status.peers.length === 0 ? '' : `\n${formatTable(peerColumns, status.peers, 'wide', paint)}`;
  const rejected = section(
    status.rejected.map(({ key, reason }): Field => [`refused ${key}`, reason]),
    paint,
  );
  return `${summary}${peers}${rejected}${section(counterFields(status.datapath), paint)}`;
}

function fieldsOf(status: Status): readonly Field[] {
  const { node, lease, network, backend, interface: link } = status;
  const port = typeof backend?.port !== 'number' ? '' : `, port ${backend.port}`;
  return [
    ['state', { text: status.phase, colour: status.ready ? 'good' : 'bad' }],
    ...healthFields(status),
    ['version', status.version],
    ['node', node.id],
    ['public address', node.publicIp ?? '-'],
    ['interface', link ? `${link.name}, ${link.address}, MTU ${link.mtu}` : '-'],
    ['network', network ?? '-'],
    ['backend', backend ? `${backend.type}${port}` : '-'],
    ['lease', lease ? leaseCell(lease) : '-'],
    ['peers', String(status.peers.length)],
    ['data plane', status.datapath ? datapathText(status.datapath) : '-'],
    ...offloadFields(status.datapath),
  ];
}

/** An older daemon does not tell. */
function healthFields({ health }: Status): readonly Field[] {
  return health ? [['health', { text: health.state, colour: health.state === 'ok' ? 'good' : 'bad' }]] : [];
}

function leaseCell({ subnet, state, deadlineSeconds }: NonNullable<Status['lease']>): Cell {
  const left = deadlineSeconds === null ? 'reserved' : `${formatDuration(deadlineSeconds)} left without a sign of life`;
  return { text: `${subnet}, ${state}, ${left}`, colour: state === 'held' ? 'good' : 'bad' };
}

function peerState({ state, secondsLeft }: StatusPeer): Cell {
  if (state === 'live') return { text: state, colour: 'good' };
  const what = state === 'forgotten' ? 'kept, forgotten by the store' : state;
  return { text: secondsLeft === null ? what : `${what}, ${formatDuration(secondsLeft)} left`, colour: 'bad' };
}

function datapathText(datapath: StatusDatapath): string {
  const { engine, pid, threads, generationPublished, generationAdopted, respawns } = datapath;
  const process = pid === null ? 'no process' : `process ${pid}, ${threads} threads`;
  return `${engine}, ${process}, published ${generationPublished}, adopted ${generationAdopted}, respawns ${respawns}`;
}

/** Names the offloads that the kernel offers to the data plane. */
function offloadFields(datapath: StatusDatapath | null): readonly Field[] {
  return datapath && datapath.features.length > 0 ? [['offloads', datapath.features.join(' ')]] : [];
}

function problemFields(status: Status): readonly Field[] {
  const refused = status.rejected.length;
  return [
    ...(refused === 0 ? [] : [['refused', `${refused} lease entries, see -o wide`] as const]),
    ...[...status.problems, ...(status.datapath?.warnings ?? [])].map((problem): Field => [
      'problem',
      { text: problem, colour: 'bad' },
    ]),
  ];
}

function counterFields(datapath: StatusDatapath | null): readonly Field[] {
  return Object.entries(datapath?.counters ?? {})
    .filter(([, count]) => count !== 0)
    .map(([name, count]) => [name, String(count)]);
}

function section(fields: readonly Field[], paint: Paint): string {
  return fields.length === 0 ? '' : `\n${formatFields(fields, paint)}`;
}
