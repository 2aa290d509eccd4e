/** Kernel settings below /proc/sys, of the network namespace this process is in: written only when different. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../lib/errors.js';
import { impossible, type Step } from './step.js';

export type SysctlPlan = readonly (readonly [name: string, value: string])[];

/**
 * @param root /proc/sys, another directory in tests
 * @returns a step for each setting that is not as planned
 */
export async function sysctlSteps(plan: SysctlPlan, root = '/proc/sys'): Promise<Step[]> {
  const steps = await Promise.all(plan.map(([name, value]) => sysctlStep(name, value, root)));
  return steps.flatMap(step => step ?? []);
}

async function sysctlStep(name: string, value: string, root: string): Promise<Step | undefined> {
  const text = `sysctl ${name}=${value}`;
  // No name of the plan holds a dot of its own: link names with dots are never planned for.
  if (!/^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$/.test(name)) return impossible(text, `'${name}' is not the name of a setting`);
  const path = join(root, ...name.split('.'));
  try {
    const found = await readFile(path, 'latin1');
    return found.trim() === value ? undefined : { text, run: () => writeFile(path, `${value}\n`) };
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') return impossible(text, `reading it: ${errnoOf(error) ?? 'failed'}`);
    // A kernel without IPv6 has nothing to switch off.
    return name.startsWith('net.ipv6.') ? undefined : impossible(text, `there is no ${path}`);
  }
}
