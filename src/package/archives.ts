/** The tarball with `install.sh`, and the package for npm: both hold what the .deb holds, npm's for both processors. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bundle } from './bundle.js';
import { buildNative } from './native-build.js';
import { platforms, type Platform } from './platforms.js';
import { configFolders, programs, shippedPackage, type Release } from './program-tree.js';
import { emptyTree, writeTar, type Tree } from './tree.js';

/** @returns the name of the file, below `into` */
export function makeTarball(release: Release, platform: Platform, files: Tree, into: string, level: number): string {
  const { root, cache, version, epoch } = release;
  const tree = emptyTree(join(cache, 'package', platform.debian, 'tarball'));
  tree.adopt(files, '');
  tree.copy(join(root, 'config/package/install.sh'), 'install.sh', 0o755);
  const name = `tartan-${version}-linux-${platform.debian}.tar.gz`;
  pack(tree, join(into, name), epoch, name.replace(/\.tar\.gz$/, ''), level);
  return name;
}

/** @returns the name of the file, below `into` */
export async function makeNpmPackage(release: Release, into: string, level: number): Promise<string> {
  const { root, cache, version, epoch } = release;
  const tree = emptyTree(join(cache, 'package', 'npm'));
  await bundle(root, tree, 'dist/bundle', '/usr/bin/env node');
  for (const platform of platforms) buildNative(root, cache, platform, tree, join('dist', platform.node));
  for (const file of ['README.md', 'CHANGELOG.md', 'LICENSE']) tree.copy(join(root, file), file);
  for (const folder of [...Object.keys(configFolders), 'systemd', 'sysusers.d']) {
    tree.copyAll(join(root, 'config', folder), join('config', folder));
  }
  tree.copy(join(root, 'config/tartand.default'), 'config/tartand.default');
  tree.copy(join(root, 'config/etcd-role.sh'), 'config/etcd-role.sh', 0o755);
  const file = (name: string): string => `dist/bundle/${name === 'tartand' ? name : 'tartan'}.js`;
  const bin = Object.fromEntries(programs.map(({ name }) => [name, file(name)]));
  tree.write('package.json', shippedPackage(release, { bin }));
  const name = `tartan-${version}.tgz`;
  pack(tree, join(into, name), epoch, 'package', level);
  return name;
}

function pack(tree: Tree, file: string, epoch: number, below: string, level: number): void {
  const plain = `${file}.tar`;
  writeTar(tree, plain, epoch, below);
  // Not gzip(1), whose bytes differ between versions of Debian.
  writeFileSync(file, gzipSync(readFileSync(plain), { level }));
  rmSync(plain);
}
