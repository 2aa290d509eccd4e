/**
 * The files of a package on disk: written below a directory with the modes that they are to have, whatever the umask, and
 * packed so that the same files give the same bytes.
 */
import { chmodSync, copyFileSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './run.js';

export class Tree {
  /** @param root a directory of this tree's own, made when it is needed */
  constructor(readonly root: string) {
    mkdirSync(root, { recursive: true });
  }

  path(name: string): string {
    return join(this.root, name);
  }

  write(name: string, content: string | Uint8Array, mode = 0o644): void {
    writeFileSync(this.#prepare(name), content);
    chmodSync(this.path(name), mode);
  }

  copy(from: string, name: string, mode = 0o644): void {
    copyFileSync(from, this.#prepare(name));
    chmodSync(this.path(name), mode);
  }

  /** Copies a directory's files; none of them is a program. */
  copyAll(from: string, name: string): void {
    for (const entry of readdirSync(from, { recursive: true, withFileTypes: true })) {
      if (entry.isFile())
        this.copy(join(entry.parentPath, entry.name), join(name, entry.parentPath.slice(from.length), entry.name));
    }
  }

  /** Takes over another tree's files without a copy of their bytes (`cp -l`). */
  adopt(other: Tree, name: string): void {
    this.#prepare(join(name, 'x'));
    run('cp', ['-a', '-l', `${other.root}/.`, this.path(name)]);
  }

  link(target: string, name: string): void {
    symlinkSync(target, this.#prepare(name));
  }

  /** Names of all files and links, sorted. */
  names(): readonly string[] {
    const entries = readdirSync(this.root, { recursive: true, withFileTypes: true });
    return entries
      .filter(entry => !entry.isDirectory())
      .map(entry => join(entry.parentPath, entry.name).slice(this.root.length + 1))
      .sort();
  }

  #prepare(name: string): string {
    const path = this.path(name);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return path;
  }
}

/** @param folder what was there is removed */
export function emptyTree(folder: string): Tree {
  rmSync(folder, { recursive: true, force: true });
  return new Tree(folder);
}

/**
 * Writes an archive in the order of the names, of one time and one owner (tar(1)).
 *
 * @param epoch seconds, the time of all files
 * @param below the directory that the names in the archive begin with
 */
export function writeTar(tree: Tree, file: string, epoch: number, below = '.'): void {
  const fixed = ['--sort=name', '--format=gnu', '--owner=0', '--group=0', '--numeric-owner', `--mtime=@${epoch}`];
  const renamed = below === '.' ? [] : [`--transform=flags=r;s,^\\.,${below},`];
  run('tar', ['-c', '-f', file, ...fixed, ...renamed, '-C', tree.root, '.']);
}
