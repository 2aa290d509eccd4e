/**
 * The soak: every fault of test/e2e/faults in random order, on random hosts, for as long as asked. The seed is said
 * first and decides all that the harness decides. One host, the witness, never loses its daemon on purpose: on it the
 * slope of the memory and the number of descriptors are measured.
 */
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/lib/errors.js';
import { Scope } from '../../src/lib/scope.js';
import { bounds, ttlSeconds } from '../e2e/faults/campaign.js';
import { partitionFaults, quorumFaults, storeFaults } from '../e2e/faults/etcd-faults.js';
import type { Fault } from '../e2e/faults/fault.js';
import { hardFaults } from '../e2e/faults/hard-faults.js';
import { FaultLab } from '../e2e/faults/lab.js';
import { leaseFaults } from '../e2e/faults/lease-faults.js';
import type { LogLine, ProcessState } from '../e2e/faults/log.js';
import { processFaults } from '../e2e/faults/process-faults.js';
import { underlayFaults } from '../e2e/faults/underlay-faults.js';
import { validate } from '../e2e/faults/validator.js';
import { seeded } from './lease-world.js';

const hosts = ['a', 'b', 'c'] as const;
const witness = 'c';
const allFaults: readonly Fault[] = [
  ...storeFaults,
  ...quorumFaults,
  ...partitionFaults,
  ...leaseFaults,
  ...processFaults,
  ...underlayFaults,
  ...hardFaults,
];
/** What a garbage-collected heap may seem to grow by, over the whole run. */
const growthBytes = 24e6;
const growthDescriptors = 4;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string' },
    log: { type: 'string' },
    /** Only faults whose name has this text. */
    only: { type: 'string', default: '' },
  },
});
const faults = allFaults.filter(({ name }) => name.includes(values.only));
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isInteger(seed)) {
  process.stderr.write('soak: expected --minutes NUMBER and --seed WHOLE-NUMBER\n');
  process.exit(64);
}

process.stdout.write(`soak: ${minutes} minutes, seed ${seed}\n`);
const scope = new Scope((name, error) => process.stderr.write(`closing ${name}: ${messageOf(error)}\n`));
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void scope.close().then(() => process.exit(130)));
try {
  process.exitCode = await soak();
} catch (error) {
  process.stdout.write(`soak FAILED: ${messageOf(error)} (seed ${seed})\n`);
  process.exitCode = 1;
} finally {
  await scope.close();
}

async function soak(): Promise<number> {
  const random = seeded(seed);
  const log = values.log === undefined ? {} : { logFile: values.log };
  const lab = await FaultLab.open(scope, { hosts, members: 3, ttlSeconds, random, ...log });
  const end = performance.now() + minutes * 60_000;
  const troubles: string[] = [];
  let count = 0;
  for (; performance.now() < end; count++) {
    const fault = faults[Math.floor(random() * faults.length)] ?? { name: 'none', inject: async () => {} };
    lab.victim = lab.lab.node(hosts[Math.floor(random() * (hosts.length - 1))] ?? hosts[0]);
    process.stdout.write(`${new Date().toISOString()} ${lab.victim.letter} ${fault.name}\n`);
    const wrong = await lab.run(fault);
    for (const trouble of wrong) process.stdout.write(`WRONG ${trouble}\n`);
    troubles.push(...wrong);
    if (wrong.length === 0) continue;
    process.stdout.write(`${lab.lastWords()}\n`);
    await lab.repair();
  }
  const broken = validate(lab.log.lines, bounds).map(
    ({ invariant, atMs, what }) => `${invariant} at ${atMs} ms: ${what}`,
  );
  const lost = traffic(lab.log.lines);
  const cost = measure(lab.log.lines);
  const wrong = [...troubles, ...broken, ...cost.wrong];
  for (const line of [...broken, ...cost.wrong]) process.stdout.write(`WRONG ${line}\n`);
  process.stdout.write(`${cost.text}\n`);
  const verdict = wrong.length === 0 ? 'passed' : `FAILED (${wrong.length})`;
  process.stdout.write(
    `soak ${verdict}: ${count} faults in ${minutes} minutes, seed ${seed}, ${lost}, ${broken.length} broken invariants\n`,
  );
  return wrong.length === 0 ? 0 : 1;
}

/** Packets of the flows that a fault may not cost one. */
function traffic(lines: readonly LogLine[]): string {
  let sent = 0;
  let lost = 0;
  for (const line of lines) {
    if (line.kind !== 'flow' || line.lostMax !== 0) continue;
    sent += line.sent;
    lost += line.lost;
  }
  return `${lost} of ${sent} packets lost where none may be`;
}

function measure(lines: readonly LogLine[]): { readonly wrong: readonly string[]; readonly text: string } {
  const all = lines.flatMap(line =>
    line.kind === 'state' && line.host === witness && line.process ? [{ ...line.process, atMs: line.atMs }] : [],
  );
  // A young process still grows into its work.
  const trail = all.slice(Math.floor(all.length / 5));
  const pids = new Set(trail.map(({ pid }) => pid));
  const grownBytes = slope(trail) * ((trail.at(-1)?.atMs ?? 0) - (trail[0]?.atMs ?? 0));
  const quarter = Math.ceil(trail.length / 4);
  const least = (part: readonly ProcessState[]): number => Math.min(...part.map(({ descriptors }) => descriptors));
  const grownDescriptors = least(trail.slice(-quarter)) - least(trail.slice(0, quarter));
  const wrong = [
    ...(pids.size === 1 ? [] : [`the daemon of the witness was ${pids.size} processes`]),
    ...(grownBytes <= growthBytes ? [] : [`its memory grows: ${Math.round(grownBytes / 1e6)} MB over the run`]),
    ...(grownDescriptors <= growthDescriptors ? [] : [`its descriptors grow by ${grownDescriptors}`]),
  ];
  const mebibytes = Math.round((trail.at(-1)?.residentBytes ?? 0) / 2 ** 20);
  const text = `witness: ${mebibytes} MiB resident, trend ${(grownBytes / 1e6).toFixed(1)} MB over the run, descriptors ${grownDescriptors >= 0 ? '+' : ''}${grownDescriptors}`;
  return { wrong, text };
}

/** Least squares: bytes per millisecond. */
function slope(trail: readonly { readonly atMs: number; readonly residentBytes: number }[]): number {
  const mean = (pick: (point: (typeof trail)[number]) => number): number =>
    trail.reduce((sum, point) => sum + pick(point), 0) / Math.max(1, trail.length);
  const [atMs, bytes] = [mean(point => point.atMs), mean(point => point.residentBytes)];
  const above = mean(point => (point.atMs - atMs) * (point.residentBytes - bytes));
  const below = mean(point => (point.atMs - atMs) ** 2);
  return below === 0 ? 0 : above / below;
}
