/**
 * What tartand shares with a data process: the names of sockets and memories, and the configuration and the routes as
 * the numbers of layout.h.
 */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TartanError, messageOf } from '../../lib/errors.js';
import { native, type NativeIdentity, type NativeLimits, type NativeTable } from '../../lib/native.js';
import { comparePrefixes } from '../../model/ipv4.js';
import type { TunnelPeer } from '../../model/plan.js';
import type { DatapathConfig } from '../datapath.js';

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
      `cannot make the route table (${messageOf(error)}): 5 MB of memory and a few descriptors are needed`,
      { cause: error },
    );
  }
}

type FlagBits = Pick<NativeLimits, 'flagNoSourceCheck' | 'flagNoDestinationCheck'>;

export function identityOf(config: DatapathConfig, bits: FlagBits = native().limits): NativeIdentity {
  return {
    network: config.network.base,
    networkLength: config.network.length,
    subnet: config.subnet.base,
    subnetLength: config.subnet.length,
    publicIp: config.publicIp,
    port: config.port,
    flags:
      (config.checkSource ? 0 : bits.flagNoSourceCheck) | (config.checkDestination ? 0 : bits.flagNoDestinationCheck),
    mtu: config.mtu,
  };
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

/**
 * Returns the routes to the peers, sorted, with four numbers for each.
 * @throws RangeError that names the route that a data process could not use
 */
export function packRoutes(peers: readonly TunnelPeer[]): Uint32Array {
  const routes = peers
    .flatMap(({ prefixes, endpoint, port }) => prefixes.map(prefix => ({ prefix, endpoint, port })))
    .sort((a, b) => comparePrefixes(a.prefix, b.prefix));
  const packed = new Uint32Array(routes.length * 4);
  for (const [i, { prefix, endpoint, port }] of routes.entries()) {
    packed.set([prefix.base, prefix.length, endpoint, port], i * 4);
  }
  native().checkRoutes(packed);
  return packed;
}

export function sameRoutes(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
