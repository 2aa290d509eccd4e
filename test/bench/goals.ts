/** What the data plane is held to: ratios of medians from one run, and absolute limits. */
import { median, ratioOf, valuesOf, type Group } from './groups.js';

interface Goal {
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
const goals: readonly Goal[] = [
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

export interface Outcome {
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
    const { what, least, aim } = goal;
    const less = aim < least || (aim === least && goal.under === undefined);
    const meets = (limit: number): boolean => (less ? value <= limit : value >= limit);
    return [{ what, least, aim, value, verdict: meets(aim) ? 'aim' : meets(least) ? 'ok' : 'MISSED' } as const];
  });
}

function valueOf(groups: readonly Group[], goal: Goal, ours: string): number | undefined {
  const group = groups.find(({ id }) => id === goal.group);
  if (!group) return undefined;
  const over = goal.over ?? ours;
  if (goal.under !== undefined) return ratioOf(group, goal.metric, over, goal.under);
  const values = valuesOf(group, goal.metric, over);
  return values.length > 0 ? median(values) : undefined;
}
