/** The kernel engine's programs, packet by packet (BPF_PROG_TEST_RUN): every vector, the gates, probes, notes, limits. */
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { NativeKernelPath } from '../../src/lib/native-kernel.js';
import { native } from '../../src/lib/native.js';
import { changed } from '../support/inner-packet.js';
import {
  configureVectors,
  counted,
  dropped,
  expectedOf,
  fromPeer,
  ip4,
  kernelPeer,
  next,
  openVectors,
  packet,
  probePacket,
  redirected,
  towardsPeer,
  towardsUs,
} from '../support/kernel-bed.js';
import { difference, vectors, type Counters } from '../support/vectors.js';

const { flagNoSourceCheck, flagNoDestinationCheck } = native().limits;
const other = ip4(192, 0, 2, 3);
let path: NativeKernelPath;
beforeAll(() => {
  path = openVectors();
});
afterAll(() => path.close());
beforeEach(() => configureVectors(path));

/** The verdict, and what was counted, bytes left out. */
function judge(...[program, bytes, key]: Parameters<NativeKernelPath['test']>): [number, Counters] {
  const before = path.counters();
  const { verdict } = path.test(program, bytes, key);
  const { rx_bytes: _rx, tx_bytes: _tx, ...counted } = difference(path.counters(), before);
  return [verdict, counted];
}

const inbound = (bytes: Uint8Array, key = fromPeer): [number, Counters] => judge('inbound', bytes, key);
const outbound = (bytes: Uint8Array): [number, Counters] => judge('outbound', bytes);
const taken = [redirected, counted('rx_ok')];
const sent = [redirected, counted('tx_ok')];

/** The kernel tries no packet of no bytes, and none longer than a page. */
const tried = vectors.filter(({ hex }) => hex.length > 0 && hex.length < 2 * 3500);

describe('the packet vectors', () => {
  test('all but two are tried', () => expect(vectors.length - tried.length).toBe(2));

  test.each(tried.filter(({ dir }) => dir === 'rx'))('$id $name', vector => {
    const remote = ip4(
      ...(vector.outer_from.split(/[.:]/).slice(0, 4).map(Number) as [number, number, number, number]),
    );
    const expected = expectedOf(vector);
    const verdict = 'rx_ok' in expected ? redirected : dropped;
    expect(inbound(Buffer.from(vector.hex, 'hex'), { ...fromPeer, remote })).toEqual([verdict, expected]);
  });

  /** All others go on into the tun, to be counted by the data process. */
  test.each(tried.filter(({ dir }) => dir === 'tx'))('$id $name', vector => {
    const bytes = Buffer.from(vector.hex, 'hex');
    expect(outbound(bytes)).toEqual(vector.counter === 'tx_ok' ? sent : [next, {}]);
  });
});

describe('outbound', () => {
  test('takes what goes to a kernel peer, and nothing else', () => {
    expect(outbound(towardsPeer)).toEqual(sent);
    expect(outbound(packet('10.5.1.9', '10.5.200.9'))).toEqual([next, {}]);
    expect(outbound(packet('10.5.1.9', '10.5.1.8'))).toEqual([next, {}]);
    for (const state of ['user', 'refuse'] as const) {
      path.setState(0, state);
      expect(outbound(towardsPeer)).toEqual([next, {}]);
      expect(outbound(packet('10.5.1.9', '10.5.3.9'))).toEqual(sent);
    }
  });

  test('leaves to the data process what has DF and is longer than the MTU of the route', () => {
    const [fits, long] = [1472, 1473].map(bytes => packet('10.5.1.9', '10.5.2.9', { bytes }));
    path.setPeer(0, kernelPeer(fromPeer.remote, { mtu: 1264 }));
    expect(outbound(packet('10.5.1.9', '10.5.2.9', { bytes: 1228 }))).toEqual(sent);
    expect(outbound(packet('10.5.1.9', '10.5.2.9', { bytes: 1229 }))).toEqual([next, {}]);
    for (const whole of [fits, long]) expect(outbound(changed(whole ?? Buffer.alloc(0), 6, 0, 0))).toEqual(sent);
  });

  test('lets a source pass that is not ours where the flag says so', () => {
    const foreign = packet('8.8.8.8', '10.5.2.9');
    expect(outbound(foreign)).toEqual([next, {}]);
    configureVectors(path, flagNoSourceCheck);
    expect(outbound(foreign)).toEqual(sent);
    expect(outbound(packet('127.0.0.1', '10.5.2.9'))).toEqual([next, {}]);
  });

  test('a link that is gone takes nothing', () => {
    const vanished = 2 ** 30;
    path.configure({ ...configOf(), linkIndex: vanished });
    expect(outbound(towardsPeer)).toEqual([next, {}]);
  });
});

function configOf(): Parameters<NativeKernelPath['configure']>[0] {
  return {
    network: ip4(10, 5, 0, 0),
    networkLength: 16,
    subnet: ip4(10, 5, 1, 0),
    subnetLength: 24,
    local: fromPeer.local,
    vni: 1,
    tunIndex: 1,
    linkIndex: 1,
    flags: 0,
    lengths: [24],
  };
}

describe('inbound', () => {
  test('takes what a member sends from its own subnet to ours', () => {
    expect(inbound(towardsUs)).toEqual(taken);
    expect(inbound(packet('10.5.3.9', '10.5.1.9'))).toEqual([dropped, counted('rx_spoof_src')]);
    expect(inbound(packet('10.5.3.9', '10.5.1.9'), { ...fromPeer, remote: other })).toEqual(taken);
    expect(inbound(packet('10.5.2.9', '10.5.3.9'))).toEqual([dropped, counted('rx_bad_dst')]);
    expect(inbound(packet('10.5.2.9', '10.5.1.255'))).toEqual([dropped, counted('rx_bad_dst')]);
  });

  test('another network, a stranger, our own address and no tunnel are no member', () => {
    const stranger = [dropped, counted('rx_not_member')];
    expect(inbound(towardsUs, { ...fromPeer, vni: 2 })).toEqual(stranger);
    expect(inbound(towardsUs, { ...fromPeer, remote: ip4(192, 0, 2, 66) })).toEqual(stranger);
    expect(inbound(towardsUs, { ...fromPeer, remote: fromPeer.local })).toEqual(stranger);
    expect(judge('inbound', towardsUs)).toEqual(stranger);
  });

  test('what comes to another address of this host is not for us', () => {
    expect(inbound(towardsUs, { ...fromPeer, local: ip4(198, 51, 100, 1) })).toEqual([dropped, counted('rx_bad_dst')]);
  });

  test('a peer is heard as user, and as refused it is not', () => {
    path.setState(0, 'user');
    expect(inbound(towardsUs)).toEqual(taken);
    path.setState(0, 'refuse');
    expect(inbound(towardsUs)).toEqual([dropped, counted('rx_not_member')]);
  });

  test('flags lift the checks of source and destination, and no other', () => {
    configureVectors(path, flagNoSourceCheck | flagNoDestinationCheck);
    expect(inbound(packet('8.8.8.8', '10.5.1.9'))).toEqual(taken);
    expect(inbound(packet('10.5.2.9', '8.8.8.8'))).toEqual(taken);
    expect(inbound(packet('10.5.2.9', '10.5.255.255'))).toEqual([dropped, counted('rx_bad_dst')]);
    expect(inbound(packet('224.0.0.1', '10.5.1.9'))).toEqual([dropped, counted('rx_martian')]);
    expect(inbound(towardsUs, { ...fromPeer, remote: ip4(192, 0, 2, 66) })).toEqual([
      dropped,
      counted('rx_not_member'),
    ]);
  });

  test('impossible fragments, trimmed packets', () => {
    expect(inbound(changed(towardsUs, 6, 0x3f, 0xff))).toEqual([dropped, counted('rx_bad_frag')]);
    expect(inbound(changed(towardsUs, 2, 0, 61, 0, 1, 0x20, 0))).toEqual([dropped, counted('rx_bad_frag')]);
    expect(inbound(Buffer.concat([towardsUs, Buffer.alloc(3)]))).toEqual([redirected, { rx_ok: 1, rx_trimmed: 1 }]);
  });
});

test('peers with one address: it is that of a member until the last of them is gone', () => {
  const foreign = packet('10.5.77.9', '10.5.1.9');
  path.setPeer(7, kernelPeer(fromPeer.remote));
  path.clearPeer(0);
  expect(inbound(foreign)).toEqual([dropped, counted('rx_spoof_src')]);
  path.setPeer(7, kernelPeer(ip4(192, 0, 2, 77)));
  expect(inbound(foreign)).toEqual([dropped, counted('rx_not_member')]);
  expect(inbound(foreign, { ...fromPeer, remote: ip4(192, 0, 2, 77) })).toEqual([dropped, counted('rx_spoof_src')]);
  path.clearPeer(7);
  expect(inbound(foreign, { ...fromPeer, remote: ip4(192, 0, 2, 77) })).toEqual([dropped, counted('rx_not_member')]);
});

test('fence and deadline stop what comes, leave to the data process what goes, and take no probe', () => {
  const question = probePacket({ kind: 3, source: '10.5.1.0', destination: '10.5.2.0' });
  path.setFence(true);
  expect(inbound(towardsUs)).toEqual([dropped, counted('rx_fenced')]);
  expect(outbound(towardsPeer)).toEqual([next, {}]);
  expect(outbound(question)).toEqual([dropped, {}]);
  path.setFence(false);
  path.setDeadline(BigInt(native().bootMs()) * 1_000_000n - 1n);
  expect(inbound(towardsUs)).toEqual([dropped, counted('rx_orphaned')]);
  expect(outbound(towardsPeer)).toEqual([next, {}]);
  expect(outbound(question)).toEqual([dropped, {}]);
});

test('before the first word of tartand nothing passes', () => {
  const fresh = native().loadKernelPath();
  try {
    expect(fresh.test('inbound', towardsUs, fromPeer).verdict).toBe(dropped);
    expect(fresh.test('outbound', towardsPeer).verdict).toBe(next);
    expect(fresh.counters()).toMatchObject({ rx_orphaned: 1, rx_ok: 0, tx_ok: 0 });
  } finally {
    fresh.close();
  }
});

test('what passed is noted by peer, and a freed number begins anew', () => {
  path.clearPeer(0);
  configureVectors(path);
  const began = BigInt(native().bootMs() - 1) * 1_000_000n;
  inbound(towardsUs);
  inbound(towardsUs);
  outbound(towardsPeer);
  const row = path.traffic().find(({ peer }) => peer === 0);
  const passed = { receivedPackets: 2, receivedBytes: 128, sentPackets: 1, sentBytes: 64, answeredNs: 0n };
  expect(row).toMatchObject(passed);
  for (const time of [row?.heardNs, row?.sentNs]) expect(time).toBeGreaterThan(began);
  path.clearPeer(0);
  expect(path.traffic().map(({ peer }) => peer)).not.toContain(0);
});

describe('probes', () => {
  const question = probePacket({ kind: 3, bytes: 64 });

  beforeEach(() => {
    path.clearPeer(0);
    configureVectors(path);
  });

  test('a question comes back as its answer, no longer than it was', () => {
    const { verdict, packet: answer } = path.test('inbound', question, fromPeer);
    expect(verdict).toBe(redirected);
    const expected = probePacket({ kind: 4, bytes: 64, source: '10.5.1.0', destination: '10.5.2.0', arrived: 64 });
    // The prefix in it is that of who asked.
    question.copy(expected, 44, 44, 50);
    expect(answer.toString('hex')).toBe(expected.toString('hex'));
  });

  test('the checksum of the answer is right', () => {
    const withSum = Buffer.from(question);
    withSum.writeUInt16BE(udpChecksum(withSum), 26);
    const { packet: answer } = path.test('inbound', withSum, fromPeer);
    expect(answer.readUInt16BE(26)).not.toBe(0);
    expect(udpChecksum(answer)).toBe(0);
  });

  test('an answer is noted and goes no further', () => {
    const answer = probePacket({ kind: 4, sequence: 0xfedc_ba98, opaque: 0xfedc_ba98_7654_3210n, arrived: 24 });
    expect(inbound(answer)).toEqual([dropped, counted('rx_probe')]);
    const row = path.traffic().find(({ peer }) => peer === 0);
    expect(row).toMatchObject({ answeredSequence: 0xfedc_ba98, answeredOpaque: 0xfedc_ba98_7654_3210n });
    expect(row?.answeredNs).toBe(row?.heardNs);
    expect(row?.receivedPackets).toBe(0);
  });

  test('probes leave by the kernel whatever the state is, and never by the slow path', () => {
    const leaving = { source: '10.5.1.0', destination: '10.5.2.0' };
    for (const state of ['refuse', 'user', 'kernel'] as const) {
      path.setState(0, state);
      expect(outbound(probePacket({ ...leaving, kind: 3 }))).toEqual([redirected, counted('probes_asked')]);
      expect(outbound(probePacket({ ...leaving, kind: 4 }))).toEqual([redirected, counted('probes_answered')]);
    }
    path.setPeer(0, kernelPeer(fromPeer.remote, { mtu: 200, state: 'user' }));
    expect(outbound(probePacket({ ...leaving, kind: 3, bytes: 200 }))).toEqual([dropped, {}]);
    expect(path.traffic().filter(({ peer }) => peer === 0)).toEqual([]);
  });

  test('what a container sends is data, though it looks like a probe', () => {
    expect(inbound(probePacket({ kind: 3, source: '10.5.2.2' }))).toEqual(taken);
    expect(inbound(probePacket({ kind: 3, destination: '10.5.1.2' }))).toEqual(taken);
    expect(inbound(probePacket({ kind: 2 }))).toEqual(taken);
    path.setState(0, 'user');
    expect(outbound(probePacket({ kind: 3, source: '10.5.1.7', destination: '10.5.2.0' }))).toEqual([next, {}]);
  });

  test('lengths that do not fit each other, and questions that have arrived already, are bad', () => {
    const bad = [dropped, counted('rx_bad_probe')];
    const long = Buffer.from(question);
    long.writeUInt16BE(200, 24);
    expect(inbound(long)).toEqual(bad);
    expect(inbound(changed(probePacket({ kind: 3 }), 2, 0, 51).subarray(0, 51))).toEqual(bad);
    expect(inbound(probePacket({ kind: 3, arrived: 9 }))).toEqual(bad);
  });

  test('ten questions a second are answered, and another peer still is', () => {
    const answers = (key: typeof fromPeer, asked: Buffer): number =>
      Array.from({ length: 400 }, () => path.test('inbound', asked, key).verdict).filter(v => v === redirected).length;
    const seconds = (): number => Math.floor(native().bootMs() / 1000);
    const began = seconds();
    const seen = answers(fromPeer, question);
    const bound = 10 * (seconds() - began + 1);
    expect(seen).toBeGreaterThan(0);
    expect(seen).toBeLessThanOrEqual(bound);
    const another = probePacket({ kind: 3, source: '10.5.3.0' });
    expect(path.test('inbound', another, { ...fromPeer, remote: other }).verdict).toBe(redirected);
  });
});

/** RFC 768: 0 over a datagram with a right checksum. */
function udpChecksum(bytes: Buffer): number {
  const words = [17, bytes.length - 20];
  for (let at = 12; at < bytes.length; at += 2)
    words.push(at + 1 < bytes.length ? bytes.readUInt16BE(at) : (bytes[at] ?? 0) << 8);
  let sum = words.reduce((all, word) => all + word, 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

describe('a pair that changes its engine', () => {
  const flow = (host: number): number => path.test('outbound', packet(`10.5.1.${host}`, '10.5.2.9')).verdict;
  /** Sends until the way changes; this machine may pause by itself. @returns the longest pause and the whole, milliseconds */
  const sendUntil = (verdict: number, began: number): { readonly pause: number; readonly whole: number } => {
    for (let last = began, pause = 0; ;) {
      const changed = flow(10) === verdict;
      const now = performance.now();
      pause = Math.max(pause, now - last);
      last = now;
      if (changed) return { pause, whole: now - began };
    }
  };

  test.each([
    ['user', 'kernel', next, redirected],
    ['kernel', 'user', redirected, next],
  ] as const)('from %s to %s: a flow that sends goes on as before until it has paused', (from, to, before, after) => {
    path.setState(0, from);
    path.recordFlows(0);
    const began = performance.now();
    expect([flow(10), flow(11)]).toEqual([before, before]);
    path.setState(0, to);
    const ways = [flow(10), flow(11)];
    if (performance.now() - began < 20) expect(ways).toEqual([before, before]);
    expect(flow(12)).toBe(after);
    const { pause, whole } = sendUntil(after, began);
    expect(pause > 19 || (whole > 1900 && whole < 2100 + pause), `${pause} of ${whole}`).toBe(true);
    expect([flow(10), flow(11)]).toEqual([after, after]);
  });

  test('without notes, with a change of mind, and after a later change, all flows change at once', () => {
    path.setState(0, 'user');
    flow(10);
    path.setState(0, 'kernel');
    expect(flow(10)).toBe(redirected);
    path.recordFlows(0);
    flow(10);
    path.setState(0, 'kernel');
    path.setState(0, 'user');
    expect(flow(10)).toBe(next);
    path.recordFlows(0);
    flow(10);
    path.setPeer(0, kernelPeer(fromPeer.remote, { state: 'user', mtu: 1400 }));
    path.setState(0, 'kernel');
    path.setState(0, 'user');
    path.setState(0, 'kernel');
    expect(flow(10)).toBe(redirected);
  });

  test('while it records and while it moves it is heard, and it never is when refused', () => {
    path.recordFlows(0);
    expect(inbound(towardsUs)).toEqual(taken);
    path.setState(0, 'refuse');
    expect(inbound(towardsUs)).toEqual([dropped, counted('rx_not_member')]);
  });
});

describe('the loader', () => {
  /** As tartand's unit has them: CAP_PERFMON is not among them. */
  const unit = ['--bounding-set', '-all,+bpf,+net_admin', '--inh-caps', '-all'];
  const load = `const { createRequire } = require('module'); require(process.argv[1]).loadKernelPath().choosesSource()`;
  const run = (...capabilities: readonly string[]): string =>
    execFileSync('setpriv', [...capabilities, process.execPath, '-e', load, addonFile], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  const addonFile = new URL('../../dist/tartan.node', import.meta.url).pathname;

  test('needs CAP_BPF and CAP_NET_ADMIN', () => {
    expect(run(...unit)).toBe('');
  });

  test('names the map and the errno without CAP_BPF', () => {
    expect(() => run('--bounding-set', '-all,+net_admin', '--inh-caps', '-all')).toThrow(/EPERM: .*tartan_/);
  });

  test('refuses values that are none, by their name', () => {
    expect(() => path.setPeer(65_536, kernelPeer(1))).toThrow('the peer number must be below limits.peersMax');
    expect(() => path.setPeer(1, kernelPeer(0))).toThrow('remote must be an address');
    expect(() => path.setState(1, 'off' as 'user')).toThrow('state must be refuse, user or kernel');
    expect(() => path.setPrefix(ip4(10, 5, 2, 1), 24, 0)).toThrow(
      'a prefix must be of length 1 to 32, without host bits',
    );
    expect(() => path.configure({ ...configOf(), lengths: [1, 2, 3, 4, 5] })).toThrow('at most four');
    expect(() => path.setDeadline(-1n)).toThrow('the deadline must be');
    expect(() => path.test('both' as 'inbound', towardsUs)).toThrow('the program must be outbound or inbound');
  });

  test('a closed path says so, and closing it again does nothing', () => {
    const closed = native().loadKernelPath();
    closed.close();
    closed.close();
    expect(() => closed.setFence(true)).toThrow(/EBADF/);
  });
});
