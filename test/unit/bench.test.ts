/** The parts of the bench that touch no machine: what is run where, and what is computed of it. */
import { expect, it } from 'vitest';
import { contendersOf } from '../bench/contenders.js';
import { goals, judge } from '../bench/goals.js';
import { Collector, ratioQuartiles, ratiosOf, type Group } from '../bench/groups.js';
import { topologies, underlays } from '../bench/lab.js';
import { parseOptions } from '../bench/options.js';
import { countMetric, tests, testsAt } from '../bench/tests.js';
import { receivedBy } from '../bench/traffic.js';

const names = (some: readonly { readonly name: string }[]): readonly string[] => some.map(({ name }) => name);

it('every ratio is to vxlan, and ours to the others where vxlan is left out', () => {
  expect(ratiosOf(['veth', 'vxlan', 'tartan'], 'tartan')).toEqual([
    ['veth', 'vxlan'],
    ['tartan', 'vxlan'],
  ]);
  expect(ratiosOf(['tartan', 'before'], 'tartan')).toEqual([['tartan', 'before']]);
  expect(ratiosOf(['veth'], 'tartan')).toEqual([]);
});

it('neighbours are measured between containers, with frames of the MTU, and a third host behind the bridge', () => {
  const beside = (some: readonly string[]) => some.filter(name => name.startsWith('beside-'));
  expect(beside(names(testsAt(tests, 'host', 'wire')))).toEqual([]);
  expect(beside(names(testsAt(tests, 'container', 'whole')))).toEqual([]);
  const direct = beside(names(testsAt(tests, 'container', 'wire')));
  expect(direct).toEqual(expect.arrayContaining(['beside-flood64', 'beside-tiny-ports', 'beside-flows']));
  const all = beside(names(testsAt(tests, 'container', 'bridge')));
  expect(all.filter(name => !direct.includes(name))).toEqual(['beside-other', 'beside-third']);
});

function groupOf(values: Readonly<Record<string, Readonly<Record<string, number>>>>): Group {
  const collector = new Collector();
  for (const [column, metrics] of Object.entries(values))
    for (const [name, value] of Object.entries(metrics)) collector.add(countMetric(name, name), column, value);
  const columns = Object.keys(values);
  collector.endRound();
  return { id: 'container/bridge', title: '', columns, rounds: 1, ratios: [], series: collector.series };
}

it('each engine is judged by its own limits, and a stopped flow is a miss', () => {
  const group = groupOf({
    vxlan: { 'beside-flood64': 4, 'beside-flood64-p50': 50, tcp1: 7 },
    tartan: { 'beside-flood64': 0, 'beside-flood64-p50': 200, tcp1: 5 },
    'tartan-kernel': { 'beside-flood64': 3.8, 'beside-flood64-p50': 80, tcp1: 10 },
  });
  const outcomes = judge([group], 'tartan').map(({ what, value, verdict }) => [what, value, verdict]);
  expect(outcomes).toEqual([
    ['kernel engine, behind a bridge, TCP 1 flow / vxlan', 10 / 7, 'aim'],
    ['user space, behind a bridge, TCP 1 flow / vxlan', 5 / 7, 'MISSED'],
    ['kernel engine, behind a bridge, TCP beside UDP of 64 B / vxlan', 0.95, 'ok'],
    ['user space, behind a bridge, TCP beside UDP of 64 B / vxlan', 0, 'MISSED'],
    ['kernel engine, behind a bridge, round trip p50 beside UDP of 64 B / vxlan', 1.6, 'MISSED'],
    ['user space, behind a bridge, round trip p50 beside UDP of 64 B / vxlan', 4, 'ok'],
  ]);
});

it('a figure without limits is told, and not judged', () => {
  const group = groupOf({ vxlan: { tcp4: 7 }, tartan: { tcp4: 7 } });
  expect(judge([group], 'tartan').map(({ value, verdict }) => [value, verdict])).toEqual([[1, '']]);
});

it('a contender that was absent has no verdict', () => {
  const group = groupOf({ vxlan: { tcp1: 7 }, tartan: { tcp1: 5 } });
  expect(judge([group], 'tartan').filter(({ engine }) => engine === 'kernel')).toEqual([]);
});

it('a run that was cut off goes on after its last whole round', () => {
  const metric = countMetric('tcp1', 'tcp1');
  const first = new Collector();
  first.add(metric, 'vxlan', 7);
  first.endRound();
  first.add(metric, 'vxlan', 1);
  const kept: Group = JSON.parse(
    JSON.stringify({ ...groupOf({}), columns: ['vxlan'], rounds: first.rounds, series: first.series }),
  );
  const second = new Collector(kept);
  second.add(metric, 'vxlan', 9);
  second.endRound();
  expect(second.rounds).toBe(2);
  expect(second.series.map(({ values }) => values)).toEqual([[7, 9]]);
});

it('the spread of a ratio is that of the ratios of each round', () => {
  const collector = new Collector();
  for (const [ours, theirs] of [
    [2, 4],
    [6, 6],
    [4, 2],
  ] as const) {
    collector.add(countMetric('tcp1', ''), 'tartan', ours);
    collector.add(countMetric('tcp1', ''), 'vxlan', theirs);
    collector.endRound();
  }
  const group: Group = { ...groupOf({}), rounds: 3, series: collector.series };
  expect(ratioQuartiles(group, 'tcp1', 'tartan', 'vxlan')).toEqual([0.5, 2]);
  expect(ratioQuartiles(group, 'tcp1', 'tartan', 'veth')).toBeUndefined();
});

it('the acceptance run has what the goals beside vxlan want, and nobody else', () => {
  const chosen = parseOptions(['--acceptance', '--resume', '--record']);
  if (!chosen) throw new Error('no options');
  const at = (underlay: 'wire' | 'bridge') =>
    testsAt(chosen.tests, 'container', underlay).flatMap(({ metrics }) => names(metrics));
  const lost = goals.filter(({ group, metric, under }) => {
    const [topology, underlay] = group.split('/');
    if (topology !== 'container' || under !== 'vxlan') return false;
    return !at(underlay === 'wire' ? 'wire' : 'bridge').includes(metric);
  });
  expect(lost).toEqual([]);
  expect([chosen.topologies, chosen.underlays]).toEqual([['container'], ['wire', 'bridge']]);
  expect(contendersOf(chosen.choice).map(({ name }) => name)).toEqual(['vxlan', 'tartan-kernel', 'tartan']);
  expect(chosen.commandLine).toBe('npm run bench -- --acceptance');
  expect(() => parseOptions(['--acceptance', '--quick'])).toThrow('give one of them');
});

it('every goal has a name of its own and a test that measures it there', () => {
  expect(new Set(goals.map(({ what }) => what)).size).toBe(goals.length);
  const unmeasured = goals.filter(({ group, metric }) => {
    const place = topologies
      .flatMap(one => underlays.map(two => [one, two] as const))
      .find(pair => pair.join('/') === group);
    return place && !testsAt(tests, ...place).some(({ metrics }) => metrics.some(({ name }) => name === metric));
  });
  expect(unmeasured.map(({ what }) => what)).toEqual([]);
});

it('every metric has one name', () => {
  const metrics = names(tests.flatMap(test => test.metrics));
  expect(new Set(metrics).size).toBe(metrics.length);
});

it('a test asked for where it does not run is an error that says where it does', () => {
  const parse = (...words: readonly string[]) => parseOptions(['--only', ...words]);
  expect(() => parse('tcp1,beside-other', '--underlay', 'wire')).toThrow(
    "--only: 'beside-other' does not run there, but with --topology container --underlay bridge",
  );
  expect(names(parse('beside-other', '--topology', 'container')?.tests ?? [])).toEqual(['beside-other']);
  expect(() => parse('beside-nobody')).toThrow("'beside-nobody' is not one of");
});

it('two minutes are for what the oldest goals want, and a test asked for runs all the same', () => {
  const quick = parseOptions(['--quick'])?.tests ?? [];
  expect(names(testsAt(quick, 'host', 'wire'))).toEqual(['tcp1', 'udp64']);
  expect(names(testsAt(quick, 'container', 'wire'))).toEqual(expect.arrayContaining(['tcp1', 'rtt-loaded']));
  expect(names(testsAt(quick, 'container', 'bridge'))).not.toContain('beside-other');
  const asked = parseOptions(['--quick', '--only', 'rtt'])?.tests ?? [];
  expect(names(testsAt(asked, 'host', 'wire'))).toEqual(['rtt']);
});

it('what iperf3 received counts in both directions together', () => {
  const sum = (gbps: number) => ({ bytes: gbps * 125e6, bits_per_second: gbps * 1e9 });
  const end = { sum_sent: sum(9), sum_received: sum(2), sum_received_bidir_reverse: sum(3) };
  expect(receivedBy(JSON.stringify({ end }))).toEqual({ gbps: 5, bytes: 625e6 });
  expect(receivedBy(JSON.stringify({ end: { sum_received: sum(2) } }))).toEqual({ gbps: 2, bytes: 250e6 });
});

it('the package is held to its sizes and to the time of Node.js alone', () => {
  const collector = new Collector();
  for (const [column, value] of [
    ['.deb', 27.6],
    ['installed', 111.8],
  ] as const)
    collector.add(countMetric('package-size', ''), column, value);
  for (const [column, value] of [
    ['node -e 0', 40],
    ['tartan --version', 60],
    ['tartan status', 220],
  ] as const)
    collector.add(countMetric('package-time', ''), column, value);
  collector.endRound();
  const group = { id: 'package', title: '', columns: [], rounds: 1, ratios: [], series: collector.series };
  expect(judge([group], 'tartan').map(({ what, value, verdict }) => [what, value, verdict])).toEqual([
    ['the .deb, MB', 27.6, 'aim'],
    ['installed, MB', 111.8, 'MISSED'],
    ['tartan --version / node -e 0', 1.5, 'aim'],
    ['tartan status / node -e 0', 5.5, 'MISSED'],
  ]);
});
