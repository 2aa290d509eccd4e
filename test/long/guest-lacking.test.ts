/** In a guest of kernels.test.ts whose kernel is too old for `auto`, or lacks a module: user space carries packets, and says why. */
import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { EngineChoice } from '../../src/model/plan.js';
import { bothUp, until } from '../integration/datapath-lab.js';
import { KernelLab, kernelState, pairOf } from '../integration/kernel-lab.js';

let lab: KernelLab;

beforeEach(() => {
  lab = new KernelLab();
});

afterEach(() => lab.close());

const lacks = (module: string): boolean =>
  execFileSync('find', ['/lib/modules/', '-name', `${module}.ko`], { encoding: 'utf8' }) === '';

/** @returns why nothing goes by the kernel, while packets cross */
async function reasonWith(engine: EngineChoice): Promise<string> {
  lab.engine = engine;
  const { a, b } = await bothUp(lab, { engines: true } as object);
  const { kernel, kernelOffer } = await until(
    'a reason',
    () => kernelState(a),
    seen => seen.kernel.state === 'unavailable',
  );
  expect(kernelOffer).toBeUndefined();
  expect((await kernelState(b)).kernel.state).toBe('unavailable');
  expect((await pairOf(a))?.engine).toBe('user');
  expect(await lab.lost(200)).toBe(0);
  process.stdout.write(`${release()} ${engine}: ${kernel.reason}\n`);
  return kernel.reason ?? '';
}

const isOld = /^([1-5]|6\.0)\./.test(release());

test.runIf(isOld)('auto is user space below Linux 6.1', async () => {
  expect(await reasonWith('auto')).toMatch(/6\.1/);
});

test.runIf(lacks('vxlan'))('without the module vxlan', async () => {
  expect(await reasonWith('kernel')).toMatch(/vxlan|tartan-k/);
});

test.runIf(lacks('cls_bpf'))('without the module cls_bpf', async () => {
  expect(await reasonWith('kernel')).toMatch(/TC classifier not found/);
});
