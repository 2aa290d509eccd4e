/**
 * Nothing that is done to a host of a kernel pair costs a packet: under 1000 numbered packets a second each way, bulk TCP
 * each way, thirty slower connections and pings of 65,000 bytes at once; then at half of the rate that the line carries.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Scope } from '../../src/lib/scope.js';
import { earlierProgram } from '../support/earlier.js';
import { Load, lineRate, numbered, type LoadReport } from '../support/mix-load.js';
import { engineOf, faultsOf, MixLab, network, topologies } from '../support/mix-lab.js';
import { treeOf } from '../support/other-version.js';
import { daemonProgram, until } from '../support/tools.js';

/** Once each time that the engine changes, what was under way by the slower one comes late. */
const lateMax = 20;
/** A packet of tartand itself moves the queue of a veth to another processor now and then, with nothing done too. */
const straysMax = 3;
const document = (engine?: string): string =>
  JSON.stringify({ Network: network, Backend: { Type: 'udp' }, Engine: engine });

interface Step {
  readonly name: string;
  readonly work: (mix: MixLab) => Promise<void>;
  /** How often the pair changes its engine meanwhile. */
  readonly changes?: number;
  /** Milliseconds in which the kernel itself drops what is sent. */
  readonly closedMs?: number;
}

/** The file of the pairs is written each second. */
const settle = (): Promise<void> => delay(1500);

async function restart(mix: MixLab, program: string, flags = mix.flags('kernel')): Promise<void> {
  await settle();
  const { a } = mix;
  expect(await a.stopDaemon()).toBe(0);
  a.program = program;
  await a.startDaemon(flags).waitForEvent('daemon.ready');
  await a.waitForPeers(1);
}

async function killAll(mix: MixLab): Promise<void> {
  await settle();
  const { a } = mix;
  const pid = await a.datapathPid();
  await a.stopDaemon('SIGKILL');
  process.kill(pid, 'SIGKILL');
  await delay(500);
  await a.startDaemon(mix.flags('kernel')).waitForEvent('daemon.ready');
  await a.waitForPeers(1);
  expect(await engineOf(a)).toBe('kernel');
}

async function downgrade(mix: MixLab): Promise<void> {
  await settle();
  const { a } = mix;
  expect(await a.stopDaemon()).toBe(0);
  expect((await a.tool('features', 'withdraw')).status).toBe(0);
  a.program = earlierProgram;
  await a.startDaemon(mix.flags('earlier')).waitForEvent('daemon.ready');
  await a.waitForPeers(1);
  await until('user space on the other side', async () => (await engineOf(mix.b)) === 'user', 20_000);
}

async function untilRepaired(mix: MixLab, ...command: readonly string[]): Promise<void> {
  await mix.a.run(...command);
  await until('a repair', async () => {
    const [link, filter] = [
      await mix.a.run('ip', '-o', 'link', 'show', 'tartan-k'),
      await mix.a.run('tc', 'filter', 'show', 'dev', 'tartan-k', 'ingress'),
    ];
    return link.includes(',UP') && filter.includes('tartan');
  });
}

const inKernel = (mix: MixLab): Promise<void> => mix.untilEngine('kernel', 30_000);
const inUser = (mix: MixLab): Promise<void> => mix.untilEngine('user', 30_000);

const steps: readonly Step[] = [
  { name: 'nothing is done', work: () => delay(2000) },
  { name: 'kill -9 of tartand and data process, and a start', work: killAll },
  {
    name: 'another build takes over',
    work: async mix => restart(mix, join(await treeOf('other build'), 'dist/tartand.js')),
  },
  { name: 'this build takes over', work: mix => restart(mix, daemonProgram) },
  {
    name: 'engine user by the flag',
    changes: 1,
    work: async mix => {
      await restart(mix, daemonProgram, mix.flags('user'));
      await inUser(mix);
    },
  },
  {
    name: 'engine kernel by the flag',
    changes: 1,
    work: async mix => {
      await restart(mix, daemonProgram);
      await inKernel(mix);
    },
  },
  {
    name: 'Engine user in the document',
    changes: 1,
    work: async mix => {
      await mix.lab.setNetwork(document('user'));
      await inUser(mix);
    },
  },
  {
    name: 'Engine auto in the document',
    changes: 1,
    work: async mix => {
      await mix.lab.setNetwork(document('auto'));
      await inKernel(mix);
    },
  },
  { name: 'downgrade to the build before the engine', changes: 1, work: downgrade },
  {
    name: 'upgrade from it',
    changes: 1,
    work: async mix => {
      await restart(mix, daemonProgram);
      await inKernel(mix);
    },
  },
  { name: 'tartan-k deleted', closedMs: 250, work: mix => untilRepaired(mix, 'ip', 'link', 'delete', 'tartan-k') },
  {
    name: 'tartan-k set down',
    closedMs: 250,
    work: mix => untilRepaired(mix, 'ip', 'link', 'set', 'tartan-k', 'down'),
  },
];

beforeAll(() => {
  process.stdout.write(
    '| pair | underlay | step | sent | lost | reordered | longest gap |\n|---|---|---|---|---|---|---|\n',
  );
});

describe.each(topologies)('kernel and kernel, %s', topology => {
  const scope = new Scope();
  let mix: MixLab;

  beforeAll(async () => {
    // Built before the clock of a test runs.
    await treeOf('other build');
    mix = await MixLab.open(scope, { topology, other: 'kernel' });
  });
  afterAll(() => scope.close());

  function tell(step: string, { flows }: Pick<LoadReport, 'flows'>): void {
    const sum = (name: 'sent' | 'lost' | 'reordered'): number => flows.reduce((all, one) => all + one[name], 0);
    const gap = Math.max(...flows.map(({ longestGapMs }) => longestGapMs));
    const row = ['kernel-kernel', topology, step, sum('sent'), sum('lost'), sum('reordered'), `${gap} ms`];
    process.stdout.write(`| ${row.join(' | ')} |\n`);
  }

  test.each(steps)('$name', async ({ name, work, changes = 0, closedMs = 0 }) => {
    const before = await faultsOf(mix);
    const load = await Load.open(mix);
    await work(mix);
    await delay(300);
    const report = await load.stop();
    tell(name, report);
    for (const { lost, duplicates, reordered } of report.flows) {
      expect(duplicates).toBe(0);
      expect(lost).toBeLessThanOrEqual(closedMs);
      if (closedMs === 0) expect(reordered).toBeLessThanOrEqual(straysMax + changes * lateMax);
    }
    expect(report.brokenStreams).toEqual([]);
    if (closedMs === 0) expect(report.longPings.lost).toBe(0);
    expect(report.longPings.sent).toBeGreaterThan(3);
    expect(await faultsOf(mix)).toEqual(before);
  });

  test('at half of the rate of the line', async () => {
    const rate = Math.floor((await lineRate(mix)) / 2);
    for (const [name, work] of [
      ['nothing is done', () => delay(2000)],
      ['kill -9 of everything, and a start', () => killAll(mix)],
      ['programs and maps are replaced', () => restart(mix, daemonProgram)],
    ] as const) {
      const flow = await numbered(mix, mix.a, mix.b, rate);
      await work();
      await delay(300);
      const report = await flow.stop();
      tell(`${name}, at ${rate}/s`, { flows: [report] });
      expect(report).toMatchObject({ lost: 0, duplicates: 0 });
      expect(report.reordered).toBeLessThanOrEqual(straysMax);
    }
  });
});
