/** What the page shows of one host: a pure function of its Status. Texts of peers stay as they are: the page escapes them. */
import { noteCounters } from '../admin/counter-metrics.js';
import type { Status, StatusPeer } from '../agent/status.js';

export interface PageHost {
  readonly name: string;
  /** The truth in one line. */
  readonly summary: string;
  readonly good: boolean;
  readonly problems: readonly { readonly place: string | null; readonly text: string }[];
  readonly facts: readonly (readonly [name: string, text: string])[];
  /** Those with a trouble first, then in the order of the document. */
  readonly peers: readonly PeerRow[];
  readonly drops: readonly DropRow[];
  readonly refused: readonly { readonly key: string; readonly reason: string }[];
}

/** As few bytes as a host with 5,000 peers needs; null: not known. */
export interface PeerRow {
  readonly subnet: string;
  readonly name: string | null;
  readonly address: string;
  readonly backend: string | null;
  /** By which its packets go. */
  readonly engine: string | null;
  readonly state: ShownState;
  /** Seconds in this state. */
  readonly since: number | null;
  /** Milliseconds. */
  readonly p50: number | null;
  readonly p99: number | null;
  /** 0 to 1. */
  readonly loss: number | null;
  /** Bytes, each way. */
  readonly mtuOut: number | null;
  readonly mtuIn: number | null;
  /** Bits a second. */
  readonly out: number | null;
  readonly in: number | null;
  readonly reason: string | null;
}

/** The state that was measured; where nothing was, what the lease says of the peer. */
export type ShownState = NonNullable<StatusPeer['watched']>['state'] | Exclude<StatusPeer['state'], 'live'>;

export interface DropRow {
  readonly direction: 'in' | 'out' | null;
  readonly reason: string;
  readonly packets: number;
}

export function pageHostOf(status: Status): PageHost {
  const { peers, rejected, health } = status;
  const rows = peers.map(peerRowOf);
  return {
    name: nameOf(status),
    summary: status.summary ?? `${status.phase}, ${peers.length} peers`,
    good: status.ready && health?.state !== 'impaired',
    problems: problemsOf(status),
    facts: factsOf(status),
    peers: [...rows.filter(isTroubled), ...rows.filter(row => !isTroubled(row))],
    drops: dropsOf(status.datapath?.counters ?? {}),
    refused: rejected,
  };
}

/** A host has no name of its own in its document. */
export function nameOf({ node, lease }: Pick<Status, 'node' | 'lease'>): string {
  return [node.publicIp ?? node.id, ...(lease ? [lease.subnet] : [])].join(', ');
}

export function shownStateOf({ state, watched }: StatusPeer): ShownState {
  if (state !== 'live' && watched?.state !== 'silent') return state;
  return watched?.state ?? 'unknown';
}

function peerRowOf(peer: StatusPeer): PeerRow {
  const { watched, state, secondsLeft } = peer;
  const kept = state === 'live' || secondsLeft === null ? null : `routed ${Math.round(secondsLeft)} s longer`;
  const engine = watched?.engineReason ? `by user space: ${watched.engineReason}` : null;
  const reason = [watched?.reason, watched?.nextStep, kept, engine].filter(text => text).join('; ');
  const seen = watched?.addressSeen ?? null;
  return {
    subnet: peer.subnet,
    name: peer.hostName ?? peer.nodeId,
    address: seen === null ? peer.publicIp : `${peer.publicIp}, seen from ${seen}`,
    backend: peer.backend,
    engine: watched?.engine ?? null,
    state: shownStateOf(peer),
    since: watched?.stateSeconds ?? null,
    p50: watched?.roundTripMs?.p50 ?? null,
    p99: watched?.roundTripMs?.p99 ?? null,
    loss: watched?.loss ?? null,
    mtuOut: watched?.pathMtu.out ?? null,
    mtuIn: watched?.pathMtu.in ?? null,
    out: watched?.sentBitsPerSecond ?? null,
    in: watched?.receivedBitsPerSecond ?? null,
    reason: reason === '' ? null : reason,
  };
}

function isTroubled({ state, loss }: PeerRow): boolean {
  return !['up', 'unknown', 'unwatched'].includes(state) || (loss ?? 0) > 0.01;
}

function problemsOf({ placedProblems, problems, datapath }: Status): PageHost['problems'] {
  const placed = new Set(placedProblems.map(({ text }) => text));
  const rest = [...problems, ...(datapath?.warnings ?? [])].filter(text => !placed.has(text));
  return [...placedProblems, ...rest.map(text => ({ place: null, text }))];
}

function factsOf(status: Status): PageHost['facts'] {
  const { node, lease, network, backend, interface: underlay, docker, datapath, store, version } = status;
  const facts: readonly (readonly [string, string | null | undefined])[] = [
    ['state', status.phase],
    ['health', status.health?.state],
    ['lease', lease && leaseText(lease)],
    ['network', network],
    ['public address', node.publicIp],
    ['interface', underlay && `${underlay.name}, ${underlay.address}, MTU ${underlay.mtu}`],
    ['backend', backend && [backend.type, ...(backend.port === null ? [] : [`port ${backend.port}`])].join(', ')],
    ['data plane', datapath && datapathText(datapath)],
    ['engine', datapath?.kernel && engineText(datapath.kernel)],
    ['Docker', docker && `${docker.bip}, MTU ${docker.mtu}`],
    ['etcd', store && storeText(store)],
    ['node', node.id],
    ['version', version],
  ];
  return facts.flatMap(([name, text]) => (text ? [[name, text] as const] : []));
}

function leaseText({ subnet, state, deadlineSeconds }: NonNullable<Status['lease']>): string {
  const left = deadlineSeconds === null ? 'reserved' : `${Math.round(deadlineSeconds)} s left without a sign of life`;
  return `${subnet}, ${state}, ${left}`;
}

function datapathText({ engine, pid, threads, respawns }: NonNullable<Status['datapath']>): string {
  return `${engine}, ${pid === null ? 'no process' : `process ${pid}, ${threads} threads`}, respawns ${respawns}`;
}

function engineText({ wanted, state, reason, peers }: NonNullable<NonNullable<Status['datapath']>['kernel']>): string {
  const why = reason === null ? '' : `, ${reason}`;
  if (wanted === 'user' || state !== 'on') return `user space, kernel ${state}${why}`;
  return `kernel for ${peers} peers`;
}

function storeText({ answeredSeconds, refused, endpoints }: NonNullable<Status['store']>): string {
  const answering = endpoints.filter(({ state }) => state === 'answers').length;
  const answered = answeredSeconds === null ? 'has not answered yet' : `answered ${Math.round(answeredSeconds)} s ago`;
  return [`${answered}, ${answering} of ${endpoints.length} endpoints`, ...(refused === null ? [] : [refused])].join(
    ', ',
  );
}

/** The most first. */
function dropsOf(counters: Readonly<Record<string, number>>): readonly DropRow[] {
  const rows = Object.entries(counters).flatMap(([name, packets]): readonly DropRow[] => {
    const [, direction, reason = name] = /^([rt]x)_(.+)$/.exec(name) ?? [];
    if (packets === 0 || reason === 'ok' || reason === 'bytes' || noteCounters.has(name)) return [];
    return direction === undefined ? [] : [{ direction: direction === 'rx' ? 'in' : 'out', reason, packets }];
  });
  return rows.sort((a, b) => b.packets - a.packets);
}
