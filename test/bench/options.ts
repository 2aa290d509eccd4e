/** What the bench is asked to do. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { TartanError } from '../../src/lib/errors.js';
import type { Choice } from './contenders.js';
import { topologies, underlays, type Topology, type Underlay } from './lab.js';
import { priorities } from './priority.js';
import { tree } from './process.js';
import { quickly, tests, testsAt, type Test } from './tests.js';

export interface BenchOptions {
  readonly choice: Choice;
  readonly topologies: readonly Topology[];
  readonly underlays: readonly Underlay[];
  readonly tests: readonly Test[];
  /** Whether sizes of the table are compared. */
  readonly peers: boolean;
  readonly updates: boolean;
  /** Whether it is shown how flows spread over processors. */
  readonly spread: boolean;
  /** Whether the .deb is made and measured. */
  readonly package: boolean;
  /** Whether a host with nothing to do is measured. */
  readonly idle: boolean;
  readonly rounds: number;
  readonly seconds: number;
  /** For a quiet machine, in all. */
  readonly waitMs: number;
  readonly out: string;
  /** Whether a run of the same options goes on that was cut off. */
  readonly resume: boolean;
  /** Whether the figures go into machines.json. */
  readonly record: boolean;
  /** Loops that run beside everything and take all of a processor. */
  readonly busy: number;
  readonly commandLine: string;
}

const apartTests = ['peers', 'updates', 'spread', 'package', 'idle'];
/** Those that have goals beside vxlan, and what is told with them. */
const acceptanceTests = tests
  .map(({ name }) => name)
  .filter(name => !['udp1400', 'offered', 'rtt-together'].includes(name));
const flags = {
  quick: { type: 'boolean' },
  acceptance: { type: 'boolean' },
  resume: { type: 'boolean' },
  only: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  underlay: { type: 'string' },
  topology: { type: 'string' },
  contender: { type: 'string', multiple: true },
  build: { type: 'string', multiple: true },
  without: { type: 'string' },
  priority: { type: 'string' },
  busy: { type: 'string' },
  wait: { type: 'string' },
  out: { type: 'string' },
  record: { type: 'boolean' },
  help: { type: 'boolean' },
} as const;

export const usage = `npm run bench -- [options]

  --quick                  about two minutes: fewer rounds, tests and underlays
  --acceptance             what both engines are held to beside vxlan, direct and behind a bridge: half an hour
  --resume                 go on with the run in --out that was cut off, with the same options
  --only LIST              these tests: ${[...tests.map(test => test.name), ...apartTests].join(', ')}
  --rounds N, --seconds N  rounds of every test (5, quick 2), and how long each runs (2, quick and acceptance 1)
  --topology LIST          ${topologies.join(', ')}
  --underlay LIST          ${underlays.join(', ')}
  --contender NAME=COMMAND another flannel-style daemon (test/bench/README.md); repeatable
  --build NAME=DIST        another build of tartan, by its folder named dist; repeatable
  --priority LIST          tartan also with what its unit sets: ${priorities.join(', ')} (both)
  --busy N                 N busy loops beside everything (0)
  --wait SECONDS           for a quiet machine, in all (300; acceptance and --only 60, quick 10)
  --without LIST           leave out contenders: veth, vxlan, plain, tartan, tartan-kernel or a name given
  --out DIR                for results.json, RESULTS.md and results.svg (test/bench/out)
  --record                 put the figures of this machine into test/bench/machines.json, and the worst of all into README.md
`;

/** @returns undefined when help is asked for @throws TartanError USAGE */
export function parseOptions(argv: readonly string[]): BenchOptions | undefined {
  const { values } = readArguments(argv);
  if (values.help) return undefined;
  const quick = values.quick ?? false;
  const acceptance = values.acceptance ?? false;
  if (quick && acceptance) throw new TartanError('USAGE', '--quick and --acceptance: give one of them');
  const names = [...tests.map(test => test.name), ...apartTests];
  const only = listOf('only', values.only, names, acceptance ? acceptanceTests : names);
  const busy = values.busy === undefined ? 0 : numberOf('busy', values.busy, 0);
  const wanted = tests.filter(test => only.includes(test.name));
  const chosenTests = quick && values.only === undefined ? wanted.map(quickly) : wanted;
  const chosenTopologies = listOf('topology', values.topology, topologies, acceptance ? ['container'] : topologies);
  const across: readonly Underlay[] = acceptance ? ['wire', 'bridge'] : quick ? ['wire'] : underlays;
  const chosenUnderlays = listOf('underlay', values.underlay, underlays, across);
  if (values.only !== undefined) checkPlaces(chosenTests, chosenTopologies, chosenUnderlays);
  const ours: readonly [string, string] = ['tartan', join(tree, 'dist')];
  return {
    choice: {
      builds: [ours, ...pairs('build', values.build).map(([name, dist]) => [name, resolve(dist)] as const)],
      priorities: values.priority === undefined ? [] : listOf('priority', values.priority, priorities, priorities),
      commands: pairs('contender', values.contender),
      without: (values.without ?? (acceptance ? 'veth,plain' : '')).split(','),
    },
    topologies: chosenTopologies,
    underlays: chosenUnderlays,
    tests: chosenTests,
    peers: only.includes('peers'),
    updates: only.includes('updates'),
    spread: values.only !== undefined && only.includes('spread'),
    package: values.only !== undefined && only.includes('package'),
    idle: values.only !== undefined && only.includes('idle'),
    rounds: numberOf('rounds', values.rounds, quick ? 2 : 5),
    seconds: numberOf('seconds', values.seconds, quick || acceptance ? 1 : 2),
    // No machine is quiet beside busy loops.
    waitMs:
      busy > 0
        ? 0
        : 1000 * numberOf('wait', values.wait, quick ? 10 : acceptance || values.only !== undefined ? 60 : 300),
    busy,
    resume: values.resume ?? false,
    record: values.record ?? false,
    out: resolve(values.out ?? join(tree, 'test/bench/out')),
    commandLine: commandOf(argv),
  };
}

/** @throws TartanError USAGE when one of the tests runs nowhere of that */
function checkPlaces(some: readonly Test[], where: readonly Topology[], across: readonly Underlay[]): void {
  const runs = (test: Test, topology: Topology) =>
    across.some(underlay => testsAt([test], topology, underlay).length > 0);
  const lost = some.find(test => !where.some(topology => runs(test, topology)));
  if (!lost) return;
  const places = topologies.flatMap(topology => underlays.map(underlay => [topology, underlay] as const));
  const fit = places.filter(([topology, underlay]) => testsAt([lost], topology, underlay).length > 0);
  const hints = fit.map(([topology, underlay]) => `--topology ${topology} --underlay ${underlay}`);
  throw new TartanError('USAGE', `--only: '${lost.name}' does not run there, but with ${hints.join(' or ')}`);
}

/** What was measured, however it is written down. */
function commandOf(argv: readonly string[]): string {
  const words = argv.filter(word => word !== '--resume' && word !== '--record');
  return ['npm run bench', ...(words.length > 0 ? ['--'] : []), ...words.map(quoted)].join(' ');
}

/** As a shell takes it. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function readArguments(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: flags });
  } catch (error) {
    throw new TartanError('USAGE', `${String(error)}\n\n${usage}`, { cause: error });
  }
}

function listOf<T extends string>(flag: string, text: string | undefined, known: readonly T[], all: readonly T[]) {
  if (text === undefined) return all;
  const words = text.split(',');
  const unknown = words.find(word => !known.some(name => name === word));
  if (unknown !== undefined)
    throw new TartanError('USAGE', `--${flag}: '${unknown}' is not one of ${known.join(', ')}`);
  return known.filter(name => words.includes(name));
}

function numberOf(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 1000) return value;
  throw new TartanError('USAGE', `--${flag}: '${text}' is not a number from 1 to 1000`);
}

function pairs(flag: string, texts: readonly string[] = []): readonly (readonly [string, string])[] {
  return texts.map(text => {
    const at = text.indexOf('=');
    const name = text.slice(0, Math.max(at, 0));
    const value = text.slice(at + 1);
    if (!/^[a-z][\w-]{0,20}$/.test(name)) {
      throw new TartanError('USAGE', `--${flag}: '${text}' is not of the form name=value, with a short name`);
    }
    if (flag === 'build' && !existsSync(join(value, 'tartan-datapath'))) {
      throw new TartanError('USAGE', `--build: ${value} holds no tartan-datapath, build that tree first`);
    }
    return [name, value] as const;
  });
}
