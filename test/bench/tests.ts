/** The tests: what is sent, and what is kept of it under which name. */
import { bulk, datagrams, roundTrips, type RoundTripOptions, type Subject } from './traffic.js';

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
  /** Whether `--quick` runs it. */
  readonly quick: boolean;
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

function bulkTest(name: string, label: string, quick: boolean, options: readonly string[]): Test {
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

function datagramTest(bytes: number, quick: boolean): Test {
  const name = `udp${bytes}`;
  const label = `UDP ${bytes} B`;
  return {
    name,
    quick,
    run: async (subject, seconds) => {
      const { deliveredKpps, lostPercent, reordered } = await datagrams(subject, seconds, bytes);
      return [deliveredKpps, lostPercent, reordered];
    },
    metrics: [
      ratioMetric(name, `${label} delivered`, 'kpps'),
      countMetric(`${name}-lost`, `${label} lost`, '%', 1),
      countMetric(`${name}-reordered`, `${label} reordered`),
    ],
  };
}

/** Datagrams of 1400 B a second that every contender carries: beyond that their loss is compared and not their cost. */
const offeredRate = 40_000;

/** Packets and idle round trips are many in half a second, which keeps `--quick` at two minutes. */
const shortSeconds = 0.5;

/** The same load for all: who sends as fast as it can is measured by what the data plane lets it send. */
const offeredTest: Test = {
  name: 'offered',
  quick: true,
  run: async (subject, seconds) => {
    const { deliveredKpps, lostPercent, cpuSecondsPerMillion } = await datagrams(
      subject,
      Math.min(seconds, shortSeconds),
      1400,
      offeredRate,
    );
    return [deliveredKpps, lostPercent, cpuSecondsPerMillion];
  },
  metrics: [
    ratioMetric('offered', `at ${offeredRate / 1000} kpps of 1400 B offered: delivered`, 'kpps', 1),
    countMetric('offered-lost', 'at that rate: lost', '%', 2),
    ratioMetric('offered-cpu', 'at that rate: CPU of ends and daemons', 's/million', 2),
  ],
};

function roundTripTest(name: string, label: string, options: RoundTripOptions): Test {
  return {
    name,
    quick: true,
    run: async (subject, seconds) => {
      const length = options.loaded ? seconds : Math.min(seconds, shortSeconds);
      const { p50Us, p99Us, lost } = await roundTrips(subject, length, options);
      return [p50Us, p99Us, lost];
    },
    metrics: [
      ratioMetric(`${name}-p50`, `${label} p50`, 'us'),
      ratioMetric(`${name}-p99`, `${label} p99`, 'us'),
      countMetric(`${name}-lost`, `${label} lost`),
    ],
  };
}

export const tests: readonly Test[] = [
  bulkTest('tcp1', 'TCP 1 flow', true, []),
  bulkTest('tcp4', 'TCP 4 flows', false, ['-P', '4']),
  bulkTest('tcp-both', 'TCP both ways', false, ['--bidir']),
  datagramTest(64, true),
  datagramTest(1400, false),
  offeredTest,
  roundTripTest('rtt', 'round trip idle, ends on two processors', { loaded: false, together: false }),
  roundTripTest('rtt-together', 'round trip idle, ends on one processor', { loaded: false, together: true }),
  roundTripTest('rtt-loaded', 'round trip under TCP', { loaded: true, together: false }),
];
