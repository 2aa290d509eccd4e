/**
 * The JavaScript of both programs in a few files, without node_modules: it loads faster, and nothing that is not used is
 * shipped. The files lie two levels below the program's root, as src/cli and dist/cli do, so that the same relative paths
 * find package.json, the addon and the data process.
 */
import { dirname, join } from 'node:path';
import { readFileSync, readdirSync } from 'node:fs';
import { build } from 'esbuild';
import type { Tree } from './tree.js';

/** What CommonJS modules inside of an ES module expect. */
const prelude = [
  "import { createRequire as tartanRequire } from 'node:module';",
  "import { fileURLToPath as tartanPath } from 'node:url';",
  'const require = tartanRequire(import.meta.url);',
  "const __dirname = tartanPath(new URL('.', import.meta.url));",
].join('\n');

/** A package of npm whose code is in the bundle. */
export interface BundledModule {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  /** The text of its licence file; undefined where it has none. */
  readonly text: string | undefined;
}

/**
 * @param root the checkout
 * @param interpreter the first line of the programs, without `#!`
 * @returns the modules inside, by name
 */
export async function bundle(
  root: string,
  tree: Tree,
  into: string,
  interpreter: string,
): Promise<readonly BundledModule[]> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/tartan.ts', 'src/tartand.ts'],
    outdir: '/bundle',
    write: false,
    metafile: true,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    // jsonc-parser's other entry calls require() in a way that no bundler follows.
    mainFields: ['module', 'main'],
    // It is compiled on the host where it is wanted; without it the addon's own ICMP socket is used.
    external: ['raw-socket'],
    minifySyntax: true,
    minifyWhitespace: true,
    keepNames: true,
    legalComments: 'none',
    banner: { js: prelude },
    logLevel: 'silent',
  });
  for (const file of outputFiles) {
    const name = file.path.slice('/bundle/'.length);
    const program = name === 'tartan.js' || name === 'tartand.js';
    tree.write(join(into, name), file.text.replace(/^#!.*/, `#!${interpreter}`), program ? 0o755 : 0o644);
  }
  tree.copyAll(join(root, 'src/web/page'), join(into, 'page'));
  // etcd3 reads it when it is loaded.
  tree.copyAll(join(root, 'node_modules/etcd3/proto'), join(into, '../proto'));
  return bundledModules(root, Object.keys(metafile.inputs));
}

function bundledModules(root: string, inputs: readonly string[]): readonly BundledModule[] {
  const folders = inputs.flatMap(input => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0] ?? []);
  return [...new Set(folders)]
    .map(folder => readModule(join(root, folder)))
    .sort((a, b) => (`${a.name} ${a.version}` < `${b.name} ${b.version}` ? -1 : 1));
}

function readModule(folder: string): BundledModule {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<
    string,
    string
  >;
  const file = readdirSync(folder).find(entry => /^(licen[cs]e|copying)/i.test(entry));
  return {
    name: name ?? dirname(folder),
    version: version ?? '',
    licence: license ?? 'unknown',
    text: file === undefined ? undefined : readFileSync(join(folder, file), 'utf8').trim(),
  };
}
