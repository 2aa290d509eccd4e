/** What the datapath adapter remembers over the lives of data processes, without a kernel. */
import { expect, test } from 'vitest';
import type { DatapathConfig } from '../../src/datapath/datapath.js';
import { Totals } from '../../src/datapath/tun/handover.js';
import { PublishedState } from '../../src/datapath/tun/published-state.js';
import { identityOf, sameIdentity } from '../../src/datapath/tun/table.js';
import type { NativeTable } from '../../src/lib/native.js';
import { parseIpv4, parsePrefix } from '../../src/model/ipv4.js';

/** A table file that is busy while told so, and writes down what it is told. */
class FakeTable implements Partial<NativeTable> {
  busy = false;
  live: Uint32Array = new Uint32Array(0);
  count = 0;
  readonly calls: string[] = [];

  publish(routes: Uint32Array): number {
    if (this.busy) return 0;
    this.live = routes;
    return ++this.count;
  }
  routes(): Uint32Array | undefined {
    return this.live;
  }
  words(): { generation: number; fence: boolean; forwardUntil: number } {
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
}

const routes = (port: number): Uint32Array => new Uint32Array([0x0a050100, 24, 0xc0000202, port]);

const config: DatapathConfig = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.1.0/24'),
  publicIp: parseIpv4('198.51.100.1'),
  bindAddress: parseIpv4('192.0.2.1'),
  port: 8285,
  mtu: 1472,
  checkSource: true,
  checkDestination: true,
};

test('equal routes keep their generation', () => {
  const published = new PublishedState();
  const table = new FakeTable();
  expect(published.replace(new Uint32Array(0))).toBe(1);
  expect(published.replace(new Uint32Array(0))).toBe(1);
  published.writeRoutes(table.native);
  expect(published.replace(routes(1))).toBe(2);
  published.writeRoutes(table.native);
  expect(published.replace(routes(1))).toBe(2);
  expect(published.isBehind(table.native)).toBe(false);
});

test('while the file is busy the newest table waits under one generation', () => {
  const published = new PublishedState();
  const table = new FakeTable();
  published.replace(routes(1));
  expect(published.writeRoutes(table.native)).toBe(true);
  table.busy = true;
  expect(published.replace(routes(2))).toBe(2);
  expect(published.writeRoutes(table.native)).toBe(false);
  expect(published.replace(routes(3))).toBe(2);
  expect(published.isBehind(table.native)).toBe(true);
  table.busy = false;
  expect(published.writeRoutes(table.native)).toBe(true);
  expect(published.isBehind(table.native)).toBe(false);
  expect(table.live).toEqual(routes(3));
});

test('generations count on in a new file, which gets everything', () => {
  const published = new PublishedState();
  const first = new FakeTable();
  for (const port of [1, 2, 3]) {
    published.replace(routes(port));
    published.writeRoutes(first.native);
  }
  published.setFence(true);
  published.setForwardUntil(7);
  const second = new FakeTable();
  published.writeAll(second.native);
  expect(second.live).toEqual(routes(3));
  expect(second.calls).toEqual(['until 7', 'fence true']);
  expect(published.generation).toBe(3);
  expect(published.adopted(second.native, 0)).toBe(2);
  expect(published.adopted(second.native, 1)).toBe(3);
  expect(published.adopted(first.native, 3)).toBe(3);
});

test('while one process takes over from another, each file is behind for itself', () => {
  const published = new PublishedState();
  const [old, next] = [new FakeTable(), new FakeTable()];
  published.replace(routes(1));
  published.writeRoutes(old.native);
  published.writeAll(next.native);
  published.replace(routes(2));
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([true, true]);
  published.writeRoutes(old.native);
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([false, true]);
  published.writeRoutes(next.native);
  expect([old, next].map(table => published.isBehind(table.native))).toEqual([false, false]);
  expect(next.live).toEqual(routes(2));
});

test('an adopted file is continued: its routes are the ones published, its control words are kept', () => {
  const file = new FakeTable();
  file.live = routes(5);
  file.count = 42;
  const published = new PublishedState();
  expect(published.resume(file.native)).toBe(true);
  expect(published.replace(routes(5))).toBe(42);
  expect(published.adopted(file.native, 42)).toBe(42);
  expect(published.isBehind(file.native)).toBe(false);
  const next = new FakeTable();
  published.writeAll(next.native);
  expect(next.calls).toEqual(['until 99', 'fence true']);
  expect(next.live).toEqual(routes(5));
});

test('a damaged file is not continued', () => {
  const file = new FakeTable();
  file.routes = () => undefined;
  const published = new PublishedState();
  expect(published.resume(file.native)).toBe(false);
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
    counters: { rx_ok: rx },
  });
  expect(totals.plus(undefined)).toEqual({});
  totals.add(counted(5));
  totals.add(counted(7));
  expect(totals.plus(undefined)).toEqual({ rx_ok: 12 });
  expect(totals.plus(counted(1))).toEqual({ rx_ok: 13 });
});
