/**
 * `npm run bench`: our data plane beside bare veth, kernel vxlan, a plain one-packet-per-call loop and whatever else is
 * given, in one run. Run by run.sh, in namespaces of its own: README.md says what is measured and how to read it.
 */
import { createRequire } from 'node:module';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodeOf, isTartanError, TartanError } from '../../src/lib/errors.js';
import type { NativeAddon } from '../../src/lib/native.js';
import { contendersOf } from './contenders.js';
import { engines } from './goals.js';
import type { Group } from './groups.js';
import { measureIdle } from './idle.js';
import { describeMachine, Quiet } from './machine.js';
import { recordMachine, withClaims } from './machines.js';
import { parseOptions, usage, type BenchOptions } from './options.js';
import { measurePackage } from './package.js';
import { Running, tree } from './process.js';
import { formatText, writeReport, type Results } from './report.js';
import { measure } from './rounds.js';
import { measureSpread } from './spread.js';
import { measurePeers, measureUpdates } from './tables.js';
import { testsAt } from './tests.js';

/** Share of moments. */
const disturbedLimit = 0.1;

function buildOf(dist: string): string {
  const path = join(dist, 'tartan.node');
  if (!existsSync(path)) throw new Error(`${path} is not there: build first (npm run build)`);
  return (createRequire(import.meta.url)(path) as NativeAddon).build;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What the same options have measured before in that directory. @throws TartanError USAGE where it is another run */
function readBefore({ out, commandLine }: BenchOptions, build: string): Results | undefined {
  const file = join(out, 'results.json');
  if (!existsSync(file)) return undefined;
  const before = JSON.parse(readFileSync(file, 'utf8')) as Results;
  const now = { commandLine, build, cpu: describeMachine().cpu };
  const then = { commandLine: before.commandLine, build: before.build, cpu: before.machine.cpu };
  for (const key of ['commandLine', 'build', 'cpu'] as const) {
    if (now[key] !== then[key])
      throw new TartanError('USAGE', `--resume: ${file} is of ${key} '${then[key]}', and this is '${now[key]}'`);
  }
  return before;
}

async function runBench(options: BenchOptions): Promise<void> {
  const [[ours, dist] = ['', '']] = options.choice.builds;
  const build = buildOf(dist);
  const before = options.resume ? readBefore(options, build) : undefined;
  const began = performance.now();
  const groups: Group[] = [...(before?.groups ?? [])];
  // They end with the namespace of the bench.
  const loops = Array.from({ length: options.busy }, () => new Running(['sh', '-c', 'while :; do :; done']));
  const quiet = new Quiet(options.waitMs, before?.foreignLoads);
  const common = {
    contenders: contendersOf(options.choice),
    tests: options.tests,
    rounds: options.rounds,
    seconds: options.seconds,
    ours,
    dist,
    say,
    quiet,
    before: (id: string) => groups.find(group => group.id === id),
    keep: (group: Group) => {
      const place = groups.findIndex(({ id }) => id === group.id);
      groups.splice(place < 0 ? groups.length : place, 1, group);
      writeReport(results(), options.out);
    },
  };
  for (const topology of options.topologies) {
    for (const underlay of options.underlays) {
      if (testsAt(options.tests, topology, underlay).length > 0) await measure(underlay, topology, common);
    }
  }
  if (options.peers) for (const engine of engines) await measurePeers(engine, common);
  if (options.updates) await measureUpdates(common);
  if (options.package) await measurePackage(common);
  if (options.idle) await measureIdle(common);
  if (options.spread) await measureSpread({ ...common, choice: options.choice });
  console.log(`${formatText(results())}\n\nWritten: ${options.out}/results.json, RESULTS.md, results.svg`);
  if (options.record) record();

  function record(): void {
    const machines = recordMachine(results(), join(tree, 'test/bench/machines.json'));
    const readme = join(tree, 'README.md');
    writeFileSync(readme, withClaims(readFileSync(readme, 'utf8'), machines));
    console.log('Recorded: test/bench/machines.json, and the table of README.md');
  }

  function results(): Results {
    const { commandLine, rounds, seconds } = options;
    const { loads: foreignLoads, disturbed } = quiet;
    const share = `other work ran before ${(100 * disturbed).toFixed(0)} % of the tests`;
    const alone = disturbed > disturbedLimit ? [`${share}: repeat the run before believing a difference`] : [];
    const warnings = loops.length > 0 ? [`${loops.length} busy loops ran beside all of it`] : alone;
    return {
      commandLine,
      date: new Date().toISOString().slice(0, 10),
      build,
      machine: describeMachine(),
      rounds,
      seconds,
      minutes: (before?.minutes ?? 0) + (performance.now() - began) / 60_000,
      foreignLoads,
      warnings,
      ours,
      groups,
    };
  }
}

// The first process of a pid namespace gets no signal that it does not ask for.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130));

try {
  const options = parseOptions(process.argv.slice(2));
  if (options) await runBench(options);
  else console.log(usage);
  process.exit(0);
} catch (error) {
  console.error(isTartanError(error) ? `bench: ${error.message}` : error);
  process.exit(exitCodeOf(error));
}
