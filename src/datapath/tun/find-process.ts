/**
 * Data processes by pid: how to recognise them, kill them, and find those that are unreachable because their socket
 * file was lost. A data process of a run directory has the name of the program and maps memories of that directory.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { memoryNames } from './table.js';

/** The kernel keeps 15 characters of a name (proc(5), comm). */
export const processName = 'tartan-datapath';
const killTimeoutMs = 2000;

/** Returns the text of a file; empty when it cannot be read, as of a process that has ended. */
export function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** The numbers of all processes. */
export function listPids(): readonly string[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name));
}

function isNamedDatapath(pid: number): boolean {
  return readOrEmpty(`/proc/${pid}/comm`).trimEnd() === processName;
}

function networkNamespace(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

/** A zombie has no descriptors any more and counts as dead. */
function isAlive(pid: number): boolean {
  const stat = readOrEmpty(`/proc/${pid}/stat`);
  const state = stat.charAt(stat.lastIndexOf(')') + 2);
  return state !== '' && state !== 'Z' && state !== 'X';
}

function mapsMemory(pid: number, names: readonly string[]): boolean {
  const lines = readOrEmpty(`/proc/${pid}/maps`).split('\n');
  return lines.some(line => names.some(name => line.endsWith(` ${name} (deleted)`)));
}

/**
 * Kills a data process (SIGKILL), and no other program: the kernel may have reused the pid.
 * @returns false when the pid is no data process any more, or when this process may not kill it
 */
export function killDataProcess(pid: number): boolean {
  if (!isNamedDatapath(pid)) return false;
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESRCH' || errnoOf(error) === 'EPERM') return false;
    throw error;
  }
}

/** Returns the data processes of the run directory that are alive in this network namespace. */
export function findProcesses(runDir: string): readonly number[] {
  const names = memoryNames(runDir);
  const here = networkNamespace('self');
  return listPids()
    .map(Number)
    .filter(isNamedDatapath)
    .filter(pid => networkNamespace(pid) === here && mapsMemory(pid, names) && isAlive(pid));
}

/**
 * Kills the data processes of the run directory that no daemon can reach, and waits until they are dead.
 * @param kept the pid of the process that this daemon has adopted
 * @returns the pids of the killed processes
 */
export async function killUnreachable(runDir: string, log: Log, kept?: number): Promise<readonly number[]> {
  const killed = findProcesses(runDir).filter(pid => pid !== kept && killDataProcess(pid));
  for (const pid of killed) {
    log.info('datapath.orphan-killed', `ended data process ${pid}, which nobody knew any more`, { pid });
  }
  for (let waitedMs = 0; waitedMs < killTimeoutMs && killed.some(isAlive); waitedMs += 10) await delay(10);
  return killed;
}
