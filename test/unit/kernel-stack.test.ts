/** Without CAP_PERFMON a store to the stack costs a BPF program several nanoseconds; see `struct hand` of kernel-helpers.h. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { root } from '../support/tools.js';

/** Instructions that store to the stack (linux/bpf_common.h: BPF_ST or BPF_STX, BPF_MEM, register 10). */
const storesToStack = (code: string): number =>
  [...code.matchAll(/0x([0-9a-f]+),/g)].filter(([, word = '']) => {
    const instruction = Number(BigInt(`0x${word}`) & 0xfffn);
    return instruction >> 8 === 10 && (instruction & 0xe6) === 0x62;
  }).length;

test.each(['outbound', 'inbound'])('%s keeps nearly nothing on the stack', name => {
  const programs = readFileSync(join(root, 'native/bpf/kernel-programs.h'), 'utf8');
  const code = new RegExp(`\\b${name}_code\\[\\] = \\{([^}]+)\\}`).exec(programs)?.[1] ?? '';
  expect(code.length).toBeGreaterThan(1000);
  expect(storesToStack(code)).toBeLessThanOrEqual(6);
});
