/** What both engines are held to: ratios of medians from one run, and absolute limits. */
import { median, ratioOf, valuesOf, type Group } from './groups.js';
import { floods } from './neighbours.js';
import { kernelEngine } from './overlay.js';

type Engine = 'user' | 'kernel';

interface Goal {
  /** That of user space where none is named. */
  readonly engine?: Engine;
  readonly group: string;
  readonly metric: string;
  readonly what: string;
  /** The column divided by; none for an absolute value. */
  readonly under?: string;
  readonly over?: string;
  readonly least: number;
  readonly aim: number;
}

/** A goal whose aim is below its least is one of those where less is better. */
// prettier-ignore
const userGoals: readonly Goal[] = [
  { group: 'host/wire', metric: 'tcp1', under: 'vxlan', least: 0.9, aim: 1, what: 'host to host, TCP 1 flow, MTU-sized frames / vxlan' },
  { group: 'host/wire', metric: 'tcp1', under: 'plain', least: 4.2, aim: 5, what: 'host to host, TCP 1 flow, MTU-sized frames / plain' },
  { group: 'host/wire', metric: 'tcp4', under: 'vxlan', least: 0.6, aim: 0.8, what: 'host to host, TCP 4 flows, MTU-sized frames / vxlan' },
  { group: 'host/wire', metric: 'tcp4', under: 'plain', least: 5.5, aim: 7, what: 'host to host, TCP 4 flows, MTU-sized frames / plain' },
  { group: 'host/whole', metric: 'tcp1', under: 'vxlan', least: 0.55, aim: 0.75, what: 'host to host, TCP 1 flow, whole / vxlan' },
  { group: 'host/whole', metric: 'tcp1', under: 'plain', least: 5, aim: 7, what: 'host to host, TCP 1 flow, whole / plain' },
  { group: 'container/wire', metric: 'tcp1', under: 'vxlan', least: 0.77, aim: 0.95, what: 'container to container, TCP 1 flow, MTU-sized frames / vxlan' },
  { group: 'container/wire', metric: 'tcp1', under: 'plain', least: 5, aim: 7, what: 'container to container, TCP 1 flow, MTU-sized frames / plain' },
  { group: 'host/wire', metric: 'udp64', under: 'vxlan', least: 1.5, aim: 2, what: 'host to host, UDP 64 B delivered, MTU-sized frames / vxlan' },
  { group: 'host/wire', metric: 'udp64', under: 'plain', least: 6.5, aim: 9, what: 'host to host, UDP 64 B delivered, MTU-sized frames / plain' },
  { group: 'container/wire', metric: 'udp64', under: 'vxlan', least: 1.5, aim: 2, what: 'container to container, UDP 64 B delivered, MTU-sized frames / vxlan' },
  { group: 'container/wire', metric: 'rtt-p50', under: 'vxlan', least: 1.4, aim: 1.2, what: 'container round trip p50 idle / vxlan' },
  { group: 'container/wire', metric: 'rtt-loaded-p50', under: 'vxlan', least: 2, aim: 1.3, what: 'container round trip p50 under TCP / vxlan' },
  { group: 'host/wire', metric: 'tcp1-cpu', under: 'vxlan', least: 1.45, aim: 1.1, what: 'CPU s per GB, host to host, MTU-sized frames / vxlan' },
  { group: 'peers', metric: 'peers-tcp1', over: '65536', under: '2', least: 0.97, aim: 1, what: 'TCP with 65,536 peers / 2 peers' },
  { group: 'peers', metric: 'peers-udp64', over: '65536', under: '2', least: 0.97, aim: 1, what: 'UDP 64 B with 65,536 peers / 2 peers' },
  { group: 'updates', metric: 'updates-p99', least: 20, aim: 2, what: 'route update adopted under load, p99 ms' },
  { group: 'updates', metric: 'updates-lost', least: 0, aim: 0, what: 'route updates not adopted' },
  { group: 'host/wire', metric: 'udp64-reordered', least: 0, aim: 0, what: 'UDP reordered within a flow' },
  { group: 'host/wire', metric: 'tcp1-out-of-order', least: 0, aim: 0, what: 'TCP segments out of order' },
  { group: 'host/wire', metric: 'tcp1-retransmits', least: 0, aim: 0, what: 'TCP retransmits' },
  { group: 'host/wire', metric: 'tcp1-rss', least: 16, aim: 8, what: 'RSS of the data process, MB' },
];

/** Between containers over vxlan in one run, on each of these. */
const places = [
  { group: 'container/wire', where: 'direct' },
  { group: 'container/bridge', where: 'behind a bridge' },
] as const;

// prettier-ignore
const kernelGoals = [
  { metric: 'tcp1', least: 1, aim: 1.3, what: 'TCP 1 flow' },
  { metric: 'tcp4', least: 0.9, aim: 1.05, what: 'TCP 4 flows' },
  { metric: 'tcp-both', least: 0.95, aim: 1.2, what: 'TCP both ways' },
  { metric: 'tcp1-cpu', least: 1, aim: 0.85, what: 'CPU s per GB, TCP 1 flow' },
  { metric: 'tcp4-cpu', least: 1.1, aim: 0.95, what: 'CPU s per GB, TCP 4 flows' },
  { metric: 'rtt-p50', least: 1.05, aim: 0.9, what: 'round trip p50 idle' },
  { metric: 'rtt-loaded-p50', least: 1, aim: 0.85, what: 'round trip p50 under TCP' },
  { metric: 'udp64', least: 0.85, aim: 1, what: 'UDP 64 B of 1 sender' },
  { metric: 'udp64-4', least: 0.8, aim: 1, what: 'UDP 64 B of 4 senders' },
];

/** What neighbours keep beside a flood: of the TCP flow at least, and of the quiet flow's round trip p50 at most. */
const besideGoals = [
  { engine: 'user', tcp: { least: 0.5, aim: 0.8 }, trip: { least: 5, aim: 2 } },
  { engine: 'kernel', tcp: { least: 0.9, aim: 1 }, trip: { least: 1.5, aim: 1.1 } },
] as const;

const words = { user: 'user space', kernel: 'kernel engine' } as const;

function placed(
  engine: Engine,
  goal: Pick<Goal, 'metric' | 'least' | 'aim' | 'what'>,
  some: readonly (typeof places)[number][] = places,
): readonly Goal[] {
  return some.map(({ group, where }) => {
    const what = `${words[engine]}, ${where}, ${goal.what} / vxlan`;
    return { ...goal, engine, group, under: 'vxlan', what };
  });
}

function besideAll({ engine, tcp, trip }: (typeof besideGoals)[number]): readonly Goal[] {
  const beside = floods.flatMap(({ name, label, third }) => {
    const some = places.filter(({ group }) => !third || group === 'container/bridge');
    return [
      ...placed(engine, { ...tcp, metric: `beside-${name}`, what: `TCP beside ${label}` }, some),
      ...placed(engine, { ...trip, metric: `beside-${name}-p50`, what: `round trip p50 beside ${label}` }, some),
    ];
  });
  const flows = { ...trip, metric: 'beside-flows-p50', what: 'round trip p50 beside 30 TCP flows' };
  return [...beside, ...placed(engine, flows)];
}

export const goals: readonly Goal[] = [
  ...userGoals,
  ...kernelGoals.flatMap(goal => placed('kernel', goal)),
  ...besideGoals.flatMap(besideAll),
];

export interface Outcome {
  readonly engine: Engine;
  readonly what: string;
  readonly least: number;
  readonly aim: number;
  readonly value: number;
  readonly verdict: 'aim' | 'ok' | 'MISSED';
}

/** Those that the groups have values for. */
export function judge(groups: readonly Group[], ours: string): readonly Outcome[] {
  return goals.flatMap(goal => {
    const value = valueOf(groups, goal, ours);
    if (value === undefined) return [];
    const { engine = 'user', what, least, aim } = goal;
    const less = aim < least || (aim === least && goal.under === undefined);
    const meets = (limit: number): boolean => (less ? value <= limit : value >= limit);
    return [{ engine, what, least, aim, value, verdict: meets(aim) ? 'aim' : meets(least) ? 'ok' : 'MISSED' } as const];
  });
}

function valueOf(groups: readonly Group[], goal: Goal, ours: string): number | undefined {
  const group = groups.find(({ id }) => id === goal.group);
  if (!group) return undefined;
  const over = goal.over ?? (goal.engine === 'kernel' ? kernelEngine : ours);
  if (goal.under !== undefined) return ratioOf(group, goal.metric, over, goal.under);
  const values = valuesOf(group, goal.metric, over);
  return values.length > 0 ? median(values) : undefined;
}
