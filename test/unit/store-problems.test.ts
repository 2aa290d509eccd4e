/** What a part of the store that has its answer again means for the others, and which answers count as one store's. */
import { expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import { History } from '../../src/store/history.js';
import { Keys } from '../../src/store/keys.js';
import type { Kv, Listing } from '../../src/store/kv.js';
import { Problems } from '../../src/store/problems.js';
import { TestClock } from '../support/test-clock.js';

const { signal } = new AbortController();

it('a part that pauses after a failure asks again when another one has its answer', async () => {
  const problems = new Problems(new TestClock());
  const order: string[] = [];
  const paused = problems.pause(5_000, problems.answers, signal).then(() => void order.push('asks again'));
  problems.ended('a part that did not fail');
  await new Promise(resolve => setImmediate(resolve));
  problems.failed('leases', new TartanError('STORE_UNAVAILABLE', 'no answer'));
  order.push('answer');
  problems.ended('leases');
  await paused;
  expect(order).toEqual(['answer', 'asks again']);
  // It was asking meanwhile.
  await problems.pause(5_000, problems.answers - 1, signal);
});

it('what another cluster answers says nothing of the one that gave a listing', async () => {
  const answers = ['7', '8'];
  const list = async (): Promise<Listing> => ({ revision: 1n, clusterId: answers.shift() ?? '', entries: [] });
  const history = new History({ kv: { list } as unknown as Kv, keys: new Keys('/p') });
  await expect(history.examine({ clusterId: '7' }, false, signal)).rejects.toMatchObject({
    code: 'STORE_UNAVAILABLE',
    message: 'cluster 7 answered, and now cluster 8 does: check where --etcd-endpoints leads',
  });
  expect(history.clusterId).toBeUndefined();
});
