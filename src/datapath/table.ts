/**
 * The two files of the run directory from the TypeScript side: their names, making new ones, and the translation of
 * configuration and routes into the numbers of native/datapath/layout.h.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { TartanError, messageOf } from '../lib/errors.js';
import { native, type NativeIdentity, type NativeTable } from '../lib/native.js';
import { sortTunnelRoutes, type TunnelRoute } from '../model/plan.js';
import type { DatapathConfig } from './datapath.js';

const flagNoSourceCheck = 1;
const flagNoDestinationCheck = 2;

export function socketPath(runDir: string): string {
  return join(runDir, 'datapath.sock');
}

/** The mapped files, as they appear in /proc/<pid>/maps. */
export function tablePaths(runDir: string): readonly string[] {
  return [join(runDir, 'routes'), join(runDir, 'counters')];
}

/** Removes the files of a data process, whatever stands there under their names. */
export function removeFiles(runDir: string): void {
  for (const path of [socketPath(runDir), ...tablePaths(runDir)]) rmSync(path, { recursive: true, force: true });
}

/** @throws TartanError DATAPATH_FAILED, with room or permission as the usual cause */
export function createTable(runDir: string): NativeTable {
  try {
    removeFiles(runDir);
    return native().createTable(runDir);
  } catch (error) {
    throw new TartanError(
      'DATAPATH_FAILED',
      `cannot make the route table in ${runDir} (${messageOf(error)}): it must be a directory on a file system with 5 MB free`,
      { cause: error },
    );
  }
}

export function identityOf(config: DatapathConfig): NativeIdentity {
  return {
    network: config.network.base,
    networkLength: config.network.length,
    subnet: config.subnet.base,
    subnetLength: config.subnet.length,
    publicIp: config.publicIp,
    port: config.port,
    flags: (config.checkSource ? 0 : flagNoSourceCheck) | (config.checkDestination ? 0 : flagNoDestinationCheck),
    mtu: config.mtu,
  };
}

/** Equal in everything that must not change while a data process lives; the MTU may. */
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
 * Four numbers a route, sorted.
 * @throws RangeError naming the route that the data process could not use
 */
export function packRoutes(routes: readonly TunnelRoute[]): Uint32Array {
  const packed = new Uint32Array(routes.length * 4);
  for (const [i, route] of sortTunnelRoutes(routes).entries()) {
    packed.set([route.subnet.base, route.subnet.length, route.hop, route.port], i * 4);
  }
  native().checkRoutes(packed);
  return packed;
}

export function sameRoutes(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
