/**
 * The file that says what this host receives by the kernel, and which peers' packets it sends there, so that the next daemon
 * changes no pair's engine. A file that cannot be read is none: pairs go by user space until a question is answered.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { readBounded, writeFileAtomic } from '../../lib/file.js';

/** Of each identity, bytes of the longest outer packet by the MTU of the route; 0: not known. */
export type KernelPairs = ReadonlyMap<string, number>;

export interface SavedPairs {
  readonly vni: number;
  readonly pairs: KernelPairs;
}

const bytesMax = 16 * 1024 * 1024;

function pathIn(runDir: string): string {
  return join(runDir, 'kernel-pairs.json');
}

/** @throws an errno error when the directory cannot be written to */
export function writePairs(runDir: string, { vni, pairs }: SavedPairs): void {
  writeFileAtomic(pathIn(runDir), JSON.stringify({ version: 1, vni, pairs: [...pairs] }), 0o600);
}

export function readPairs(runDir: string): SavedPairs | undefined {
  try {
    const read: unknown = JSON.parse(readBounded(pathIn(runDir), bytesMax) ?? 'null');
    if (typeof read !== 'object' || read === null || !('version' in read) || read.version !== 1) return undefined;
    if (!('vni' in read && 'pairs' in read) || typeof read.vni !== 'number' || !Array.isArray(read.pairs))
      return undefined;
    return { vni: read.vni, pairs: new Map(read.pairs.filter(isEntry)) };
  } catch {
    return undefined;
  }
}

export function removePairs(runDir: string): void {
  rmSync(pathIn(runDir), { force: true });
}

function isEntry(value: unknown): value is [string, number] {
  return Array.isArray(value) && typeof value[0] === 'string' && Number.isInteger(value[1]) && value[1] >= 0;
}
