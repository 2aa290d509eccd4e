/** What a child process gets of our environment, which may hold the password of etcd: where programs are, and no more. */
import { delimiter, join } from 'node:path';
import { isExecutable } from './file.js';

/** Folders that are not in the PATH of every service. */
const systemFolders = ['/usr/local/sbin', '/usr/sbin', '/usr/bin', '/sbin'];

export function childEnvironment(): { readonly PATH: string; readonly LC_ALL: string } {
  return { PATH: [process.env['PATH'] ?? '', ...systemFolders].join(delimiter), LC_ALL: 'C' };
}

/** @returns the path that a child would be started by; undefined when there is no such program */
export function findProgram(name: string): string | undefined {
  if (name.includes('/')) return isExecutable(name) ? name : undefined;
  const folders = childEnvironment().PATH.split(delimiter);
  return folders.map(folder => join(folder, name)).find(isExecutable);
}
