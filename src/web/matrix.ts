/**
 * Who reaches whom, from the documents of several hosts: a row is what one host says of the others. Pure, and small: 500
 * hosts are a quarter of a million cells, each one character and one number.
 */
import type { Status, StatusPeer } from '../agent/status.js';
import { nameOf, shownStateOf, type ShownState } from './page-host.js';

/**
 * `u` up, `l` up with loss of more than 1 %, `s` silent, `w` unwatched, `?` unknown, `k` its lease vanished and it is still
 * routed, `o` another host is known there, `.` itself, ` ` not known as a peer.
 */
const cellOf: Readonly<Record<ShownState, string>> = {
  up: 'u',
  silent: 's',
  unwatched: 'w',
  unknown: '?',
  'held-down': 'k',
  forgotten: 'k',
  remembered: 'k',
};

/** What is kept of a document, which may have a quarter of a megabyte. */
export interface HostRow {
  readonly name: string;
  readonly subnet: string | null;
  readonly nodeId: string;
  readonly publicIp: string | null;
  readonly summary: string | null;
  readonly good: boolean;
  readonly problems: number;
  readonly peers: ReadonlyMap<string, PeerCell>;
}

interface PeerCell {
  readonly nodeId: string | null;
  readonly name: string | null;
  readonly publicIp: string;
  readonly cell: string;
  /** Tenths of a millisecond. */
  readonly roundTrip: number;
  readonly reason: string | null;
}

/** Where a row comes from, and what became of reading it. */
export interface HostSource {
  /** A file or an address. */
  readonly source: string;
  readonly row: HostRow | undefined;
  readonly ageSeconds: number | null;
  readonly failure: string | null;
}

export interface Matrix {
  /** Names of the columns; the first `rows.length` are those of the rows, in their order. */
  readonly columns: readonly string[];
  readonly rows: readonly MatrixRow[];
  /** Texts that rows name by their place. */
  readonly reasons: readonly string[];
}

export interface MatrixRow {
  readonly name: string;
  readonly source: string;
  readonly summary: string | null;
  readonly good: boolean;
  readonly problems: number;
  readonly ageSeconds: number | null;
  readonly failure: string | null;
  /** One character for each column; '' without a document. */
  readonly cells: string;
  /** Tenths of a millisecond for each column; -1 where there is none. */
  readonly roundTrips: readonly number[];
  /** Why cells are as they are: [column, place in `reasons`], the first ones. */
  readonly why: readonly (readonly [number, number])[];
}

export function hostRowOf(status: Status): HostRow {
  const { node, lease, summary, ready, health, problems, peers } = status;
  return {
    name: nameOf(status),
    subnet: lease?.subnet ?? null,
    nodeId: node.id,
    publicIp: node.publicIp,
    summary,
    good: ready && health?.state !== 'impaired',
    problems: problems.length,
    peers: new Map(peers.map(peer => [peer.subnet, cellOfPeer(peer)])),
  };
}

function cellOfPeer(peer: StatusPeer): PeerCell {
  const { watched } = peer;
  const state = shownStateOf(peer);
  return {
    nodeId: peer.nodeId,
    name: peer.hostName,
    publicIp: peer.publicIp,
    cell: state === 'up' && (watched?.loss ?? 0) > 0.01 ? 'l' : cellOf[state],
    roundTrip: watched?.roundTripMs ? Math.round(watched.roundTripMs.p50 * 10) : -1,
    reason: watched?.reason ?? null,
  };
}

interface Column {
  readonly name: string;
  readonly subnet: string | null;
  readonly nodeId: string | null;
}

/** A row says why for so many cells: a host that reaches nobody has one cause. */
const reasonsOfRow = 20;

export function matrixOf(sources: readonly HostSource[]): Matrix {
  const names = hostNamesIn(sources);
  const columns = [...sources.map(source => columnOfSource(source, names)), ...columnsWithoutRow(sources)];
  const reasons = new Map<string, number>();
  const rows = sources.map((source, own): MatrixRow => {
    const { row, failure, ageSeconds } = source;
    const cells = row ? columns.map((column, at) => cellAt(row, column, at === own)) : [];
    const told = cells.flatMap(({ reason }, at) => (reason === null ? [] : [[at, reason] as const]));
    return {
      name: columns[own]?.name ?? '',
      source: source.source,
      summary: row?.summary ?? null,
      good: row?.good ?? false,
      problems: row?.problems ?? 0,
      ageSeconds,
      failure,
      cells: cells.map(({ cell }) => cell).join(''),
      roundTrips: cells.map(({ roundTrip }) => roundTrip),
      why: told.slice(0, reasonsOfRow).map(([at, reason]) => [at, placeOf(reason, reasons)]),
    };
  });
  return { columns: columns.map(({ name }) => name), rows, reasons: [...reasons.keys()] };
}

/** A host is called by the name that its lease gives it, which stands in the documents of the others. */
function columnOfSource({ row, source }: HostSource, names: ReadonlyMap<string, string>): Column {
  if (!row) return { name: source, subnet: null, nodeId: null };
  const { subnet, nodeId } = row;
  const name = subnet === null ? undefined : names.get(subnet);
  return { name: name === undefined ? row.name : `${name}, ${subnet}`, subnet, nodeId };
}

/** Host names by subnet. */
function hostNamesIn(sources: readonly HostSource[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { row } of sources)
    for (const [subnet, { name }] of row?.peers ?? []) if (name !== null) names.set(subnet, name);
  return names;
}

/** Those whom the hosts know and who have no document here. */
function columnsWithoutRow(sources: readonly HostSource[]): readonly Column[] {
  const shown = new Set(sources.map(({ row }) => row?.subnet));
  const found = new Map<string, Column>();
  for (const { row } of sources)
    for (const [subnet, { publicIp, name, nodeId }] of row?.peers ?? [])
      if (!shown.has(subnet) && !found.has(subnet))
        found.set(subnet, { name: `${name ?? publicIp}, ${subnet}`, subnet, nodeId });
  return [...found.values()];
}

type Cell = Pick<PeerCell, 'cell' | 'roundTrip' | 'reason'>;

const itself: Cell = { cell: '.', roundTrip: -1, reason: null };
const notKnown: Cell = { cell: ' ', roundTrip: -1, reason: null };

function cellAt(row: HostRow, { subnet, nodeId }: Column, own: boolean): Cell {
  if (own) return itself;
  const peer = subnet === null ? undefined : row.peers.get(subnet);
  if (!peer) return notKnown;
  const other = peer.nodeId !== null && nodeId !== null && peer.nodeId !== nodeId;
  return other ? { cell: 'o', roundTrip: -1, reason: `node ${peer.nodeId} is known there` } : peer;
}

function placeOf(reason: string, reasons: Map<string, number>): number {
  const place = reasons.get(reason) ?? reasons.size;
  reasons.set(reason, place);
  return place;
}
