/** Evidence in, verdict out: the states and the words. */
import { describe, expect, it } from 'vitest';
import { judgePeer, type PeerEvidence } from '../../src/agent/judge-peer.js';
import { parseIpv4 } from '../../src/model/ip.js';

const now = 1_000_000;
const here = parseIpv4('192.0.2.1');
const there = parseIpv4('192.0.2.2');
const router = parseIpv4('192.0.2.254');
const base: PeerEvidence = {
  nowMs: now,
  address: there,
  port: 8285,
  hostName: 'host-b',
  inside: parseIpv4('10.5.2.1'),
  probed: true,
  heardMs: undefined,
  answeredMs: undefined,
  unanswered: { count: 0, sinceMs: undefined },
  neighbour: undefined,
  icmp: undefined,
  hostAnswers: undefined,
  othersHeard: 2,
  othersSilent: 0,
  self: { address: here, device: 'eth0' },
};
const unanswered = { count: 3, sinceMs: now - 3_000 };
const icmp = (code: number, from = there, type = 3) => ({ from, type, code, atMs: now - 1_000 });
const judge = (change: Partial<PeerEvidence>) => judgePeer({ ...base, ...change });

describe('a peer that answers probes', () => {
  it.each<[string, Partial<PeerEvidence>]>([
    ['unknown', {}],
    ['unknown', { unanswered: { count: 2, sinceMs: now - 9_000 } }],
    ['unknown', { unanswered: { count: 5, sinceMs: now - 2_900 } }],
    ['up', { answeredMs: now - 3_600_000 }],
    ['up', { heardMs: now - 3_600_000 }],
    ['up', { answeredMs: now - 9_000, unanswered: { count: 2, sinceMs: now - 9_000 } }],
    // What the kernel says of a moment is not silence.
    ['up', { answeredMs: now - 100, neighbour: { address: there, device: 'eth0' }, icmp: icmp(3) }],
    ['silent', { unanswered }],
    ['silent', { unanswered, answeredMs: now - 4_000 }],
    ['silent', { unanswered, heardMs: now - 100, answeredMs: now - 4_000 }],
    ['silent', { unanswered, heardMs: now - 3_500 }],
  ])('is %s: %j', (state, change) => {
    const verdict = judge(change);
    expect(verdict.state).toBe(state);
    expect([verdict.reason === null, verdict.nextStep === null]).toEqual([state !== 'silent', state !== 'silent']);
  });

  it.each<[string, RegExp, RegExp, Partial<PeerEvidence>]>([
    [
      'no-arp',
      /^192\.0\.2\.2 does not answer ARP on eth1 \(powered off, another network, wrong interface\)$/,
      /host-b is on and has 192\.0\.2\.2: ip neighbour show 192\.0\.2\.2 dev eth1$/,
      { neighbour: { address: there, device: 'eth1' }, icmp: icmp(3), heardMs: now - 100 },
    ],
    [
      'no-arp',
      /^the gateway 192\.0\.2\.254 on the way to 192\.0\.2\.2 does not answer ARP on eth0/,
      /ip route get 192\.0\.2\.2/,
      { neighbour: { address: router, device: 'eth0' } },
    ],
    // The kernel's own word for the same.
    ['no-arp', /^192\.0\.2\.2 does not answer ARP on eth0/, /ip neighbour show/, { icmp: icmp(1, here) }],
    [
      'refused',
      /^192\.0\.2\.2 refuses UDP 8285 \(ICMP port unreachable\): no tartan data process listens there/,
      /^on host-b: .*ss -lun sport = 8285; nft list ruleset$/,
      { icmp: icmp(3) },
    ],
    ['refused', /ICMP port unreachable from 192\.0\.2\.254\)/, /host-b/, { icmp: icmp(3, router) }],
    [
      'icmp',
      /^packets to 192\.0\.2\.2 are answered by ICMP administratively prohibited from 192\.0\.2\.254$/,
      /^allow UDP 8285 from 192\.0\.2\.1 to 192\.0\.2\.2 on 192\.0\.2\.254$/,
      { icmp: icmp(13, router), heardMs: now - 2_000 },
    ],
    ['icmp', /ICMP host unreachable from 192\.0\.2\.254$/, /has a route to 192\.0\.2\.2/, { icmp: icmp(1, router) }],
    ['icmp', /circle of routes: 192\.0\.2\.254 gave up/, /traceroute/, { icmp: icmp(0, router, 11) }],
    [
      'one-way',
      /^we hear 192\.0\.2\.2 and it does not answer: UDP 8285 from here to there is blocked/,
      /^on host-b, and here: nft list ruleset \(UDP 8285 from 192\.0\.2\.1\)$/,
      { heardMs: now - 1_000 },
    ],
    [
      'this-host',
      /^this host hears none of 3 peers: UDP 8285 does not come in or go out here \(a firewall, eth0 is the wrong interface\)$/,
      /^here: nft list ruleset/,
      { othersHeard: 0, othersSilent: 2 },
    ],
    [
      'nothing-heard',
      /^192\.0\.2\.2 is silent, 2 other peers answer: UDP 8285 is blocked on the way, or its host is down$/,
      /^ping 192\.0\.2\.2; on host-b: /,
      { heardMs: now - 60_000 },
    ],
    [
      'nothing-heard',
      /1 other peer answers, its host answers ping: .*no data process/,
      /^on host-b/,
      { hostAnswers: true, othersHeard: 1 },
    ],
    [
      'nothing-heard',
      /its host does not answer ping: it is down or cut off/,
      /see that host-b is on/,
      { hostAnswers: false },
    ],
    // Its processes are dead, and its kernel goes on.
    [
      'refused',
      /^192\.0\.2\.2 refuses UDP 8285 .*; packets go on by the kernel engine$/,
      /^on host-b: systemctl status tartand/,
      { icmp: icmp(3), heardByKernelMs: now - 100 },
    ],
    ['nothing-heard', /is silent, 2 other.* host is down$/, /ping/, { heardByKernelMs: now - 3_100 }],
    // Heard, but before the silence began.
    ['nothing-heard', /is silent, 2 other/, /ping/, { heardMs: now - 3_100 }],
    ['nothing-heard', /is silent: UDP 8285 is blocked on the way or here/, /^ping/, { othersHeard: 0 }],
    // Older than the last answer, or of long ago.
    ['nothing-heard', /is silent/, /ping/, { icmp: icmp(3), answeredMs: now - 500 }],
    ['nothing-heard', /is silent/, /ping/, { icmp: { ...icmp(3), atMs: now - 61_000 } }],
    // A path MTU is no refusal.
    ['nothing-heard', /is silent/, /ping/, { icmp: icmp(4, router) }],
  ])('%s: %s', (kind, reason, nextStep, change) => {
    const verdict = judge({ unanswered, ...change });
    expect(verdict).toMatchObject({ state: 'silent', kind });
    expect(verdict.reason).toMatch(reason);
    expect(verdict.nextStep).toMatch(nextStep);
  });

  it('a host without a name is called by its address', () => {
    expect(judge({ unanswered, hostName: undefined, icmp: icmp(3) }).nextStep).toMatch(/^on 192\.0\.2\.2: /);
  });
});

describe('a flannel host, or an older tartan', () => {
  it.each<[string, Partial<PeerEvidence>]>([
    ['unwatched', {}],
    ['unwatched', { unanswered }],
    ['unwatched', { heardMs: now - 61_000 }],
    // It was heard and never answered an echo: its silence proves nothing.
    ['unwatched', { heardMs: now - 61_000, unanswered }],
    ['up', { heardMs: now - 59_000 }],
    ['up', { heardMs: now - 59_000, unanswered }],
    ['up', { answeredMs: now - 3_600_000 }],
    ['up', { answeredMs: now - 30_000, unanswered, heardMs: now - 1_000 }],
    ['silent', { answeredMs: now - 30_000, unanswered, heardMs: now - 4_000 }],
    ['silent', { answeredMs: now - 30_000, unanswered }],
  ])('is %s: %j', (state, change) => {
    expect(judge({ probed: false, ...change })).toMatchObject({ state });
  });

  it('is told with its reason: stopped, or what the kernel says even of one that never answered', () => {
    const stopped = judge({ probed: false, answeredMs: now - 30_000, unanswered });
    expect(stopped).toMatchObject({ kind: 'stopped' });
    expect(stopped.reason).toMatch(
      /^192\.0\.2\.2 was heard and is not any more, and 10\.5\.2\.1 behind it does not answer/,
    );
    const off = judge({ probed: false, unanswered, neighbour: { address: there, device: 'eth0' } });
    expect(off).toMatchObject({ state: 'unwatched', kind: undefined });
    expect(off.reason).toMatch(/does not answer ARP/);
  });
});
