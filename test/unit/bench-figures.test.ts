/** fault P5: the figures that the README quotes are the worst of all machines that were measured. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { claimLines, withClaims, type Machines } from '../bench/machines.js';
import { root } from '../support/tools.js';

const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const machines: Machines = JSON.parse(read('test/bench/machines.json'));

function machineOf(figures: Readonly<Record<string, number>>): Machines[string] {
  return { date: '', build: '', cores: 2, kernel: '', conditions: '', figures };
}

it('fault P5: the README quotes the worst of test/bench/machines.json', () => {
  const lines = read('README.md').split('\n');
  const missing = claimLines(machines).filter(line => !lines.includes(line));
  expect(missing, 'write these lines into "How fast" of README.md; npm run bench -- --record does').toEqual([]);
  expect(read('README.md'), 'README.md has other lines in its table').toBe(withClaims(read('README.md'), machines));
});

it('fault P5: the worst is that of all machines, floods and ways that hosts are joined', () => {
  const some = {
    first: machineOf({
      'kernel engine, direct, TCP 1 flow / vxlan': 1.2,
      'kernel engine, behind a bridge, TCP 1 flow / vxlan': 1.1,
      'user space, direct, round trip p50 idle / vxlan': 1.3,
      'kernel engine, direct, round trip p50 beside UDP of 64 B / vxlan': 1.4,
      'kernel engine, behind a bridge, round trip p50 beside UDP of 64 B to another host / vxlan': 1.9,
      'host to host, TCP 1 flow, MTU-sized frames / vxlan': 0.1,
    }),
    second: machineOf({
      'kernel engine, direct, TCP 1 flow / vxlan': 0.9,
      'user space, direct, round trip p50 idle / vxlan': 1.5,
    }),
  };
  const lines = claimLines(some);
  expect(lines).toContain('| TCP, one flow | 0.90 | - |');
  expect(lines).toContain('| round trip, idle (p50) | - | 1.50 |');
  expect(lines).toContain('| round trip beside the flood of a neighbour (p50) | 1.90 | - |');
  const readme = 'before\n<!-- figures -->\n| TCP, one flow | 1.40 | - |\n<!-- /figures -->\nafter\n';
  expect(withClaims(readme, some)).toBe(`before\n<!-- figures -->\n${lines.join('\n')}\n<!-- /figures -->\nafter\n`);
  expect(() => withClaims('no marks', some)).toThrow('README.md has no lines');
});

it('fault P1, P2, P3: the bench says what decides its figures', () => {
  const report = read('test/bench/report.ts');
  for (const fact of ['congestionControl', 'ends pinned to processors', "flannel's own udp proxy"])
    expect(report).toContain(fact);
  expect(read('test/bench/traffic.ts')).toContain("'-C', congestionControl");
  for (const { conditions } of Object.values(machines)) expect(conditions).toMatch(/congestion control|TCP with/);
});
