/**
 * Packets between containers of two hosts, on paths and with lengths that are out of the ordinary:
 *
 *   [ac] 10.5.1.2 - box 10.5.1.1 [a] tartan0 - 192.0.2.1 ---- veth ---- 192.0.2.2 - tartan0 [b] 10.5.2.1 box - 10.5.2.2 [bc]
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { burst, sendBurst } from '../support/burst.js';
import { attempt } from '../support/tools.js';
import { transfer, type Places } from '../support/traffic.js';
import { Lab, bothUp, run, until, type Daemon, type Host } from './datapath-lab.js';
import { compile, complete } from './speed-lab.js';

const hosts = ['a', 'b'] as const;
const number = { a: 1, b: 2 } as const;
const other = { a: 'b', b: 'a' } as const;

let lab: Lab;
let daemons: Readonly<Record<Host, Daemon>>;

const container = (host: Host): string => `${lab.namespace(host)}c`;
const address = (host: Host): string => `10.5.${number[host]}.2`;

/** The containers of the hosts. */
const places: Places = {
  inside: (letter, command) => ['ip', 'netns', 'exec', container(letter === 'a' ? 'a' : 'b'), ...command],
};

function inContainer(host: Host, ...command: readonly string[]): string {
  return run('ip', 'netns', 'exec', container(host), ...command);
}

function openContainer(host: Host): void {
  const gateway = `10.5.${number[host]}.1`;
  run('ip', 'netns', 'add', container(host));
  lab.ip(host, 'link', 'add', 'box', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', container(host));
  lab.ip(host, 'address', 'add', `${gateway}/24`, 'dev', 'box');
  lab.ip(host, 'link', 'set', 'box', 'up', 'mtu', '1472');
  run('ip', '-n', container(host), 'address', 'add', `${address(host)}/24`, 'dev', 'eth0');
  run('ip', '-n', container(host), 'link', 'set', 'eth0', 'up', 'mtu', '1472');
  run('ip', '-n', container(host), 'route', 'add', 'default', 'via', gateway);
  const inHost = ['netns', 'exec', lab.namespace(host)] as const;
  // As the host adapter sets them (backend/udp.ts).
  for (const setting of ['ip_forward=1', 'conf.tartan0.accept_local=1'])
    run('ip', ...inHost, 'sysctl', '-qw', `net.ipv4.${setting}`);
}

beforeAll(async () => {
  compile('test/support/burst.c', burst);
  lab = new Lab();
  daemons = await bothUp(lab);
  for (const host of hosts) openContainer(host);
});

afterAll(async () => {
  for (const host of hosts) run('ip', 'netns', 'delete', container(host));
  await lab.close();
});

/** The path to the other host carries outer packets of so many bytes; both ends' links carry 1500. */
function narrow(host: Host, bytes: number): void {
  const how = ['dev', 'under', 'src', `192.0.2.${number[host]}`];
  lab.ip(host, 'route', 'replace', `192.0.2.${number[other[host]]}/32`, ...how, 'mtu', 'lock', String(bytes));
}

function widen(host: Host): void {
  lab.ip(host, 'route', 'delete', `192.0.2.${number[other[host]]}/32`);
}

/** Answers that the kernel of a namespace has received. ping does not wait for those that come after two round trips. */
function answers(namespace: string): number {
  const text = run('ip', 'netns', 'exec', namespace, 'nstat', '-asz', 'IcmpInEchoReps');
  return Number(/IcmpInEchoReps +(\d+)/.exec(text)?.[1]);
}

/** How many of a hundred echoes come back, from a namespace to an address. */
async function echoes(namespace: string, to: string, bytes: number, more: readonly string[] = []): Promise<number> {
  const before = answers(namespace);
  const ping = ['ping', '-n', '-q', '-c', '100', '-i', '0.002', '-W', '1', '-s', String(bytes), ...more, to];
  await attempt(['ip', 'netns', 'exec', namespace, ...ping]);
  for (let tries = 0; tries < 50 && answers(namespace) < before + 100; tries++) await delay(10);
  return answers(namespace) - before;
}

const withoutDf = ['-M', 'dont'];

test('fault N1: packets without DF cross a path that is narrower than the tunnel, cut, and none is lost', async () => {
  for (const host of hosts) narrow(host, 1300);
  try {
    expect(await echoes(container('a'), address('b'), 1372, withoutDf), 'from a container').toBe(100);
    expect(await echoes(container('b'), address('a'), 1444, withoutDf), 'the other way').toBe(100);
    expect(await echoes(container('a'), address('b'), 5000, withoutDf), 'fragments of the container').toBe(100);
    expect(await echoes(lab.namespace('a'), address('b'), 1372, withoutDf), 'from the host').toBe(100);
    expect(await echoes(container('b'), '10.5.1.0', 9000, withoutDf), 'to the host').toBe(100);
    const { counters } = await daemons.a.state();
    expect(counters['tx_error_msgsize']).toBe(0);
  } finally {
    for (const host of hosts) widen(host);
  }
});

/** TCP and UDP sockets of the containers send without DF (ip-sysctl: ip_no_pmtu_disc), or with DF again. */
function discoverPathMtu(on: boolean): void {
  for (const host of hosts) inContainer(host, 'sysctl', '-qw', `net.ipv4.ip_no_pmtu_disc=${on ? 0 : 1}`);
}

test('fault N1: TCP and UDP in bulk without DF cross a narrow path whole; with DF they hear its MTU', async () => {
  for (const host of hosts) narrow(host, 1300);
  discoverPathMtu(false);
  const between = { from: 'a', to: 'b', address: address('b') };
  try {
    const { sent, received } = await transfer(places, { ...between, port: 7010, bytes: 20_000_000 });
    expect(received).toEqual({ ...sent, source: address('a') });
    const parts = ['1444', '1443x30+16', '1000x40', '1300x20', '1445', '9000', '100x40'];
    const burst = await sendBurst(places, { ...between, port: 7011, parts });
    expect(burst).toMatchObject({ ...complete, received: burst.sent });
    discoverPathMtu(true);
    const ping = ['ping', '-n', '-c', '1', '-W', '2', '-M', 'do', '-s', '1372', address('b')];
    const answer = await attempt(places.inside('a', ping));
    expect(answer.stdout).toMatch(/From 10\.5\.1\.\d .*Frag needed.*mtu = 1272/);
    expect((await transfer(places, { ...between, port: 7012, bytes: 20_000_000 })).received.bytes).toBe(20_000_000);
  } finally {
    discoverPathMtu(true);
    for (const host of hosts) widen(host);
  }
});

test('fault N1: a path that becomes wider is used in full again', async () => {
  // What the container's kernel has heard in the test before.
  inContainer('a', 'ip', 'route', 'flush', 'cache');
  narrow('a', 1300);
  expect(await echoes(container('a'), address('b'), 1372, withoutDf)).toBe(100);
  widen('a');
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
