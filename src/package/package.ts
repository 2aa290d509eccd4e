/**
 * `npm run package`: makes the packages of a release from a checkout, without root and without the network; what is needed
 * from outside was fetched by set-up before. The same commit gives the same bytes.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { makeNpmPackage, makeTarball } from './archives.js';
import { makeDeb } from './deb.js';
import { makeImage } from './image.js';
import { platforms } from './platforms.js';
import { buildPrograms, type Release } from './program-tree.js';
import { run } from './run.js';

const kinds = ['deb', 'tarball', 'npm', 'image'] as const;
type Kind = (typeof kinds)[number];

interface Wishes {
  readonly release: Release;
  readonly into: string;
  readonly fast: boolean;
  readonly kinds: readonly Kind[];
  readonly processors: readonly string[];
}

const usage = `Usage: npm run package -- [--out DIR] [--only ${kinds.join(',')}] [--arch ${platforms.map(p => p.debian).join(',')}] [--version VERSION] [--fast]
Makes the packages of this checkout in DIR (dist/packages), and a file SHA256SUMS. --fast compresses little.
`;

function readWishes(args: string[]): Wishes {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    args,
    options: { out: text, only: text, arch: text, version: text, fast: { type: 'boolean' } },
  });
  const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  return {
    release: { root, cache: join(root, '.cache'), version: values.version ?? version, epoch: commitTime(root) },
    into: resolve(values.out ?? join(root, 'dist/packages')),
    fast: values.fast === true,
    kinds: listOf(values.only, kinds, '--only'),
    processors: listOf(
      values.arch,
      platforms.map(({ debian }) => debian),
      '--arch',
    ),
  };
}

function listOf<T extends string>(text: string | undefined, known: readonly T[], option: string): readonly T[] {
  if (text === undefined) return known;
  return text.split(',').map(word => {
    const found = known.find(name => name === word);
    if (found === undefined)
      throw new Error(`${option} has ${JSON.stringify(word)}, expected some of ${known.join(',')}`);
    return found;
  });
}

/** SOURCE_DATE_EPOCH (reproducible-builds.org), else the time of the commit, in seconds since 1970. */
function commitTime(root: string): number {
  const given = process.env['SOURCE_DATE_EPOCH'];
  const text = given ?? run('git', ['-C', root, 'log', '-1', '--format=%ct']);
  if (!/^\d+\s*$/.test(text))
    throw new Error(`SOURCE_DATE_EPOCH is ${JSON.stringify(text)}, expected seconds since 1970`);
  return Number(text);
}

async function makePackages({ release, into, fast, kinds: wanted, processors }: Wishes): Promise<readonly string[]> {
  const made: string[] = [];
  const chosen = platforms.filter(({ debian }) => processors.includes(debian));
  const level = fast ? 1 : 9;
  for (const platform of chosen) {
    if (wanted.every(kind => kind === 'npm')) continue;
    const programs = await buildPrograms(release, platform);
    if (wanted.includes('deb')) made.push(makeDeb(release, platform, programs, into, fast));
    if (wanted.includes('tarball')) made.push(makeTarball(release, platform, programs, into, level));
    if (wanted.includes('image')) made.push(makeImage(release, platform, programs, into, level));
  }
  if (wanted.includes('npm')) made.push(await makeNpmPackage(release, into, level));
  return made;
}

process.umask(0o022);
const args = process.argv.slice(2);
if (args.includes('--help')) {
  process.stdout.write(usage);
} else {
  const wishes = readWishes(args);
  mkdirSync(wishes.into, { recursive: true });
  const made = await makePackages(wishes);
  const sums = made.map(
    name =>
      `${createHash('sha256')
        .update(readFileSync(join(wishes.into, name)))
        .digest('hex')}  ${name}\n`,
  );
  writeFileSync(join(wishes.into, 'SHA256SUMS'), sums.join(''));
  process.stdout.write(sums.join(''));
}
