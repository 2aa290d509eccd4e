/**
 * A flood beside other flows while a data process stands still, so that it fills what waits in front of that process:
 * the flood loses what is too much, and nobody else anything.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../support/tools.js';
import { Lab, bothUp, pidOf, type Host } from './datapath-lab.js';
import { Reporter, inside, usePrograms } from './steering-lab.js';

/** Each flow has an address of its own: those of one address are judged together. */
const flood = { address: '10.5.2.8', port: 7000, bytes: 64 };
const bulk = { address: '10.5.2.9', port: 7001, bytes: 1400 };
const echoes = 100;
/** Datagrams of one message, which crosses the host uncut (UDP_SEGMENT). */
const joined = 32;
const messages = 8;

const program = usePrograms('test/support/bursts.c', 'test/bench/offload.c');
let lab: Lab;
let daemons: Awaited<ReturnType<typeof bothUp>>;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

/** A datagram begins as in bursts.c. */
const sendJoined = String.raw`my ($address, $port, $bytes, $joined, $messages) = @ARGV;
  socket(S, AF_INET, SOCK_DGRAM, 0) or die $!;
  setsockopt(S, 17, 103, pack('i', $bytes)) or die $!;
  my $to = pack_sockaddr_in($port, inet_aton($address));
  for my $m (0 .. $messages - 1) {
    my $all = join '', map { pack('V V Q<', $m * $joined + $_, 0, 0) . "\0" x ($bytes - 16) } 0 .. $joined - 1;
    defined send(S, $all, 0, $to) or die $!;
  }`;

interface Arrived {
  readonly flood: Record<string, unknown>;
  readonly bulk: Record<string, unknown>;
  readonly lostEchoes: number;
}

/** From host a to host b while the data process of `stopped` stands still. */
async function besideFlood(stopped: Host, datagrams: number, rounds: number): Promise<Arrived> {
  for (const { address } of [flood, bulk]) lab.ip('b', 'address', 'add', `${address}/32`, 'dev', 'tartan0');
  const receivers = await Promise.all(
    [flood, bulk].map(({ port }) => Reporter.ready(inside(lab, 'b', [program('bursts'), 'receive', String(port)]))),
  );
  const { a, b } = daemons;
  const pid = await pidOf(stopped === 'a' ? a : b);
  process.kill(pid, 'SIGSTOP');
  let lost: Promise<number>;
  try {
    const numbers = [flood.port, flood.bytes, datagrams, rounds, 20].map(String);
    await run(inside(lab, 'a', [program('bursts'), 'send', flood.address, ...numbers]));
    const rest = [bulk.port, bulk.bytes, joined, messages].map(String);
    await run(inside(lab, 'a', ['perl', '-MSocket', '-e', sendJoined, bulk.address, ...rest]));
    lost = lab.lost(echoes);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  const lostEchoes = await lost;
  for (const receiver of receivers) receiver.stop();
  const [ofFlood = {}, ofBulk = {}] = await Promise.all(receivers.map(receiver => receiver.report()));
  return { flood: ofFlood, bulk: ofBulk, lostEchoes };
}

test('fault FQ1: a flood that fills its TUN queue loses its own packets, in order, and no others', async () => {
  daemons = await bothUp(lab, { lanes: 2 });
  const sent = 5000;
  const arrived = await besideFlood('a', sent, 1);
  expect(arrived.bulk).toMatchObject({ received: joined * messages, duplicates: 0, reordered: 0 });
  expect(arrived.lostEchoes).toBe(0);
  expect(arrived.flood).toMatchObject({ duplicates: 0, reordered: 0 });
  expect(arrived.flood['received']).toBeGreaterThan(0);
  const { counters } = await daemons.a.state();
  expect(counters['tx_dropped']).toBe(sent - Number(arrived.flood['received']));
});

test('fault FQ2: a flood that fills its socket loses its own packets, in order, and no others', async () => {
  // Each datagram takes its room in the buffer.
  const card = ['rx-gro=off', 'tx-*segmentation=off', 'tx-gso-*=off'];
  for (const host of ['a', 'b'] as const) await run(inside(lab, host, [program('offload'), 'under', ...card]));
  daemons = await bothUp(lab, { lanes: 2 });
  const arrived = await besideFlood('b', 1000, 40);
  expect(arrived.bulk).toMatchObject({ received: joined * messages, duplicates: 0, reordered: 0 });
  expect(arrived.lostEchoes).toBe(0);
  expect(arrived.flood).toMatchObject({ duplicates: 0, reordered: 0 });
  expect((await daemons.b.state()).counters['rx_dropped']).toBeGreaterThan(1000);
});
