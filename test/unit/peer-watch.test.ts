/** The loop of the watch on fakes: what it asks, whom it judges, what it says and how often. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { PeerIcmpListener } from '../../src/agent/ports.js';
import { PeerWatch, type WatchScope } from '../../src/agent/peer-watch.js';
import type { PeerMeasurement, Stranger } from '../../src/datapath/datapath.js';
import type { Log } from '../../src/lib/log.js';
import { formatIpv4, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import type { TunnelPeer } from '../../src/model/plan.js';
import { fakeLease } from '../support/fakes.js';
import { underlay } from '../support/agent-bed.js';
import { blankMeasurement } from '../support/samples.js';

let nowMs = 0;
let said: string[] = [];
let asked: string[] = [];
let listener: PeerIcmpListener | undefined;
let opened = 0;
/** Looks at the kernel's neighbours. */
let looked = 0;
let dead: ReadonlyMap<string, string> = new Map();
beforeEach(() => {
  nowMs = 1_000_000;
  [said, asked, listener, opened, dead, looked] = [[], [], undefined, 0, new Map(), 0];
});

const say = (event: string, text: string): void => void said.push(`${event} ${text}`);
const log: Log = { debug: () => {}, info: say, warn: say, error: say };

function bed(count: number, probed = true) {
  const address = (i: number): string => `192.0.${2 + (i >> 8)}.${i & 255}`;
  const leases: Lease[] = Array.from({ length: count }, (_, i) =>
    fakeLease(`10.${5 + (i >> 8)}.${i & 255}.0/24`, address(i + 2)),
  );
  const rowOf = ({ subnet, publicIp }: Lease, i: number): TunnelPeer => {
    return { identity: `${i}`, prefixes: [subnet], endpoint: publicIp, port: 8285, features: probed ? 1 : 0 };
  };
  const node = { id: 'n', bootId: 'b', ...underlay };
  const scope: { now: WatchScope } = { now: { tunnel: leases.map(rowOf), leases, node, mtu: 1472 } };
  const measured: PeerMeasurement[] = leases.map((_, i) => ({ ...blankMeasurement, identity: `${i}` }));
  let strangers: readonly Stranger[] = [];
  const watch = new PeerWatch(
    {
      datapath: { measure: () => [...measured], strangers: () => strangers },
      host: {
        deadNeighbour: async to => {
          looked++;
          const device = dead.get(formatIpv4(to));
          return device === undefined ? undefined : { address: to, device };
        },
      },
      openIcmp: heard => {
        opened++;
        listener = heard;
        return { ask: to => (asked.push(formatIpv4(to)), true), close: () => void (listener = undefined) };
      },
      clock: { now: () => nowMs, sleep: async () => {} },
      log,
    },
    () => scope.now,
  );
  const change = (i: number, now: Partial<PeerMeasurement>): void => {
    const before = measured[i];
    if (before) measured[i] = { ...before, ...now };
  };
  /** A question each second, all unanswered; traffic that wants through. */
  const silence = async (indices: readonly number[], seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second++) {
      for (const i of indices) {
        const { asked: before = 0, sent = blankMeasurement.sent } = measured[i] ?? {};
        const packets = sent.packets + 1;
        change(i, { asked: before + 1, askedMs: nowMs, sentMs: nowMs, sent: { packets, bytes: packets * 100 } });
      }
      nowMs += 1_000;
      await watch.look();
    }
  };
  const answer = (i: number): void => change(i, { answeredMs: nowMs, heardMs: nowMs, askedMs: nowMs - 1 });
  const states = (): string => leases.map(lease => watch.describe(lease)?.state).join();
  return {
    watch,
    scope,
    leases,
    change,
    silence,
    answer,
    states,
    setStrangers: (now: readonly Stranger[]) => (strangers = now),
  };
}

describe('the watch of the peers', () => {
  it('tells a silent peer within five questions, says so once, and tells when it answers again', async () => {
    const { watch, silence, answer, states, leases } = bed(3);
    answer(1);
    await watch.look();
    expect(states()).toBe('unknown,up,unknown');
    expect(watch.states).toEqual({ up: 1, silent: 0, unknown: 2, unwatched: 0 });
    await silence([0], 2);
    expect([states(), said]).toEqual(['unknown,up,unknown', []]);
    await silence([0], 8);
    expect(states()).toBe('silent,up,unknown');
    expect(said).toEqual([
      expect.stringMatching(
        /^peer.silent 192\.0\.2\.2 is silent, 1 other peer answers, its host does not answer ping: .*; next: see that 192\.0\.2\.2 is on/,
      ),
    ]);
    expect(watch.problems).toEqual([expect.stringMatching(/^192\.0\.2\.2 is silent/)]);
    expect(leases[0] && watch.describe(leases[0])).toMatchObject({
      stateSeconds: 7,
      sent: { packets: 10 },
      sentBitsPerSecond: 800,
    });
    answer(0);
    await watch.look();
    expect([states(), watch.problems, said.at(-1)]).toEqual(['up,up,unknown', [], 'peer.up 192.0.2.2 answers again']);
  });

  it('a silent peer that nobody sends to is no problem of this host', async () => {
    const { watch, silence } = bed(2);
    await silence([0], 6);
    expect(watch.problems).toHaveLength(1);
    nowMs += 61_000;
    await watch.look();
    expect([watch.states?.silent, watch.problems]).toEqual([1, []]);
  });

  it('hears ICMP errors about a peer, and the kernel that finds no neighbour; ICMP is closed a minute after the last need', async () => {
    const { watch, silence, answer } = bed(3);
    await watch.look();
    expect(opened).toBe(0);
    await silence([0, 1], 2);
    const [b, c] = [parseIpv4('192.0.2.2'), parseIpv4('192.0.2.3')];
    dead = new Map([['192.0.2.3', 'eth0']]);
    listener?.refused(b, 8285, { from: b, type: 3, code: 3 });
    listener?.refused(c, 9999, { from: c, type: 3, code: 3 });
    await silence([0, 1], 4);
    expect(watch.problems.map(text => text.replace(/;.*/, ''))).toEqual([
      '192.0.2.2 refuses UDP 8285 (ICMP port unreachable): no tartan data process listens there, or a firewall rejects',
      '192.0.2.3 does not answer ARP on eth0 (powered off, another network, wrong interface)',
    ]);
    answer(0);
    answer(1);
    await watch.look();
    expect(listener).toBeDefined();
    nowMs += 61_000;
    await watch.look();
    expect([listener, opened]).toEqual([undefined, 1]);
  });

  it('one-way has an event of its own', async () => {
    const { silence, change } = bed(2);
    await silence([0], 1);
    change(0, { heardMs: nowMs });
    await silence([0], 5);
    expect(said).toEqual([expect.stringMatching(/^peer\.one-way we hear 192\.0\.2\.2 and it does not answer/)]);
  });

  it('fault D12: where nobody is heard, the reason is this host, once', async () => {
    const { watch, silence } = bed(5);
    await silence([0, 1, 2, 3, 4], 6);
    expect(watch.problems).toEqual([
      expect.stringMatching(
        /^this host hears none of 5 peers: UDP 8285 .*eth0 is the wrong interface\); next: here: nft/,
      ),
    ]);
  });

  it('ten changes a second have a name, the others are counted', async () => {
    const { watch, silence } = bed(50);
    const all = Array.from({ length: 50 }, (_, i) => i);
    await silence(all, 5);
    expect(said.filter(line => line.startsWith('peer.silent'))).toHaveLength(10);
    nowMs += 1_000;
    await watch.look();
    expect(said.at(-1)).toBe('peers.changed 40 more peers became silent, 0 more answer again: tartan peers');
  });

  it('asks hosts that answer no probes by echo, one a second at most, and only who is not heard', async () => {
    const { watch, change, states } = bed(3, false);
    for (let second = 0; second < 10; second++, nowMs += 1_000) {
      change(0, { heardMs: nowMs });
      await watch.look();
    }
    expect(new Set(asked)).toEqual(new Set(['10.5.1.1', '10.5.2.1']));
    expect(asked.length).toBeLessThanOrEqual(10);
    expect(states()).toBe('up,unwatched,unwatched');
    listener?.answered(parseIpv4('10.5.1.1'));
    for (let second = 0; second < 3; second++, nowMs += 1_000) await watch.look();
    expect(states()).toBe('up,up,unwatched');
    for (let second = 0; second < 30; second++, nowMs += 1_000) await watch.look();
    // It answered once and stopped; the other one never did. The first is not asked within a minute of being heard.
    expect(states()).toBe('up,silent,unwatched');
  });

  it('its own echoes make no peer one that matters', async () => {
    const { watch, change, leases } = bed(1, false);
    await watch.look();
    listener?.answered(parseIpv4('10.5.0.1'));
    for (let second = 0; second < 30; second++, nowMs += 1_000) {
      change(0, { sentMs: nowMs, sent: { packets: asked.length, bytes: 36 * asked.length } });
      await watch.look();
    }
    expect(leases[0] && watch.describe(leases[0])?.state).toBe('silent');
    expect(watch.problems).toEqual([]);
  });

  it('fault D20: a path that carries less than the tunnel is a problem of an active pair, with both numbers', async () => {
    const { watch, change, answer, leases } = bed(1);
    answer(0);
    change(0, { sentMs: nowMs, sent: { packets: 1, bytes: 1400 }, pathMtuOut: 1372 });
    await watch.look();
    // It may be a step of the search.
    expect(watch.problems).toEqual([]);
    nowMs += 5_000;
    await watch.look();
    expect(watch.problems).toEqual([
      expect.stringMatching(/^the path to 192\.0\.2\.2 carries packets of 1372 bytes, the tunnel has 1472/),
    ]);
    expect(leases.map(lease => watch.describe(lease)?.pathMtu.out)).toEqual([1372]);
    change(0, { pathMtuOut: 1472 });
    await watch.look();
    expect(watch.problems).toEqual([]);
  });

  it('what is known of the path to a peer without traffic is not told: nobody asks for it any more', async () => {
    const { watch, change, answer, leases } = bed(1);
    answer(0);
    change(0, { sentMs: nowMs, sent: { packets: 1, bytes: 1400 }, pathMtuOut: 1372 });
    await watch.look();
    nowMs += 61_000;
    answer(0);
    await watch.look();
    expect(leases.map(lease => watch.describe(lease)?.pathMtu.out)).toEqual([null]);
  });

  it('fault B9: a stranger is a warning, and a problem with a likely peer while one is silent', async () => {
    const { watch, silence, setStrangers } = bed(2);
    setStrangers([{ address: parseIpv4('198.51.100.7'), packets: 3, lastMs: nowMs }]);
    await watch.look();
    expect(watch.problems).toEqual([]);
    expect(watch.warnings).toEqual(['3 packets from 198.51.100.7, which no lease names, dropped']);
    await silence([0], 6);
    expect(watch.problems.at(-1)).toMatch(
      /198\.51\.100\.7, which no lease names, dropped: perhaps of 192\.0\.2\.2 \(10\.5\.0\.0\/24\), which is silent/,
    );
    nowMs += 61_000;
    await watch.look();
    expect([watch.warnings, watch.problems]).toEqual([[], []]);
  });

  it('a host that sent before its lease was known is no stranger', async () => {
    const { watch, silence, setStrangers } = bed(2);
    setStrangers([{ address: parseIpv4('192.0.2.3'), packets: 1, lastMs: nowMs }]);
    await watch.look();
    expect(watch.warnings).toEqual([]);
    await silence([0], 6);
    expect(watch.problems).toEqual([expect.stringMatching(/^192\.0\.2\.2 is silent/)]);
  });

  it('a peer stays what it was over a new table, and another owner of its subnet is another one', async () => {
    const { watch, scope, silence, states } = bed(2);
    await silence([0], 6);
    const { tunnel, leases } = scope.now;
    scope.now = { ...scope.now, tunnel: tunnel.map(row => ({ ...row })), leases: [...leases] };
    await watch.look();
    expect(states()).toBe('silent,unknown');
    scope.now = { ...scope.now, tunnel: tunnel.map(row => ({ ...row, identity: `${row.identity} other` })) };
    await watch.look();
    expect(states()).toBe('unknown,unknown');
    expect(watch.describe(fakeLease(parsePrefix('10.9.9.0/24') && '10.9.9.0/24', '192.0.2.9'))).toBeNull();
  });

  it('looks for the cause of a host that never answered from the third question on, and for 15 s', async () => {
    const { watch, states, leases } = bed(20, false);
    dead = new Map([['192.0.2.2', 'eth0']]);
    const look = async (times: number): Promise<void> => {
      for (let i = 0; i < times; i++) {
        nowMs += 1_000;
        await watch.look();
      }
    };
    await look(40);
    expect([asked.length, looked]).toEqual([40, 0]);
    await look(6);
    expect(leases[0] && watch.describe(leases[0])).toMatchObject({
      state: 'unwatched',
      reason: expect.stringContaining('answer ARP'),
    });
    await look(20);
    const before = looked;
    await look(20);
    expect(looked - before).toBeLessThan((20 * 15) / 3 + 20);
    expect(new Set(states().split(','))).toEqual(new Set(['unwatched']));
  });

  it('costs 0.1 % of a processor at most among 5,000 peers at rest', async () => {
    const { watch, answer } = bed(5_000);
    for (let i = 0; i < 5_000; i++) answer(i);
    await watch.look();
    const rounds = 50;
    const before = process.cpuUsage();
    for (let round = 0; round < rounds; round++, nowMs += 3_000) await watch.look();
    const { user, system } = process.cpuUsage(before);
    const ms = (user + system) / 1000 / rounds;
    console.log(`a look at 5,000 peers takes ${ms.toFixed(2)} ms of processor time`);
    // A look each three seconds may take 3 ms; a busy machine with a cold cache gets some more.
    expect(ms).toBeLessThan(9);
  });
});
