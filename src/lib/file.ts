/**
 * Files that other programs read while tartan writes them. A reader finds the old or the new content and never a part,
 * also after a power cut. rename(2) replaces the name, so a symbolic link in its place is not followed.
 */
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoOf, messageOf } from './errors.js';
import { known, unknown, type Fact } from './fact.js';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Makes the directory and those above it that are missing. Node's own `recursive` never returns where the parent is there
 * and the kernel says ENOENT all the same, as below /proc.
 * @throws Error in Node's shape (EACCES, ENOTDIR, EROFS)
 */
export function makeDirectories(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    const parent = dirname(path);
    if (errnoOf(error) !== 'ENOENT' || statSync(parent, { throwIfNoEntry: false })) throw error;
    makeDirectories(parent, mode);
    makeDirectories(path, mode);
  }
}

/**
 * @param mode the exact permission bits, independent of the umask
 * @param owner the owner of the new file, by default that of this process
 * @returns false when the file already had this content and was not written
 * @throws Error in Node's shape (ENOSPC, EROFS); the old file is unchanged then
 */
export function writeFileAtomic(path: string, content: string, mode: number, owner?: Owner): boolean {
  if (readBounded(path, Buffer.byteLength(content) + 1) === content) return false;
  const directory = dirname(path);
  makeDirectories(directory, 0o755);
  const temporary = join(directory, `.${basename(path)}.${process.pid}`);
  rmSync(temporary, { force: true });
  try {
    const fd = openSync(
      temporary,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      mode,
    );
    try {
      writeFileSync(fd, content);
      // chown(2) clears the set-user-ID bits, so the mode is set after it.
      if (owner) fchownSync(fd, owner.uid, owner.gid);
      fchmodSync(fd, mode);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncDirectory(directory);
  return true;
}

function syncDirectory(directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } catch (error) {
    // Some filesystems cannot sync a directory; the rename is done all the same.
    if (errnoOf(error) !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads a small file as text.
 * @returns undefined when it is absent, a symbolic link, unreadable or longer than `maxBytes`
 */
export function readBounded(path: string, maxBytes: number): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  try {
    const buffer = Buffer.allocUnsafe(maxBytes + 1);
    let length = 0;
    for (let count = 1; count > 0 && length <= maxBytes; length += count)
      count = readSync(fd, buffer, length, buffer.length - length, null);
    return length > maxBytes ? undefined : buffer.toString('utf8', 0, length);
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const maxTextBytes = 4 * 1024 * 1024;

/**
 * Reads a small file of the host as a fact. An absent file is a known fact, and an unreadable one gives the reason.
 * Symbolic links are followed, as the program does that owns the file.
 * @returns undefined as the value when the file is absent
 */
export function readTextFile(path: string): Fact<string | undefined> {
  let fd: number;
  try {
    // O_NONBLOCK: the open of a pipe does not wait for a writer.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return ['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '') ? known(undefined) : unknown(messageOf(error));
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return unknown(`${path} is no file`);
    if (stat.size > maxTextBytes) return unknown(`${path} has ${stat.size} bytes`);
    return known(readFileSync(fd, 'utf8'));
  } catch (error) {
    return unknown(messageOf(error));
  } finally {
    closeSync(fd);
  }
}

/** Removes a directory where nothing is in it. */
export function removeEmptyDirectory(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY'].includes(errnoOf(error) ?? '')) throw error;
  }
}
