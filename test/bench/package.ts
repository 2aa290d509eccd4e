/** The .deb as it is made for a release: its size, and how long its programs take beside the Node.js inside of it. */
import { mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { platforms } from '../../src/package/platforms.js';
import { openCommand } from './command-contender.js';
import { packageColumns } from './goals.js';
import { Collector, inTurn, median, type Group } from './groups.js';
import { underUnit } from './kernel-engine.js';
import { Lab } from './lab.js';
import { run, tree } from './process.js';
import type { RoundOptions } from './rounds.js';
import { countMetric, ratioMetric } from './tests.js';

/** xz takes a minute and a half of a quiet machine. */
const makeLimitMs = 210_000;
/** In each round, of each program. */
const times = 8;
const size = countMetric('package-size', 'size', 'MB', 1);
const wall = ratioMetric('package-time', 'from start to end', 'ms', 1);

type Options = Pick<RoundOptions, 'rounds' | 'say' | 'quiet' | 'before' | 'keep'>;

export async function measurePackage(options: Options): Promise<void> {
  const before = options.before('package');
  if ((before?.rounds ?? 0) >= options.rounds) return;
  const collector = new Collector(before);
  const root = join(tree, '.cache/bench/package');
  const sizes = await unpackDeb(root, options.say);
  const lab = await Lab.open('package', 'wire', 'host');
  try {
    const node = join(root, 'usr/lib/tartan/bin/node');
    await startDaemons(lab, node, join(root, 'usr/sbin/tartand'));
    const tartan = [node, join(root, 'usr/bin/tartan')];
    const programs = [
      { column: packageColumns.bare, command: [node, '-e', '0'] },
      { column: packageColumns.version, command: [...tartan, '--version'] },
      // A socket is no part of a network namespace.
      { column: packageColumns.status, command: [...tartan, 'status', '--run-dir', runDir('a')] },
    ];
    while (collector.rounds < options.rounds) {
      await options.quiet.wait();
      for (const [column, value] of sizes) collector.add(size, column, value);
      const taken = new Map(programs.map(({ column }) => [column, [] as number[]]));
      for (let turn = 0; turn < times; turn++) {
        for (const { column, command } of inTurn(programs, turn)) taken.get(column)?.push(await timeOf(command));
      }
      for (const [column, values] of taken) collector.add(wall, column, median(values));
      collector.endRound();
      options.say(
        `package round ${collector.rounds}: ${[...taken].map(([column, values]) => `${column} ${median(values).toFixed(1)} ms`).join(', ')}`,
      );
      options.keep(groupOf());
    }
  } finally {
    await lab.close();
  }

  function groupOf(): Group {
    const { bare, version, status } = packageColumns;
    const ratios = [version, status].map(column => [column, bare] as const);
    const { rounds, series } = collector;
    const title = 'The .deb of this processor, compressed as for a release, and its programs on the Node.js inside';
    return { id: 'package', title, columns: Object.values(packageColumns), rounds, ratios, series };
  }
}

const runDir = (side: string): string => `/run/package-${side}`;

/** @returns what it takes as a file and installed, in MB of a million bytes */
async function unpackDeb(root: string, say: (text: string) => void): Promise<ReadonlyMap<string, number>> {
  const deb = await releasedDeb(say);
  rmSync(root, { recursive: true, force: true });
  mkdirSync(root, { recursive: true });
  await run(['dpkg-deb', '-x', deb, root], {}, makeLimitMs);
  const kib = Number(await run(['dpkg-deb', '-f', deb, 'Installed-Size']));
  return new Map([
    [packageColumns.deb, statSync(deb).size / 1e6],
    [packageColumns.installed, (kib * 1024) / 1e6],
  ]);
}

/** That of `npm run package`; made where it is not there, or older than the build. */
async function releasedDeb(say: (text: string) => void): Promise<string> {
  const platform = platforms.find(({ node }) => node === process.arch);
  if (platform === undefined) throw new Error(`packages are made on x64 and arm64, this is ${process.arch}`);
  const { version } = JSON.parse(readFileSync(join(tree, 'package.json'), 'utf8')) as { version: string };
  const deb = join(tree, `dist/packages/tartan_${version}_${platform.debian}.deb`);
  const made = statSync(deb, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (made < statSync(join(tree, 'dist/tartand.js')).mtimeMs) {
    say('package: the .deb is made as for a release');
    await run(
      ['bash', join(tree, 'test/support/package.sh'), '--only', 'deb', '--arch', platform.debian],
      {},
      makeLimitMs,
    );
  }
  return deb;
}

async function startDaemons(lab: Lab, node: string, tartand: string): Promise<void> {
  const places = `--run-dir=${runDir('$BENCH_SIDE')} --state-dir=$BENCH_DIRECTORY/state --subnet-file=$BENCH_SUBNET_FILE`;
  const underlay = '--iface=$BENCH_INTERFACE --etcd-endpoints=$BENCH_ETCD';
  await openCommand(lab, 'package', `exec ${underUnit().join(' ')} ${node} ${tartand} ${underlay} ${places}`);
}

/** In ms. */
async function timeOf(command: readonly string[]): Promise<number> {
  const began = performance.now();
  await run(command);
  return performance.now() - began;
}
