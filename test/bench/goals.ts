/** What both engines are held to: ratios of medians from one run, and absolute limits. */
import { median, ratioOf, valuesOf, type Group } from './groups.js';
import { floods } from './neighbours.js';
import { kernelEngine } from './overlay.js';

export const engines = ['kernel', 'user'] as const;
export type Engine = (typeof engines)[number];

/** None: the figure is only told. */
type Limits = readonly [least: number, aim: number];

interface Goal {
  /** Whose; `both` for what depends on neither. */
  readonly engine: Engine | 'both';
  readonly group: string;
  readonly metric: string;
  readonly what: string;
  /** The column divided by; none for an absolute value. */
  readonly under?: string;
  readonly over?: string;
  readonly less: boolean;
  readonly limits?: Limits | undefined;
}

type HostRow = readonly [group: string, metric: string, under: string | undefined, limits: Limits, what: string];

/** Of user space, from host to host; those of costs and without a divisor are met by less. */
// prettier-ignore
const hostRows: readonly HostRow[] = [
  ['host/wire', 'tcp1', 'vxlan', [0.9, 1], 'host to host, TCP 1 flow, MTU-sized frames / vxlan'],
  ['host/wire', 'tcp1', 'plain', [4.2, 5], 'host to host, TCP 1 flow, MTU-sized frames / plain'],
  ['host/wire', 'tcp4', 'vxlan', [0.6, 0.8], 'host to host, TCP 4 flows, MTU-sized frames / vxlan'],
  ['host/wire', 'tcp4', 'plain', [5.5, 7], 'host to host, TCP 4 flows, MTU-sized frames / plain'],
  ['host/whole', 'tcp1', 'vxlan', [0.55, 0.75], 'host to host, TCP 1 flow, whole / vxlan'],
  ['host/whole', 'tcp1', 'plain', [5, 7], 'host to host, TCP 1 flow, whole / plain'],
  ['host/wire', 'udp64', 'vxlan', [1.5, 2], 'host to host, UDP 64 B delivered, MTU-sized frames / vxlan'],
  ['host/wire', 'udp64', 'plain', [6.5, 9], 'host to host, UDP 64 B delivered, MTU-sized frames / plain'],
  ['host/wire', 'tcp1-cpu', 'vxlan', [1.45, 1.1], 'CPU s per GB, host to host, MTU-sized frames / vxlan'],
  ['container/wire', 'tcp1', 'plain', [5, 7], 'container to container, TCP 1 flow, MTU-sized frames / plain'],
  ['updates', 'updates-p99', undefined, [20, 2], 'route update adopted under load, p99 ms'],
  ['updates', 'updates-lost', undefined, [0, 0], 'route updates not adopted'],
  ['host/wire', 'udp64-reordered', undefined, [0, 0], 'UDP reordered within a flow'],
  ['host/wire', 'tcp1-out-of-order', undefined, [0, 0], 'TCP segments out of order'],
  ['host/wire', 'tcp1-retransmits', undefined, [0, 0], 'TCP retransmits'],
  ['host/wire', 'tcp1-rss', undefined, [16, 8], 'RSS of the data process, MB'],
];

const hostGoals: readonly Goal[] = hostRows.map(([group, metric, under, limits, what]) => ({
  engine: 'user',
  group,
  metric,
  what,
  ...(under !== undefined && { under }),
  less: under === undefined || metric.endsWith('-cpu'),
  limits,
}));

/** Between containers over vxlan in one run, on each of these. */
const places = [
  { group: 'container/wire', where: 'direct' },
  { group: 'container/bridge', where: 'behind a bridge' },
] as const;

interface Row {
  readonly metric: string;
  readonly what: string;
  readonly kernel: Limits;
  readonly user?: Limits;
  readonly less?: true;
  readonly third?: boolean;
}

// prettier-ignore
const aloneRows: readonly Row[] = [
  { metric: 'tcp1', what: 'TCP 1 flow', kernel: [1, 1.3], user: [0.77, 0.95] },
  { metric: 'tcp4', what: 'TCP 4 flows', kernel: [0.9, 1.05] },
  { metric: 'tcp-both', what: 'TCP both ways', kernel: [0.95, 1.2] },
  { metric: 'tcp1-cpu', what: 'CPU s per GB, TCP 1 flow', kernel: [1, 0.85], less: true },
  { metric: 'tcp4-cpu', what: 'CPU s per GB, TCP 4 flows', kernel: [1.1, 0.95], less: true },
  { metric: 'rtt-p50', what: 'round trip p50 idle', kernel: [1.05, 0.9], user: [1.4, 1.2], less: true },
  { metric: 'rtt-loaded-p50', what: 'round trip p50 under TCP', kernel: [1, 0.85], user: [2, 1.3], less: true },
  { metric: 'udp64', what: 'UDP 64 B of 1 sender', kernel: [0.85, 1], user: [1.5, 2] },
  { metric: 'udp64-4', what: 'UDP 64 B of 4 senders', kernel: [0.8, 1] },
];

/** What neighbours keep beside a flood: of the TCP flow at least, and of the quiet flow's round trip at most. */
const besideTcp = { kernel: [0.9, 1], user: [0.5, 0.8] } as const;
const besideTrip = { kernel: [1.5, 1.1], user: [5, 2], less: true } as const;

const besideRows: readonly Row[] = [
  ...floods.flatMap(({ name, label, third }) => [
    { ...besideTcp, metric: `beside-${name}`, what: `TCP beside ${label}`, third },
    { ...besideTrip, metric: `beside-${name}-p50`, what: `round trip p50 beside ${label}`, third },
  ]),
  { ...besideTrip, metric: 'beside-flows-p50', what: 'round trip p50 beside 30 TCP flows' },
];

const words = { user: 'user space', kernel: 'kernel engine' } as const;

const containerGoals: readonly Goal[] = [...aloneRows, ...besideRows].flatMap(row =>
  places
    .filter(({ group }) => !row.third || group === 'container/bridge')
    .flatMap(({ group, where }) =>
      engines.map(engine => ({
        engine,
        group,
        metric: row.metric,
        under: 'vxlan',
        what: `${words[engine]}, ${where}, ${row.what} / vxlan`,
        less: row.less ?? false,
        limits: row[engine],
      })),
    ),
);

/** What the size of the table may cost, with prefixes of as many lengths as the kernel engine takes, too. */
export const tableSizes = { few: '2', many: '65536', lengths: '65536 in 4 lengths' } as const;

const peerRows = [
  { metric: 'peers-tcp1', what: 'TCP' },
  { metric: 'peers-udp64', what: 'UDP 64 B' },
  { metric: 'peers-rtt', what: 'round trip p50', less: true },
];

const peerGoals: readonly Goal[] = engines.flatMap(engine =>
  peerRows.flatMap(({ metric, what, less = false }) =>
    [tableSizes.many, tableSizes.lengths].map(over => ({
      engine,
      group: `peers/${engine}`,
      metric,
      over,
      under: tableSizes.few,
      what: `${words[engine]}, ${what}, ${over} / ${tableSizes.few} peers`,
      less,
      limits: less ? undefined : ([0.98, 1] as const),
    })),
  ),
);

/** What is measured of the package: itself in two forms, and programs of it. */
export const packageColumns = {
  deb: '.deb',
  installed: 'installed',
  bare: 'node -e 0',
  version: 'tartan --version',
  status: 'tartan status',
} as const;

// prettier-ignore
const packageRows: readonly (readonly [over: string, under: string | undefined, aim: number, what: string])[] = [
  [packageColumns.deb, undefined, 30, 'the .deb, MB'],
  [packageColumns.installed, undefined, 110, 'installed, MB'],
  [packageColumns.version, packageColumns.bare, 2, 'tartan --version / node -e 0'],
  [packageColumns.status, packageColumns.bare, 5, 'tartan status / node -e 0'],
];

const packageGoals: readonly Goal[] = packageRows.map(([over, under, aim, what]) => ({
  engine: 'both',
  group: 'package',
  metric: under === undefined ? 'package-size' : 'package-time',
  over,
  ...(under !== undefined && { under }),
  what,
  less: true,
  limits: [aim, aim],
}));

/** Peers of the host whose memory is measured beside that of one with two. */
export const idleSizes = { many: 5_000 } as const;

/** Of the whole host, and of tartand; less is better. */
// prettier-ignore
const idleRows: readonly (readonly [metric: string, what: string, limits: Limits])[] = [
  ['idle-cpu-0', 'CPU with nothing to do, % of a core', [0.4, 0.2]],
  ['idle-wakes-0', 'wake-ups/s without peers', [5, 3]],
  ['idle-wakes-2', 'wake-ups/s with 2 peers', [10, 8]],
  ['idle-rss-2', 'RSS of tartand with 2 peers, MB', [100, 60]],
  [`idle-rss-${idleSizes.many}`, `RSS of tartand with ${idleSizes.many} peers, MB`, [140, 100]],
  ['idle-ready', 'tartand to READY=1, s', [1.4, 0.7]],
];

const idleGoals: readonly Goal[] = idleRows.map(([metric, what, limits]) => ({
  engine: 'both',
  group: 'idle',
  metric,
  what,
  over: 'tartand',
  less: true,
  limits,
}));

export const goals: readonly Goal[] = [...hostGoals, ...containerGoals, ...peerGoals, ...packageGoals, ...idleGoals];

export interface Outcome {
  readonly engine: Goal['engine'];
  readonly group: string;
  readonly what: string;
  readonly limits: Limits | undefined;
  readonly value: number;
  readonly verdict: 'aim' | 'ok' | 'MISSED' | '';
}

/** Those that the groups have values for. */
export function judge(groups: readonly Group[], ours: string): readonly Outcome[] {
  return goals.flatMap(goal => {
    const value = valueOf(groups, goal, ours);
    if (value === undefined) return [];
    const { engine, group, what, limits } = goal;
    return [{ engine, group, what, limits, value, verdict: verdictOf(goal, value) }];
  });
}

function verdictOf({ limits, less }: Goal, value: number): Outcome['verdict'] {
  if (!limits) return '';
  const [least, aim] = limits;
  const meets = (limit: number): boolean => (less ? value <= limit : value >= limit);
  return meets(aim) ? 'aim' : meets(least) ? 'ok' : 'MISSED';
}

function valueOf(groups: readonly Group[], goal: Goal, ours: string): number | undefined {
  const group = groups.find(({ id }) => id === goal.group);
  if (!group) return undefined;
  const over = goal.over ?? (goal.engine === 'kernel' ? kernelEngine : ours);
  if (goal.under !== undefined) return ratioOf(group, goal.metric, over, goal.under);
  const values = valuesOf(group, goal.metric, over);
  return values.length > 0 ? median(values) : undefined;
}
