/**
 * Another version of both programs, as an upgrade meets it: a copy of the tree whose native sources differ by a comment
 * (another build) or by the layout of the shared memories (another version and another size of them). Kept below
 * native/build as long as our own sources stay the same.
 */
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../../src/lib/native.js';
import { root, run } from './tools.js';

export type Version = 'ours' | 'other build' | 'other layout';

const alterations: Readonly<Record<Exclude<Version, 'ours'>, (text: string) => string>> = {
  'other build': text => `${text}/* Another build. */\n`,
  'other layout': text =>
    text
      .replace(/(#define LAYOUT_VERSION) (\d+)u/, (_, name, number) => `${name} ${Number(number) + 1}u`)
      .replace('PEERS_MAX 65536u', 'PEERS_MAX 32768u'),
};

/** @returns the tree of a version, with its `dist` */
export async function treeOf(version: Version): Promise<string> {
  if (version === 'ours') return root;
  const kept = join(root, 'native/build', `${version.replace(' ', '-')}-${native().build}`);
  if (!existsSync(kept)) await build(kept, alterations[version]);
  // The other half is the same in every version: as it is now.
  cpSync(join(root, 'dist'), join(kept, 'dist'), {
    recursive: true,
    filter: from => !/tartan-datapath|tartan\.node/.test(from),
  });
  return kept;
}

async function build(kept: string, alter: (text: string) => string): Promise<void> {
  const tree = mkdtempSync(`${kept}.`);
  try {
    for (const part of [
      'native/addon',
      'native/bpf',
      'native/datapath',
      'native/shared',
      'native/Makefile',
      'package.json',
    ])
      cpSync(join(root, part), join(tree, part), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
    const header = join(tree, 'native/shared/layout.h');
    const text = readFileSync(header, 'utf8');
    if (alter(text) === text) throw new Error(`nothing was altered in ${header}`);
    writeFileSync(header, alter(text));
    // The maps of the kernel engine have as many peers.
    const maps = join(tree, 'native/shared/kernel-maps.h');
    writeFileSync(maps, alter(readFileSync(maps, 'utf8')));
    await run(['make', '-s', '-j2', '-C', join(tree, 'native')], { timeoutMs: 120_000 });
    renameSync(tree, kept);
  } catch (error) {
    rmSync(tree, { recursive: true, force: true });
    throw error;
  }
}
