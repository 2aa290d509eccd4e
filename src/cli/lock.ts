/** One daemon, or one cleanup, at a time has a run directory. */
import { join } from 'node:path';
import { TartanError } from '../lib/errors.js';
import { native } from '../lib/native.js';

export const lockName = 'tartand.lock';

/**
 * @returns what gives the lock back; the end of the process does too
 * @throws TartanError DUPLICATE_NODE when another process holds it
 */
export function lockRunDir(runDir: string): () => void {
  const path = join(runDir, lockName);
  const lock = native().lockFile(path);
  if (lock === undefined) {
    throw new TartanError(
      'DUPLICATE_NODE',
      `a running tartand holds ${path}: one daemon serves a host; stop that one first`,
    );
  }
  return () => native().closeFd(lock);
}
