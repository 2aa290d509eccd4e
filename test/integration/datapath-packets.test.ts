/** Packets between containers of two hosts (container-lab.ts), on paths and with lengths that are out of the ordinary. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { burst, sendBurst } from '../support/burst.js';
import { attempt, compile } from '../support/tools.js';
import { transfer } from '../support/traffic.js';
import { Containers, echoes, hosts, number, other, withoutDf } from './container-lab.js';
import { Lab, bothUp, pidOf, respawned, run, until, type Daemon, type Host } from './datapath-lab.js';
import { complete } from './speed-lab.js';

let lab: Lab;
/** The containers of the hosts. */
let places: Containers;
let daemons: Readonly<Record<Host, Daemon>>;

const container = (host: Host): string => places.namespace(host);
const address = (host: Host): string => places.address(host);
const inContainer = (host: Host, ...command: readonly string[]): string => places.run(host, ...command);

beforeAll(async () => {
  compile('test/support/burst.c', burst);
  lab = new Lab();
  daemons = await bothUp(lab, { lanes: 3 });
  places = new Containers(lab);
});

afterAll(async () => {
  places.close();
  await lab.close();
});

test('fault N1: packets without DF cross a path that is narrower than the tunnel, cut, and none is lost', async () => {
  for (const host of hosts) places.narrow(host, 1300);
  try {
    expect(await echoes(container('a'), address('b'), 1372, withoutDf), 'from a container').toBe(100);
    expect(await echoes(container('b'), address('a'), 1444, withoutDf), 'the other way').toBe(100);
    expect(await echoes(container('a'), address('b'), 5000, withoutDf), 'fragments of the container').toBe(100);
    expect(await echoes(lab.namespace('a'), address('b'), 1372, withoutDf), 'from the host').toBe(100);
    expect(await echoes(container('b'), '10.5.1.0', 9000, withoutDf), 'to the host').toBe(100);
    const { counters } = await daemons.a.state();
    expect(counters['tx_error_msgsize']).toBe(0);
  } finally {
    for (const host of hosts) places.widen(host);
  }
});

test('fault N1: TCP and UDP in bulk without DF cross a narrow path whole; with DF they hear its MTU', async () => {
  for (const host of hosts) places.narrow(host, 1300);
  places.discoverPathMtu(false);
  const between = { from: 'a', to: 'b', address: address('b') };
  try {
    const { sent, received } = await transfer(places, { ...between, port: 7010, bytes: 20_000_000 });
    expect(received).toEqual({ ...sent, source: address('a') });
    const parts = ['1444', '1443x30+16', '1000x40', '1300x20', '1445', '9000', '100x40'];
    const burst = await sendBurst(places, { ...between, port: 7011, parts });
    expect(burst).toMatchObject({ ...complete, received: burst.sent });
    places.discoverPathMtu(true);
    const ping = ['ping', '-n', '-c', '1', '-W', '2', '-M', 'do', '-s', '1372', address('b')];
    const answer = await attempt(places.inside('a', ping));
    expect(answer.stdout).toMatch(/From 10\.5\.1\.\d .*Frag needed.*mtu = 1272/);
    expect((await transfer(places, { ...between, port: 7012, bytes: 20_000_000 })).received.bytes).toBe(20_000_000);
  } finally {
    places.discoverPathMtu(true);
    for (const host of hosts) places.widen(host);
  }
});

test('fault N1: a path that becomes wider is used in full again', async () => {
  // What the container's kernel has heard in the test before.
  inContainer('a', 'ip', 'route', 'flush', 'cache');
  places.narrow('a', 1300);
  expect(await echoes(container('a'), address('b'), 1372, withoutDf)).toBe(100);
  places.widen('a');
  // Until what was learnt is forgotten; then one echo is one packet for each direction.
  const before = (): Promise<number> => daemons.a.state().then(({ counters }) => counters['tx_ok'] ?? 0);
  await until(
    'whole packets',
    async () => {
      const first = await before();
      expect(await echoes(container('a'), address('b'), 1372, withoutDf)).toBe(100);
      return (await before()) - first;
    },
    packets => packets === 100,
  );
});

async function counted(host: Host, name: string): Promise<number> {
  return (await daemons[host].state()).counters[name] ?? 0;
}

test('fault N20: a packet longer than our tunnel MTU that arrived whole is taken', async () => {
  await daemons.b.call('start', { ...lab.config('b'), mtu: 1464, underlayMtu: 1500 });
  const before = { oversize: await counted('b', 'rx_oversize'), taken: await counted('b', 'rx_ok') };
  try {
    // The answers are longer than what b sends in one piece.
    expect(await echoes(container('a'), address('b'), 1444, withoutDf)).toBe(100);
    // The last one is answered before it is counted.
    await until(
      'all taken',
      () => counted('b', 'rx_ok'),
      count => count >= before.taken + 100,
    );
    expect(await counted('b', 'rx_oversize')).toBe(before.oversize);
    expect(await counted('b', 'rx_ok')).toBe(before.taken + 100);
  } finally {
    await daemons.b.call('start', lab.config('b'));
  }
});

test('fault N3: ICMP errors come from the gateway, so a container with a kernel before 5.14 believes them', async () => {
  // Such a kernel takes the first address of its subnet for a broadcast.
  inContainer('a', 'ip', 'route', 'add', 'broadcast', '10.5.1.0', 'dev', 'eth0', 'table', 'local');
  for (const settings of ['all', 'eth0']) inContainer('a', 'sysctl', '-qw', `net.ipv4.conf.${settings}.rp_filter=1`);
  places.narrow('a', 1300);
  try {
    const ping = async (...args: readonly string[]): Promise<string> =>
      (await attempt(places.inside('a', ['ping', '-n', '-c', '1', '-W', '2', ...args]))).stdout;
    expect(await ping('-M', 'do', '-s', '1372', address('b'))).toMatch(/From 10\.5\.1\.1 .*Frag needed.*mtu = 1272/);
    expect(await ping('10.5.77.7')).toMatch(/From 10\.5\.1\.1 .*Net Unreachable/);
    // One hop is this host's.
    expect(await ping('-t', '2', address('b'))).toMatch(/From 10\.5\.1\.1 .*Time to live exceeded/);
    const { received } = await transfer(places, {
      from: 'a',
      to: 'b',
      address: address('b'),
      port: 7013,
      bytes: 5_000_000,
    });
    expect(received.bytes).toBe(5_000_000);
  } finally {
    inContainer('a', 'ip', 'route', 'flush', 'cache');
    places.widen('a');
  }
});

test('fault N18: what goes to our broadcast is counted, and not passed to the kernel', async () => {
  // The last packet of a stream may be under way: the end of a socket that waits for it.
  await until(
    'no stream',
    () => inContainer('b', 'ss', '-Htan', 'state', 'last-ack'),
    text => text === '',
  );
  const before = { dropped: await counted('b', 'rx_bad_dst'), taken: await counted('b', 'rx_ok') };
  const ping = ['ping', '-n', '-b', '-c', '5', '-i', '0.01', '-W', '1', '10.5.2.255'];
  await attempt(places.inside('a', ping));
  expect(await counted('b', 'rx_bad_dst')).toBe(before.dropped + 5);
  expect(await counted('b', 'rx_ok')).toBe(before.taken);
});

/** Datagrams from so many ports, in turn, so fast that their flows become bulk. */
const flood = `
  for (1..8) { socket(my $s, PF_INET, SOCK_DGRAM, 0) or die; push @s, $s }
  for (1..400) { send $_, 'x' x 1400, 0, pack_sockaddr_in(9, inet_aton('10.5.77.7')) for @s }`;

test('fault N9: one source gets ten ICMP errors a second, however many threads its flows have', async () => {
  const began = performance.now();
  const before = { sent: await counted('a', 'icmp_sent'), limited: await counted('a', 'icmp_limited') };
  inContainer('a', 'perl', '-MSocket', '-e', flood);
  const sent = (await counted('a', 'icmp_sent')) - before.sent;
  expect(await counted('a', 'icmp_limited')).toBeGreaterThan(before.limited);
  expect(sent).toBeLessThanOrEqual(10 + Math.ceil((performance.now() - began) / 100));
});

/** What the kernel of a host says it dropped, at its sockets of the tunnel and at the tunnel link. */
function kernelDrops(host: Host): { readonly rx_dropped: number; readonly tx_dropped: number } {
  const sockets = run('ip', 'netns', 'exec', lab.namespace(host), 'cat', '/proc/net/udp').split('\n');
  // 8285 is 205D.
  const ours = sockets
    .filter(line => /^ *\d+: [0-9A-F]+:205D /.test(line))
    .map(line => Number(line.trim().split(/ +/).at(-1)));
  const [link] = JSON.parse(lab.ip(host, '-s', '-j', 'link', 'show', 'tartan0'));
  return { rx_dropped: ours.reduce((sum, drops) => sum + drops, 0), tx_dropped: link.stats64.tx.dropped };
}

/** Until both say the same: what waited while a data process stood still may be on its way. */
async function sameDrops(host: Host): Promise<void> {
  await until(
    'equal counts',
    async () => ({ kernel: kernelDrops(host), ours: (await daemons[host].state()).counters }),
    ({ kernel, ours }) => ours['rx_dropped'] === kernel.rx_dropped && ours['tx_dropped'] === kernel.tx_dropped,
  );
}

test('fault N6: what the kernel drops in front of the data process is counted, and once only over respawns', async () => {
  const toB = `socket(my $s, PF_INET, SOCK_DGRAM, 0) or die;
    send $s, 'x' x 1400, 0, pack_sockaddr_in(9, inet_aton('10.5.2.2')) for 1..3000`;
  for (const [stopped, drops] of [
    ['b', () => kernelDrops('b').rx_dropped],
    ['a', () => kernelDrops('a').tx_dropped],
  ] as const) {
    const pid = await pidOf(daemons[stopped]);
    process.kill(pid, 'SIGSTOP');
    try {
      for (let floods = 0; floods < 50 && drops() === 0; floods++) inContainer('a', 'perl', '-MSocket', '-e', toB);
      expect(drops()).toBeGreaterThan(0);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  }
  for (const host of hosts) {
    await sameDrops(host);
    const pid = await pidOf(daemons[host]);
    process.kill(pid, 'SIGKILL');
    await respawned(daemons[host], pid);
    await sameDrops(host);
  }
  // Other sockets begin at zero, and the sum goes on.
  const { rx_dropped } = kernelDrops('b');
  await daemons.b.call('start', lab.config('b', 8286));
  expect((await daemons.b.state()).counters).toMatchObject({ rx_dropped });
  await daemons.b.call('start', lab.config('b'));
  expect((await daemons.b.state()).counters).toMatchObject({ rx_dropped });
});

test('fault N8: a flood of super-packets fills no more than 32 MiB of a queue that nobody reads', async () => {
  const pid = await pidOf(daemons.a);
  const before = await counted('a', 'tx_bytes');
  const dropped = await counted('a', 'tx_dropped');
  // UDP_SEGMENT (udp(7)): 44 datagrams in one call, which stay one packet as far as the tunnel.
  const superPackets = `socket(my $s, PF_INET, SOCK_DGRAM, 0) or die; setsockopt($s, 17, 103, pack('i', 1400)) or die $!;
    send $s, 'x' x 61600, 0, pack_sockaddr_in(9, inet_aton('10.5.2.2')) for 1..6000`;
  process.kill(pid, 'SIGSTOP');
  try {
    inContainer('a', 'perl', '-MSocket', '-e', superPackets);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  const sent = await until(
    'an empty queue',
    async () => {
      const first = await counted('a', 'tx_bytes');
      await delay(100);
      return (await counted('a', 'tx_bytes')) === first ? first - before : 0;
    },
    bytes => bytes > 0,
  );
  process.stdout.write(
    `${(sent / 2 ** 20).toFixed(1)} MiB waited, ${(await counted('a', 'tx_dropped')) - dropped} super-packets were dropped\n`,
  );
  // The first packets of the flow are sparse and wait in a queue of their own.
  expect(sent).toBeLessThanOrEqual(34 * 2 ** 20);
});

test('fault F12: a routed client behind a host is dropped as spoofed, told with the flag, and passes by it', async () => {
  const client = '203.0.113.9';
  run('ip', '-n', container('a'), 'address', 'add', `${client}/32`, 'dev', 'eth0');
  lab.ip('a', 'route', 'add', client, 'via', address('a'));
  // The way back to clients of another host is no business of the tunnel.
  const echo = async (): Promise<void> =>
    void (await attempt(places.inside('a', ['ping', '-n', '-c', '1', '-W', '0.1', '-I', client, address('b')])));
  const told = [expect.stringMatching(/^packets are dropped as spoofed, .*--no-source-check/)];
  const open = { checkSource: false };
  expect((await daemons.b.state()).warnings).toEqual([]);
  await echo();
  await until(
    'it is counted',
    () => counted('a', 'tx_spoof_src'),
    count => count === 1,
  );
  expect((await daemons.a.state()).warnings).toEqual(told);
  await daemons.a.call('start', { ...lab.config('a'), ...open });
  await echo();
  await until(
    'it is counted',
    () => counted('b', 'rx_spoof_src'),
    count => count === 1,
  );
  expect((await daemons.b.state()).warnings).toEqual(told);
  await daemons.b.call('start', { ...lab.config('b'), ...open });
  const before = await counted('b', 'rx_ok');
  await echo();
  await until(
    'it passes',
    () => counted('b', 'rx_ok'),
    count => count === before + 1,
  );
});

test('fault N1: a router on the path tells its MTU once, and all packets after that arrive', async () => {
  const router = `${lab.namespace('a')}r`;
  const toRouter = { a: '198.51.100.2', b: '198.51.100.6' };
  const ofRouter = { a: '198.51.100.1', b: '198.51.100.5' };
  run('ip', 'netns', 'add', router);
  try {
    for (const host of hosts) {
      lab.ip(host, 'link', 'add', 'via', 'type', 'veth', 'peer', 'name', `to-${host}`, 'netns', router);
      lab.ip(host, 'address', 'add', `${toRouter[host]}/30`, 'dev', 'via');
      run('ip', '-n', router, 'address', 'add', `${ofRouter[host]}/30`, 'dev', `to-${host}`);
      lab.ip(host, 'link', 'set', 'via', 'up');
      run('ip', '-n', router, 'link', 'set', `to-${host}`, 'up');
      lab.ip(
        host,
        'route',
        'add',
        `192.0.2.${number[other[host]]}/32`,
        'via',
        ofRouter[host],
        'src',
        `192.0.2.${number[host]}`,
      );
      run('ip', '-n', router, 'route', 'add', `192.0.2.${number[host]}/32`, 'via', toRouter[host]);
    }
    run('ip', '-n', router, 'link', 'set', 'to-b', 'mtu', '1300');
    lab.ip('b', 'link', 'set', 'via', 'mtu', '1300');
    run('ip', 'netns', 'exec', router, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
    // The router drops the first packet. Its answer is what the host learns by.
    await until(
      'a path MTU',
      () => lab.ip('a', 'route', 'get', '192.0.2.2'),
      text => {
        inContainer('a', 'sh', '-c', `ping -n -c 1 -W 0.1 -M dont -s 1372 ${address('b')} || true`);
        return text.includes('mtu 1300');
      },
    );
    expect(await echoes(container('a'), address('b'), 1372, withoutDf)).toBe(100);
    expect(await echoes(container('a'), address('b'), 5000, withoutDf)).toBe(100);
  } finally {
    for (const host of hosts) await attempt(['ip', '-n', lab.namespace(host), 'link', 'delete', 'via']);
    run('ip', 'netns', 'delete', router);
  }
});
