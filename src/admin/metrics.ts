/**
 * The Status document as Prometheus metrics in its text format 0.0.4. Everything is read from the document at the moment
 * of a scrape; nothing is counted here.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { Status } from '../agent/status.js';
import { counterFamilies } from './counter-metrics.js';
import { hostFamilies, type ProcessUsage } from './host-metrics.js';
import type { MetricFamily } from './metric-family.js';
import { peerFamilies } from './peer-metrics.js';

export interface MetricsInput {
  readonly status: Status;
  /** Seconds since 1970. */
  readonly nowSeconds: number;
  readonly process: ProcessUsage;
  /** How many peers have metrics of their own; the others are in sums. */
  readonly peers: number;
}

/** A pure function of its input, O(peers). @returns the text of a scrape */
export async function metricsText({ status, nowSeconds, process, peers }: MetricsInput): Promise<string> {
  const registry = new Registry();
  const families = [
    ...hostFamilies(status, nowSeconds, process),
    ...counterFamilies(status.datapath?.counters ?? {}),
    ...peerFamilies(status, peers),
  ];
  for (const family of families) if (family.samples.length > 0) register(registry, family);
  return registry.metrics();
}

function register(registry: Registry, { name, help, kind, samples }: MetricFamily): void {
  const labelNames = [...new Set(samples.flatMap(({ labels }) => Object.keys(labels)))];
  const settings = { name, help, labelNames, registers: [registry] };
  const metric = kind === 'counter' ? new Counter(settings) : new Gauge(settings);
  for (const { labels, value } of samples) metric.inc(labels, value);
}
