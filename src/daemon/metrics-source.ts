/** Where metrics come from: the Status document, the clock, and the daemon's own process at the moment of a scrape. */
import { readdirSync } from 'node:fs';
import type { ProcessUsage } from '../admin/host-metrics.js';
import type { Status } from '../agent/status.js';

/**
 * @param peers how many have metrics of their own
 * @returns makes the text of a scrape. Who wants no metrics does not load what makes it.
 */
export async function openMetrics(peers: number, status: () => Status): Promise<() => Promise<string>> {
  const { metricsText } = await import('../admin/metrics.js');
  return () => metricsText({ status: status(), nowSeconds: Date.now() / 1000, process: processUsage(), peers });
}

function processUsage(): ProcessUsage {
  const { user, system } = process.cpuUsage();
  return {
    cpuSeconds: (user + system) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    openDescriptors: readdirSync('/proc/self/fd').length,
    startedSeconds: Math.round(Date.now() / 1000 - process.uptime()),
  };
}
