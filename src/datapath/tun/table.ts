/**
 * What tartand shares with a data process: the names of sockets and memories, and the configuration and the peers as
 * the numbers of layout.h.
 */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TartanError, messageOf } from '../../lib/errors.js';
import {
  native,
  peerRowLength,
  routeRowLength,
  type NativeIdentity,
  type NativeLimits,
  type NativeRows,
  type NativeTable,
} from '../../lib/native.js';
import { addressWords, comparePrefixes, familyOf, ipv4Number, type AnyPrefix } from '../../model/ip.js';
import { peerEngineKernel, type TunnelPeer } from '../../model/plan.js';
import type { DatapathConfig } from '../datapath.js';
import { identityWords, type IdentityHash } from './peer-numbers.js';

/** The socket of the data process that forwards. */
export function socketPath(runDir: string): string {
  return join(runDir, 'datapath.sock');
}

/** The socket of the next data process, until it has taken over. */
export function nextSocketPath(runDir: string): string {
  return join(runDir, 'datapath.next');
}

/** Gives the socket of the next data process its final name; whatever has that name is removed. */
export function promoteSocket(runDir: string): void {
  rmSync(socketPath(runDir), { recursive: true, force: true });
  renameSync(nextSocketPath(runDir), socketPath(runDir));
}

/** The names of the shared memories of a run directory's data processes, as /proc/<pid>/maps shows them. */
export function memoryNames(runDir: string): readonly string[] {
  return ['routes', 'counters'].map(memory => `/memfd:${memory}:${runDir}`);
}

/** Removes whatever has the names of the two sockets. */
export function removeSockets(runDir: string): void {
  rmSync(socketPath(runDir), { recursive: true, force: true });
  removeNextSocket(runDir);
}

export function removeNextSocket(runDir: string): void {
  rmSync(nextSocketPath(runDir), { recursive: true, force: true });
}

/** @throws TartanError DATAPATH_FAILED */
export function createTable(runDir: string): NativeTable {
  try {
    return native().createTable(runDir);
  } catch (error) {
    throw new TartanError(
      'DATAPATH_FAILED',
      `cannot make the route table (${messageOf(error)}): free some memory, or allow more descriptors`,
      { cause: error },
    );
  }
}

type FlagBits = Pick<NativeLimits, 'flagNoSourceCheck' | 'flagNoDestinationCheck'>;

export function identityOf(config: DatapathConfig, bits: FlagBits = native().limits): NativeIdentity {
  return {
    network: ipv4Number(config.network.base),
    networkLength: config.network.length,
    subnet: ipv4Number(config.subnet.base),
    subnetLength: config.subnet.length,
    publicIp: ipv4Number(config.publicIp),
    port: config.port,
    flags:
      (config.checkSource ? 0 : bits.flagNoSourceCheck) | (config.checkDestination ? 0 : bits.flagNoDestinationCheck),
    mtu: config.mtu,
  };
}

/** What an engine of tartan adds to a packet at most: an outer IPv4 header, UDP and VXLAN-GPE. */
const overheadMax = 36;

/** Writes both MTUs. With that of the tunnel a paused data process begins to read. */
export function setMtus(table: NativeTable, { mtu, underlayMtu = mtu + overheadMax }: DatapathConfig): void {
  table.setUnderlayMtu(underlayMtu);
  table.setMtu(mtu);
}

/** Compares everything that must not change while a data process runs. The MTU may change. */
export function sameIdentity(a: NativeIdentity, b: NativeIdentity): boolean {
  return (
    a.network === b.network &&
    a.networkLength === b.networkLength &&
    a.subnet === b.subnet &&
    a.subnetLength === b.subnetLength &&
    a.publicIp === b.publicIp &&
    a.port === b.port &&
    a.flags === b.flags
  );
}

/** A peer with the number under which it stands in the table. */
export interface NumberedPeer {
  readonly peer: TunnelPeer;
  readonly hash: IdentityHash;
  readonly number: number;
}

/** Returns the rows of a table of these peers, as NativeRows tells their form. */
export function packTable(numbered: readonly NumberedPeer[]): NativeRows {
  const length = numbered.reduce((most, { number }) => Math.max(most, number + 1), 0);
  const peers = new Uint32Array(length * peerRowLength);
  for (const { peer, hash, number } of numbered) peers.set(rowOf(peer, hash), number * peerRowLength);
  return { peers, routes: packRoutes(numbered) };
}

function packRoutes(numbered: readonly NumberedPeer[]): Uint32Array {
  const sorted = routesOf(numbered);
  const routes = new Uint32Array(sorted.length * routeRowLength);
  for (const [i, route] of sorted.entries()) writeRoute(routes, i * routeRowLength, route);
  return routes;
}

interface NumberedRoute {
  readonly prefix: AnyPrefix;
  readonly number: number;
}

/** In the order of a table. */
function routesOf(numbered: readonly NumberedPeer[]): readonly NumberedRoute[] {
  return numbered
    .flatMap(({ peer, number }) => peer.prefixes.map(prefix => ({ prefix, number })))
    .sort((a, b) => comparePrefixes(a.prefix, b.prefix));
}

function writeRoute(routes: Uint32Array, at: number, { prefix, number }: NumberedRoute): void {
  routes.set(addressWords(prefix.base), at);
  routes[at + 4] = prefix.length;
  routes[at + 5] = familyOf(prefix.base);
  routes[at + 6] = number;
}

/** Returns the routes with those of some peers in between. */
function insertRoutes(routes: Uint32Array, added: readonly NumberedPeer[]): Uint32Array {
  const comers = routesOf(added);
  const all = new Uint32Array(routes.length + comers.length * routeRowLength);
  let [from, to] = [0, 0];
  for (const route of comers) {
    const end = placeOf(routes, from, route.prefix);
    all.set(routes.subarray(from, end), to);
    to += end - from;
    from = end;
    writeRoute(all, to, route);
    to += routeRowLength;
  }
  all.set(routes.subarray(from), to);
  return all;
}

/** @returns the place of the first route from there on that is behind the prefix */
function placeOf(routes: Uint32Array, from: number, prefix: AnyPrefix): number {
  let [low, high] = [from / routeRowLength, routes.length / routeRowLength];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(routes.subarray(middle * routeRowLength), prefix)) low = middle + 1;
    else high = middle;
  }
  return low * routeRowLength;
}

/** As comparePrefixes orders them. */
function isBefore(row: Uint32Array, { base, length }: AnyPrefix): boolean {
  const order = [familyOf(base), ...addressWords(base), length];
  const words = [row[5] ?? 0, ...row.subarray(0, 5)];
  const at = words.findIndex((word, i) => word !== order[i]);
  return at >= 0 && (words[at] ?? 0) < (order[at] ?? 0);
}

/**
 * Returns the rows with those of some peers written anew.
 * @param added those of them that were not there before
 */
export function alterRows(
  rows: NativeRows,
  altered: readonly NumberedPeer[],
  added: readonly NumberedPeer[],
): NativeRows {
  const length = altered.reduce((most, { number }) => Math.max(most, (number + 1) * peerRowLength), rows.peers.length);
  const peers = new Uint32Array(length);
  peers.set(rows.peers);
  for (const { peer, hash, number } of altered) peers.set(rowOf(peer, hash), number * peerRowLength);
  return { peers, routes: added.length > 0 ? insertRoutes(rows.routes, added) : rows.routes };
}

/** The rows of peers that were packed before: of many peers few are new. */
const packed = new WeakMap<TunnelPeer, Uint32Array>();

function rowOf(peer: TunnelPeer, hash: IdentityHash): Uint32Array {
  const row = packed.get(peer) ?? Uint32Array.from(peerRow(peer, hash));
  packed.set(peer, row);
  return row;
}

function peerRow({ endpoint, port, features, kernel }: TunnelPeer, hash: IdentityHash): readonly number[] {
  const engine = kernel ? peerEngineKernel : 0;
  return [...identityWords(hash), 0, 0, 0, 0, ipv4Number(endpoint), port, 0, features, 0, engine, 0, 0, 0, 0];
}

export function sameRows(a: NativeRows, b: NativeRows): boolean {
  return sameNumbers(a.peers, b.peers) && sameNumbers(a.routes, b.routes);
}

function sameNumbers(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint32Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
