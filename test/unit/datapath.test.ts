/** What the datapath adapter remembers over the lives of data processes, without a kernel. */
import { expect, test } from 'vitest';
import type { DatapathConfig } from '../../src/datapath/datapath.js';
import { Totals } from '../../src/datapath/tun/handover.js';
import { PublishedState } from '../../src/datapath/tun/published-state.js';
import { hashIdentity } from '../../src/datapath/tun/peer-numbers.js';
import { identityOf, packTable, sameIdentity } from '../../src/datapath/tun/table.js';
import { peerRowLength, routeRowLength, type NativeRows, type NativeTable } from '../../src/lib/native.js';
import { parseAnyPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { peerEngineKernel, type TunnelPeer } from '../../src/model/plan.js';

const none = new Uint32Array(0);

/** A table that is busy while told so, and writes down what it is told. */
class FakeTable implements Partial<NativeTable> {
  busy = false;
  live: NativeRows = { peers: none, routes: none };
  count = 0;
  /** The generation that every thread has adopted; the newest one unless a test says otherwise. */
  adoptedByAll: number | undefined;
  readonly calls: string[] = [];

  publish(peers: Uint32Array, routes: Uint32Array): number {
    if (this.busy) return 0;
    this.live = { peers, routes };
    return ++this.count;
  }
  rows(): NativeRows | undefined {
    return this.live;
  }
  isBlockZeroed(): boolean {
    return true;
  }
  adopted(): number {
    return this.adoptedByAll ?? this.count;
  }
  control(): { generation: number; fence: boolean; forwardUntil: number } {
    return { generation: this.count, fence: true, forwardUntil: 99 };
  }
  setFence(on: boolean): void {
    this.calls.push(`fence ${on}`);
  }
  setForwardUntil(ms: number): void {
    this.calls.push(`until ${ms}`);
  }
  get native(): NativeTable {
    return this as unknown as NativeTable;
  }
  /** Ports of the peers by their numbers, 0 for a free number. */
  get ports(): readonly number[] {
    return [...this.live.peers].filter((_, i) => i % peerRowLength === 9);
  }
}

function peer(node: number, port = 8285): TunnelPeer {
  return {
    identity: `10.5.${node}.0/24 n${node}`,
    prefixes: [parsePrefix(`10.5.${node}.0/24`)],
    endpoint: parseIpv4(`192.0.2.${node}`),
    port,
    features: 0,
  };
}

/** One peer, of another port each time. */
const peers = (port: number): readonly TunnelPeer[] => [peer(2, port)];
const publishedState = (peersMax = 100): PublishedState => new PublishedState({ peersMax, check: () => {} });

const config: DatapathConfig = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.1.0/24'),
  publicIp: parseIpv4('198.51.100.1'),
  bindAddress: parseIpv4('192.0.2.1'),
  port: 8285,
  mtu: 1472,
  checkSource: true,
  checkDestination: true,
  engine: 'user',
  vni: 1,
};

test('peers become rows under their numbers, and sorted routes to them', () => {
  const published = publishedState();
  const table = new FakeTable();
  published.replace(
    [peer(9, 9), { ...peer(3, 3), prefixes: [parsePrefix('10.5.77.0/24'), parsePrefix('10.5.3.0/24')] }],
    undefined,
  );
  published.writeRows(table.native);
  const { peers: rows, routes } = table.live;
  expect(rows).toHaveLength(2 * peerRowLength);
  expect([...rows.subarray(4, peerRowLength)]).toEqual([0, 0, 0, 0, 0xc0000209, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
  const sorted = [
    [0x0a050300, 0, 0, 0, 24, 4, 1],
    [0x0a050900, 0, 0, 0, 24, 4, 0],
    [0x0a054d00, 0, 0, 0, 24, 4, 1],
  ];
  expect([...routes]).toEqual(sorted.flat());
  const byKernel = published.replace([{ ...peer(9, 9), kernel: { port: 4790, vni: 1 } }], table.native);
  expect(byKernel).toBe(2);
  published.writeRows(table.native);
  expect(table.live.peers[13]).toBe(peerEngineKernel);
});

test('equal peers keep their generation', () => {
  const published = publishedState();
  const table = new FakeTable();
  expect(published.replace([], undefined)).toBe(1);
  expect(published.replace([], undefined)).toBe(1);
  published.writeRows(table.native);
  expect(published.replace(peers(1), table.native)).toBe(2);
  published.writeRows(table.native);
  expect(published.replace(peers(1), table.native)).toBe(2);
  expect(published.isBehind(table.native)).toBe(false);
});

test('while the table is busy the newest one waits under one generation', () => {
  const published = publishedState();
  const table = new FakeTable();
  published.replace(peers(1), undefined);
  expect(published.writeRows(table.native)).toBe(true);
  table.busy = true;
  expect(published.replace(peers(2), table.native)).toBe(2);
  expect(published.writeRows(table.native)).toBe(false);
  expect(published.replace(peers(3), table.native)).toBe(2);
  expect(published.isBehind(table.native)).toBe(true);
  table.busy = false;
  expect(published.writeRows(table.native)).toBe(true);
  expect(published.isBehind(table.native)).toBe(false);
  expect(table.ports).toEqual([3]);
});

test('generations count on in a new table, which gets everything', () => {
  const published = publishedState();
  const first = new FakeTable();
  for (const port of [1, 2, 3]) {
    published.replace(peers(port), first.native);
    published.writeRows(first.native);
  }
  published.setFence(true);
  published.setForwardUntil(7);
  const second = new FakeTable();
  published.writeAll(second.native);
  expect(second.ports).toEqual([3]);
  expect(second.calls).toEqual(['until 7', 'fence true']);
  expect(published.generation).toBe(3);
  expect(published.adopted(second.native, 0)).toBe(2);
  expect(published.adopted(second.native, 1)).toBe(3);
  expect(published.adopted(first.native, 3)).toBe(3);
});

test('while one process takes over from another, each table is behind for itself', () => {
  const published = publishedState();
  const [old, next] = [new FakeTable(), new FakeTable()];
  published.replace(peers(1), undefined);
  published.writeRows(old.native);
  published.writeAll(next.native);
  published.replace(peers(2), undefined);
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([true, true]);
  published.writeRows(old.native);
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([false, true]);
  published.writeRows(next.native);
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([false, false]);
  expect(next.ports).toEqual([2]);
});

test('an adopted table is continued: its peers keep their numbers, its control words stay', () => {
  const before = publishedState();
  const table = new FakeTable();
  before.replace([peer(2), peer(3), peer(4)], undefined);
  before.writeRows(table.native);
  before.replace([peer(2, 5), peer(4, 5)], table.native);
  before.writeRows(table.native);
  expect(table.ports).toEqual([5, 0, 5]);

  const published = publishedState();
  expect(published.resume(table.native)).toBe(true);
  expect(published.replace([peer(4, 5), peer(2, 5)], table.native)).toBe(2);
  expect(published.adopted(table.native, 2)).toBe(2);
  expect(published.isBehind(table.native)).toBe(false);
  const next = new FakeTable();
  published.writeAll(next.native);
  expect(next.calls).toEqual(['until 99', 'fence true']);
  expect(next.live).toEqual(table.live);
  // A new peer gets the number that was free in the table that every thread had.
  published.replace([peer(4, 5), peer(2, 5), peer(9, 9)], next.native);
  published.writeRows(next.native);
  expect(next.ports).toEqual([5, 9, 5]);
});

test('a freed number waits for the threads of the table that is written', () => {
  const published = publishedState();
  const table = new FakeTable();
  const write = (...all: readonly TunnelPeer[]): readonly number[] => {
    published.replace(all, table.native);
    published.writeRows(table.native);
    return table.ports;
  };
  write(peer(2, 2), peer(3, 3));
  write(peer(3, 3));
  table.adoptedByAll = 1;
  expect(write(peer(3, 3), peer(4, 4))).toEqual([0, 3, 4]);
  table.adoptedByAll = 2;
  expect(write(peer(3, 3), peer(4, 4), peer(5, 5))).toEqual([5, 3, 4]);
});

test('a table that another process was started with is not overtaken: its threads may be two tables behind', () => {
  const published = publishedState();
  const [old, next] = [new FakeTable(), new FakeTable()];
  published.replace([peer(2, 2), peer(3, 3)], undefined);
  published.writeRows(old.native);
  published.writeAll(next.native);
  // While the next one gets ready, the old one goes on.
  published.replace([peer(3, 3)], undefined);
  published.writeRows(old.native);
  published.replace([peer(3, 3), peer(4, 4)], undefined);
  published.writeRows(old.native);
  published.writeRows(next.native);
  // The threads of the next one use the table that it was started with, which has peer 2 under number 0.
  next.adoptedByAll = 1;
  published.replace([peer(3, 3), peer(4, 4), peer(5, 5)], next.native);
  published.writeRows(next.native);
  expect(next.ports).toEqual([0, 3, 4, 5]);
  next.adoptedByAll = 3;
  published.replace([peer(3, 3), peer(4, 4), peer(5, 5), peer(6, 6)], next.native);
  published.writeRows(next.native);
  expect(next.ports).toEqual([6, 3, 4, 5]);
});

test('full: peers without a number are left out and named; with one they come in', () => {
  const published = publishedState(2);
  const table = new FakeTable();
  published.replace([peer(2, 2), peer(3, 3), peer(4, 4)], undefined);
  published.writeRows(table.native);
  expect(table.ports).toEqual([2, 3]);
  expect(table.live.routes).toHaveLength(2 * routeRowLength);
  expect(published.refused.map(({ identity }) => identity)).toEqual([peer(4).identity]);
  expect(published.canNumberRefused(table.native)).toBe(false);
  published.replace([peer(3, 3), peer(4, 4)], table.native);
  published.writeRows(table.native);
  table.adoptedByAll = 1;
  expect(published.canNumberRefused(table.native)).toBe(false);
  table.adoptedByAll = 2;
  expect(published.canNumberRefused(table.native)).toBe(true);
  expect(published.replace([peer(3, 3), peer(4, 4)], table.native)).toBe(3);
  expect(published.refused).toEqual([]);
  expect(published.canNumberRefused(table.native)).toBe(false);
});

test('a table that is refused changes nothing, no number either', () => {
  let isRefused = false;
  const published = new PublishedState({
    peersMax: 100,
    check: () => {
      if (isRefused) throw new RangeError('route 0');
    },
  });
  const table = new FakeTable();
  published.replace([peer(2, 2)], undefined);
  published.writeRows(table.native);
  isRefused = true;
  expect(() => published.replace([peer(3, 3)], table.native)).toThrow(RangeError);
  isRefused = false;
  expect(published.generation).toBe(1);
  expect(published.replace([peer(2, 2)], table.native)).toBe(1);
  published.replace([peer(2, 2), peer(4, 4)], table.native);
  published.writeRows(table.native);
  expect(table.ports).toEqual([2, 4]);
});

test('a full memory is told with what to do, and the newest table is still to be written', () => {
  const published = publishedState();
  const table = new FakeTable();
  table.publish = () => {
    throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', errno: -28 });
  };
  published.replace(peers(1), undefined);
  expect(() => published.writeRows(table.native)).toThrow(
    expect.objectContaining({
      code: 'DATAPATH_FAILED',
      message: 'cannot write the table of 1 peers (ENOSPC: no space left): the older one stays; free some memory',
    }),
  );
  expect(published.isBehind(table.native)).toBe(true);
  expect(published.replace(peers(2), undefined)).toBe(1);
});

test('a damaged table is not continued', () => {
  const table = new FakeTable();
  table.rows = () => undefined;
  const published = publishedState();
  expect(published.resume(table.native)).toBe(false);
  expect(published.generation).toBe(0);
});

test('the identity is everything but the MTU and what the socket is bound to', () => {
  const bits = { flagNoSourceCheck: 1, flagNoDestinationCheck: 2 };
  const identity = identityOf(config, bits);
  expect(sameIdentity(identity, identityOf({ ...config, mtu: 1400 }, bits))).toBe(true);
  const others: readonly Partial<DatapathConfig>[] = [
    { network: parsePrefix('10.0.0.0/8') },
    { subnet: parsePrefix('10.5.1.0/25') },
    { publicIp: parseIpv4('192.0.2.9') },
    { port: 8286 },
    { checkSource: false },
    { checkDestination: false },
  ];
  for (const other of others) expect(sameIdentity(identity, identityOf({ ...config, ...other }, bits))).toBe(false);
  expect(identityOf({ ...config, checkSource: false, checkDestination: false }, bits).flags).toBe(3);
});

test('counters of dead processes stay in the sum', () => {
  const totals = new Totals();
  const counted = (rx: number): Parameters<Totals['add']>[0] => ({
    pid: 1,
    threads: 2,
    adopted: 1,
    features: [],
    refused: [],
    counters: { rx_ok: rx },
  });
  expect(totals.plus(undefined)).toEqual({});
  totals.add(counted(5));
  totals.add(counted(7));
  expect(totals.plus(undefined)).toEqual({ rx_ok: 12 });
  expect(totals.plus(counted(1))).toEqual({ rx_ok: 13 });
});

test('a table holds the prefixes of either family, those of IPv4 first', () => {
  const prefixes = ['fd00:5::/64', '10.5.2.0/24', '10.5.1.0/24'].map(parseAnyPrefix);
  const peer = { identity: 'one', prefixes, endpoint: parseIpv4('192.0.2.2'), port: 8285, features: 0 };
  const { routes } = packTable([{ peer, hash: hashIdentity('one'), number: 3 }]);
  expect([...routes]).toEqual(
    [
      [0x0a050100, 0, 0, 0, 24, 4, 3],
      [0x0a050200, 0, 0, 0, 24, 4, 3],
      [0xfd000005, 0, 0, 0, 64, 6, 3],
    ].flat(),
  );
});
