/**
 * Data processes by pid: recognising ours, ending them by force, and finding those that can no longer be asked
 * because their socket file was lost. A process is ours when its name is and it maps memories of our run directory.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { memoryNames } from './table.js';

/** As the kernel cuts it: 15 characters (proc(5), comm). */
const processName = 'tartan-datapath';
const endLimitMs = 2000;

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function networkNamespace(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

/** A zombie has let go of its descriptors and counts as gone. */
function isAlive(pid: number): boolean {
  const stat = read(`/proc/${pid}/stat`);
  const state = stat.charAt(stat.lastIndexOf(')') + 2);
  return state !== '' && state !== 'Z' && state !== 'X';
}

function maps(pid: number, names: readonly string[]): boolean {
  const lines = read(`/proc/${pid}/maps`).split('\n');
  return lines.some(line => names.some(name => line.endsWith(` ${name} (deleted)`)));
}

/**
 * SIGKILL for a data process, and for nothing else: a pid may have been given to another program since.
 * @returns false when there was nothing to end or we may not
 */
export function killDataProcess(pid: number): boolean {
  if (read(`/proc/${pid}/comm`).trimEnd() !== processName) return false;
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESRCH' || errnoOf(error) === 'EPERM') return false;
    throw error;
  }
}

/** Living data processes of the run directory in this network namespace. */
export function findProcesses(runDir: string): readonly number[] {
  const names = memoryNames(runDir);
  const here = networkNamespace('self');
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => read(`/proc/${pid}/comm`).trimEnd() === processName)
    .filter(pid => networkNamespace(pid) === here && maps(pid, names) && isAlive(pid));
}

/**
 * Ends all of them and waits until they are gone.
 * @param kept the one that is no orphan
 */
export async function killUnreachable(runDir: string, log: Log, kept?: number): Promise<readonly number[]> {
  const killed = findProcesses(runDir).filter(pid => pid !== kept && killDataProcess(pid));
  for (const pid of killed) {
    log.warn('datapath.orphan-killed', `ended data process ${pid}, which nobody knew any more`, { pid });
  }
  for (let waitedMs = 0; waitedMs < endLimitMs && killed.some(isAlive); waitedMs += 10) await delay(10);
  return killed;
}
