/** Gives a run directory to one daemon, or one cleanup, at a time. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import { native } from '../lib/native.js';

export const lockName = 'tartand.lock';

/** The errors of opening when something that is not a plain file has the lock's name. */
const oddEntries = ['ELOOP', 'EISDIR', 'ENXIO'];

/**
 * @returns a function that releases the lock; the end of the process releases it too
 * @throws TartanError DUPLICATE_NODE when another process holds it, CONFIG_INVALID when it cannot be made
 */
export function lockRunDir(runDir: string): () => void {
  const path = join(runDir, lockName);
  const lock = openLock(path);
  if (lock === undefined) {
    throw new TartanError(
      'DUPLICATE_NODE',
      `a running tartand holds ${path}: one daemon serves a host; stop that one first`,
    );
  }
  return () => native().closeFd(lock);
}

function openLock(path: string): number | undefined {
  try {
    return native().lockFile(path);
  } catch (cause) {
    if (!oddEntries.includes(errnoOf(cause) ?? '')) {
      throw new TartanError('CONFIG_INVALID', `cannot lock ${path} (${messageOf(cause)}): choose another --run-dir`, {
        cause,
      });
    }
    // The name is ours, and no process can hold a lock on such an entry: it is removed.
    rmSync(path, { recursive: true, force: true });
    return native().lockFile(path);
  }
}
