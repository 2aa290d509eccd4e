/**
 * Whether flows spread over processors, as far as there are any: sixteen TCP flows between containers, and what the kernel
 * does on each processor (softnet). A card would deal the outer packets out to its queues by a hash of their addresses and
 * ports (RSS); a veth has one queue, and RPS deals them out by the same hash.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { contendersOf, type Choice } from './contenders.js';
import { Collector, inTurn, type Group } from './groups.js';
import { link, type Lab } from './lab.js';
import { describeMachine } from './machine.js';
import { kernelEngine } from './overlay.js';
import { program, Running } from './process.js';
import { openSubject, type RoundOptions } from './rounds.js';
import { countMetric, ratioMetric } from './tests.js';
import { bulk, graceMs, iperf, warmUpMs, type Subject } from './traffic.js';

export type SpreadOptions = Pick<RoundOptions, 'rounds' | 'seconds' | 'say' | 'quiet' | 'before' | 'keep'> & {
  readonly choice: Choice;
};

const id = 'spread';
/** What is compared, and where its outer packets go. */
const outerPorts = { vxlan: 8472, [kernelEngine]: 4790, tartan: 8285 } as const;
type Name = keyof typeof outerPorts;
const isCompared = (name: string): name is Name => name in outerPorts;
const flows = ['-P', '16'];

const metrics = [
  ratioMetric('spread-tcp16', 'TCP 16 flows', 'Gbit/s', 2),
  countMetric('spread-busiest', 'packets handled by the busiest processor', '%', 1),
  countMetric('spread-steered', 'times that RPS woke another processor', 'k', 1),
  countMetric('spread-ports', 'outer source ports'),
  countMetric('spread-port-most', 'outer packets of the busiest source port', '%', 1),
];

interface Softnet {
  readonly handled: readonly number[];
  readonly steered: number;
}

/** Of each processor; the columns are those of softnet_seq_show in net/core/net-procfs.c. */
function readSoftnet(): Softnet {
  const rows = readFileSync('/proc/net/softnet_stat', 'utf8').trim().split('\n');
  const numbers = rows.map(row => row.split(' ').map(word => Number.parseInt(word, 16)));
  return {
    handled: numbers.map(([handled = 0]) => handled),
    steered: numbers.reduce((sum, row) => sum + (row[9] ?? 0), 0),
  };
}

/** The counters have 32 bits. */
const growth = (after: number, before: number): number => (after - before) >>> 0;

/** Has the packets that come in on the underlay handled by all processors, or by the one that got them. */
async function steer(lab: Lab, on: boolean): Promise<void> {
  const mask = on ? (2 ** Math.min(describeMachine().cores, 32) - 1).toString(16) : '0';
  // The files of a link are in the sysfs of its own namespace.
  const script =
    'mount -t sysfs sysfs /sys && for queue in /sys/class/net/$1/queues/rx-*; do echo $2 > $queue/rps_cpus; done';
  for (const side of lab.sides) await lab.run(side, ['unshare', '--mount', 'sh', '-c', script, 'sh', link, mask]);
}

interface Ports {
  readonly ports: number;
  readonly most: number;
}

/** Measured apart: whoever looks at packets takes a processor. */
async function portsOf(subject: Subject, port: number): Promise<Ports> {
  const load = iperf(subject, 1, flows);
  await delay(warmUpMs);
  const counting = new Running(subject.lab.on('b', [program('ports'), link, String(port)]));
  await counting.line(/^ready$/);
  await load.output(graceMs);
  counting.signal('SIGTERM');
  return JSON.parse(await counting.output(graceMs)) as Ports;
}

async function spreadOf(subject: Subject, seconds: number, port: number): Promise<readonly number[]> {
  const before = readSoftnet();
  const { gbps } = await bulk(subject, seconds, flows);
  const after = readSoftnet();
  const handled = after.handled.map((count, processor) => growth(count, before.handled[processor] ?? 0));
  const all = handled.reduce((sum, one) => sum + one, 0);
  const { ports, most } = await portsOf(subject, port);
  const steered = growth(after.steered, before.steered) / 1000;
  return [gbps, (100 * Math.max(...handled)) / Math.max(1, all), steered, ports, 100 * most];
}

/** Each contender without RPS and with it in turn, on the same hosts. */
export async function measureSpread(options: SpreadOptions): Promise<void> {
  const before = options.before(id);
  if ((before?.rounds ?? 0) >= options.rounds) return;
  const collector = new Collector(before);
  const subjects: Subject[] = [];
  try {
    for (const contender of contendersOf(options.choice))
      if (isCompared(contender.name)) subjects.push(await openSubject(contender, 'wire', 'container'));
    const turns = subjects.flatMap(subject =>
      [false, true].map(on => ({ subject, on, column: columnOf(subject, on) })),
    );
    while (collector.rounds < options.rounds) {
      for (const { subject, on, column } of inTurn(turns, collector.rounds + 1)) {
        await steer(subject.lab, on);
        await options.quiet.wait();
        const port = isCompared(subject.name) ? outerPorts[subject.name] : 0;
        const values = await spreadOf(subject, options.seconds, port);
        for (const [i, metric] of metrics.entries()) collector.add(metric, column, values[i] ?? 0);
        options.say(
          `${id} round ${collector.rounds + 1} ${column}: ${values.map(value => value.toFixed(1)).join(', ')}`,
        );
      }
      collector.endRound();
      options.keep(groupOf(subjects));
    }
  } finally {
    for (const { lab } of subjects) await lab.close();
  }

  function groupOf(some: readonly Subject[]): Group {
    const title = 'TCP 16 flows, container to container, over processors';
    const columns = some.flatMap(subject => [false, true].map(on => columnOf(subject, on)));
    const ratios = some.map(subject => [columnOf(subject, true), columnOf(subject, false)] as const);
    return { id, title, columns, rounds: collector.rounds, ratios, series: collector.series };
  }
}

function columnOf({ name }: Subject, on: boolean): string {
  return on ? `${name} RPS` : name;
}
