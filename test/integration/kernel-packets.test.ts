/** The kernel engine with real packets between containers: lengths, paths, strangers, gates and the packet vectors. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { burst, sendBurst } from '../support/burst.js';
import { changed, innerPacket } from '../support/inner-packet.js';
import { counted, expectedOf, tunnelled } from '../support/kernel-bed.js';
import { attempt, compile } from '../support/tools.js';
import { Capture, inject, transfer } from '../support/traffic.js';
import { arriving, difference, type Counters } from '../support/vectors.js';
import { Containers, echoes, hosts, withoutDf } from './container-lab.js';
import { pidOf, until, withTableOf, type Daemon, type Host } from './datapath-lab.js';
import { KernelLab, kernelMtu } from './kernel-lab.js';
import { complete } from './speed-lab.js';

let lab: KernelLab;
let daemons: Readonly<Record<Host, Daemon>>;
let places: Containers;

beforeAll(async () => {
  compile('test/support/burst.c', burst);
  lab = new KernelLab();
  daemons = await lab.bothInKernel();
  places = new Containers(lab);
});

afterAll(async () => {
  places.close();
  await lab.close();
});

/** Data packets that the data processes have sent. */
async function sentByUser(): Promise<number> {
  const counts = await Promise.all(
    hosts.map(async host => withTableOf(await pidOf(daemons[host]), table => table.counters()?.counters['tx_ok'] ?? 0)),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

test('echoes of any length, from containers and hosts, both ways, and none by user space', async () => {
  const before = await sentByUser();
  for (const bytes of [0, 1436, 1437, 9000, 65_000]) {
    expect(await echoes(places.namespace('a'), places.address('b'), bytes, withoutDf), `${bytes} bytes`).toBe(100);
    expect(await echoes(places.namespace('b'), places.address('a'), bytes, withoutDf), `${bytes} bytes`).toBe(100);
  }
  expect(await echoes(lab.namespace('a'), '10.5.2.0', 1000)).toBe(100);
  expect(await echoes(lab.namespace('b'), places.address('a'), 1000)).toBe(100);
  expect(await sentByUser()).toBe(before);
});

test('TCP both ways at once, UDP of 16 to 65,000 bytes, UDP_SEGMENT: all bytes arrive', async () => {
  const before = await sentByUser();
  const [there, back] = await Promise.all([
    transfer(places, { from: 'a', to: 'b', address: places.address('b'), port: 7020, bytes: 20_000_000 }),
    transfer(places, { from: 'b', to: 'a', address: places.address('a'), port: 7021, bytes: 20_000_000 }),
  ]);
  expect(there.received).toEqual({ ...there.sent, source: places.address('a') });
  expect(back.received).toEqual({ ...back.sent, source: places.address('b') });
  // The tunnel carries 1464, and 1472 were told: what does not fit is cut, because it has no DF.
  places.discoverPathMtu(false);
  try {
    const parts = ['16', '100', '1400', '1436', '1437', '1444', '9000', '65000', '1400x40', '1436x30+16', '100x40'];
    const datagrams = { from: 'a', to: 'b', address: places.address('b'), port: 7022, parts };
    const report = await sendBurst(places, datagrams);
    expect(report).toMatchObject({ ...complete, received: report.sent });
  } finally {
    places.discoverPathMtu(true);
  }
  expect(await sentByUser()).toBe(before);
});

test('a packet with DF of 1464 bytes arrives; one of 1465 does not, and its sender hears 1464', async () => {
  places.run('a', 'ip', 'route', 'flush', 'cache');
  const ping = async (bytes: number): Promise<string> => {
    const command = ['ping', '-n', '-c', '1', '-W', '2', '-M', 'do', '-s', String(bytes), places.address('b')];
    return (await attempt(places.inside('a', command))).stdout;
  };
  expect(await ping(kernelMtu - 28)).toContain(' 0% packet loss');
  expect(await ping(kernelMtu - 27)).toMatch(/From 10\.5\.1\.\d .*Frag needed.*mtu = 1464/);
  places.run('a', 'ip', 'route', 'flush', 'cache');
});

test('a narrow path: without DF all arrives, with DF the sender hears its MTU and goes on', async () => {
  for (const host of hosts) places.narrow(host, 1300);
  try {
    expect(await echoes(places.namespace('a'), places.address('b'), 1372, withoutDf)).toBe(100);
    expect(await echoes(places.namespace('b'), places.address('a'), 9000, withoutDf)).toBe(100);
    const ping = ['ping', '-n', '-c', '1', '-W', '2', '-M', 'do', '-s', '1372', places.address('b')];
    expect((await attempt(places.inside('a', ping))).stdout).toMatch(/From 10\.5\.1\.\d .*Frag needed.*mtu = 1264/);
    const before = await sentByUser();
    const { sent, received } = await transfer(places, {
      from: 'a',
      to: 'b',
      address: places.address('b'),
      port: 7023,
      bytes: 20_000_000,
    });
    expect(received).toEqual({ ...sent, source: places.address('a') });
    expect(await sentByUser()).toBe(before);
  } finally {
    for (const host of hosts) {
      places.widen(host);
      places.run(host, 'ip', 'route', 'flush', 'cache');
    }
  }
});

/** Counters of both engines of b. */
async function countersOfB(): Promise<Counters> {
  return (await daemons.b.state()).counters;
}

/** UDP datagrams that have come to the container of b. */
function arrived(): number {
  const text = places.run('b', 'nstat', '-asz', 'UdpInDatagrams', 'UdpNoPorts');
  return [...text.matchAll(/^Udp\w+ +(\d+)/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** What 1000 datagrams to UDP 4790 of b do: how many arrive, and in what counters they end. */
async function send(from: string, hex: string, to = '192.0.2.2'): Promise<[number, Counters]> {
  const datagram = { from, fromPort: 50_000, to, toPort: 4790, hex };
  const [began, before] = [arrived(), await countersOfB()];
  await inject(
    { inside: (_, command) => lab.inside('a', ...command) },
    'a',
    Array.from({ length: 1000 }, () => datagram),
  );
  const rules = /^rx_(?!bytes|opts|probe$)/;
  const counts = async (): Promise<Counters> =>
    Object.fromEntries(Object.entries(difference(await countersOfB(), before)).filter(([name]) => rules.test(name)));
  const total = (of: Counters): number => Object.values(of).reduce((sum, count) => sum + count, 0);
  const ended = await until('1000 verdicts', counts, of => total(of) >= 1000);
  await delay(50);
  return [arrived() - began, ended];
}

test('strangers, members that lie and other networks: 0 of 1000 arrive', async () => {
  const inner = innerPacket({ number: 1, bytes: 64, source: '10.5.1.2', destination: '10.5.2.2', port: 9 });
  const hex = tunnelled(inner).toString('hex');
  expect(await send('192.0.2.1', hex)).toEqual([1000, { rx_ok: 1000 }]);
  expect(await send('192.0.2.66', hex)).toEqual([0, { rx_not_member: 1000 }]);
  expect(await send('192.0.2.1', tunnelled(inner, 2).toString('hex'))).toEqual([0, { rx_not_member: 1000 }]);
  const lie = changed(inner, 12, 10, 5, 3, 2);
  expect(await send('192.0.2.1', tunnelled(lie).toString('hex'))).toEqual([0, { rx_spoof_src: 1000 }]);
  const elsewhere = changed(inner, 16, 10, 5, 3, 2);
  expect(await send('192.0.2.1', tunnelled(elsewhere).toString('hex'))).toEqual([0, { rx_bad_dst: 1000 }]);
  lab.ip('b', 'address', 'add', '192.0.2.22/32', 'dev', 'under');
  expect(await send('192.0.2.1', hex, '192.0.2.22')).toEqual([0, { rx_bad_dst: 1000 }]);
  lab.ip('b', 'address', 'delete', '192.0.2.22/32', 'dev', 'under');
});

/** The vectors are those of 10.5.1.0/24; here that is the peer, so the roles are exchanged. */
describe('the packet vectors as datagrams', () => {
  /** Those of less than a header are dropped by the device, one of our own address by the stack; one is too long. */
  const seen = arriving.filter(({ hex }) => hex.length >= 40 && hex.length < 2 * 65_500);

  test.each(seen)('$id $name', async vector => {
    const before = await daemons.a.state();
    const datagram = { from: vector.outer_from.split(':')[0] ?? '', fromPort: 50_000, to: '192.0.2.1', toPort: 4790 };
    const hex = tunnelled(Buffer.from(vector.hex, 'hex')).toString('hex');
    await inject({ inside: (_, command) => lab.inside('b', ...command) }, 'b', [{ ...datagram, hex }]);
    // Peer 10.5.3.0/24 of the vectors is not here.
    const expected = vector.outer_from.startsWith('192.0.2.3') ? counted('rx_not_member') : expectedOf(vector);
    const { rx_bytes: _bytes, ...ended } = await until(
      'a verdict',
      async () => {
        const all = Object.entries(difference((await daemons.a.state()).counters, before.counters));
        // The hosts ask each other meanwhile.
        return Object.fromEntries(all.filter(([name]) => /^rx_(?!probe$)/.test(name))) as Counters;
      },
      of => Object.keys(of).length > 0,
    );
    expect(ended).toEqual(expected);
  });
});

test('fence and deadline stop both directions within a packet, and let them go on', async () => {
  const reach = async (): Promise<boolean> => {
    const ping = ['ping', '-n', '-c', '1', '-W', '0.2', places.address('b')];
    return (await attempt(places.inside('a', ping))).stdout.includes(' 0% packet loss');
  };
  const gates = [
    ['tx_fenced', () => daemons.a.call('fence', true), () => daemons.a.call('fence', false)],
    ['tx_orphaned', () => daemons.a.call('forwardUntil', 1), () => daemons.a.call('forwardUntil', 2 ** 45)],
  ] as const;
  for (const [counter, shut, open] of gates) {
    expect(await reach()).toBe(true);
    const before = (await daemons.a.state()).counters[counter] ?? 0;
    await shut();
    try {
      expect(await reach()).toBe(false);
      // Questions to the peer end there too.
      expect((await daemons.a.state()).counters[counter]).toBeGreaterThan(before);
    } finally {
      await open();
    }
    expect(await reach()).toBe(true);
  }
});

test('past a deadline that the programs alone have, packets go by user space', async () => {
  await daemons.a.call('forwardUntil', 1);
  try {
    withTableOf(await pidOf(daemons.a), table => table.setForwardUntil(2 ** 45));
    const before = await sentByUser();
    await attempt(places.inside('a', ['ping', '-n', '-c', '5', '-i', '0.01', '-W', '0.2', places.address('b')]));
    expect(await sentByUser()).toBeGreaterThanOrEqual(before + 5);
  } finally {
    await daemons.a.call('forwardUntil', 2 ** 45);
  }
});

test.each([
  [0x02, 0x02],
  [0xb8, 0],
])('TOS %i of a packet is %i outside: the mark of congestion and no DSCP (RFC 6040)', async (inner, outer) => {
  const filter = `udp port 4790 and src 192.0.2.1 and greater 900 and ip[1] = ${outer}`;
  const capture = await Capture.open({ inside: (_, command) => lab.inside('b', ...command) }, 'b', 'under', filter);
  const ping = [
    'ping',
    '-n',
    '-c',
    '3',
    '-i',
    '0.01',
    '-W',
    '1',
    '-s',
    '900',
    '-Q',
    String(inner),
    places.address('b'),
  ];
  await attempt(places.inside('a', ping));
  await until(
    'three packets',
    () => capture.lines.length,
    count => count >= 3,
  );
  await delay(50);
  expect(await capture.stop()).toHaveLength(3);
});
