/** What metrics are made of: a name with its help, and a value for each set of labels. */

export interface MetricSample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Names and units follow Prometheus' conventions: seconds, bytes, ratios, and `_total` for what only grows. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  /** None when the value is not known: the metric is then absent. */
  readonly samples: readonly MetricSample[];
}

type Value = number | boolean | null | undefined;

export const gauge = (name: string, help: string, value: Value): MetricFamily => one('gauge', name, help, value);

/** @param value of what the daemon itself counts, from its start */
export const counter = (name: string, help: string, value: Value): MetricFamily => one('counter', name, help, value);

function one(kind: MetricFamily['kind'], name: string, help: string, value: Value): MetricFamily {
  const samples = value === null || value === undefined ? [] : [{ labels: {}, value: Number(value) }];
  return { name, help, kind, samples };
}

/** A gauge of 1 whose labels are what is told. */
export function info(name: string, help: string, labels: Readonly<Record<string, string | null>>): MetricFamily {
  const given = Object.entries(labels).map(([label, text]) => [label, labelText(text ?? '')] as const);
  return { name, help, kind: 'gauge', samples: [{ labels: Object.fromEntries(given), value: 1 }] };
}

/** One sample for each of the values that a label can have, also where there is nothing to count. */
export function perValue(
  name: string,
  help: string,
  label: string,
  values: Readonly<Record<string, number>>,
): MetricFamily {
  const samples = Object.entries(values).map(([text, value]) => ({ labels: { [label]: text }, value }));
  return { name, help, kind: 'gauge', samples };
}

/** How many of the items are in each state; a state that is not listed is counted when it is there. */
export function countOf(states: readonly string[], items: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = Object.fromEntries(states.map(state => [state, 0]));
  for (const item of items) counts[item] = (counts[item] ?? 0) + 1;
  return counts;
}

const longestLabel = 64;

/** Text of other hosts, which also people read: no control characters, no half of a surrogate pair, not long. */
export function labelText(text: string): string {
  return [...text.replaceAll(/\p{C}/gu, '?')].slice(0, longestLabel).join('');
}
