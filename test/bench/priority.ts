/**
 * The priority that the unit of tartand gives to the data process, to show what it is good for: the nice value, the weight
 * of a control group of its own, or both. Where there is no control group for processors the weight cannot be had.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { tree } from './process.js';

export const priorities = ['nice', 'weight', 'unit'] as const;
export type Priority = (typeof priorities)[number];

/** systemd's CPUWeight is 100 where none is set, and cpu.shares of the first version of control groups is 1024. */
const shares = 1024 / 100;
let groups = 0;

/** @param pids of data processes, which stay in what is set until they end */
export function setUnitPriority(priority: Priority, pids: readonly number[]): void {
  if (priority !== 'nice') enterGroup(pids, Number(unitSetting('CPUWeight')));
  if (priority === 'weight') return;
  const nice = Number(unitSetting('Nice'));
  // setpriority(2) sets that of one thread.
  for (const pid of pids) for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), nice);
}

/** A value of the unit of tartand. */
export function unitSetting(name: string): string {
  const text = readFileSync(join(tree, 'config/systemd/tartand.service'), 'utf8');
  const value = new RegExp(`^${name}=(.+)$`, 'm').exec(text)?.[1];
  if (value === undefined) throw new Error(`the unit sets no ${name}`);
  return value;
}

function enterGroup(pids: readonly number[], weight: number): void {
  const first = existsSync('/sys/fs/cgroup/cpu/cpu.shares');
  const group = join(
    first ? '/sys/fs/cgroup/cpu' : '/sys/fs/cgroup',
    `tartan-bench-${process.env['BENCH_ID']}-${groups++}`,
  );
  mkdirSync(group);
  const file = join(group, first ? 'cpu.shares' : 'cpu.weight');
  if (!existsSync(file)) throw new Error(`there is no ${file}: measure --priority nice alone`);
  writeFileSync(file, String(first ? Math.round(weight * shares) : weight));
  for (const pid of pids) writeFileSync(join(group, 'cgroup.procs'), String(pid));
}
