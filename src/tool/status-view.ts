/**
 * Formats the daemon's Status for one screen: the truth in one line, then what is wrong with its next step, then facts.
 * `wide` adds what is for a closer look.
 */
import type {
  KernelEngineStatus,
  PlacedProblem,
  Status,
  StatusDatapath,
  StatusPeer,
  StatusStore,
} from '../agent/status.js';
import { peerLabel, peerListOf, peerTable } from './peer-view.js';
import {
  formatDuration,
  formatFields,
  type Cell,
  type Field,
  withoutControls,
  type Output,
  type Paint,
} from './table.js';

/** What is wrong, once, with what to do next. */
interface Trouble {
  readonly text: string;
  readonly next: string | null;
}

/** A screen has 24 lines. */
const shownTroubles = 5;

/** `wide` adds every trouble, every peer, every refused entry and the counters that are not zero. */
export function formatStatus(status: Status, output: Exclude<Output, 'json'>, paint: Paint): string {
  const troubles = troublesOf(status);
  const shown = output === 'wide' ? troubles : troubles.slice(0, shownTroubles);
  const more = troubles.length - shown.length;
  const wrong = [...shown.flatMap(troubleFields), ...(more === 0 ? [] : [['', `${more} more, see -o wide`] as const])];
  const isWell = status.ready && status.health?.state !== 'impaired';
  const line = `${paint(withoutControls(withoutCause(truthOf(status), status)), isWell ? 'good' : 'bad')}\n`;
  const facts = section([...factFields(status), ...(output === 'wide' ? wideFields(status) : [])], paint);
  if (output === 'table') return `${line}${section(wrong, paint)}${facts}`;
  const peers = status.peers.length === 0 ? '' : `\n${peerTable(peerListOf(status).items, 'wide', paint)}`;
  const rejected = section(
    status.rejected.map(({ key, reason }): Field => [`refused ${withoutControls(key)}`, reason]),
    paint,
  );
  return `${line}${section(wrong, paint)}${facts}${peers}${rejected}${section(counterFields(status.datapath), paint)}`;
}

/** The causes stand below the line, each with its next step. */
export function withoutCause(truth: string, { problems: [first] }: Status): string {
  const at = first === undefined ? -1 : truth.indexOf(`: ${first.slice(0, 40)}`);
  return at < 0 ? truth : truth.slice(0, at);
}

/** The daemon's own line; for an older one, which says none, a line of the same form. */
export function truthOf(status: Status): string {
  if (status.summary !== null) return status.summary;
  const { phase, ready, problems, health, peers, lease } = status;
  if (!ready) return [phase === 'ready' ? 'not ready' : phase, ...problems.slice(0, 1)].join(': ');
  const live = peers.filter(({ state }) => state === 'live').length;
  const gone = live === peers.length ? '' : `, ${peers.length - live} vanished from etcd`;
  const state = health?.state === 'impaired' ? 'impaired' : 'ready';
  return `${state}, ${peers.length} ${peers.length === 1 ? 'peer' : 'peers'}${gone}, lease ${lease?.state ?? 'none'}`;
}

/** Silent peers come with their own next step: what the daemon says of them among its problems is not said again. */
function troublesOf(status: Status): readonly Trouble[] {
  const silent = silentTroubles(status.peers);
  const placed: readonly PlacedProblem[] =
    status.placedProblems.length > 0
      ? status.placedProblems
      : status.problems.map(text => ({ place: 'host', text }) as const);
  const other = placed.filter(({ text }) => !silent.some(({ covers }) => covers(text)));
  const refused = status.rejected.length;
  return [
    ...other.map(({ place, text }, at) => {
      const [cause = '', next = other[at + 1]?.place === place ? null : nextSteps[place]] = text.split('; next: ');
      return { text: cause, next };
    }),
    ...silent,
    ...(status.datapath?.warnings ?? []).map(text => ({ text, next: null })),
    ...(refused === 0 ? [] : [refusedTrouble(refused)]),
  ];
}

interface SilentTrouble extends Trouble {
  /** Whether a problem of the daemon says the same. */
  readonly covers: (problem: string) => boolean;
}

/** Peers with one cause, such as this host's own firewall, are one trouble. */
function silentTroubles(peers: readonly StatusPeer[]): readonly SilentTrouble[] {
  const groups = new Map<string, StatusPeer[]>();
  for (const peer of peers) {
    if (peer.watched?.state !== 'silent') continue;
    const reason = peer.watched.reason ?? 'it does not answer';
    groups.set(reason, [...(groups.get(reason) ?? []), peer]);
  }
  return [...groups].map(([reason, [first, ...more]]) => {
    const label = first ? peerLabel(first) : '';
    const who = more.length === 0 ? label : `${more.length + 1} peers, such as ${label}`;
    return {
      text: `${who}: ${reason}`,
      next: first?.watched?.nextStep ?? null,
      covers: problem => problem.includes(reason) || /^\d+ more peers do not answer/.test(problem),
    };
  });
}

function refusedTrouble(count: number): Trouble {
  const text = count === 1 ? '1 lease entry is refused' : `${count} lease entries are refused`;
  return { text, next: 'tartan status -o wide' };
}

/** What shows more of a problem of this place; the problem itself often says what to do. */
const nextSteps: Readonly<Record<PlacedProblem['place'], string>> = {
  network: 'tartan config get',
  underlay: 'ip -br address; ip route (the interface is chosen by --iface)',
  store: 'see that etcd runs and answers here: tartan leases',
  lease: 'tartan leases -o wide',
  'data-plane': 'journalctl -u tartand -p warning',
  peers: 'tartan peers',
  host: 'journalctl -u tartand -p warning',
  docker: 'tartan docker verify',
};

function troubleFields({ text, next }: Trouble): readonly Field[] {
  const problem: Field = ['wrong', { text, colour: 'bad' }];
  return next === null ? [problem] : [problem, ['next', next]];
}

function factFields(status: Status): readonly Field[] {
  const { node, lease, network, backend, interface: link, datapath } = status;
  const where = link ? ` on ${link.name} (${link.address}, MTU ${link.mtu})` : '';
  return [
    ['host', `node ${node.id}`],
    ['underlay', `${node.publicIp ?? '-'}${where}`],
    ['lease', lease ? leaseCell(lease, network) : (network ?? '-')],
    ['backend', backend ? backendText(backend, status.docker?.mtu) : '-'],
    ['peers', peersText(status.peers)],
    ...(status.store ? [['etcd', storeCell(status.store)] as const] : []),
    ['data plane', datapath ? datapathCell(datapath) : '-'],
    ...(datapath?.kernel ? [['engine', engineCell(datapath.kernel, status.peers.length)] as const] : []),
    ['version', status.version],
  ];
}

function leaseCell({ subnet, state, deadlineSeconds }: NonNullable<Status['lease']>, network: string | null): Cell {
  const left = deadlineSeconds === null ? 'reserved' : `${formatDuration(deadlineSeconds)} left without a sign of life`;
  const part = network === null ? '' : ` of ${network}`;
  return { text: `${subnet}${part}, ${state}, ${left}`, colour: state === 'held' ? 'good' : 'bad' };
}

function backendText({ type, port }: NonNullable<Status['backend']>, mtu: number | undefined): string {
  const packets = mtu === undefined ? '' : `, packets up to ${mtu} bytes`;
  return `${type}${port === null ? '' : `, port ${port}`}${packets}`;
}

function peersText(peers: readonly StatusPeer[]): string {
  const counts = new Map<string, number>();
  for (const { watched, state } of peers) {
    const word = state === 'live' ? watched?.state : state;
    if (word !== undefined) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const parts = [...counts].map(([word, count]) => `${count} ${word}`);
  return parts.length === 0 ? String(peers.length) : `${peers.length}: ${parts.join(', ')}`;
}

function storeCell({ answeredSeconds, endpoints, refused }: StatusStore): Cell {
  const when = answeredSeconds === null ? 'has not answered' : `answered ${formatDuration(answeredSeconds)} ago`;
  const good = endpoints.filter(({ state }) => state === 'answers').length;
  const bad = endpoints.filter(({ state }) => state === 'silent' || state === 'refused').length;
  const parts = [when, ...(bad === 0 ? [] : [`${good} of ${endpoints.length} endpoints answer`])];
  return { text: [...parts, ...(refused === null ? [] : [refused])].join(', '), colour: bad === 0 ? 'good' : 'bad' };
}

function datapathCell(datapath: StatusDatapath): Cell {
  const { engine, pid, threads, generationPublished: published, generationAdopted: adopted, respawns } = datapath;
  if (pid === null) return { text: `${engine}, no process`, colour: 'bad' };
  const table = published === adopted ? `table ${adopted}` : `table ${adopted} of ${published}`;
  return `${engine}, process ${pid}, ${threads} threads, ${table}, respawns ${respawns}`;
}

/** Which packets the kernel carries, and why not more. */
function engineCell({ wanted, state, reason, peers }: KernelEngineStatus, count: number): Cell {
  const why = reason === null ? '' : `: ${reason}`;
  if (state === 'unavailable')
    return {
      text: `user space, the kernel engine is not available${why}`,
      colour: wanted === 'kernel' ? 'bad' : 'good',
    };
  if (wanted === 'user') return `user space${state === 'on' ? ', the kernel engine only receives' : ''}${why}`;
  if (state === 'off') return `user space, --engine=${wanted} is not on yet${why}`;
  return `kernel for ${peers} of ${count} peers, user space for the others`;
}

function wideFields({ store, datapath, passes, node }: Status): readonly Field[] {
  return [
    ['boot id', node.bootId],
    ...(store?.endpoints ?? []).map(({ url, state, reason }): Field => [
      'endpoint',
      `${url} ${state}${reason === null ? '' : `: ${reason}`}`,
    ]),
    ...(typeof store?.watchSeconds === 'number'
      ? [['watch', `alive for ${formatDuration(store.watchSeconds)}`] as const]
      : []),
    ...(passes ? [['passes', passesText(passes)] as const] : []),
    ...(datapath?.handovers === undefined ? [] : [['handovers', String(datapath.handovers)] as const]),
    ...(datapath && datapath.features.length > 0 ? [['offloads', datapath.features.join(' ')] as const] : []),
  ];
}

function passesText({ total, failed, changed, lastMs }: NonNullable<Status['passes']>): string {
  const last = lastMs === null ? '' : `, the last took ${Math.round(lastMs)} ms`;
  return `${total} over the host, ${changed} changed it, ${failed} failed${last}`;
}

function counterFields(datapath: StatusDatapath | null): readonly Field[] {
  return Object.entries(datapath?.counters ?? {})
    .filter(([, count]) => count !== 0)
    .map(([name, count]) => [name, String(count)]);
}

function section(fields: readonly Field[], paint: Paint): string {
  return fields.length === 0 ? '' : `\n${formatFields(fields, paint)}`;
}
