/** The parts of the bench that touch no machine: what is run where, and what is computed of it. */
import { expect, it } from 'vitest';
import { ratiosOf } from '../bench/groups.js';
import { parseOptions } from '../bench/options.js';
import { tests, testsAt } from '../bench/tests.js';
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

it('what iperf3 received counts in both directions together', () => {
  const sum = (gbps: number) => ({ bytes: gbps * 125e6, bits_per_second: gbps * 1e9 });
  const end = { sum_sent: sum(9), sum_received: sum(2), sum_received_bidir_reverse: sum(3) };
  expect(receivedBy(JSON.stringify({ end }))).toEqual({ gbps: 5, bytes: 625e6 });
  expect(receivedBy(JSON.stringify({ end: { sum_received: sum(2) } }))).toEqual({ gbps: 2, bytes: 250e6 });
});
