/** The tests: what is sent, and what is kept of it under which name. */
import { topologies, type Topology, type Underlay } from './lab.js';
import { besideFlood, besideFlows, floods, mixed, type Flood } from './neighbours.js';
import { bulk, datagrams, iperf, graceMs, roundTrips, warmUpMs } from './traffic.js';
import type { DatagramOptions, RoundTrips, Subject } from './traffic.js';

export interface Metric {
  readonly name: string;
  readonly label: string;
  readonly unit: string;
  readonly digits: number;
  /** Whether a ratio to others makes sense; a count that should be 0 has none. */
  readonly ratio: boolean;
}

export interface Test {
  readonly name: string;
  /** Where `--quick` runs it: two minutes have no room for all. */
  readonly quick: readonly Topology[];
  /** Where it runs; everywhere without it. */
  readonly fits?: (topology: Topology, underlay: Underlay) => boolean;
  /** One value for each of its metrics, in their order. */
  readonly run: (subject: Subject, seconds: number) => Promise<readonly number[]>;
  readonly metrics: readonly Metric[];
}

export function ratioMetric(name: string, label: string, unit: string, digits = 0): Metric {
  return { name, label, unit, digits, ratio: true };
}

export function countMetric(name: string, label: string, unit = '', digits = 0): Metric {
  return { name, label, unit, digits, ratio: false };
}

function bulkTest(name: string, label: string, quick: Test['quick'], options: readonly string[]): Test {
  return {
    name,
    quick,
    run: async (subject, seconds) => {
      const { gbps, cpuSecondsPerGb, retransmits, outOfOrder, dropped, rssMb } = await bulk(subject, seconds, options);
      return [gbps, cpuSecondsPerGb, retransmits, outOfOrder, dropped, rssMb];
    },
    metrics: [
      ratioMetric(name, label, 'Gbit/s', 2),
      ratioMetric(`${name}-cpu`, `${label}, CPU`, 's/GB', 2),
      countMetric(`${name}-retransmits`, `${label}, retransmits`),
      countMetric(`${name}-out-of-order`, `${label}, out of order`),
      countMetric(`${name}-dropped`, `${label}, dropped by full queues`),
      countMetric(`${name}-rss`, `${label}, RSS of the data process`, 'MB', 1),
    ],
  };
}

function datagramTest(name: string, label: string, quick: Test['quick'], options: DatagramOptions): Test {
  return {
    name,
    quick,
    run: async (subject, seconds) => {
      const { deliveredKpps, lostPercent, reordered, machineSecondsPerMillion } = await datagrams(
        subject,
        seconds,
        options,
      );
      return [deliveredKpps, lostPercent, reordered, machineSecondsPerMillion];
    },
    metrics: [
      ratioMetric(name, `${label} delivered`, 'kpps'),
      countMetric(`${name}-lost`, `${label} lost`, '%', 1),
      countMetric(`${name}-reordered`, `${label} reordered`),
      ratioMetric(`${name}-cpu`, `${label}, CPU`, 's/million', 2),
    ],
  };
}

/** Datagrams of 1400 B a second that every contender carries: beyond that their loss is compared and not their cost. */
const offeredRate = 40_000;

/** Packets and idle round trips are many in half a second. */
const shortSeconds = 0.5;

/** The same load for all: who sends as fast as it can is measured by what the data plane lets it send. */
const offeredTest: Test = {
  name: 'offered',
  quick: [],
  run: async (subject, seconds) => {
    const { deliveredKpps, lostPercent, cpuSecondsPerMillion } = await datagrams(
      subject,
      Math.min(seconds, shortSeconds),
      { bytes: 1400, rate: offeredRate },
    );
    return [deliveredKpps, lostPercent, cpuSecondsPerMillion];
  },
  metrics: [
    ratioMetric('offered', `at ${offeredRate / 1000} kpps of 1400 B offered: delivered`, 'kpps', 1),
    countMetric('offered-lost', 'at that rate: lost', '%', 2),
    ratioMetric('offered-cpu', 'at that rate: CPU of ends and daemons', 's/million', 2),
  ],
};

const valuesOfTrips = ({ p50, p99, p999, count, lost }: RoundTrips): readonly number[] => [
  p50,
  p99,
  p999,
  (100 * lost) / Math.max(1, count),
];

function tripMetrics(name: string, label: string): readonly Metric[] {
  return [
    ratioMetric(`${name}-p50`, `${label} p50`, 'us'),
    ratioMetric(`${name}-p99`, `${label} p99`, 'us'),
    ratioMetric(`${name}-p999`, `${label} p99.9`, 'us'),
    countMetric(`${name}-lost`, `${label} lost`, '%', 1),
  ];
}

function idleTest(name: string, label: string, together: boolean): Test {
  return {
    name,
    quick: together ? [] : ['container'],
    run: async (subject, seconds) =>
      valuesOfTrips(await roundTrips(subject, Math.min(seconds, shortSeconds), { warmUpMs: 50, together })),
    metrics: tripMetrics(name, label),
  };
}

/** While one TCP flow goes the same way. */
const loadedTest: Test = {
  name: 'rtt-loaded',
  quick: ['container'],
  run: async (subject, seconds) => {
    const load = iperf(subject, Math.ceil(seconds + warmUpMs / 1000), []);
    const trips = await roundTrips(subject, seconds, { warmUpMs });
    await load.output(seconds * 1000 + graceMs);
    return valuesOfTrips(trips);
  },
  metrics: tripMetrics('rtt-loaded', 'round trip under TCP'),
};

/** Frames of the MTU between containers: where neighbours are. */
function withNeighbours(topology: Topology, underlay: Underlay): boolean {
  return topology === 'container' && (underlay === 'wire' || underlay === 'bridge');
}

function floodTest(flood: Flood): Test {
  const name = `beside-${flood.name}`;
  return {
    name,
    quick: [],
    fits: (topology, underlay) => withNeighbours(topology, underlay) && (!flood.third || underlay === 'bridge'),
    run: async (subject, seconds) => {
      const beside = await besideFlood(subject, seconds, flood);
      return [beside.gbps, ...valuesOfTrips(beside), beside.floodKpps];
    },
    metrics: [
      ratioMetric(name, `TCP beside ${flood.label}`, 'Gbit/s', 2),
      ...tripMetrics(name, `quiet flow beside ${flood.label}`),
      ratioMetric(`${name}-flood`, `of these ${flood.label} delivered`, 'kpps'),
    ],
  };
}

const flowsTest: Test = {
  name: 'beside-flows',
  quick: [],
  fits: withNeighbours,
  run: async (subject, seconds) => {
    const beside = await besideFlows(subject, seconds);
    return [beside.gbps, ...valuesOfTrips(beside), beside.cpuPercent];
  },
  metrics: [
    ratioMetric('beside-flows', '30 TCP flows of 60 Mbit/s', 'Gbit/s', 2),
    ...tripMetrics('beside-flows', 'quiet flow beside 30 TCP flows'),
    ratioMetric('beside-flows-cpu', '30 TCP flows of 60 Mbit/s, CPU', '%'),
  ],
};

const mixedTest: Test = {
  name: 'mixed',
  quick: [],
  run: async (subject, seconds) => {
    const { gbps, deliveredKpps, lostPercent } = await mixed(subject, seconds);
    return [gbps, deliveredKpps, lostPercent];
  },
  metrics: [
    ratioMetric('mixed', 'TCP with 20 kpps of UDP 64 B', 'Gbit/s', 2),
    ratioMetric('mixed-udp', 'UDP 64 B with TCP delivered', 'kpps', 1),
    countMetric('mixed-lost', 'UDP 64 B with TCP lost', '%', 1),
  ],
};

/** The test where `--quick` runs it. */
export function quickly(test: Test): Test {
  const { fits, quick } = test;
  return { ...test, fits: (topology, underlay) => quick.includes(topology) && (fits?.(topology, underlay) ?? true) };
}

/** Those of them that run there. */
export function testsAt(some: readonly Test[], topology: Topology, underlay: Underlay): readonly Test[] {
  return some.filter(({ fits }) => fits?.(topology, underlay) ?? true);
}

export const tests: readonly Test[] = [
  bulkTest('tcp1', 'TCP 1 flow', topologies, []),
  bulkTest('tcp4', 'TCP 4 flows', [], ['-P', '4']),
  bulkTest('tcp16', 'TCP 16 flows', [], ['-P', '16']),
  bulkTest('tcp-both', 'TCP both ways', [], ['--bidir']),
  datagramTest('udp64', 'UDP 64 B', topologies, { bytes: 64 }),
  datagramTest('udp64-4', 'UDP 64 B of 4 senders', [], { bytes: 64, senders: 4 }),
  datagramTest('udp1400', 'UDP 1400 B', [], { bytes: 1400 }),
  offeredTest,
  mixedTest,
  idleTest('rtt', 'round trip idle, ends on two processors', false),
  idleTest('rtt-together', 'round trip idle, ends on one processor', true),
  loadedTest,
  ...floods.map(floodTest),
  flowsTest,
];
