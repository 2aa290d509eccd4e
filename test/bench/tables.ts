/** Our data plane's route table under traffic: what its size costs, and how late a change of it is adopted. */
import { Collector, inTurn, percentile, type Group } from './groups.js';
import { Lab } from './lab.js';
import { tunnel, udpMtu, subnets } from './overlay.js';
import type { RoundOptions } from './rounds.js';
import { openTartan, type TartanHost } from './tartan.js';
import { countMetric, ratioMetric } from './tests.js';
import { bulk, datagrams, openServers, reach, type Subject } from './traffic.js';

export type TableOptions = Pick<RoundOptions, 'rounds' | 'seconds' | 'ours' | 'say' | 'quiet'> & {
  readonly dist: string;
};

const everyMs = 10;
const tcp = ratioMetric('peers-tcp1', 'TCP 1 flow', 'Gbit/s', 2);
const udp = ratioMetric('peers-udp64', 'UDP 64 B delivered', 'kpps');
const count = countMetric('updates-adopted', 'tables adopted');
const p50 = countMetric('updates-p50', 'adopted after, p50', 'ms', 2);
const p99 = countMetric('updates-p99', 'adopted after, p99', 'ms', 2);
const most = countMetric('updates-max', 'adopted after, most', 'ms', 2);
const lost = countMetric('updates-lost', 'tables not adopted');
const unrouted = countMetric('updates-unrouted', 'packets without a route');

async function withTartan<T>(
  dist: string,
  work: (subject: Subject, near: TartanHost, far: TartanHost) => Promise<T>,
): Promise<T> {
  const lab = await Lab.open('table', 'wire', 'host');
  try {
    const [near, far] = await openTartan(lab, dist);
    if (!near || !far) throw new Error('a lab of fewer than two hosts');
    const overlay = { mtu: udpMtu, subnets, hosts: tunnel, pids: [near.pid] };
    const subject: Subject = { name: 'tartan', lab, overlay, target: tunnel.b };
    await openServers(lab);
    await reach(subject);
    return await work(subject, near, far);
  } finally {
    await lab.close();
  }
}

export async function measurePeers(sizes: readonly number[], options: TableOptions): Promise<Group> {
  const collector = new Collector();
  await withTartan(options.dist, async (subject, near, far) => {
    for (let round = 1; round <= options.rounds; round++) {
      for (const size of inTurn(sizes, round)) {
        await Promise.all([near.fill(size), far.fill(size)]);
        await options.quiet.wait();
        const { gbps } = await bulk(subject, options.seconds, []);
        const { deliveredKpps } = await datagrams(subject, options.seconds, { bytes: 64 });
        collector.add(tcp, String(size), gbps);
        collector.add(udp, String(size), deliveredKpps);
        options.say(`peers round ${round} ${size}: ${gbps.toFixed(2)} Gbit/s, ${deliveredKpps.toFixed(0)} kpps`);
      }
    }
  });
  const columns = sizes.map(String);
  const [least = ''] = columns;
  return {
    id: 'peers',
    title: 'Peers in the table, host to host, MTU-sized frames cross',
    columns,
    ratios: columns.slice(1).map(column => [column, least] as const),
    series: collector.series,
  };
}

/** A change every 10 ms, while one TCP flow each way takes what it can get. */
export async function measureUpdates(options: TableOptions): Promise<Group> {
  const collector = new Collector();
  await withTartan(options.dist, async (subject, near) => {
    for (let round = 1; round <= options.rounds; round++) {
      await options.quiet.wait();
      const before = await near.counters();
      const load = bulk(subject, options.seconds + 1, ['--bidir']);
      const { lateMs, lost: notAdopted } = await near.update(options.seconds, everyMs);
      await load;
      const after = await near.counters();
      collector.add(count, options.ours, lateMs.length);
      collector.add(p50, options.ours, percentile(lateMs, 0.5));
      collector.add(p99, options.ours, percentile(lateMs, 0.99));
      collector.add(most, options.ours, percentile(lateMs, 1));
      collector.add(lost, options.ours, notAdopted);
      collector.add(unrouted, options.ours, (after['tx_noroute'] ?? 0) - (before['tx_noroute'] ?? 0));
      options.say(`updates round ${round}: ${lateMs.length} adopted, p99 ${percentile(lateMs, 0.99).toFixed(2)} ms`);
    }
  });
  const title = `A table changed every ${everyMs} ms under TCP both ways`;
  return { id: 'updates', title, columns: [options.ours], ratios: [], series: collector.series };
}
