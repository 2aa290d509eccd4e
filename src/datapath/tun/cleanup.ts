/** Removes the data plane when no tartand runs: the data process, its sockets, the devices of the kernel engine, the link. */
import { existsSync, realpathSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native } from '../../lib/native.js';
import { removeKernelDevices } from '../kernel/kernel-devices.js';
import { removePairs } from '../kernel/pairs-file.js';
import { closeAll, linkGoneTimeoutMs } from './descriptors.js';
import { killUnreachable } from './find-process.js';
import { adoptProcess } from './process.js';
import { removeSockets } from './table.js';

export interface CleanupOptions {
  readonly runDir: string;
  readonly device: string;
  readonly log: Log;
}

/**
 * The caller holds the lock of the run directory. It is no error when there is nothing to remove.
 * @returns the pids of the data processes that were ended
 * @throws TartanError DATAPATH_FAILED when one does not end
 */
export async function cleanupDatapath(options: CleanupOptions): Promise<readonly number[]> {
  // A data process can run although its directory was removed.
  const runDir = existsSync(options.runDir) ? realpathSync(options.runDir) : options.runDir;
  const ended: number[] = [];
  const adopted = await adoptProcess(runDir, options.log);
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
  removePairs(runDir);
  removeKernelDevices(options.device);
  if (ended.length > 0) await waitForLinkGone(options.device);
  return ended;
}

/** Waits until the name of the link is free. The kernel removes the link of a killed process a little later. */
async function waitForLinkGone(device: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < linkGoneTimeoutMs; waitedMs += 10) {
    try {
      native().closeFd(native().openTun(device, true).fd);
      return;
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') return;
    }
    await delay(10);
  }
}
