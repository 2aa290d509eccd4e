/** fault P5: the figures that the README quotes are the worst of all machines that were measured. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { root } from '../support/tools.js';

interface Machine {
  readonly cores: number;
  readonly kernel: string;
  readonly conditions: string;
  readonly figures: Readonly<Record<string, number>>;
}

const read = (file: string): string => readFileSync(join(root, file), 'utf8').replace(/\s+/g, ' ');
const machines = Object.values(JSON.parse(read('test/bench/machines.json')) as Record<string, Machine>);

/** More is better, or less. */
const quoted = [
  ['host to host, TCP 1 flow, MTU-sized frames / vxlan', Math.min, (n: number) => `between two hosts has ${n} of its`],
  ['container to container, TCP 1 flow, MTU-sized frames / vxlan', Math.min, (n: number) => `two containers ${n}, at`],
  ['CPU s per GB, host to host, MTU-sized frames / vxlan', Math.max, (n: number) => `at ${n} times its processor time`],
  ['host to host, UDP 64 B delivered, MTU-sized frames / vxlan', Math.min, (n: number) => `packets arrive ${n} times`],
  ['container round trip p50 idle / vxlan', Math.max, (n: number) => `idle round trip takes ${n} times`],
  ['container round trip p50 under TCP / vxlan', Math.max, (n: number) => `and ${n} times under a TCP flow`],
] as const;

it.each(quoted)('fault P5: the README quotes the worst of: %s', (goal, worst, sentence) => {
  const values = machines.flatMap(({ figures }) => figures[goal] ?? []);
  expect(values.length).toBeGreaterThan(0);
  expect(read('README.md')).toContain(sentence(worst(...values)));
});

it('fault P1, P2, P3: the bench says what decides its figures', () => {
  const report = read('test/bench/report.ts');
  for (const fact of ['congestionControl', 'ends pinned to processors', "flannel's own udp proxy"])
    expect(report).toContain(fact);
  expect(read('test/bench/traffic.ts')).toContain("'-C', congestionControl");
  for (const { conditions } of machines) expect(conditions).toMatch(/congestion control|TCP with/);
});
