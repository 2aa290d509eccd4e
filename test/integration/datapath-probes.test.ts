/** What two data processes measure of each other over a real path. */
import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PeerMeasurement, Stranger } from '../../src/datapath/datapath.js';
import { formatIpv4 } from '../../src/model/ip.js';
import { probeFeature } from '../../src/model/plan.js';
import { attempt } from '../support/tools.js';
import { echoes } from './container-lab.js';
import { Lab, bothUp, run, until, type Daemon, type Host } from './datapath-lab.js';

let lab: Lab;
let daemons: Readonly<Record<Host, Daemon>>;

beforeAll(async () => {
  lab = new Lab();
  daemons = await bothUp(lab);
});
afterAll(() => lab.close());

async function measured(host: Host): Promise<PeerMeasurement> {
  const [first] = (await daemons[host].call('measure')) as readonly PeerMeasurement[];
  if (!first) throw new Error('there is no peer');
  return first;
}

test('packets and bytes of both directions are counted at both ends, and when they passed', async () => {
  // A packet is counted after it was sent.
  const [before, other] = await until(
    'both ends agree',
    async () => [await measured('a'), await measured('b')] as const,
    ([a, b]) => a.received.packets === b.sent.packets && b.received.packets === a.sent.packets,
  );
  expect(await echoes(lab.namespace('a'), '10.5.2.0', 56)).toBe(100);
  const after = await until(
    'all counted',
    () => measured('a'),
    ({ received }) => received.packets >= before.received.packets + 100,
  );
  const there = await until(
    'all counted there',
    () => measured('b'),
    ({ sent }) => sent.packets >= other.sent.packets + 100,
  );
  expect(after.identity).toBe('10.5.2.0/24 n2');
  const grown = (now: PeerMeasurement, then: PeerMeasurement): readonly number[] => [
    now.sent.packets - then.sent.packets,
    now.sent.bytes - then.sent.bytes,
    now.received.packets - then.received.packets,
    now.received.bytes - then.received.bytes,
  ];
  expect(grown(after, before)).toEqual([100, 8400, 100, 8400]);
  expect(grown(there, other)).toEqual([100, 8400, 100, 8400]);
  const { addressSeen, sentMs = 0, heardMs = 0 } = after;
  expect(addressSeen).toBeUndefined();
  expect([sentMs, heardMs].every(ms => ms > (before.sentMs ?? 0))).toBe(true);
});

test('fault B9: datagrams from an address that no lease names are told with that address', async () => {
  lab.ip('b', 'address', 'add', '192.0.2.77/24', 'dev', 'under');
  const send =
    'socket(S,PF_INET,SOCK_DGRAM,0);bind(S,pack_sockaddr_in(8285,inet_aton("192.0.2.77")));' +
    'send(S,"E"x48,0,pack_sockaddr_in(8285,inet_aton("192.0.2.1"))) for 1..5;';
  run('ip', 'netns', 'exec', lab.namespace('b'), 'perl', '-MSocket', '-e', send);
  const seen = await until(
    'a stranger',
    async () => (await daemons.a.call('strangers')) as readonly Stranger[],
    all => all[0]?.packets === 5,
  );
  expect(seen.map(({ address }) => formatIpv4(address))).toEqual(['192.0.2.77']);
  expect(await daemons.b.call('strangers')).toEqual([]);
});

/** What each host publishes of the other: that it answers probes, or not. */
async function publish(host: Host, features: number, identity?: string): Promise<void> {
  await daemons[host].call('publish', [{ ...lab.peers(host)[0], features, ...(identity && { identity }) }]);
}

function nft(host: Host, ...rules: readonly string[]): void {
  const table = ['table inet blocked', 'delete table inet blocked'];
  execFileSync('ip', ['netns', 'exec', lab.namespace(host), 'nft', '-f', '-'], {
    input: [...table, ...rules.map(rule => `add ${rule}`)].join('\n'),
  });
}

const inputChain = ['table inet blocked', 'chain inet blocked in { type filter hook input priority 0; }'];

test('nothing but inner packets goes to a peer whose lease does not say that it answers probes', async () => {
  // The first byte of the payload, behind the UDP header.
  nft(
    'b',
    ...inputChain,
    'rule inet blocked in udp dport 8285 @th,64,4 == 4 counter comment "inner"',
    'rule inet blocked in udp dport 8285 @th,64,4 != 4 counter comment "other"',
  );
  const packets = (): readonly number[] =>
    [
      ...run('ip', 'netns', 'exec', lab.namespace('b'), 'nft', 'list', 'table', 'inet', 'blocked').matchAll(
        /packets (\d+)/g,
      ),
    ].map(([, count]) => Number(count));
  expect(await lab.lost(200)).toBe(0);
  await delay(2500);
  const [inner = 0, other] = packets();
  expect(inner).toBeGreaterThanOrEqual(200);
  expect(other).toBe(0);
  await Promise.all([publish('a', probeFeature), publish('b', 0)]);
  await until('a question', packets, ([, questions = 0]) => questions > 0);
  nft('b');
});

/** One echo, and what a has measured by then. */
async function pinged(): Promise<PeerMeasurement> {
  lab.reaches();
  return measured('a');
}

test('the round trip is measured of an active pair, from the first packet on', async () => {
  await Promise.all([publish('a', probeFeature, 'new'), publish('b', probeFeature)]);
  const seen = await until('an answer', pinged, ({ answered }) => answered > 0, 2000);
  expect(seen.roundTripUs?.p50).toBeGreaterThan(0);
  expect(seen.roundTripUs?.p50).toBeLessThan(100_000);
  expect(seen.loss).toBe(0);
  // The other host asks in its own time.
  const { counters } = await until(
    'a question of b',
    () => daemons.a.state(),
    ({ counters }) => (counters['probes_answered'] ?? 0) > 0,
    2000,
  );
  expect(counters['probes_asked']).toBeGreaterThan(0);
});

test('the path MTU is known each way, and what the kernel says of a narrower path is believed', async () => {
  const known = await until(
    'both ways',
    async () => [await pinged(), await measured('b')],
    both => both.every(({ pathMtuOut, pathMtuIn }) => pathMtuOut !== undefined && pathMtuIn !== undefined),
  );
  expect(known.map(({ pathMtuOut, pathMtuIn }) => [pathMtuOut, pathMtuIn])).toEqual([
    [1472, 1472],
    [1472, 1472],
  ]);
  lab.ip('a', 'route', 'replace', '192.0.2.2/32', 'dev', 'under', 'src', '192.0.2.1', 'mtu', 'lock', '1300');
  const pings = async (): Promise<PeerMeasurement> => {
    await attempt([
      'ip',
      'netns',
      'exec',
      lab.namespace('a'),
      ...'ping -n -c 1 -W 1 -M do -s 1400 10.5.2.0'.split(' '),
    ]);
    return measured('a');
  };
  await until('the narrower path', pings, ({ pathMtuOut }) => pathMtuOut === 1272);
  lab.ip('a', 'route', 'delete', '192.0.2.2/32');
}, 20_000);

test('fault D21: a path that loses long packets without a word is found out', async () => {
  nft('b', ...inputChain, 'rule inet blocked in udp dport 8285 meta length > 1490 drop');
  // To another peer nothing is known of the path.
  await publish('a', probeFeature, 'another');
  const found = await until('a length that passes', pinged, ({ pathMtuOut = 0 }) => pathMtuOut >= 1452, 15_000);
  expect(found.pathMtuOut).toBeLessThanOrEqual(1462);
  expect(found.loss).toBe(0);
  nft('b');
}, 30_000);

test('of a path that loses every second question the loss is a half', async () => {
  nft(
    'b',
    ...inputChain,
    'rule inet blocked in udp dport 8285 udp sport 8285 udp length 32 @th,80,8 == 1 numgen inc mod 2 0 drop',
  );
  await publish('a', probeFeature, 'lossy');
  const half = await until('an answer', pinged, ({ answered }) => answered === 1);
  expect([half.asked, half.loss]).toEqual([2, 0.5]);
  nft('b');
});

test('fault D12: what this host does not let out makes the pair active, and is not answered', async () => {
  nft(
    'a',
    'table inet blocked',
    'chain inet blocked out { type filter hook output priority 0; }',
    'rule inet blocked out udp dport 8285 drop',
  );
  await publish('a', probeFeature, 'shut in');
  const { asked, answered, sent } = await until('two questions', pinged, now => now.asked >= 2);
  expect([asked, answered, sent.packets]).toEqual([2, 0, 0]);
  nft('a');
});

test('fault D11: of a way that is blocked in one direction one end hears and is not answered, the other hears nothing', async () => {
  nft('b', ...inputChain, 'rule inet blocked in udp dport 8285 drop');
  await Promise.all([publish('a', probeFeature, 'one way'), publish('b', probeFeature, 'the other')]);
  const began = Date.now();
  const silent = await until('two questions without an answer', pinged, ({ asked }) => asked >= 2);
  expect(Date.now() - began).toBeLessThan(10_000);
  expect(silent.answered).toBe(0);
  expect(silent.loss).toBe(1);
  // What b asks arrives at a, whose answers do not arrive at b.
  await until(
    'a hears b',
    () => measured('a'),
    ({ heardMs }) => heardMs !== undefined,
  );
  const deaf = await until(
    'b asks',
    () => measured('b'),
    ({ asked }) => asked > 0,
  );
  expect([deaf.answered, deaf.heardMs]).toEqual([0, undefined]);
  nft('b');
  await until('an answer', pinged, ({ answered }) => answered > 0);
}, 40_000);
