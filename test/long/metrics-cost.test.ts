/**
 * What it costs to be scraped each second: TCP between two hosts with and without it, by turns (A B A B), and the
 * processor time of tartand. The throughput means something on a quiet machine only, so the bound is on the processor:
 * where data plane and daemon share the cores, what one takes the other has not.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { metricsFlags, metricsPort } from '../support/prometheus.js';
import { start } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const turns = Number(process.env['TARTAN_TURNS'] ?? 10);
const seconds = 6;
/** USER_HZ of proc(5). */
const ticksPerSecond = 100;
const mostCores = 0.01;

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  await Promise.all(opened.hosts.map(host => host.bringUp(metricsFlags(host.address))));
  await opened.waitForRoutes();
});

/** Asks both hosts each second until it is ended. */
const scraper = `
const ask = () => process.argv.slice(1).forEach(url => fetch(url).then(answer => answer.text()));
ask();
setInterval(ask, 1000);
`;

/** Seconds of processor time that a process has used. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

interface Turn {
  readonly bitsPerSecond: number;
  /** Of both daemons. */
  readonly cores: number;
}

async function turn(from: LabHost, to: LabHost): Promise<Turn> {
  // tartand is what `ip netns exec` became.
  const cpu = (): number => cpuSeconds(from.daemon.pid) + cpuSeconds(to.daemon.pid);
  const [begunMs, before] = [performance.now(), cpu()];
  const server = start(lab().spaces.inside(to.containerNamespace, ['iperf3', '-s', '-1', '--forceflush']));
  await new Promise(resolve => server.stdout.once('data', resolve));
  const client = await from.inContainer('iperf3', '-c', to.containerAddress, '-t', String(seconds), '-J');
  expect(client.status).toBe(0);
  const { end } = JSON.parse(client.stdout) as { readonly end: { readonly sum_received: { bits_per_second: number } } };
  const cores = (cpu() - before) / ((performance.now() - begunMs) / 1000);
  return { bitsPerSecond: end.sum_received.bits_per_second, cores };
}

function medianOf(turnsOf: readonly Turn[], what: keyof Turn): number {
  return turnsOf.map(each => each[what]).toSorted((a, b) => a - b)[turnsOf.length >> 1] ?? NaN;
}

test(
  'to be scraped each second takes less than one percent',
  async () => {
    const [a, b] = [lab().node('a'), lab().node('b')];
    const urls = [a, b].map(({ address }) => `http://${address}:${metricsPort}/metrics`);
    await turn(a, b);
    const without: Turn[] = [];
    const scraped: Turn[] = [];
    for (let at = 0; at < turns; at++) {
      without.push(await turn(a, b));
      const asking = start(lab().spaces.inside('e', [process.execPath, '-e', scraper, ...urls]));
      scraped.push(await turn(a, b));
      asking.kill();
    }
    const bits = medianOf(scraped, 'bitsPerSecond') / medianOf(without, 'bitsPerSecond');
    const cores = (medianOf(scraped, 'cores') - medianOf(without, 'cores')) / lab().hosts.length;
    const listed = (all: readonly Turn[]): string => all.map(each => (each.bitsPerSecond / 1e9).toFixed(2)).join(' ');
    process.stdout.write(
      `scraped each second, medians of ${turns} turns: ${(bits * 100).toFixed(2)} % of the throughput, ` +
        `${(cores * 100).toFixed(2)} % of a core more for each daemon\n` +
        `Gbit/s without ${listed(without)}, scraped ${listed(scraped)}\n`,
    );
    expect(cores).toBeLessThan(mostCores);
  },
  turns * seconds * 4000,
);
