/**
 * Both programs are replaced under traffic, by another build and by another layout, up and down: no packet is lost, none
 * is doubled or late, and a bulk TCP stream does not notice.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { treeOf, type Version } from '../support/other-version.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

/** Longer than an upgrade takes, on a loaded machine too; a 32-bit number to the probe. */
const streamBytes = 2_500_000_000;
/** Other work on the machine makes gaps too: on a quiet one `TARTAN_GAP_MS=50` holds (CONTRIBUTING.md). */
const gapLimitMs = Number(process.env['TARTAN_GAP_MS'] ?? 1000);

async function run(host: LabHost, version: Version): Promise<void> {
  host.program = join(await treeOf(version), 'dist/tartand.js');
  await host.startDaemon().waitForEvent('daemon.ready');
}

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  // Built before the clock of a test runs.
  for (const version of ['other build', 'other layout'] as const) await treeOf(version);
  opened.node('a').program = join(await treeOf('other build'), 'dist/tartand.js');
  await opened.bringUp();
});

/** tartand of host a is stopped and started as that version; resolves when its data process is of that version too. */
async function replaceBy(version: Version): Promise<{ readonly before: number; readonly after: number }> {
  const a = lab().node('a');
  const before = await a.datapathPid();
  expect(await a.stopDaemon()).toBe(0);
  await run(a, version);
  await lab().waitForRoutes();
  await until('a data process of that version', async () => {
    const { datapath } = await a.status();
    return datapath && datapath.warnings.every(text => !text.includes('of build')) && datapath.threads > 0;
  });
  return { before, after: await a.datapathPid() };
}

// Each begins with what the one before it left.
const changes: readonly (readonly [string, Version])[] = [
  ['another build is upgraded', 'ours'],
  ['upgraded to another layout', 'other layout'],
  ['downgraded from another layout', 'ours'],
];

test.each(changes)('%s at 1000 packets a second each way: none is lost', async (_, version) => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const { subnet } = a;
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  const { before, after } = await replaceBy(version);
  const reports = [await out.stop(), await back.stop()];
  for (const report of reports) process.stdout.write(`${JSON.stringify(report)}\n`);
  expect(after).not.toBe(before);
  expect(a.subnet).toBe(subnet);
  expect(reports.map(({ lost, duplicates, reordered }) => ({ lost, duplicates, reordered }))).toEqual([
    { lost: 0, duplicates: 0, reordered: 0 },
    { lost: 0, duplicates: 0, reordered: 0 },
  ]);
  expect(reports[0]?.sent).toBeGreaterThan(300);
});

test.each([
  ['both programs, to another build', 'other build', true],
  ['both programs, back', 'ours', true],
  ['tartand alone', 'ours', false],
] as const)('a bulk TCP stream goes on over an upgrade of %s', async (_, version, isOther) => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const rxOk = async (): Promise<number> => (await b.counters())['rx_ok'] ?? 0;
  const idle = await rxOk();
  const stream = lab().transfer(a, b, streamBytes);
  await until('the stream', async () => (await rxOk()) > idle + 100_000);
  const { before, after } = await replaceBy(version);
  const { sent, received, seconds, longestGapMs } = await stream;
  process.stdout.write(`${((streamBytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s, longest gap ${longestGapMs} ms\n`);
  expect(received).toEqual({ ...sent, source: a.containerAddress });
  expect(after === before).toBe(!isOther);
  expect(longestGapMs).toBeLessThanOrEqual(gapLimitMs);
});
