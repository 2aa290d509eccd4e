/**
 * What was measured, as the report wants it: a group is one table, with a column for each thing compared, the metrics
 * as rows and every round's value kept. Medians, because a round may meet other work on the machine.
 */
import type { Metric } from './tests.js';

export interface Series {
  readonly metric: Metric;
  readonly column: string;
  /** One for each round. */
  readonly values: readonly number[];
}

export interface Group {
  /** `container/wire`, `peers`, `updates` */
  readonly id: string;
  readonly title: string;
  readonly columns: readonly string[];
  /** How many are whole; a later run may go on from there. */
  readonly rounds: number;
  /** Which contenders are not there, and why. */
  readonly absent?: readonly string[];
  /** The pairs whose ratios are shown, by column. */
  readonly ratios: readonly (readonly [over: string, under: string])[];
  readonly series: readonly Series[];
}

/** Collects the values of a group, a round at a time: what is cut off leaves whole rounds. */
export class Collector {
  readonly #values = new Map<string, { readonly metric: Metric; readonly column: string; readonly values: number[] }>();
  #pending: (readonly [metric: Metric, column: string, value: number])[] = [];
  #rounds = 0;

  /** @param before of a run that was cut off */
  constructor(before?: Group) {
    for (const { metric, column, values } of before?.series ?? [])
      for (const value of values) this.add(metric, column, value);
    this.endRound();
    this.#rounds = before?.rounds ?? 0;
  }

  add(metric: Metric, column: string, value: number): void {
    this.#pending.push([metric, column, value]);
  }

  endRound(): void {
    for (const [metric, column, value] of this.#pending) {
      const key = `${metric.name} ${column}`;
      const series = this.#values.get(key) ?? { metric, column, values: [] };
      series.values.push(value);
      this.#values.set(key, series);
    }
    this.#pending = [];
    this.#rounds++;
  }

  get rounds(): number {
    return this.#rounds;
  }

  /** Of whole rounds. */
  get series(): readonly Series[] {
    return [...this.#values.values()];
  }
}

/** Another one first in every round: who comes after whom must not decide. */
export function inTurn<T>(items: readonly T[], round: number): readonly T[] {
  const first = round % Math.max(1, items.length);
  return [...items.slice(first), ...items.slice(0, first)];
}

/** What all others are compared with, where it is measured. */
const measure = 'vxlan';

/** Every other column over vxlan; ours over every other one without it. */
export function ratiosOf(columns: readonly string[], ours: string): Group['ratios'] {
  if (columns.includes(measure)) return columns.filter(name => name !== measure).map(name => [name, measure]);
  return columns.includes(ours) ? columns.filter(name => name !== ours).map(name => [ours, name]) : [];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle)] ?? 0)) / 2;
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
}

/** Of one divided by the other in the same round: less of what changes on the machine is in it. Undefined without values. */
export function ratioQuartiles(group: Group, metric: string, over: string, under: string) {
  const below = valuesOf(group, metric, under);
  const each = valuesOf(group, metric, over).flatMap((value, round) => {
    const divisor = below[round] ?? 0;
    return divisor > 0 ? [value / divisor] : [];
  });
  return each.length > 0 ? ([percentile(each, 0.25), percentile(each, 0.75)] as const) : undefined;
}

export function metricsOf(group: Group): readonly Metric[] {
  const byName = new Map(group.series.map(series => [series.metric.name, series.metric]));
  return [...byName.values()];
}

export function valuesOf(group: Group, metric: string, column: string): readonly number[] {
  const series = group.series.find(one => one.metric.name === metric && one.column === column);
  return series?.values ?? [];
}

/** Of the medians; undefined where one is missing, or that below is 0. */
export function ratioOf(group: Group, metric: string, over: string, under: string): number | undefined {
  const above = valuesOf(group, metric, over);
  const below = median(valuesOf(group, metric, under));
  return above.length > 0 && below > 0 ? median(above) / below : undefined;
}
