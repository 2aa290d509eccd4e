/** The netlink socket and its messages against a made-up kernel. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Changes } from '../../src/host/netlink/changes.js';
import {
  changeGroups,
  changeLink,
  createLink,
  dumpRoutes,
  linkAddress,
  messageTypes,
  neighbourMessage,
  readAddress,
  readLink,
  readNeighbour,
  readRoute,
  routeMessage,
} from '../../src/host/netlink/messages.js';
import { Rtnetlink } from '../../src/host/netlink/rtnetlink.js';
import { readRuleNews, ruleGroups } from '../../src/host/netlink/rule-news.js';
import { routesTouching } from '../../src/host/netlink/route-filter.js';
import { NetlinkSocket, type NetlinkCalls } from '../../src/host/netlink/socket.js';
import { silentLog } from '../../src/lib/log.js';
import type { NativeWatchListener } from '../../src/lib/native.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';

const target = {
  destination: parsePrefix('10.5.0.0/16'),
  metric: 7,
  tos: 0,
  table: 254,
  protocol: 84,
  typeNumber: 1,
  scope: 253,
  linkIndex: 3,
  gateway: undefined,
  onlink: false,
};

interface Request {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
}

/** Answers with what `reply` makes of each request, in a later turn of the event loop. */
class FakeKernel implements NetlinkCalls {
  readonly requests: Request[] = [];
  readonly closed: number[] = [];
  readonly listeners: NativeWatchListener[] = [];
  readonly groups: (readonly number[])[] = [];
  /** A protocol that this kernel does not have. */
  missing: number | undefined;
  reply: (request: Request) => readonly Buffer[] = () => [];

  netlinkOpen(protocol: number, groups: readonly number[]): number {
    if (protocol === this.missing) throw new Error('EPROTONOSUPPORT');
    this.groups.push(groups);
    return 100 + this.listeners.length;
  }

  netlinkSend(_fd: number, bytes: Uint8Array): void {
    const message = Buffer.from(bytes);
    const request = {
      type: message.readUInt16LE(4),
      flags: message.readUInt16LE(6),
      sequence: message.readUInt32LE(8),
    };
    this.requests.push(request);
    setImmediate(() => this.reply(request).forEach(datagram => this.listeners.at(-1)?.(undefined, datagram)));
  }

  watch(_fd: number, _bytes: number, listener: NativeWatchListener): { close(): void; unref(): void } {
    this.listeners.push(listener);
    return { close: () => {}, unref: () => {} };
  }

  closeFd(fd: number): void {
    this.closed.push(fd);
  }
}

function message(type: number, flags: number, sequence: number, body: Uint8Array): Buffer {
  const padded = Buffer.alloc((body.length + 3) & ~3);
  padded.set(body);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, padded]);
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

const error = 2;
const done = 3;

function acknowledged(request: Request, errno = 0): Buffer {
  return message(error, 0, request.sequence, Buffer.concat([number(errno), Buffer.alloc(16)]));
}

let kernel: FakeKernel;
beforeEach(() => {
  kernel = new FakeKernel();
});

describe('requests', () => {
  test('one at a time, each with a number of its own, and only its own answer counts', async () => {
    kernel.reply = request => [Buffer.concat([acknowledged({ ...request, sequence: 999 }, -1), acknowledged(request)])];
    const socket = new NetlinkSocket(kernel);
    await Promise.all([socket.change(24, 0, new Uint8Array()), socket.change(24, 0, new Uint8Array())]);
    expect(kernel.requests.map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect(kernel.groups).toEqual([[]]);
  });

  test("a refusal has its errno's name and the kernel's explanation", async () => {
    const words = Buffer.concat([Buffer.from([20, 0, 1, 0]), Buffer.from('Nexthop is bad\0\0')]);
    kernel.reply = request => [
      message(
        error,
        0x300,
        request.sequence,
        Buffer.concat([number(-17), message(24, 0, request.sequence, Buffer.alloc(0)), words]),
      ),
    ];
    const refused = new NetlinkSocket(kernel).change(24, 0, new Uint8Array());
    await expect(refused).rejects.toMatchObject({ code: 'EEXIST', syscall: 'netlink' });
    await expect(refused).rejects.toThrow(/^EEXIST: Nexthop is bad/);
  });

  test('a list comes in many messages; one that makes no sense is left out', async () => {
    const route = routeMessage(target);
    kernel.reply = request => [
      Buffer.concat([message(24, 2, request.sequence, route), message(24, 2, request.sequence, route.subarray(0, 14))]),
      message(24, 2, request.sequence, route),
      message(done, 2, request.sequence, number(0)),
    ];
    const routes = await new NetlinkSocket(kernel).dump(messageTypes.getRoute, dumpRoutes(), readRoute);
    expect(routes).toHaveLength(2);
    expect(routes[0]).toMatchObject({ ...target, type: 'unicast', multipath: false });
  });

  test('a list that changed while it was read is read again', async () => {
    kernel.reply = request => {
      const interrupted = kernel.requests.length < 3 ? 0x10 : 0;
      return [
        message(24, 2 | interrupted, request.sequence, routeMessage(target)),
        message(done, 2, request.sequence, number(0)),
      ];
    };
    expect(await new NetlinkSocket(kernel).dump(messageTypes.getRoute, dumpRoutes(), readRoute)).toHaveLength(1);
    expect(kernel.requests).toHaveLength(3);
  });

  test('a list that never stands still is an error, not a loop', async () => {
    kernel.reply = request => [message(done, 0x10, request.sequence, number(0))];
    const dump = new NetlinkSocket(kernel).dump(messageTypes.getRoute, dumpRoutes(), readRoute);
    await expect(dump).rejects.toMatchObject({ code: 'EINTR' });
    expect(kernel.requests).toHaveLength(10);
  });

  test('a list that ends with an error', async () => {
    kernel.reply = request => [message(done, 2, request.sequence, number(-12))];
    const dump = new NetlinkSocket(kernel).dump(messageTypes.getRoute, dumpRoutes(), readRoute);
    await expect(dump).rejects.toMatchObject({ code: 'ENOMEM' });
  });

  test('no answer: an error after the deadline, and the late one harms nobody', async () => {
    const socket = new NetlinkSocket(kernel, { timeoutMs: 200 });
    await expect(socket.change(24, 0, new Uint8Array())).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    kernel.listeners[0]?.(undefined, acknowledged({ type: 24, flags: 0, sequence: 1 }, -1));
    kernel.reply = request => [acknowledged(request)];
    await socket.change(24, 0, new Uint8Array());
  });

  test('an overrun fails the request of the moment, garbage too, and the socket goes on', async () => {
    const socket = new NetlinkSocket(kernel);
    kernel.reply = () => (kernel.listeners[0]?.('ENOBUFS', undefined), []);
    await expect(socket.change(24, 0, new Uint8Array())).rejects.toMatchObject({ code: 'ENOBUFS' });
    kernel.reply = () => [Buffer.alloc(16, 0xff)];
    await expect(socket.change(24, 0, new Uint8Array())).rejects.toThrow(/header length/);
    kernel.reply = request => [acknowledged(request)];
    await socket.change(24, 0, new Uint8Array());
  });

  test('a send that fails, a close in between', async () => {
    const socket = new NetlinkSocket(kernel);
    const send = vi.spyOn(kernel, 'netlinkSend').mockImplementationOnce(() => {
      throw Object.assign(new Error('EPERM'), { code: 'EPERM' });
    });
    await expect(socket.change(24, 0, new Uint8Array())).rejects.toMatchObject({ code: 'EPERM' });
    send.mockRestore();
    const waiting = socket.change(24, 0, new Uint8Array());
    const refused = expect(waiting).rejects.toMatchObject({ code: 'ECANCELED' });
    await vi.waitFor(() => expect(kernel.requests).toHaveLength(1));
    socket.close();
    socket.close();
    await refused;
    await expect(socket.change(24, 0, new Uint8Array())).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(kernel.closed).toEqual([100]);
  });
});

describe('rtnetlink', () => {
  test('"it is so already" is success, other refusals are not', async () => {
    const rtnetlink = new Rtnetlink(() => new NetlinkSocket(kernel));
    const answers: Readonly<Record<number, number>> = {
      [messageTypes.newAddress]: -17,
      [messageTypes.deleteAddress]: -99,
      [messageTypes.deleteRoute]: -3,
      [messageTypes.newRoute]: -17,
    };
    kernel.reply = request => [acknowledged(request, answers[request.type])];
    await rtnetlink.addAddress(3, parsePrefix('10.5.1.0/32'), 84);
    await rtnetlink.removeAddress(3, parsePrefix('10.5.1.0/32'));
    await rtnetlink.removeRoute(target);
    await rtnetlink.replaceRoute(target, target);
    await expect(rtnetlink.addRoute(target)).rejects.toMatchObject({ code: 'EEXIST' });
  });

  test('a socket that broke is opened again for the next request', async () => {
    const rtnetlink = new Rtnetlink(() => new NetlinkSocket(kernel));
    kernel.listeners[0]?.('EIO', undefined);
    expect(kernel.closed).toEqual([100]);
    kernel.reply = request => [acknowledged(request)];
    await rtnetlink.addRoute(target);
    expect(kernel.listeners).toHaveLength(2);
    rtnetlink.close();
    await expect(rtnetlink.addRoute(target)).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(kernel.listeners).toHaveLength(2);
  });
});

describe('messages', () => {
  test('what is written is what is read', () => {
    expect(readRoute(Buffer.from(routeMessage(target)))).toMatchObject(target);
    const byGateway = { ...target, scope: 0, gateway: parseIpv4('192.0.2.9'), onlink: true };
    expect(readRoute(Buffer.from(routeMessage(byGateway)))).toMatchObject(byGateway);
    const [mac, local] = ['02:00:00:00:00:01', parseIpv4('192.0.2.1')];
    expect(readLink(Buffer.from(createLink('vx7', { kind: 'vxlan', vni: 7, port: 8472, local, mac })))).toMatchObject({
      name: 'vx7',
      kind: 'vxlan',
      alias: undefined,
      mac,
      vxlan: { vni: 7, port: 8472, local, learning: false },
    });
    expect(readLink(Buffer.from(changeLink(5, { name: 'vx7', alias: 'tartan default' })))).toMatchObject({
      index: 5,
      name: 'vx7',
      alias: 'tartan default',
    });
    for (const kind of ['neighbour', 'forwarding'] as const) {
      const entry = { kind, linkIndex: 5, address: local, mac };
      expect(readNeighbour(Buffer.from(neighbourMessage(entry)))).toEqual({ ...entry, permanent: true });
      expect(() => neighbourMessage({ ...entry, mac: '02:00' })).toThrow("'02:00' is not six octets in hex");
    }
    expect(readAddress(Buffer.from(linkAddress(3, parsePrefix('10.5.1.0/32'), 84)))).toEqual({
      linkIndex: 3,
      address: parseIpv4('10.5.1.0'),
      peer: parseIpv4('10.5.1.0'),
      length: 32,
      scope: 0,
      permanent: false,
      deprecated: false,
      protocol: 84,
    });
  });

  test.each([0, 1, 3, 11, 13, 19])('%i bytes of nothing are no message', length => {
    for (const fill of [0, 1, 0xff]) {
      const bytes = Buffer.alloc(length, fill);
      const read = [readLink(bytes), readAddress(bytes), readRoute(bytes), readNeighbour(bytes)];
      expect(read).toEqual(Array(4).fill(undefined));
    }
  });
});

function route(destination: string) {
  const common = { metric: 0, tos: 0, table: 254, protocol: 4, typeNumber: 1, scope: 253 };
  return { ...common, destination: parsePrefix(destination), linkIndex: 2, gateway: undefined, onlink: false };
}

describe('changes', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test('the first rings at once, a flood at growing distances, a lost message like any other', () => {
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: pid => pid === 7 });
    expect(kernel.groups).toEqual([changeGroups, ruleGroups]);
    let rings = 0;
    changes.onChange(() => rings++);
    kernel.listeners[0]?.('ENOBUFS', undefined);
    vi.advanceTimersByTime(1);
    expect(rings).toBe(1);
    for (let ms = 0; ms < 10_000; ms++) {
      kernel.listeners[0]?.(undefined, Buffer.alloc(16));
      vi.advanceTimersByTime(1);
    }
    expect(rings).toBeGreaterThan(20);
    expect(rings).toBeLessThan(30);
    vi.advanceTimersByTime(1100);
    const before = rings;
    kernel.listeners[0]?.(undefined, Buffer.alloc(16));
    vi.advanceTimersByTime(1);
    expect(rings).toBe(before + 1);
    changes.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  test('a socket that broke is opened again, and what was missed is looked for', () => {
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: pid => pid === 7 });
    let rings = 0;
    changes.onChange(() => rings++);
    kernel.listeners[0]?.('EBADF', undefined);
    vi.advanceTimersByTime(1100);
    expect(kernel.listeners).toHaveLength(3);
    expect(rings).toBe(1);
    changes.close();
    expect(kernel.closed).toEqual([100, 102, 101]);
  });

  test('tables, chains and rules of IPv4 ring; elements of sets, the end of a transaction and IPv6 do not', () => {
    const nftables = (kind: number, family: number): Buffer =>
      message((10 << 8) | kind, 0, 1, Buffer.from([family, 0, 0, 0]));
    const changesRules = (datagram: Buffer): boolean => readRuleNews(datagram).changes;
    for (const family of [1, 2])
      for (const kind of [0, 2, 3, 5, 6, 8]) expect(changesRules(nftables(kind, family))).toBe(true);
    for (const kind of [9, 12, 14, 15]) expect(changesRules(nftables(kind, 2))).toBe(false);
    expect(changesRules(nftables(6, 10))).toBe(false);
    expect(changesRules(Buffer.concat([nftables(15, 2), nftables(6, 2)]))).toBe(true);
    expect(changesRules(Buffer.alloc(16, 0xff))).toBe(true);
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: pid => pid === 7 });
    let rings = 0;
    changes.onChange(() => rings++);
    kernel.listeners[1]?.(undefined, nftables(12, 2));
    vi.advanceTimersByTime(1100);
    expect(rings).toBe(0);
    kernel.listeners[1]?.(undefined, nftables(8, 2));
    vi.advanceTimersByTime(1);
    expect(rings).toBe(1);
    changes.close();
  });

  test('fault C7: who removed rules is known by the end of the transaction, and it is never we', () => {
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: pid => pid === 7 });
    const part = (kind: number, ...attributes: readonly Buffer[]): Buffer =>
      message((10 << 8) | kind, 0, 1, Buffer.concat([Buffer.from([2, 0, 0, 0]), ...attributes]));
    const attribute = (type: number, value: Buffer): Buffer => {
      const header = Buffer.alloc(4);
      header.writeUInt16LE(4 + value.length);
      header.writeUInt16LE(type, 2);
      return Buffer.concat([header, value, Buffer.alloc(-value.length & 3)]);
    };
    const end = (pid: number): Buffer =>
      part(15, attribute(2, Buffer.from([0, 0, 0, pid])), attribute(3, Buffer.from('rival\0')));
    const hear = (...parts: readonly Buffer[]): void => kernel.listeners[1]?.(undefined, Buffer.concat(parts));
    hear(part(6), end(9));
    hear(part(8), end(7));
    expect(changes.lastRemover).toBeUndefined();
    hear(part(8));
    hear(end(9));
    expect(changes.lastRemover).toBe('rival');
    changes.close();
  });

  test('fault C17: a route of others that touches no range of ours rings for nobody', () => {
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: () => false });
    changes.watchRoutes(routesTouching([parsePrefix('10.5.0.0/16')], [84]));
    let rings = 0;
    changes.onChange(() => rings++);
    const hear = (destination: string, more: object = {}): number => {
      const target = { ...route(destination), ...more };
      kernel.listeners[0]?.(undefined, message(messageTypes.newRoute, 0, 1, Buffer.from(routeMessage(target))));
      vi.advanceTimersByTime(1100);
      return rings;
    };
    expect(hear('198.51.100.0/24')).toBe(0);
    expect(hear('10.4.0.0/16')).toBe(0);
    expect(hear('10.6.1.0/24')).toBe(0);
    expect(hear('10.5.7.0/24')).toBe(1);
    expect(hear('10.0.0.0/8')).toBe(2);
    expect(hear('0.0.0.0/0')).toBe(3);
    expect(hear('198.51.100.0/24', { protocol: 84 })).toBe(4);
    changes.close();
  });

  test('a kernel without nftables: links and routes ring all the same', () => {
    kernel.missing = 12;
    const changes = new Changes({ calls: kernel, log: silentLog, isOwnCommand: pid => pid === 7 });
    let rings = 0;
    changes.onChange(() => rings++);
    kernel.listeners[0]?.(undefined, Buffer.alloc(16));
    vi.advanceTimersByTime(1);
    expect(rings).toBe(1);
    changes.close();
    expect(kernel.closed).toEqual([100]);
  });
});
