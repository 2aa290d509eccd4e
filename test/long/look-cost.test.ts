/**
 * What it costs to be looked at each second: TCP between two hosts with and without it, by turns (A B A B), and the
 * processor time of the daemons and of what looks. Where data plane and daemon share the processors, what one takes the other has
 * not: that share is bounded. Turns of one kind differ by more than a percent, so the throughput is judged by most of them.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
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
/** Of all processors, and of the throughput. */
const most = 0.01;

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
  /** Processors that the daemons used, and what looks. */
  readonly daemons: number;
  readonly lookers: number;
}

async function turn(from: LabHost, to: LabHost, lookers: readonly Running[] = []): Promise<Turn> {
  // What runs is what `ip netns exec` became.
  const cpu = (pids: readonly (number | undefined)[]): number =>
    pids.reduce<number>((sum, pid) => sum + (pid === undefined ? 0 : cpuSeconds(pid)), 0);
  const daemons = [from, to].map(({ daemon }) => daemon.pid);
  const looking = lookers.map(({ pid }) => pid);
  const [begunMs, before, lookedBefore] = [performance.now(), cpu(daemons), cpu(looking)];
  const server = start(lab().spaces.inside(to.containerNamespace, ['iperf3', '-s', '-1', '--forceflush']));
  await new Promise(resolve => server.stdout.once('data', resolve));
  const client = await from.inContainer('iperf3', '-c', to.containerAddress, '-t', String(seconds), '-J');
  expect(client.status).toBe(0);
  const { end } = JSON.parse(client.stdout) as { readonly end: { readonly sum_received: { bits_per_second: number } } };
  const tookSeconds = (performance.now() - begunMs) / 1000;
  return {
    bitsPerSecond: end.sum_received.bits_per_second,
    daemons: (cpu(daemons) - before) / tookSeconds,
    lookers: (cpu(looking) - lookedBefore) / tookSeconds,
  };
}

/** @param part 0.5 for the median */
function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? NaN;
}

function medianOf(turnsOf: readonly Turn[], what: keyof Turn): number {
  return quantile(
    turnsOf.map(each => each[what]),
    0.5,
  );
}

const percent = (part: number, digits = 2): string => `${(100 * part).toFixed(digits)} %`;

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
    const without: Turn[] = [await turn(a, b)];
    const looked: Turn[] = [];
    for (let at = 0; at < turns; at++) {
      const lookers = await look([a, b]);
      // Programs that start take more of two processors than what they do then.
      await delay(2000);
      looked.push(await turn(a, b, lookers));
      for (const looker of lookers) looker.kill();
      without.push(await turn(a, b));
    }
    // Each beside the turns before and after it.
    const ratios = looked.map(({ bitsPerSecond }, at) => {
      const [before = NaN, after = NaN] = without.slice(at, at + 2).map(each => each.bitsPerSecond);
      return bitsPerSecond / ((before + after) / 2);
    });
    const daemons = (medianOf(looked, 'daemons') - medianOf(without, 'daemons')) / availableParallelism();
    const lookers = medianOf(looked, 'lookers') / availableParallelism();
    const [low, middle, high] = [0.25, 0.5, 0.75].map(part => quantile(ratios, part));
    process.stdout.write(
      `${name} each second, ${turns} turns, load ${loadavg()[0]?.toFixed(1)}: the daemons take ${percent(daemons)} of the ` +
        `processors more, what looks ${percent(lookers)}; throughput ${percent(middle ?? NaN, 1)} of that without ` +
        `(quartiles ${percent(low ?? NaN, 1)}, ${percent(high ?? NaN, 1)})\n`,
    );
    expect(daemons).toBeLessThan(most);
    // Three of four turns would have to be slower.
    expect(high).toBeGreaterThan(1 - most);
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
  expect(scraped - rest).toBeLessThan(1.5 * most);
}, 180_000);
