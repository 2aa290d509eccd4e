/** Kernel settings below /proc/sys, in the network namespace of this process. Only settings that differ are written. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../lib/errors.js';
import type { HostPlan } from '../model/plan.js';
import { impossible, type Step } from './step.js';

/**
 * @param root the tests pass another directory
 * @returns a step for each setting that is not as planned
 */
export async function sysctlSteps(plan: HostPlan['sysctls'], root = '/proc/sys'): Promise<Step[]> {
  const steps = await Promise.all(plan.map(([name, value]) => sysctlStep(name, value, root)));
  return steps.flatMap(step => step ?? []);
}

async function sysctlStep(name: string, value: string, root: string): Promise<Step | undefined> {
  const text = `sysctl ${name}=${value}`;
  // No component of a name contains a dot: plans never name links that have dots.
  if (!/^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$/.test(name)) return impossible(text, `'${name}' is not the name of a setting`);
  const path = join(root, ...name.split('.'));
  try {
    const found = await readFile(path, 'latin1');
    return found.trim() === value ? undefined : { text, run: () => writeFile(path, `${value}\n`) };
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') return impossible(text, `reading it: ${errnoOf(error) ?? 'failed'}`);
    // Without IPv6 the kernel has nothing to disable.
    return name.startsWith('net.ipv6.') ? undefined : impossible(text, `there is no ${path}`);
  }
}
