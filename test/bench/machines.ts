/**
 * The figures of every machine that was measured, in one file, by the model of its processor: what one machine shows
 * does not hold for all.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { judge } from './goals.js';
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

/** What was measured before on this model of processor is replaced; goals that this run did not have stay. */
export function recordMachine(results: Results, file: string): void {
  const before: Record<string, MachineFigures> = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  const { cpu, cores, kernel } = results.machine;
  const outcomes = judge(results.groups, results.ours);
  const figures = Object.fromEntries(outcomes.map(({ what, value }) => [what, Number(value.toFixed(2))]));
  before[cpu] = {
    date: results.date,
    build: results.build,
    cores,
    kernel,
    conditions: `TCP with ${congestionControl}, ends pinned; ${results.commandLine}`,
    figures: { ...before[cpu]?.figures, ...figures },
  };
  writeFileSync(file, `${JSON.stringify(before, undefined, 2)}\n`);
}
