/** The validator of fault runs can fail: a sound log, and one hand-made bad log for each thing that it must notice. */
import { describe, expect, it } from 'vitest';
import type { ChangeLine, DaemonState, LogLine, MarkLine, ProcessState, StateLine } from '../e2e/faults/log.js';
import { validate, type Bounds } from '../e2e/faults/validator.js';

const bounds: Bounds = {
  eventMs: 1000,
  staleMs: 5000,
  quarantineMs: 20_000,
  residentBytes: 1000,
  descriptors: 10,
  logBytesPerSecond: 100,
  cpuShare: 0.5,
};
const subnetOf = { a: '10.5.1.0/24', b: '10.5.2.0/24' } as const;
const addressOf = { a: '192.0.2.1', b: '192.0.2.2' } as const;
type Host = keyof typeof subnetOf;

function put(
  atMs: number,
  name: string,
  nodeId: string,
  more: Partial<ChangeLine> & { released?: boolean } = {},
): ChangeLine {
  const { released, ...rest } = more;
  const value = JSON.stringify({ PublicIP: '192.0.2.1', nodeId, ...(released ? { released } : {}) });
  return { kind: 'put', atMs, revision: atMs, key: `/net/subnets/${name}`, value, operator: false, ...rest };
}

function del(atMs: number, name: string, more: Partial<ChangeLine> = {}): ChangeLine {
  return { ...put(atMs, name, ''), kind: 'delete', value: '', ...more };
}

function mark(atMs: number, kind: MarkLine['mark'], mayGo: readonly string[] = []): MarkLine {
  return { kind: 'mark', atMs, mark: kind, fault: 'fault', mayGo };
}

function state(atMs: number, host: Host, more: Partial<DaemonState> = {}, line: Partial<StateLine> = {}): StateLine {
  const other = host === 'a' ? 'b' : 'a';
  const daemon: DaemonState = {
    nodeId: `node-${host}`,
    phase: 'ready',
    ready: true,
    subnet: subnetOf[host],
    lease: 'held',
    deadlineSeconds: 2,
    peers: { [subnetOf[other]]: addressOf[other] },
    adopted: true,
    received: 0,
    transmitted: 0,
    ...more,
  };
  const routes = { ours: [], foreign: ['default via 192.0.2.253'] };
  return { kind: 'state', atMs, untilMs: atMs + 10, host, daemon, routes, process: null, ...line };
}

const begin: readonly LogLine[] = [
  mark(0, 'inject', ['a', 'b']),
  put(10, '10.5.1.0-24', 'node-a'),
  put(20, '10.5.2.0-24', 'node-b'),
  mark(100, 'converged'),
  state(2000, 'a'),
  state(2000, 'b'),
];

/** Every line says this and the one before: what breaks is named, in order. */
function broken(...lines: readonly LogLine[]): readonly string[] {
  return validate([...begin, ...lines], bounds).map(({ invariant, what }) => `${invariant} ${what}`);
}

it('finds nothing wrong with a sound run', () => {
  expect(
    broken(
      mark(3000, 'inject'),
      state(3100, 'a'),
      del(3200, '10.5.1.0-24'),
      state(3300, 'a', { lease: 'gone', ready: false }),
      put(3400, '10.5.1.0-24', 'node-a'),
      mark(3500, 'heal'),
      mark(3600, 'converged'),
      {
        kind: 'flow',
        atMs: 3700,
        fault: 'fault',
        pair: 'a-b',
        sent: 9,
        lost: 0,
        lostMax: 0,
        firstLost: -1,
        lastLost: -1,
        duplicates: 0,
        reordered: 0,
      },
      state(5000, 'a'),
      state(5000, 'b'),
    ),
  ).toEqual([]);
});

describe('I1: who owns what', () => {
  it.each<[string, readonly LogLine[], string]>([
    ['overwritten', [put(200, '10.5.1.0-24', 'node-b')], 'node-b wrote over 10.5.1.0-24 of node-a'],
    [
      'overlapping',
      [put(200, '10.5.0.0-22', 'node-c')],
      'node-c took 10.5.0.0-22, which overlaps 10.5.1.0-24 of node-a',
    ],
    [
      'taken too early',
      [del(200, '10.5.1.0-24'), put(1200, '10.5.1.0-24', 'node-c')],
      'node-c took 10.5.1.0-24 1000 ms after node-a left it',
    ],
  ])('%s', (_, lines, what) => {
    expect(broken(...lines)).toContain(`I1 ${what}`);
  });

  it.each<[string, readonly LogLine[]]>([
    ['by the operator', [put(200, '10.5.1.0-24', 'node-c', { operator: true })]],
    [
      'after a goodbye',
      [
        put(200, '10.5.1.0-24', 'node-a', { released: true }),
        del(300, '10.5.1.0-24'),
        put(400, '10.5.1.0-24', 'node-c'),
      ],
    ],
    ['after the quarantine', [del(200, '10.5.1.0-24'), put(30_000, '10.5.1.0-24', 'node-c')]],
    ['in another cluster', [{ kind: 'wiped', atMs: 150 }, put(200, '10.5.1.0-24', 'node-c')]],
  ])('not: %s', (_, lines) => {
    expect(broken(...lines)).toEqual([]);
  });
});

describe("I2: nobody forwards for what is another's", () => {
  const lost = { lease: 'lost', phase: 'lost', ready: false };
  it('within a second of the loss it may', () => {
    const window = [mark(2500, 'inject'), state(3000, 'a', lost), state(3900, 'a', { ...lost, received: 5 })];
    expect(broken(...window)).toEqual([]);
  });

  it('not later', () => {
    const window = [mark(2500, 'inject'), state(3000, 'a', lost), state(4100, 'a', { ...lost, transmitted: 5 })];
    expect(broken(...window)).toEqual(['I2 a forwards for 10.5.1.0/24, which it lost']);
  });

  it("uses what etcd says is another's", () => {
    expect(broken(put(2100, '10.5.1.0-24', 'thief', { operator: true }), state(3200, 'a'))).toEqual([
      'I2 a uses 10.5.1.0/24, which belongs to thief',
    ]);
  });
});

describe('I3: traffic and routes under a fault', () => {
  it('counts what each flow lost and what came twice', () => {
    const flow = {
      kind: 'flow',
      atMs: 3700,
      fault: 'fault',
      sent: 9,
      lostMax: 0,
      firstLost: 1,
      lastLost: 4,
      reordered: 0,
    } as const;
    expect(
      broken({ ...flow, pair: 'a-b', lost: 4, duplicates: 0 }, { ...flow, pair: 'b-a', lost: 0, duplicates: 1 }),
    ).toEqual(['I3 fault: 4 of 9 lost a-b, at most 0, numbers 1 to 4', 'I3 fault: 1 twice b-a']);
    expect(broken({ ...flow, pair: 'a-b', lost: 9, duplicates: 0, lostMax: null })).toEqual([]);
  });

  it('a peer is dropped, once for each time it is seen', () => {
    const window = (...mayGo: readonly string[]) => [
      mark(3000, 'inject', mayGo),
      state(3100, 'a', { peers: {} }),
      state(3200, 'a', { peers: {} }),
      mark(3300, 'converged'),
    ];
    const dropped = ['I3 a dropped b (10.5.2.0/24)'];
    expect(broken(...window())).toEqual(dropped);
    expect(broken(...window('c'))).toEqual(dropped);
    expect(broken(...window('a'))).toEqual([]);
    expect(broken(...window('b'))).toEqual([]);
  });
});

it('I6: another subnet after a restart', () => {
  expect(broken(mark(3000, 'inject'), state(3100, 'a', { subnet: '10.5.9.0/24' }))).toContain(
    'I6 a had 10.5.1.0/24 and now has 10.5.9.0/24',
  );
});

it('I7: a route that outlasts its lease', () => {
  const stale = { peers: { '10.5.2.0/24': '192.0.2.2', '10.5.7.0/24': '192.0.2.7' } };
  const removed = [mark(2500, 'inject'), put(2600, '10.5.7.0-24', 'node-x'), del(2700, '10.5.7.0-24')];
  expect(broken(...removed, state(7600, 'a', stale))).toEqual([]);
  expect(broken(...removed, state(7800, 'a', stale))).toEqual([
    'I7 a still routes 10.5.7.0/24, whose lease went more than 5000 ms ago',
  ]);
});

it('I7: while most leases went together, a route may outlast its own by as much', () => {
  const stale = { peers: { '10.5.2.0/24': '192.0.2.2', '10.5.7.0/24': '192.0.2.7' } };
  const gone = [mark(2500, 'inject'), put(2600, '10.5.7.0-24', 'node-x'), del(2700, '10.5.7.0-24')];
  const mass = [del(6500, '10.5.1.0-24'), del(6600, '10.5.2.0-24')];
  const again = [put(6700, '10.5.1.0-24', 'node-a'), put(6700, '10.5.2.0-24', 'node-b')];
  const more = [put(6550, '10.5.8.0-24', 'node-y'), put(6550, '10.5.9.0-24', 'node-z')];
  const one = [...more, del(6600, '10.5.2.0-24'), put(6700, '10.5.2.0-24', 'node-b')];
  expect(broken(...gone, ...mass, ...again, state(11_500, 'a', stale))).toEqual([]);
  expect(broken(...gone, ...mass, ...again, state(11_700, 'a', stale))).toHaveLength(1);
  expect(broken(...gone, ...one, state(7800, 'a', stale))).toHaveLength(1);
});

it("I8: somebody else's route is gone", () => {
  expect(broken(state(2100, 'a', {}, { routes: { ours: [], foreign: [] } }))).toEqual([
    'I8 a: foreign routes and rules were\ndefault via 192.0.2.253\nand are\n',
  ]);
});

describe('I9: what a daemon may cost', () => {
  const cost: ProcessState = { pid: 1, cpuMs: 0, residentBytes: 10, descriptors: 5, logBytes: 0 };
  const two = (later: Partial<ProcessState>) => [
    state(3000, 'a', {}, { process: cost }),
    state(13_000, 'a', {}, { process: { ...cost, ...later } }),
  ];
  it.each<[Partial<ProcessState>, string]>([
    [{ residentBytes: 1001 }, 'more than 1000 bytes of memory'],
    [{ descriptors: 11 }, '11 descriptors, more than 10'],
    [{ cpuMs: 5001 }, 'more than 50 % of a core'],
    [{ logBytes: 1001 }, 'logs more than 100 bytes a second'],
  ])('%o', (later, what) => {
    expect(broken(...two(later))).toEqual([`I9 a: ${what}`]);
  });

  it('a new process begins anew', () => {
    expect(broken(...two({ pid: 2, cpuMs: 9999, logBytes: 9999 }))).toEqual([]);
  });
});

describe('I11: all is well again', () => {
  it.each<[string, LogLine, string]>([
    ['did not come back', mark(3000, 'diverged'), 'fault: not as before in time after it ended'],
    ['no daemon', state(3000, 'a', {}, { daemon: null }), 'a: no daemon'],
    ['lease', state(3000, 'a', { lease: 'unknown' }), 'a: ready, lease unknown, though nothing is wrong'],
    ['data plane', state(3000, 'a', { adopted: false }), 'a: ready, lease held, though nothing is wrong'],
    ['route', state(3000, 'a', { peers: {} }), 'a has no route to b (10.5.2.0/24)'],
  ])('%s', (_, line, what) => {
    expect(broken(line)).toEqual([`I11 ${what}`]);
  });

  it('a look that a fault began within says nothing', () => {
    const look = state(2995, 'a', { lease: 'unknown' });
    expect(broken(look, mark(3000, 'inject'))).toEqual([]);
  });
});
