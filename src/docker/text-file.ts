/** Small files of the host, as facts: absent is an answer, unreadable says why. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { known, unknown, type Fact } from './fact.js';
import { errnoOf, messageOf } from '../lib/errors.js';

const maxBytes = 4 * 1024 * 1024;

/** Links are followed, as the program does whose file it is. @returns undefined when there is none */
export function readTextFile(path: string): Fact<string | undefined> {
  let fd: number;
  try {
    // Not waiting for a writer should it be a pipe.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return ['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '') ? known(undefined) : unknown(messageOf(error));
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return unknown(`${path} is no file`);
    if (stat.size > maxBytes) return unknown(`${path} has ${stat.size} bytes`);
    return known(readFileSync(fd, 'utf8'));
  } catch (error) {
    return unknown(messageOf(error));
  } finally {
    closeSync(fd);
  }
}
