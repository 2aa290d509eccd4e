import { setTimeout as delay } from 'node:timers/promises';
import type * as NodeVm from 'node:vm';
import { expect, it, vi } from 'vitest';
import { tidyMemoryLater } from '../../src/daemon/tidy-memory.js';

const made = vi.hoisted(() => ({ contexts: 0 }));
vi.mock('node:vm', async original => {
  const vm = await original<typeof NodeVm>();
  const runInNewContext = (code: string): unknown => {
    made.contexts++;
    return vm.runInNewContext(code);
  };
  return { ...vm, runInNewContext };
});

const garbage = (): WeakRef<object> => new WeakRef({ left: 'of a start' });

it('what nobody needs is collected once the time has come, and not when the wait was ended', async () => {
  // V8 may collect at any time of its own.
  tidyMemoryLater(50)();
  await delay(100);
  expect(made.contexts).toBe(0);
  const left = garbage();
  tidyMemoryLater(50);
  await delay(200);
  expect(left.deref()).toBeUndefined();
  expect(made.contexts).toBe(1);
});
