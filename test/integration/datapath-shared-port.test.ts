/**
 * Sockets that share an address and the program that deals out what arrives (native/addon/steering.c, lanes.ts); all on
 * loopback, where every address of 127.0.0.0/8 is a peer of its own.
 */
import { readSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { widenUnderlay, type Widened } from '../../src/datapath/tun/descriptors.js';
import { native } from '../../src/lib/native.js';
import { perl, useScratch } from './datapath-lab.js';

const loopback = 0x7f000001;
const bufferBytes = 1 << 20;
const sparseTos = 0x10;
const denseTos = 0x18;
const congestionBits = 3;
/** Any that no program listens at on the addresses of the peers. */
const peerPort = 8285;

useScratch();
let first: number;
let port: number;
const opened: number[] = [];

function open(share: boolean): { readonly fd: number; readonly receiveBuffer: number; readonly sendBuffer: number } {
  const udp = native().openUdp(loopback, port, bufferBytes, share);
  opened.push(udp.fd);
  return udp;
}

function widen(lanes: number): Widened {
  return widenUnderlay(first, lanes, share => open(share));
}

beforeEach(() => {
  port = 0;
  first = open(false).fd;
  ({ port } = native().udpName(first));
});

afterEach(() => {
  for (const fd of opened.splice(0)) native().closeFd(fd);
});

/**
 * From each address `count` datagrams that name address and TOS, each with a fresh socket as another process would, on a
 * port of its own or the one given.
 */
function send(addresses: readonly string[], tos: number, count = 1, source = 0): void {
  const text = String.raw`my ($port, $tos, $count, $source, @from) = @ARGV;
    for my $from (@from) {
      socket(S, AF_INET, SOCK_DGRAM, 0) or die $!; setsockopt(S, 0, 1, pack('i', $tos)) or die $!;
      bind(S, pack_sockaddr_in($source, inet_aton($from))) or die $!;
      defined send(S, "$from $tos", 0, pack_sockaddr_in($port, inet_aton('127.0.0.1'))) or die $! for 1 .. $count;
    }`;
  perl(text, String(port), String(tos), String(count), String(source), ...addresses);
}

/** Delivery over loopback is part of sending: what was sent is here. */
function read(fd: number): readonly string[] {
  const texts: string[] = [];
  for (const buffer = Buffer.alloc(100); ;) {
    try {
      texts.push(buffer.toString('latin1', 0, readSync(fd, buffer)));
    } catch {
      return texts;
    }
  }
}

const peers = Array.from({ length: 24 }, (_, i) => `127.0.1.${i + 1}`);

test.each([1, 2, 3])('%i lanes: marked datagrams go to the last socket, whatever the network did to them', lanes => {
  const { fds, problem } = widen(lanes);
  expect(problem).toBeUndefined();
  expect(fds).toHaveLength(lanes + 1);
  for (let bits = 0; bits <= congestionBits; bits++) send(peers, sparseTos | bits);
  expect(fds.map(fd => read(fd).length)).toEqual([...Array<number>(lanes).fill(0), 4 * peers.length]);
});

test.each([2, 3, 4])('%i lanes: those marked as dense go to the last lane', lanes => {
  const { fds } = widen(lanes);
  for (let bits = 0; bits <= congestionBits; bits++) send(peers, denseTos | bits);
  expect(fds.map(fd => read(fd).length)).toEqual(fds.map((_, i) => (i === lanes - 1 ? 4 * peers.length : 0)));
});

test.each([1, 2, 3])('%i lanes: all else from one port of a peer goes to one of the others', lanes => {
  const { fds } = widen(lanes);
  const marks = [0, congestionBits, 0x08, 0x1c, 0xb8];
  for (const tos of marks) send(peers, tos, 3, peerPort);
  const laneOf = new Map<string, number>();
  const got = fds.map(fd => read(fd));
  for (const [lane, texts] of got.entries())
    for (const peer of texts.map(text => text.split(' ')[0] ?? '')) {
      expect(laneOf.get(peer) ?? lane, peer).toBe(lane);
      laneOf.set(peer, lane);
    }
  expect(got.map(texts => texts.length).reduce((a, b) => a + b)).toBe(marks.length * 3 * peers.length);
  expect(got[lanes]).toEqual([]);
  // Of several lanes the last is for dense flows.
  const bulk = Math.max(1, lanes - 1);
  expect([...new Set(laneOf.values())].sort()).toEqual(Array.from({ length: bulk }, (_, lane) => lane));
});

test('fault N11: what one peer sends from its ports goes to all lanes of bulk flows', () => {
  const { fds } = widen(3);
  for (let i = 0; i < 24; i++) send(peers.slice(0, 1), 0);
  const [first = 0, second = 0, ...others] = fds.map(fd => read(fd).length);
  expect(first).toBeGreaterThan(0);
  expect(second).toBeGreaterThan(0);
  expect([first + second, ...others]).toEqual([24, 0, 0]);
});

test('before it is shared nobody else gets the port, and afterwards a stranger gets the port and no datagram', () => {
  const refused = expect.objectContaining({ code: 'EADDRINUSE' });
  expect(() => native().openUdp(loopback, port, bufferBytes, true)).toThrow(refused);
  const { fds } = widen(2);
  expect(() => native().openUdp(loopback, port, bufferBytes, false)).toThrow(refused);
  const strangers = [open(true).fd, open(true).fd];
  send(peers, 0, 4);
  send(peers, sparseTos, 4);
  expect(strangers.flatMap(fd => read(fd))).toEqual([]);
  expect(fds.map(fd => read(fd).length).reduce((a, b) => a + b)).toBe(8 * peers.length);
});

test('sharing that fails leaves one socket, alone as before, and a reason', () => {
  let calls = 0;
  const widened = widenUnderlay(first, 3, share => {
    if (++calls === 2) throw new Error('no more of them');
    return native().openUdp(loopback, port, bufferBytes, share);
  });
  expect(widened.fds).toEqual([first]);
  expect(widened.problem).toMatch(/no more of them.*CAP_BPF/);
  expect(() => native().openUdp(loopback, port, bufferBytes, true)).toThrow(
    expect.objectContaining({ code: 'EADDRINUSE' }),
  );
  send(peers, 0);
  send(peers, sparseTos);
  expect(read(first)).toHaveLength(2 * peers.length);
});

test('lanes that no link has, and descriptors that are none', () => {
  for (const lanes of [0, native().limits.queuesMax, 1.5, -1]) {
    expect(() => native().steerUdp(first, lanes)).toThrow(TypeError);
    expect(() => native().steerTun(first, lanes)).toThrow(TypeError);
  }
  expect(() => native().steerTun(first, 1)).toThrow(expect.objectContaining({ syscall: 'TUNSETSTEERINGEBPF' }));
  expect(() => native().steerUdp(0, 1)).toThrow(expect.objectContaining({ syscall: 'SO_ATTACH_REUSEPORT_EBPF' }));
  expect(() => native().shareUdp(100_000, true)).toThrow(expect.objectContaining({ code: 'EBADF' }));
});
