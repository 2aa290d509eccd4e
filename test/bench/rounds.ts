/**
 * The main groups: all contenders of one topology and underlay stand side by side, and take turns at every test of
 * every round (A B A B), so that whatever changes on the machine meets all of them.
 */
import { Collector, inTurn, ratiosOf, type Group } from './groups.js';
import { addressIn, Lab, type Topology, type Underlay } from './lab.js';
import type { Quiet } from './machine.js';
import { Absent, type Contender } from './overlay.js';
import { testsAt, type Test } from './tests.js';
import { openServers, reach, type Subject } from './traffic.js';

export interface RoundOptions {
  readonly contenders: readonly Contender[];
  readonly tests: readonly Test[];
  readonly rounds: number;
  readonly seconds: number;
  /** The column that ratios are about. */
  readonly ours: string;
  readonly say: (text: string) => void;
  readonly quiet: Quiet;
  /** What a run that was cut off has of this group. */
  readonly before: (id: string) => Group | undefined;
  /** Called after each round. */
  readonly keep: (group: Group) => void;
}

const titles = {
  host: 'Host to host',
  container: 'Container to container',
  whole: 'super-packets cross whole',
  wire: 'MTU-sized frames cross',
  nocsum: 'MTU-sized frames cross, no checksum offload',
  bridge: 'three hosts behind a bridge, MTU-sized frames cross',
} as const;

/** The contender's own lab, with traffic crossing. @throws Absent */
export async function openSubject(contender: Contender, underlay: Underlay, topology: Topology): Promise<Subject> {
  const lab = await Lab.open(contender.name.replace(/\W/g, ''), underlay, topology);
  try {
    const overlay = await contender.open(lab);
    if (topology === 'container') await lab.addContainers(overlay.subnets, overlay.mtu);
    const target = topology === 'container' ? addressIn(overlay.subnets.b, 2) : overlay.hosts.b;
    const subject = { name: contender.name, lab, overlay, target };
    await openServers(lab);
    await reach(subject);
    return subject;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

/** Calls `keep` with the group as it is after each of the rounds that are missing. */
export async function measure(underlay: Underlay, topology: Topology, options: RoundOptions): Promise<void> {
  const id = `${topology}/${underlay}`;
  const before = options.before(id);
  if ((before?.rounds ?? 0) >= options.rounds) return;
  const collector = new Collector(before);
  const subjects: Subject[] = [];
  const absent: string[] = [];
  const tests = testsAt(options.tests, topology, underlay);
  try {
    for (const contender of options.contenders) await open(contender);
    const columns = subjects.map(({ name }) => name);
    if (before && before.columns.join() !== columns.join())
      throw new Error(`${id} was begun with ${before.columns.join()}, and now there are ${columns.join()}: start anew`);
    while (collector.rounds < options.rounds) {
      for (const test of tests) for (const subject of inTurn(subjects, collector.rounds + 1)) await once(subject, test);
      collector.endRound();
      options.keep(groupOf(columns));
    }
  } finally {
    for (const { lab } of subjects) await lab.close();
  }

  function groupOf(columns: readonly string[]): Group {
    const { rounds, series } = collector;
    const title = `${titles[topology]}, ${titles[underlay]}`;
    return { id, title, columns, rounds, absent, ratios: ratiosOf(columns, options.ours), series };
  }

  async function open(contender: Contender): Promise<void> {
    try {
      subjects.push(await openSubject(contender, underlay, topology));
    } catch (error) {
      if (!(error instanceof Absent)) throw error;
      absent.push(`${contender.name} is absent: ${error.message}`);
      options.say(`${id} ${absent.at(-1)}`);
    }
  }

  async function once(subject: Subject, test: Test): Promise<void> {
    await options.quiet.wait();
    const values = await test.run(subject, options.seconds);
    for (const [i, metric] of test.metrics.entries()) collector.add(metric, subject.name, values[i] ?? 0);
    const [first] = test.metrics;
    const value = `${values[0]?.toFixed(first?.digits)} ${first?.unit}`;
    options.say(`${id} round ${collector.rounds + 1} ${test.name} ${subject.name}: ${value}`);
  }
}
