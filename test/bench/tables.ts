/** Our data plane's route table under traffic: what its size costs, and how late a change of it is adopted. */
import { tableSizes, type Engine } from './goals.js';
import { Collector, inTurn, percentile, type Group } from './groups.js';
import { takesDevice } from './kernel-engine.js';
import { addressIn, Lab, type Topology } from './lab.js';
import { kernelMtu, subnets, tunnel, udpMtu } from './overlay.js';
import type { RoundOptions } from './rounds.js';
import { openTartan, type TartanHost } from './tartan.js';
import { countMetric, ratioMetric } from './tests.js';
import { bulk, datagrams, openServers, reach, roundTrips, type Subject } from './traffic.js';

export type TableOptions = Pick<RoundOptions, 'rounds' | 'seconds' | 'ours' | 'say' | 'quiet' | 'before' | 'keep'> & {
  readonly dist: string;
};

const everyMs = 10;
const tripSeconds = 0.5;
const peerMetrics = [
  ratioMetric('peers-tcp1', 'TCP 1 flow', 'Gbit/s', 2),
  ratioMetric('peers-tcp1-cpu', 'TCP 1 flow, CPU', 's/GB', 2),
  ratioMetric('peers-udp64', 'UDP 64 B delivered', 'kpps'),
  ratioMetric('peers-udp64-cpu', 'UDP 64 B, CPU', 's/million', 2),
  ratioMetric('peers-rtt', 'round trip idle p50', 'us'),
];
const words = { user: 'user-space engine', kernel: 'kernel engine' } as const;
const count = countMetric('updates-adopted', 'tables adopted');
const p50 = countMetric('updates-p50', 'adopted after, p50', 'ms', 2);
const p99 = countMetric('updates-p99', 'adopted after, p99', 'ms', 2);
const most = countMetric('updates-max', 'adopted after, most', 'ms', 2);
const lost = countMetric('updates-lost', 'tables not adopted');
const unrouted = countMetric('updates-unrouted', 'packets without a route');

interface Ends {
  readonly subject: Subject;
  readonly near: TartanHost;
  readonly far: TartanHost;
}

/** Two hosts joined by our data plane, its packets by that engine. */
async function withTartan<T>(
  dist: string,
  engine: Engine,
  topology: Topology,
  work: (ends: Ends) => Promise<T>,
): Promise<T> {
  const lab = await Lab.open(`table${engine}`, 'wire', topology);
  try {
    const [near, far] = await openTartan(lab, dist, engine);
    if (!near || !far) throw new Error('a lab of fewer than two hosts');
    const mtu = engine === 'kernel' ? kernelMtu : udpMtu;
    const overlay = { mtu, subnets, hosts: tunnel, pids: [near.pid] };
    if (topology === 'container') await lab.addContainers(subnets, mtu);
    const target = topology === 'container' ? addressIn(subnets.b, 2) : tunnel.b;
    const subject: Subject = { name: 'tartan', lab, overlay, target };
    await openServers(lab);
    await reach(subject);
    if (engine === 'kernel')
      for (const side of lab.sides) for (const peer of lab.peersOf(side)) await takesDevice(lab, side, tunnel[peer]);
    return await work({ subject, near, far });
  } finally {
    await lab.close();
  }
}

const tables = [
  { column: tableSizes.few, routes: 2, lengths: 1 },
  { column: tableSizes.many, routes: 65_536, lengths: 1 },
  // With that of the peer they are four.
  { column: tableSizes.lengths, routes: 65_536, lengths: 3 },
] as const;

/** The same hosts with tables of another size in turn, so that nothing else differs. */
export async function measurePeers(engine: Engine, options: TableOptions): Promise<void> {
  const id = `peers/${engine}`;
  const before = options.before(id);
  if ((before?.rounds ?? 0) >= options.rounds) return;
  const collector = new Collector(before);
  await withTartan(options.dist, engine, 'container', async ({ subject, near, far }) => {
    while (collector.rounds < options.rounds) {
      for (const { column, routes, lengths } of inTurn(tables, collector.rounds + 1)) {
        await Promise.all([near.fill(routes, lengths), far.fill(routes, lengths)]);
        await options.quiet.wait();
        const { gbps, cpuSecondsPerGb } = await bulk(subject, options.seconds, []);
        const { deliveredKpps, machineSecondsPerMillion } = await datagrams(subject, options.seconds, { bytes: 64 });
        const { p50 } = await roundTrips(subject, tripSeconds, { warmUpMs: 50 });
        const values = [gbps, cpuSecondsPerGb, deliveredKpps, machineSecondsPerMillion, p50];
        for (const [i, metric] of peerMetrics.entries()) collector.add(metric, column, values[i] ?? 0);
        const words = peerMetrics.map(({ digits, unit }, i) => `${values[i]?.toFixed(digits)} ${unit}`);
        options.say(`${id} round ${collector.rounds + 1} ${column}: ${words.join(', ')}`);
      }
      collector.endRound();
      options.keep(groupOf());
    }
  });

  function groupOf(): Group {
    const columns = tables.map(({ column }) => column);
    return {
      id,
      title: `Peers in the table of the ${words[engine]}, container to container, MTU-sized frames cross`,
      columns,
      rounds: collector.rounds,
      ratios: columns.slice(1).map(column => [column, tableSizes.few] as const),
      series: collector.series,
    };
  }
}

/** A change every 10 ms, while one TCP flow each way takes what it can get. */
export async function measureUpdates(options: TableOptions): Promise<void> {
  const before = options.before('updates');
  if ((before?.rounds ?? 0) >= options.rounds) return;
  const collector = new Collector(before);
  await withTartan(options.dist, 'user', 'host', async ({ subject, near }) => {
    while (collector.rounds < options.rounds) {
      await options.quiet.wait();
      const counted = await near.counters();
      const load = bulk(subject, options.seconds + 1, ['--bidir']);
      const { lateMs, lost: notAdopted } = await near.update(options.seconds, everyMs);
      await load;
      const after = await near.counters();
      collector.add(count, options.ours, lateMs.length);
      collector.add(p50, options.ours, percentile(lateMs, 0.5));
      collector.add(p99, options.ours, percentile(lateMs, 0.99));
      collector.add(most, options.ours, percentile(lateMs, 1));
      collector.add(lost, options.ours, notAdopted);
      collector.add(unrouted, options.ours, (after['tx_noroute'] ?? 0) - (counted['tx_noroute'] ?? 0));
      options.say(`updates: ${lateMs.length} adopted, p99 ${percentile(lateMs, 0.99).toFixed(2)} ms`);
      collector.endRound();
      options.keep(groupOf());
    }
  });

  function groupOf(): Group {
    const title = `A table changed every ${everyMs} ms under TCP both ways`;
    const { rounds, series } = collector;
    return { id: 'updates', title, columns: [options.ours], rounds, ratios: [], series };
  }
}
