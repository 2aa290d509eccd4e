import { describe, expect, it } from 'vitest';
import type { HoldDown } from '../../src/agent/saved-state.js';
import { Peers } from '../../src/agent/peers.js';
import { formatIpv4, formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import { fakeLease } from '../support/fakes.js';

const self = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.1.0/24'),
  publicIp: parseIpv4('192.0.2.1'),
};

/** `2` is 10.5.2.0/24 at 192.0.2.2 of node-2, `2@9:7` the same subnet at 192.0.2.9 of node-9 created at revision 7, `2^` without a node id. */
function read(word: string): Lease {
  const [, subnet = '', host = subnet, revision = '5', flag] =
    /^([\d./]+)(?:@(\d+))?(?::(\d+))?(!|\^)?$/.exec(word) ?? [];
  const prefix = subnet.includes('/') ? subnet : `10.5.${subnet}.0/24`;
  const owner = host.includes('/') ? '99' : host;
  const lease = fakeLease(prefix, `192.0.2.${owner}`, `node-${owner}`, BigInt(revision));
  return { ...lease, ...(flag === '^' && { nodeId: undefined }), released: flag === '!' };
}

function show(peers: readonly Lease[]): string {
  return peers
    .map(({ subnet, publicIp }) => `${formatPrefix(subnet)}@${formatIpv4(publicIp)}`)
    .map(text => text.replace(/^10\.5\.(\d+)\.0\/24/, '$1').replace('192.0.2.', ''))
    .map(text => text.replace(/^(\d+)@\1$/, '$1'))
    .sort()
    .join(' ');
}

function make(holdMs = 60_000) {
  const events: string[] = [];
  const say = (event: string): void => void events.push(event);
  const clock = { nowMs: 1_000_000, now: () => clock.nowMs, sleep: async () => {} };
  const peers = new Peers({ clock, holdMs, log: { debug: say, info: say, warn: say, error: say } });
  return {
    peers,
    events,
    learn(words: string, epoch = 0): string {
      const leases = words.split(' ').filter(word => word !== '');
      peers.applyLeaseSet({ leases: leases.map(read), rejected: [], revision: 9n, epoch }, self);
      return show(peers.current);
    },
    /** Of the boot before, or of this one with the hold-downs of then. */
    remember(words: string, heldDown?: readonly HoldDown[]): string {
      const lease = { ...read('1'), bootId: heldDown ? 'now' : 'before' };
      const late = [{ subnet: parsePrefix('10.5.2.0/24'), untilMs: 0 }];
      peers.loadSavedPeers({ lease, peers: words.split(' ').map(read), holdDowns: heldDown ?? late }, self, {
        bootId: 'now',
      });
      return show(peers.current);
    },
    after(seconds: number): string {
      clock.nowMs += seconds * 1000;
      peers.expire();
      return show(peers.current);
    },
  };
}

/**
 * Steps with what is routed after each: a set, `+N` seconds, `~` before the first set of the next epoch, `=` before
 * what was routed at the end of an earlier run.
 */
function play(story: string, world = make()): void {
  let epoch = 0;
  const act = (step: string): string => {
    if (step.startsWith('+')) return world.after(Number(step.slice(1)));
    if (step.startsWith('=')) return world.remember(step.slice(1));
    if (step.startsWith('~')) epoch++;
    return world.learn(step.replace('~', ''), epoch);
  };
  for (const line of story.split(';')) {
    const [step = '', routed = ''] = line.split('->').map(text => text.trim());
    expect(act(step), line).toBe(routed);
  }
}

describe('a peer', () => {
  it.each([
    ['that vanishes keeps its route for the hold-down', '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +59 -> 2 3 4; +1 -> 3 4'],
    ['that comes back is as before', '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; 2 3 4 -> 2 3 4; +99 -> 2 3 4'],
    [
      'that vanishes twice is held twice',
      '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +50 -> 2 3 4; 2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +50 -> 2 3 4; +10 -> 3 4',
    ],
    [
      'that is missing in set after set is not held longer',
      '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +30 -> 2 3 4; 3 4 -> 2 3 4; +30 -> 3 4',
    ],
    ['that says goodbye goes at once', '2 3 4 -> 2 3 4; 2! 3 4 -> 3 4; 3 4 -> 3 4'],
    ['that is held down and says goodbye goes at once', '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; 2! 3 4 -> 3 4'],
    ['that comes back after its goodbye is routed', '2 3 -> 2 3; 2! 3 -> 3; 2:9 3 -> 2 3'],
    ['whose subnet gets another owner is replaced at once', '2:5 3 -> 2 3; 2@9:7 3 -> 2@9 3'],
    [
      'that is held down and gets another owner is replaced at once',
      '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; 2@9:7 3 4 -> 2@9 3 4',
    ],
    [
      'that is held down and overlapped goes at once',
      '2 3 4 -> 2 3 4; 3 4 -> 2 3 4; 3 4 10.5.2.128/25:7 -> 10.5.2.128/25@99 3 4',
    ],
    [
      'that is held down and covered goes at once',
      '2 4 5 -> 2 4 5; 4 5 -> 2 4 5; 4 5 10.5.2.0/23:7 -> 10.5.2.0/23@99 4 5',
    ],
    ['that is written over keeps its owner', '2:5 3 -> 2 3; 2@9:5 3 -> 2 3; 2@9:5 3 -> 2 3'],
    ['that an older owner claims keeps its owner', '2@9:7 3 -> 2@9 3; 2:5 3 -> 2@9 3; 2@9:7 3 -> 2@9 3'],
    ['that an older owner has in a restored store changes it', '2@9:7 3 -> 2@9 3; ~2:5 3 -> 2 3'],
    ['held down since before a wipe yields to any owner', '2:900 3 4 -> 2 3 4; ~3 4 -> 2 3 4; 2@9:2 3 4 -> 2@9 3 4'],
    ['is remembered until the store tells of another owner', '=2:5 3 -> 2 3; 2@9:1 3 -> 2@9 3'],
    ['is remembered, and held down when the store misses it', '=2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +60 -> 3 4'],
    [
      'in a wiped store stays, one by one again',
      '2 3 4 5 -> 2 3 4 5; ~ -> 2 3 4 5; 4:1 -> 2 3 4 5; 4:1 2:2 -> 2 3 4 5; 2 3 4 5 -> 2 3 4 5; +99 -> 2 3 4 5',
    ],
  ])('%s', (_, story) => play(story));

  it.each([
    [
      "fault F1: flannel's in a wiped store is kept for a day, one of ours for a minute",
      '2^ 3 -> 2 3; ~ -> 2 3; +60 -> 2; +86339 -> 2; +1 -> ',
    ],
    [
      "fault F1: flannel's in a restored store yields to a new owner at once",
      '2^ 3 4 -> 2 3 4; ~3 4 -> 2 3 4; 2@9:2 3 4 -> 2@9 3 4',
    ],
    [
      "fault F1: flannel's that writes itself again and vanishes then is held down",
      '2^ 3 4 -> 2 3 4; ~3 4 -> 2 3 4; 2^ 3 4 -> 2 3 4; 3 4 -> 2 3 4; +60 -> 3 4',
    ],
    [
      "fault F1: flannel's that was deleted before the store went back is held down",
      '2^ 3 4 -> 2 3 4; 3 4 -> 2 3 4; ~3 4 -> 2 3 4; +60 -> 3 4',
    ],
    [
      "fault F1: flannel's that says nothing for long is forgotten by a second wipe, too",
      '2^ 3 4 -> 2 3 4; ~3 4 -> 2 3 4; ~3 4 -> 2 3 4; +86399 -> 2 3 4',
    ],
  ])('%s', (_, story) => play(story));

  it('fault F1: forgotten by the store is shown and told, also where vanished peers are dropped at once', () => {
    const world = make(0);
    play('2^ 3 4 -> 2 3 4; ~4 -> 2 3 4', world);
    expect(world.peers.shown.map(({ state, secondsLeft }) => [state, secondsLeft])).toEqual([
      ['live', null],
      ['forgotten', 86_400],
      ['forgotten', 60],
    ]);
    expect(world.peers.problems).toEqual([
      expect.stringMatching(/^2 of 3 peers: kept, forgotten by the store.*86400 s$/),
    ]);
    expect(world.events).toEqual(['peers.forgotten']);
  });

  it('held down before a restart is held no longer for it', () => {
    const before = make();
    play('2 3 4 -> 2 3 4; 3 4 -> 2 3 4; +50 -> 2 3 4', before);
    const { holdDowns: heldDown } = before.peers;
    expect(heldDown).toEqual([{ subnet: parsePrefix('10.5.2.0/24'), untilMs: 1_060_000 }]);
    for (const [story, routed] of [
      ['+59', '2 3 4'],
      ['+60', '3 4'],
    ]) {
      const after = make();
      expect(after.remember('2 3 4', heldDown)).toBe('2 3 4');
      expect(after.learn('3 4')).toBe('2 3 4');
      expect(after.after(Number(story))).toBe(routed);
    }
    const back = make();
    back.remember('2 3 4', heldDown);
    play('2 3 4 -> 2 3 4; +99 -> 2 3 4', back);
    expect(back.peers.holdDowns).toEqual([]);
  });

  it('with its own identity may have another address', () => {
    const { peers } = make();
    const moved = { ...read('2'), publicIp: parseIpv4('192.0.2.22') };
    peers.applyLeaseSet({ leases: [read('2')], rejected: [], revision: 9n, epoch: 0 }, self);
    peers.applyLeaseSet({ leases: [moved], rejected: [], revision: 9n, epoch: 0 }, self);
    expect(show(peers.current)).toBe('2@22');
  });

  it('whose value spoils is held down like one that vanished', () => {
    const { peers } = make();
    peers.applyLeaseSet({ leases: [read('2')], rejected: [], revision: 9n, epoch: 0 }, self);
    const rejected = [{ key: '10.5.2.0-24', revision: 10n, reason: 'is garbage' }];
    peers.applyLeaseSet({ leases: [], rejected, revision: 10n, epoch: 0 }, self);
    expect(show(peers.current)).toBe('2');
    expect(peers.rejected).toEqual(rejected);
  });

  it('is obeyed at once without a hold-down, alone or with all others', () => {
    play('2 3 4 -> 2 3 4; 3 4 -> 3 4; ->', make(0));
  });
});

it('a key written over is named once, with the way to move a lease', () => {
  const { peers, learn, events } = make();
  learn('2:5 3');
  for (let count = 0; count < 3; count++) learn('2@9:5 3');
  expect(peers.rejected.map(({ key, reason }) => `${key} ${reason}`)).toEqual([
    expect.stringMatching(/^10\.5\.2\.0-24 names another owner .*delete the key to move the lease$/),
  ]);
  expect(events).toEqual(['peer.rejected']);
});

describe('when most peers vanish together', () => {
  it('no route is removed until the time is up for all', () => {
    const { learn, after, events, peers } = make();
    learn('2 3 4 5 6');
    learn('3 4 5 6');
    after(58);
    // The fourth that vanishes freezes all: also the first, whose own time is nearly up.
    expect(learn('5 6')).toBe('2 3 4 5 6');
    after(1);
    expect(learn('6')).toBe('2 3 4 5 6');
    expect(events).toEqual(['peers.held-down', 'peers.held-down', 'peers.held-down', 'peers.frozen']);
    expect(peers.problems.join()).toMatch(/^4 of 5 peers: most peers vanished together, no route is removed; .* 60 s$/);
    expect(after(59)).toBe('2 3 4 5 6');
    expect(peers.shown.map(({ state, secondsLeft }) => `${state} ${secondsLeft}`)).toEqual([
      'live null',
      ...Array(4).fill('held-down 1'),
    ]);
    expect(after(1)).toBe('6');
    expect(events.at(-1)).toBe('peers.dropped');
    expect(peers.problems).toEqual([]);
  });

  it.each([
    ['half of them', ['2 3 4 5', '4 5']],
    ['one of one', ['2', '']],
    ['most of them, but slowly', ['2 3 4 5', '3 4 5', '+5', '4 5', '+5', '5']],
    ['most of them with a goodbye', ['2 3 4 5', '2! 3! 4! 5', '5']],
  ])('but not for %s', (_, steps) => {
    const { learn, after, events } = make();
    for (const step of steps) void (step.startsWith('+') ? after(Number(step)) : learn(step));
    expect(events).not.toContain('peers.frozen');
  });

  it('a new owner and a goodbye still act at once', () => {
    play('2 3 4 5 -> 2 3 4 5; -> 2 3 4 5; 2@9:7 3! -> 2@9 4 5');
  });
});

it('a set that changes nothing is no change', () => {
  const { peers } = make();
  const leases = [read('2'), read('3')];
  const set = { leases, rejected: [], revision: 9n, epoch: 0 };
  peers.applyLeaseSet(set, self);
  const { current, changes } = peers;
  peers.applyLeaseSet({ ...set, leases: leases.toReversed() }, self);
  expect(peers.changes).toBe(changes);
  expect(peers.current).toBe(current);
});
