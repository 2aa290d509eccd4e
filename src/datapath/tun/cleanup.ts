/** Removing the data plane without a running tartand: the data process, its files and with them the link. */
import { existsSync, realpathSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native } from '../../lib/native.js';
import { closeAll } from './descriptors.js';
import { killUnreachable } from './find-process.js';
import { adoptProcess } from './process.js';
import { removeSockets } from './table.js';

export interface CleanupOptions {
  readonly runDir: string;
  readonly device: string;
  readonly log: Log;
}

const linkGoneLimitMs = 2000;

/**
 * Nothing there is no error. The caller holds the lock of the run directory.
 * @returns the pids of the data processes that were ended
 * @throws TartanError DATAPATH_FAILED when one lives on
 */
export async function cleanupDatapath(options: CleanupOptions): Promise<readonly number[]> {
  // A data process outlives its directory too.
  const runDir = existsSync(options.runDir) ? realpathSync(options.runDir) : options.runDir;
  const ended: number[] = [];
  const adopted = await adoptProcess(runDir);
  if (adopted) {
    try {
      if (adopted.process) {
        ended.push(adopted.process.pid);
        await adopted.process.stop();
      }
    } finally {
      adopted.process?.release();
      closeAll([...adopted.tunFds, ...adopted.udpFds]);
    }
  }
  ended.push(...(await killUnreachable(runDir, options.log)));
  removeSockets(runDir);
  if (ended.length > 0) await linkGone(options.device);
  return ended;
}

/** A process that was ended by force lets go of the link a little later; the name is free when it can be taken. */
async function linkGone(device: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < linkGoneLimitMs; waitedMs += 10) {
    try {
      native().closeFd(native().openTun(device, true).fd);
      return;
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') return;
    }
    await delay(10);
  }
}
