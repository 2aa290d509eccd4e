/**
 * `npm run bench`: our data plane beside bare veth, kernel vxlan, a plain one-packet-per-call loop and whatever else is
 * given, in one run. Run by run.sh, in namespaces of its own: README.md says what is measured and how to read it.
 */
import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodeOf, isTartanError } from '../../src/lib/errors.js';
import type { NativeAddon } from '../../src/lib/native.js';
import { contendersOf } from './contenders.js';
import type { Group } from './groups.js';
import { describeMachine, Quiet } from './machine.js';
import { recordMachine } from './machines.js';
import { parseOptions, usage, type BenchOptions } from './options.js';
import { Running, tree } from './process.js';
import { formatText, writeReport, type Results } from './report.js';
import { measure } from './rounds.js';
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

async function runBench(options: BenchOptions): Promise<void> {
  const [[ours, dist] = ['', '']] = options.choice.builds;
  const build = buildOf(dist);
  const groups: Group[] = [];
  // They end with the namespace of the bench.
  const loops = Array.from({ length: options.busy }, () => new Running(['sh', '-c', 'while :; do :; done']));
  const quiet = new Quiet(options.waitMs);
  const finish = (group: Group): void => {
    groups.push(group);
    writeReport(results(), options.out);
  };
  const common = {
    contenders: contendersOf(options.choice),
    tests: options.tests,
    rounds: options.rounds,
    seconds: options.seconds,
    ours,
    dist,
    say,
    quiet,
  };
  for (const topology of options.topologies) {
    for (const underlay of options.underlays) {
      if (testsAt(options.tests, topology, underlay).length > 0) finish(await measure(underlay, topology, common));
    }
  }
  if (options.peers.length > 0) finish(await measurePeers(options.peers, common));
  if (options.updates) finish(await measureUpdates(common));
  if (options.record) recordMachine(results(), join(tree, 'test/bench/machines.json'));
  console.log(`${formatText(results())}\n\nWritten: ${options.out}/results.json, RESULTS.md, results.svg`);

  function results(): Results {
    const { commandLine, rounds, seconds } = options;
    const { loads: foreignLoads, disturbed } = quiet;
    const share = `other work ran before ${(100 * disturbed).toFixed(0)} % of the tests`;
    const alone = disturbed > disturbedLimit ? [`${share}: repeat the run before believing a difference`] : [];
    const warnings = loops.length > 0 ? [`${loops.length} busy loops ran beside all of it`] : alone;
    const date = new Date().toISOString().slice(0, 10);
    return {
      commandLine,
      date,
      build,
      machine: describeMachine(),
      rounds,
      seconds,
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
