/** What two data processes measure of each other over a real path. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PeerMeasurement, Stranger } from '../../src/datapath/datapath.js';
import { formatIpv4 } from '../../src/model/ip.js';
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
  const [before, other] = [await measured('a'), await measured('b')];
  expect(await lab.lost(100)).toBe(0);
  const after = await until(
    'all counted',
    () => measured('a'),
    ({ received }) => received.packets >= before.received.packets + 100,
  );
  const there = await measured('b');
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
