import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { tidyMemoryLater } from '../../src/daemon/tidy-memory.js';

const garbage = (): WeakRef<object> => new WeakRef({ left: 'of a start' });

it('what nobody needs is collected once the time has come, and not when the wait was ended', async () => {
  const kept = garbage();
  tidyMemoryLater(50)();
  await delay(100);
  expect(kept.deref()).toBeDefined();
  const left = garbage();
  tidyMemoryLater(50);
  await delay(200);
  expect(left.deref()).toBeUndefined();
});
