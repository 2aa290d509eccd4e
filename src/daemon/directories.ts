/** The directories of a network on this host: lock, sockets and data process in one, saved state in the other. */
import { join } from 'node:path';
import { lockRunDir } from '../cli/lock.js';
import { messageOf, TartanError } from '../lib/errors.js';
import { makeDirectories } from '../lib/file.js';
import { defaultNetworkName } from '../model/network.js';

export interface Directories {
  readonly runDir: string;
  readonly stateDir: string;
}

/**
 * Returns the directories of a network; the default one has those of the host.
 * @param host the directories of the host; the node id stays in its state directory, for all networks
 */
export function directoriesOf(network: string, { runDir, stateDir }: Directories): Directories {
  if (network === defaultNetworkName) return { runDir, stateDir };
  const below = join('networks', network);
  return { runDir: join(runDir, below), stateDir: join(stateDir, below) };
}

/**
 * Makes the directories and locks the run directory.
 * @returns a function that releases the lock
 * @throws TartanError CONFIG_INVALID, DUPLICATE_NODE
 */
export function openDirectories({ runDir, stateDir }: Directories): () => void {
  try {
    makeDirectories(runDir, 0o755);
    makeDirectories(stateDir, 0o700);
  } catch (cause) {
    throw new TartanError('CONFIG_INVALID', `cannot make ${runDir} or ${stateDir} (${messageOf(cause)})`, { cause });
  }
  return lockRunDir(runDir);
}
