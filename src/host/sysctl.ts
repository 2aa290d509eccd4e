/** Kernel settings below /proc/sys, in the network namespace of this process. Only settings that differ are written. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../lib/errors.js';
import type { HostPlan } from '../model/plan.js';
import { impossible, type Step } from './step.js';

/**
 * @param root the tests pass another directory
 * @returns a step for each setting that is not as planned
 */
export function sysctlSteps(plan: HostPlan['sysctls'], root = '/proc/sys'): Step[] {
  return plan.flatMap(([name, value]) => sysctlStep(name, value, root) ?? []);
}

/** The kernel answers from memory: a thread of the pool would cost more than the reading. */
function sysctlStep(name: string, value: string, root: string): Step | undefined {
  const text = `sysctl ${name}=${value}`;
  // No component of a name contains a dot: plans never name links that have dots.
  if (!/^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$/.test(name)) return impossible(text, `'${name}' is not the name of a setting`);
  const path = join(root, ...name.split('.'));
  try {
    const found = readFileSync(path, 'latin1');
    return found.trim() === value ? undefined : { text, run: async () => writeFileSync(path, `${value}\n`) };
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') return impossible(text, `reading it: ${errnoOf(error) ?? 'failed'}`);
    // Without IPv6 the kernel has nothing to disable.
    return name.startsWith('net.ipv6.') ? undefined : impossible(text, `there is no ${path}`);
  }
}
