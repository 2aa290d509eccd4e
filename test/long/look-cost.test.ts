/**
 * What it costs to be looked at each second: TCP between two hosts with and without it, by turns (A B A B), and the
 * processor time of tartand. The throughput means something on a quiet machine only, so the bound is on the processor:
 * where data plane and daemon share the cores, what one takes the other has not.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { setTimeout as delay } from 'node:timers/promises';
import { keyPrefix } from '../support/lab.js';
import type { LabHost } from '../support/lab-host.js';
import { metricsFlags, metricsPort } from '../support/prometheus.js';
import { start, toolProgram, until, type Running } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const turns = Number(process.env['TARTAN_TURNS'] ?? 10);
const seconds = 6;
/** USER_HZ of proc(5). */
const ticksPerSecond = 100;
const mostCores = 0.01;

const network = '{"Network":"10.32.0.0/11","SubnetLen":24,"SubnetMin":"10.63.0.0","Backend":{"Type":"udp"}}';
const lab = useLab({ nodes: ['a', 'b'], network }, async opened => {
  await Promise.all(opened.hosts.map(host => host.bringUp(metricsFlags(host.address))));
  await opened.waitForRoutes();
});

const node = (letter: string): LabHost => lab().node(letter);

/** Asks the hosts each second until it is ended. */
const scraper = `
const ask = () => process.argv.slice(1).forEach(url => fetch(url).then(answer => answer.text()));
ask();
setInterval(ask, 1000);
`;

function scrape(hosts: readonly LabHost[]): Running {
  const urls = hosts.map(({ address }) => `http://${address}:${metricsPort}/metrics`);
  return start(lab().spaces.inside('e', [process.execPath, '-e', scraper, ...urls]));
}

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

/** `tartan top` of each host. */
function watchTop(hosts: readonly LabHost[]): readonly Running[] {
  return hosts.map(host => {
    const top = start(host.inside([process.execPath, toolProgram, 'top', '-i', '1', '--run-dir', host.runDir]));
    top.stdout.resume();
    return top;
  });
}

const webAsker = `
const ask = () => ['host', 'matrix', 'leases'].forEach(part =>
  fetch('http://127.0.0.1:8286/data/' + part).then(answer => answer.text()));
ask();
setInterval(ask, 1000);
`;

/** `tartan web` of one host, and what its page asks for. */
async function openPage([host]: readonly LabHost[]): Promise<readonly Running[]> {
  if (!host) return [];
  const places = ['--run-dir', host.runDir, '--state-dir', host.stateDir];
  const web = start(host.inside([process.execPath, toolProgram, 'web', ...places]));
  let said = '';
  for (const stream of [web.stdout, web.stderr]) stream.on('data', part => (said += String(part)));
  await until('the page is open', () => said.includes('8286'));
  return [web, start(host.inside([process.execPath, '-e', webAsker]))];
}

const looks = {
  '/metrics': async (hosts: readonly LabHost[]) => [scrape(hosts)],
  'tartan top': async (hosts: readonly LabHost[]) => watchTop(hosts),
  'tartan web': openPage,
} as const;

test.each(Object.entries(looks))(
  '%s each second takes less than one percent',
  async (name, look) => {
    const [a, b] = [node('a'), node('b')];
    await turn(a, b);
    const without: Turn[] = [];
    const looked: Turn[] = [];
    for (let at = 0; at < turns; at++) {
      without.push(await turn(a, b));
      const lookers = await look([a, b]);
      // Programs that start take more of two processors than what they do then.
      await delay(2000);
      looked.push(await turn(a, b));
      for (const looker of lookers) looker.kill();
    }
    const bits = medianOf(looked, 'bitsPerSecond') / medianOf(without, 'bitsPerSecond');
    const cores = (medianOf(looked, 'cores') - medianOf(without, 'cores')) / lab().hosts.length;
    const listed = (all: readonly Turn[]): string => all.map(each => (each.bitsPerSecond / 1e9).toFixed(2)).join(' ');
    process.stdout.write(
      `${name} each second, medians of ${turns} turns: ${(bits * 100).toFixed(2)} % of the throughput, ` +
        `${(cores * 100).toFixed(2)} % of a core more for each daemon\n` +
        `Gbit/s without ${listed(without)}, with it ${listed(looked)}\n`,
    );
    expect(cores).toBeLessThan(mostCores);
  },
  turns * seconds * 10_000,
);

const others = 4998;

/** Keys as reservations for that many hosts, to whom nothing is ever sent. */
async function addOthers(): Promise<void> {
  for (let from = 0; from < others; from += 119) {
    const puts = Array.from({ length: Math.min(119, others - from) }, (_, index) => {
      const number = from + index;
      const publicIp = `172.${16 + (number >> 12)}.${(number >> 4) & 255}.${1 + (number & 15)}`;
      const key = `${keyPrefix}/subnets/10.${32 + (number >> 8)}.${number & 255}.0-24`;
      const value = JSON.stringify({ PublicIP: publicIp, nodeId: `node-${number}`, bootId: 'boot' });
      return `put ${key} ${JSON.stringify(value)}`;
    });
    await lab().etcd.ctl(['txn'], `\n${puts.join('\n')}\n\n\n`);
  }
}

test('also among 5,000 hosts', async () => {
  const a = node('a');
  await addOthers();
  await a.waitForPeers(others + 1);
  const coresOver = async (ms: number): Promise<number> => {
    const before = cpuSeconds(a.daemon.pid);
    await delay(ms);
    return (cpuSeconds(a.daemon.pid) - before) / (ms / 1000);
  };
  await delay(5_000);
  const rest = await coresOver(20_000);
  const asking = scrape([a]);
  await delay(3_000);
  const scraped = await coresOver(20_000);
  asking.kill();
  process.stdout.write(
    `5,000 hosts: ${(rest * 100).toFixed(2)} % of a core at rest, ${(scraped * 100).toFixed(2)} % scraped each second\n`,
  );
  expect(scraped - rest).toBeLessThan(1.5 * mostCores);
}, 180_000);
