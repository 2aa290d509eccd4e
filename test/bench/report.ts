/** The results for people: tables for the terminal, a page in Markdown with a plot, and everything as JSON. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { engines, judge, type Outcome } from './goals.js';
import { median, metricsOf, ratioOf, ratioQuartiles, valuesOf, type Group } from './groups.js';
import { ends, type Machine } from './machine.js';
import { plot } from './plot.js';
import { congestionControl } from './traffic.js';

export interface Results {
  readonly commandLine: string;
  readonly date: string;
  /** Of the native sources of our build. */
  readonly build: string;
  readonly machine: Machine;
  readonly rounds: number;
  readonly seconds: number;
  /** What others used of one core before each test. */
  readonly foreignLoads: readonly number[];
  readonly warnings: readonly string[];
  /** Of all runs together where one went on from another. */
  readonly minutes: number;
  readonly ours: string;
  readonly groups: readonly Group[];
}

const ratioDigits = 2;
const howToRead =
  'A value is the median over the rounds and half the distance between the least and the greatest; a ratio is that of ' +
  'two medians, with the quartiles of the ratios of each round';
/** Measured beside a real flanneld (`--contender`). */
const plainRemark = "plain is 1.7 to 1.9 times as fast as flannel's own udp proxy: it is no measure of flannel";

export function formatText(results: Results): string {
  const tables = results.groups.map(group =>
    [`\n${group.title}`, ...(group.absent ?? []), aligned(rowsOf(group))].join('\n'),
  );
  const goals = goalTables(results).map(({ title, rows }) => `\n${title}\n${aligned(rows)}`);
  return [...factsOf(results), howToRead, ...tables, ...goals].join('\n');
}

export function writeReport(results: Results, directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'results.json'), `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(join(directory, 'results.svg'), plot(results.groups));
  writeFileSync(join(directory, 'RESULTS.md'), formatMarkdown(results));
}

function formatMarkdown(results: Results): string {
  const tables = results.groups.flatMap(group => [
    `## ${group.title}`,
    '',
    ...(group.absent ?? []).flatMap(line => [line, '']),
    ...piped(rowsOf(group)),
    '',
  ]);
  const goals = goalTables(results).flatMap(({ title, rows }) => [`## ${title}`, '', ...piped(rows), '']);
  const facts = factsOf(results).map(fact => `- ${fact}`);
  const page = ['# Bench results', '', ...facts, '', howToRead, '', '![Medians](results.svg)', '', ...goals, ...tables];
  return `${page.join('\n').trimEnd()}\n`;
}

function factsOf(results: Results): readonly string[] {
  const { machine, foreignLoads } = results;
  const percent = (load: number): string => `${(100 * load).toFixed(0)} %`;
  return [
    `Command: \`${results.commandLine}\``,
    `${results.date}, native build ${results.build}`,
    `Machine: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, Linux ${machine.kernel}`,
    `${results.groups.map(({ id, rounds }) => `${id} ${rounds}`).join(', ')} of ${results.rounds} rounds of ${results.seconds} s, interleaved, in ${results.minutes.toFixed(0)} minutes; sender, receiver and data planes share the cores`,
    `Other work on the machine: ${percent(median(foreignLoads))} of a core, at most ${percent(Math.max(0, ...foreignLoads))}`,
    `TCP with ${congestionControl}; ends pinned to processors ${ends.a} and ${ends.b}, data planes where the scheduler puts them`,
    plainRemark,
    ...results.warnings.map(warning => `Warning: ${warning}`),
  ];
}

function rowsOf(group: Group): readonly (readonly string[])[] {
  const head = ['', ...group.columns, ...group.ratios.map(([over, under]) => `${over}/${under}`)];
  const rows = metricsOf(group).map(metric => [
    metric.unit === '' ? metric.label : `${metric.label}, ${metric.unit}`,
    ...group.columns.map(column => formatValues(valuesOf(group, metric.name, column), metric.digits)),
    ...group.ratios.map(([over, under]) => (metric.ratio ? formatRatio(group, metric.name, over, under) : '')),
  ]);
  return [head, ...rows];
}

function formatRatio(group: Group, metric: string, over: string, under: string): string {
  const ratio = ratioOf(group, metric, over, under)?.toFixed(ratioDigits) ?? '-';
  const quartiles = ratioQuartiles(group, metric, over, under);
  return group.rounds > 1 && quartiles
    ? `${ratio} (${quartiles.map(one => one.toFixed(ratioDigits)).join('-')})`
    : ratio;
}

function formatValues(values: readonly number[], digits: number): string {
  if (values.length === 0) return '-';
  const spread = (Math.max(...values) - Math.min(...values)) / 2;
  return spread === 0 ? median(values).toFixed(digits) : `${median(values).toFixed(digits)} ±${spread.toFixed(digits)}`;
}

const goalWords = {
  kernel: 'Goals of the kernel engine',
  user: 'Goals of the user-space engine',
  both: 'Goals',
} as const;

/** Those of each engine and each group apart. */
function goalTables({ groups, ours }: Results) {
  const outcomes = judge(groups, ours);
  return ([...engines, 'both'] as const).flatMap(engine =>
    groups.flatMap(({ id, title }) => {
      const own = outcomes.filter(outcome => outcome.engine === engine && outcome.group === id);
      return own.length > 0 ? [{ title: `${goalWords[engine]}: ${title}`, rows: goalRows(own) }] : [];
    }),
  );
}

function goalRows(outcomes: readonly Outcome[]): readonly (readonly string[])[] {
  const rows = outcomes.map(({ what, limits, value, verdict }) => [
    what,
    value.toFixed(ratioDigits),
    ...(limits ?? ['', '']).map(String),
    verdict,
  ]);
  return [['', 'is', 'at least', 'aim', ''], ...rows];
}

function piped(rows: readonly (readonly string[])[]): readonly string[] {
  const [head = [], ...body] = rows.map(cells => `| ${cells.join(' | ')} |`);
  const rule = `|${(rows[0] ?? []).map((_, i) => (i === 0 ? '---' : '--:')).join('|')}|`;
  return [String(head), rule, ...body];
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map(cells => (cells[i] ?? '').length)));
  const line = (cells: readonly string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ');
  return rows.map(line).join('\n');
}
