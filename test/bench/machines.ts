/**
 * The figures of every machine that was measured, in one file, by the model of its processor: what one machine shows
 * does not hold for all. The README has the worst of them.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { engines, goals, judge, tableSizes, type Engine } from './goals.js';
import { floods } from './neighbours.js';
import { congestionControl } from './traffic.js';
import type { Results } from './report.js';

interface MachineFigures {
  readonly date: string;
  readonly build: string;
  readonly cores: number;
  readonly kernel: string;
  readonly conditions: string;
  /** By the names of the goals. */
  readonly figures: Readonly<Record<string, number>>;
}

/** By the model of the processor. */
export type Machines = Readonly<Record<string, MachineFigures>>;

/** What was measured before on this model of processor is replaced; goals that this run did not have stay. */
export function recordMachine(results: Results, file: string): Machines {
  const before: Machines = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  const { cpu, cores, kernel } = results.machine;
  const names = new Set(goals.map(({ what }) => what));
  const kept = Object.entries(before[cpu]?.figures ?? {}).filter(([what]) => names.has(what));
  const found = judge(results.groups, results.ours).map(({ what, value }) => [what, Number(value.toFixed(2))] as const);
  const machine: MachineFigures = {
    date: results.date,
    build: results.build,
    cores,
    kernel,
    conditions: `TCP with ${congestionControl}, ends pinned; last ${results.commandLine}`,
    figures: Object.fromEntries([...kept, ...found]),
  };
  const machines = { ...before, [cpu]: machine };
  writeFileSync(file, `${JSON.stringify(machines, undefined, 2)}\n`);
  return machines;
}

/** What the README tells, and the metrics of which it is the worst. */
const claims: readonly (readonly [text: string, ...metrics: readonly string[]])[] = [
  ['TCP, one flow', 'tcp1'],
  ['TCP, four flows', 'tcp4'],
  ['TCP, both ways at once', 'tcp-both'],
  ['processor time of a byte, one flow', 'tcp1-cpu'],
  ['processor time of a byte, four flows', 'tcp4-cpu'],
  ['round trip, idle (p50)', 'rtt-p50'],
  ['round trip beside a TCP flow (p50)', 'rtt-loaded-p50'],
  ['UDP of 64 B, one sender', 'udp64'],
  ['UDP of 64 B, four senders', 'udp64-4'],
  ['TCP beside the flood of a neighbour', ...floods.map(({ name }) => `beside-${name}`)],
  ['round trip beside the flood of a neighbour (p50)', ...floods.map(({ name }) => `beside-${name}-p50`)],
  ['TCP, beside the same with 2 peers: 65,536 peers', 'peers-tcp1'],
  ['UDP of 64 B, beside the same with 2 peers: 65,536 peers', 'peers-udp64'],
];

const places = ['container/wire', 'container/bridge', ...engines.map(engine => `peers/${engine}`)];

/** The lines of the table in the README. */
export function claimLines(machines: Machines): readonly string[] {
  const rows = claims.map(([text, ...metrics]) => {
    const cells = engines.map(engine => worstOf(machines, engine, metrics));
    return `| ${[text, ...cells].join(' | ')} |`;
  });
  return ['| | kernel engine | user space |', '|---|--:|--:|', ...rows];
}

/** Of all machines, and of both ways that hosts are joined. */
function worstOf(machines: Machines, engine: Engine, metrics: readonly string[]): string {
  const own = goals.filter(
    goal =>
      goal.engine === engine &&
      metrics.includes(goal.metric) &&
      places.includes(goal.group) &&
      (goal.under === 'vxlan' || goal.under === tableSizes.few),
  );
  const values = own.flatMap(({ what }) => Object.values(machines).flatMap(({ figures }) => figures[what] ?? []));
  if (values.length === 0) return '-';
  return (own[0]?.less ? Math.max(...values) : Math.min(...values)).toFixed(2);
}

/** Stand before and after the table. */
const marks = ['<!-- figures -->', '<!-- /figures -->'] as const;

/** The README with the table of these machines. @throws Error without the marks */
export function withClaims(readme: string, machines: Machines): string {
  const [begin, end] = marks.map(mark => readme.indexOf(mark));
  if (begin === undefined || end === undefined || begin < 0 || end < begin)
    throw new Error(`README.md has no lines ${marks.join(' and ')}`);
  return [readme.slice(0, begin), marks[0], '\n', claimLines(machines).join('\n'), '\n', readme.slice(end)].join('');
}
