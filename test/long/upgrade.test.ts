/**
 * tartand and data process of an earlier commit are replaced by those of this tree under traffic, and replace them again:
 * no packet is lost, none is doubled or late. Either reads the state file of the other.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { earlierProgram } from '../support/earlier.js';
import type { LabHost } from '../support/lab-host.js';
import { daemonProgram, until } from '../support/tools.js';
import type { FlowReport } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const streamBytes = 2_500_000_000;
const gapLimitMs = Number(process.env['TARTAN_GAP_MS'] ?? 1000);
const builds = { earlier: earlierProgram, ours: daemonProgram } as const;
type Build = keyof typeof builds;

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  opened.node('a').program = earlierProgram;
  await opened.bringUp();
});

/** The data process of the host is of the build of its tartand, and has the peers. */
async function settled(host: LabHost): Promise<number> {
  await host.waitForPeers(1);
  await until('a data process of that build', async () => {
    const { datapath } = await host.status();
    return datapath && datapath.warnings.every(text => !text.includes('of build')) && datapath.threads > 0;
  });
  return host.datapathPid();
}

async function replaceBy(host: LabHost, build: Build, ready = 'daemon.ready'): Promise<void> {
  const before = await host.datapathPid();
  expect(await host.stopDaemon()).toBe(0);
  // As the README has it; without etcd this host alone leaves the kernel engine, and its peers do later.
  if (build === 'earlier') expect([0, 5]).toContain((await host.tool('features', 'withdraw')).status);
  host.program = builds[build];
  await host.startDaemon().waitForEvent(ready);
  expect(await settled(host)).not.toBe(before);
}

/** What 1000 numbered packets a second each way came to, while something was done. */
async function under(work: () => Promise<void>): Promise<void> {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await work();
  const reports: FlowReport[] = [];
  for (const flow of flows) reports.push(await flow.stop());
  for (const report of reports) process.stdout.write(`${JSON.stringify(report)}\n`);
  expect(reports.map(({ lost, duplicates, reordered }) => ({ lost, duplicates, reordered }))).toEqual([
    { lost: 0, duplicates: 0, reordered: 0 },
    { lost: 0, duplicates: 0, reordered: 0 },
  ]);
  expect(reports[0]?.sent).toBeGreaterThan(300);
}

test.each<readonly [string, Build]>([
  ['upgraded to this tree', 'ours'],
  ['downgraded to the earlier commit', 'earlier'],
  ['upgraded again', 'ours'],
  ['downgraded again', 'earlier'],
])('%s at 1000 packets a second each way: none is lost', async (_, build) => {
  const a = lab().node('a');
  const { subnet } = a;
  await under(() => replaceBy(a, build));
  expect(a.subnet).toBe(subnet);
});

test.each<readonly [string, Build]>([
  ['an upgrade', 'ours'],
  ['a downgrade', 'earlier'],
])('a bulk TCP stream goes on over %s', async (_, build) => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const rxOk = async (): Promise<number> => (await b.counters())['rx_ok'] ?? 0;
  const idle = await rxOk();
  const stream = lab().transfer(a, b, streamBytes);
  await until('the stream', async () => (await rxOk()) > idle + 100_000);
  await replaceBy(a, build);
  const { sent, received, seconds, longestGapMs } = await stream;
  process.stdout.write(`${((streamBytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s, longest gap ${longestGapMs} ms\n`);
  expect(received).toEqual({ ...sent, source: a.containerAddress });
  expect(longestGapMs).toBeLessThanOrEqual(gapLimitMs);
});

/** The state file has the other host, so that a start without etcd can use it. */
async function remembers(host: LabHost): Promise<void> {
  await until('the other host in the state file', () => {
    const { body } = JSON.parse(readFileSync(join(host.stateDir, 'state.json'), 'utf8'));
    return body.memory?.peers.length === 1;
  });
}

test.each<readonly [string, Build]>([
  ['this tree beside a state file of the earlier commit', 'ours'],
  ['the earlier commit beside a state file of this tree', 'earlier'],
])('%s starts without etcd, and nothing is lost', async (_, build) => {
  const a = lab().node('a');
  await remembers(a);
  await lab().etcd.kill();
  await under(() => replaceBy(a, build, 'lease.remembered'));
  expect(a.daemon.events('state.refused')).toEqual([]);
  await lab().etcd.start();
  await until('etcd again', async () => (await a.status()).lease?.state === 'held', 60_000);
});
