/** The results for people: tables for the terminal, a page in Markdown with a plot, and everything as JSON. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { judge, type Outcome } from './goals.js';
import { median, metricsOf, ratioOf, valuesOf, type Group } from './groups.js';
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
  readonly ours: string;
  readonly groups: readonly Group[];
}

const ratioDigits = 2;
/** Measured beside a real flanneld (`--contender`). */
const plainRemark = "plain is 1.7 to 1.9 times as fast as flannel's own udp proxy: it is no measure of flannel";

export function formatText(results: Results): string {
  const tables = results.groups.map(group =>
    [`\n${group.title}`, ...(group.absent ?? []), aligned(rowsOf(group))].join('\n'),
  );
  const outcomes = judge(results.groups, results.ours);
  const goals = goalTables(outcomes).map(({ title, rows }) => `\n${title}\n${aligned(rows)}`);
  return [...factsOf(results), ...tables, ...goals].join('\n');
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
  const outcomes = judge(results.groups, results.ours);
  const goals = goalTables(outcomes).flatMap(({ title, rows }) => [`## ${title}`, '', ...piped(rows), '']);
  const facts = factsOf(results).map(fact => `- ${fact}`);
  const how = 'A value is the median over the rounds and half the distance between the least and the greatest.';
  const page = ['# Bench results', '', ...facts, '', how, '', '![Medians](results.svg)', '', ...goals, ...tables];
  return `${page.join('\n').trimEnd()}\n`;
}

function factsOf(results: Results): readonly string[] {
  const { machine, foreignLoads } = results;
  const percent = (load: number): string => `${(100 * load).toFixed(0)} %`;
  return [
    `Command: \`${results.commandLine}\``,
    `${results.date}, native build ${results.build}`,
    `Machine: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, Linux ${machine.kernel}`,
    `${results.rounds} rounds of ${results.seconds} s, interleaved; sender, receiver and data planes share the cores`,
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
    ...group.ratios.map(([over, under]) =>
      metric.ratio ? (ratioOf(group, metric.name, over, under)?.toFixed(ratioDigits) ?? '-') : '',
    ),
  ]);
  return [head, ...rows];
}

function formatValues(values: readonly number[], digits: number): string {
  if (values.length === 0) return '-';
  const spread = (Math.max(...values) - Math.min(...values)) / 2;
  return spread === 0 ? median(values).toFixed(digits) : `${median(values).toFixed(digits)} ±${spread.toFixed(digits)}`;
}

/** Those of each engine apart. */
function goalTables(outcomes: readonly Outcome[]) {
  const titles = { user: 'Goals of the user-space engine', kernel: 'Goals of the kernel engine' } as const;
  return (['user', 'kernel'] as const).flatMap(engine => {
    const own = outcomes.filter(outcome => outcome.engine === engine);
    return own.length > 0 ? [{ title: titles[engine], rows: goalRows(own) }] : [];
  });
}

function goalRows(outcomes: readonly Outcome[]): readonly (readonly string[])[] {
  const rows = outcomes.map(({ what, least, aim, value, verdict }) => [
    what,
    value.toFixed(ratioDigits),
    String(least),
    String(aim),
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
