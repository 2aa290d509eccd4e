/**
 * The files of tartan as they lie on a host, below a prefix: `lib/tartan` with the programs and all that they load, links
 * where a shell finds them, units, man pages, completions. The .deb and the tarball hold the same files.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bundle } from './bundle.js';
import { daemonDoc, toolDoc, type CommandDoc } from './command-doc.js';
import { bashCompletion, fishCompletion, zshCompletion } from './completions.js';
import { formatCopyright } from './copyright.js';
import { formatManual } from './manual.js';
import { daemonNotes, toolNotes } from './manual-notes.js';
import { buildNative } from './native-build.js';
import { addNode, nodeLicence } from './node-runtime.js';
import type { Platform } from './platforms.js';
import { emptyTree, type Tree } from './tree.js';

/** What all packages of one run have in common. */
export interface Release {
  /** The checkout. */
  readonly root: string;
  /** The directory that set-up fills. */
  readonly cache: string;
  readonly version: string;
  /** Seconds since 1970: the time of every file. */
  readonly epoch: number;
}

export interface Program {
  readonly name: string;
  readonly folder: 'bin' | 'sbin';
  readonly section: 1 | 8;
  readonly doc: () => CommandDoc;
}

/** The programs that a user calls; package.json names the same ones. */
export const programs: readonly Program[] = [
  { name: 'tartan', folder: 'bin', section: 1, doc: () => toolDoc('tartan') },
  { name: 'subnet-lease', folder: 'bin', section: 1, doc: () => toolDoc('subnet-lease') },
  { name: 'tartand', folder: 'sbin', section: 8, doc: daemonDoc },
];

/**
 * Folders of config/ and where their files lie below the prefix; the package for npm has them as they are here. Units,
 * sysusers.d and what makes the packages have places of their own.
 */
export const configFolders: Readonly<Record<string, string>> = {
  network: 'share/tartan/network',
  grafana: 'share/tartan/grafana',
  prometheus: 'share/tartan/prometheus',
  'systemd/docker.service.d': 'share/tartan/systemd/docker.service.d',
  'systemd/redhat': 'share/tartan/systemd/redhat',
  cni: 'share/tartan/cni',
  cloud: 'share/doc/tartan/examples/cloud',
  compose: 'share/doc/tartan/examples/compose',
};

/** Where the programs and what they load lie, below the prefix. */
export const home = 'lib/tartan';

/** The files for one processor, below a prefix that whoever packs them chooses; made anew. */
export async function buildPrograms(release: Release, platform: Platform): Promise<Tree> {
  const { root, cache } = release;
  const tree = emptyTree(join(cache, 'package', platform.debian, 'programs'));
  const modules = await bundle(root, tree, join(home, 'dist/bundle'), `/usr/${home}/bin/node`);
  buildNative(root, cache, platform, tree, join(home, 'dist'));
  addNode(root, cache, platform, tree, home);
  tree.write(join(home, 'package.json'), shippedPackage(release));
  tree.copy(join(root, 'LICENSE'), join(home, 'apache-2.0.txt'));
  for (const { name, folder } of programs) {
    const file = name === 'tartand' ? 'tartand.js' : 'tartan.js';
    tree.link(`../${home}/dist/bundle/${file}`, join(folder, name));
  }
  addSystemFiles(root, tree);
  addDocuments(release, tree);
  tree.write('share/doc/tartan/copyright', formatCopyright(`${home}/apache-2.0.txt`, modules));
  const licence = readFileSync(nodeLicence(cache, platform), 'utf8');
  tree.write('share/doc/tartan/node-licence.gz', compressed(licence));
  return tree;
}

/** The members of package.json that the programs read when they run, and those that npm wants. */
export function shippedPackage({ root, version }: Release, more: Readonly<Record<string, unknown>> = {}): string {
  const { name, description, license, type, engines, os } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  ) as Record<string, unknown>;
  return `${JSON.stringify({ name, version, description, license, type, engines, os, ...more }, undefined, 2)}\n`;
}

function addSystemFiles(root: string, tree: Tree): void {
  const config = (name: string): string => join(root, 'config', name);
  tree.copy(config('systemd/tartand.service'), 'lib/systemd/system/tartand.service');
  tree.copy(config('sysusers.d/tartan.conf'), 'lib/sysusers.d/tartan.conf');
  for (const [folder, place] of Object.entries(configFolders)) tree.copyAll(config(folder), place);
  tree.copy(config('tartand.default'), 'share/tartan/tartand.default');
  // Put in its place by `tartan init` alone.
  tree.copy(config('systemd/tartan-etcd.service'), 'share/tartan/systemd/tartan-etcd.service');
  tree.copy(config('etcd-role.sh'), 'share/tartan/etcd-role.sh', 0o755);
}

function addDocuments(release: Release, tree: Tree): void {
  for (const { name, section, doc } of programs) {
    const page = formatManual({
      doc: doc(),
      section,
      ...release,
      notes: name === 'tartand' ? daemonNotes() : toolNotes(),
    });
    tree.write(`share/man/man${section}/${name}.${section}.gz`, compressed(page));
    tree.write(`share/bash-completion/completions/${name}`, bashCompletion(doc()));
    tree.write(`share/zsh/vendor-completions/_${name}`, zshCompletion(doc()));
    tree.write(`share/fish/vendor_completions.d/${name}.fish`, fishCompletion(doc()));
  }
  const text = (name: string): string => readFileSync(join(release.root, name), 'utf8');
  tree.write('share/doc/tartan/CHANGELOG.md.gz', compressed(text('CHANGELOG.md')));
  tree.write('share/doc/tartan/README.md.gz', compressed(text('README.md')));
}

/** As `gzip -9n`: without a time. */
export function compressed(text: string): Uint8Array {
  return gzipSync(text, { level: 9 });
}
