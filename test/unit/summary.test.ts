import { expect, it, vi } from 'vitest';
import { ManagerLine } from '../../src/agent/manager-line.js';
import { snapshot } from '../../src/agent/snapshot.js';
import { summarize, type SummaryFacts } from '../../src/agent/summary.js';
import { silentLog } from '../../src/lib/log.js';
import { make, stop } from '../support/agent-bed.js';
import { fakeLease } from '../support/fakes.js';

const states = { up: 2, silent: 0, unknown: 1, unwatched: 0 };
const facts: SummaryFacts = {
  phase: 'ready',
  ready: true,
  problems: [],
  peers: { total: 3, states },
  answeredSeconds: 4,
};
const silent = { total: 3, states: { up: 1, silent: 2, unknown: 0, unwatched: 0 } };
const cause = ['a is silent', 'b is silent', 'c'];

it.each<[string, Partial<SummaryFacts>]>([
  ['ready, 2 of 3 peers answer, 1 not heard yet, etcd answered 4 s ago', {}],
  ['ready, no peers, etcd answered 4 s ago', { peers: { total: 0, states: undefined } }],
  ['ready, 1 peer, etcd answered 4 s ago', { peers: { total: 1, states: undefined } }],
  [
    'impaired, 1 of 3 peers answers, etcd answered 4 s ago: a is silent (and 2 more)',
    { peers: silent, problems: cause },
  ],
  [
    'ready, 0 of 2 peers answer, 2 cannot be asked, etcd has not answered',
    { peers: { total: 2, states: { up: 0, silent: 0, unknown: 0, unwatched: 2 } }, answeredSeconds: null },
  ],
  ['impaired, 2 of 3 peers answer, 1 not heard yet, etcd answered 15 min ago', { ready: false, answeredSeconds: 900 }],
  [
    'waits for the network document, and Docker with it: there is none',
    { phase: 'waiting-for-network', problems: ['there is none'] },
  ],
  ['waits for a lease, and Docker with it', { phase: 'waiting-for-lease', ready: false }],
  ['the lease is lost, traffic is stopped: x', { phase: 'lost', problems: ['x'] }],
])('%s', (text, change) => {
  expect(summarize({ ...facts, ...change })).toBe(text);
});

it('the coarse line is the same for as long as the store answers, and changes each 10 s at most after that', () => {
  const lines = Array.from({ length: 100 }, (_, answeredSeconds) => summarize({ ...facts, answeredSeconds }, 'coarse'));
  expect(lines[0]).toBe('ready, 2 of 3 peers answer, 1 not heard yet, etcd answers');
  expect(new Set(lines).size).toBe(8);
  expect(lines[47]).toContain('etcd answered 40 s ago');
});

it('a long problem is cut, so that the peers and the store are seen too', () => {
  expect(summarize({ ...facts, problems: ['x'.repeat(9000), 'y'] }).length).toBeLessThan(350);
});

it('the service manager hears each new line once, in one line of text, and whatever it does is no fault of ours', () => {
  const told: string[] = [];
  const lines = ['a', 'a', 'b\n\u001b[2J', 'c', 'd', 'd'];
  const notify = (state: string): void => {
    told.push(state);
    if (state.endsWith('c')) throw new Error('no socket');
  };
  const line = new ManagerLine({ log: silentLog, notify }, () => lines.shift() ?? 'd');
  while (lines.length > 0) line.tell();
  expect(told).toEqual(['STATUS=a', 'STATUS=b [2J', 'STATUS=c', 'STATUS=d']);
});

it('the status tells the store, the passes and the summary', async () => {
  const { agent, store } = make();
  const endpoints = [{ url: 'http://192.0.2.254:2379', state: 'silent', reason: 'connect ECONNREFUSED' }] as const;
  store.signs = { answeredMs: 0, watchSinceMs: undefined, refused: 'denied', endpoints };
  agent.run(stop.signal).catch(() => {});
  store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  expect(snapshot(agent, 'x')).toMatchObject({
    summary: expect.stringMatching(/^ready, .*1 peer.*, etcd answered 1 s ago$/),
    store: { answeredSeconds: 1, watchSeconds: null, refused: 'denied', endpoints },
    passes: { failed: 0 },
    datapath: { handovers: 0 },
  });
  expect(snapshot(agent, 'x').passes?.total).toBeGreaterThan(0);
});
