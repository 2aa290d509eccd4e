/**
 * The two steering programs (native/addon/steering.c) in the kernel: which queue a packet comes out of, which socket a
 * datagram arrives at.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../support/tools.js';
import { Lab, type Daemon } from './datapath-lab.js';
import { inside, usePrograms } from './steering-lab.js';

interface Seen {
  readonly queue: number;
  readonly bytes: number;
  readonly protocol?: number;
  readonly id?: number;
  readonly port?: number;
  readonly number?: number;
  readonly round?: number;
  readonly sentMs?: number;
}

/** Of the program: what a flow may send before it is bulk, what a packet costs beside its bytes, the silence after it. */
const burstBytes = 65_536;
const packetCost = 256;
const quietMs = 1000;
/** IPv4 and UDP header. */
const headerBytes = 28;

const program = usePrograms('test/support/bursts.c');
let lab: Lab;
let link: Daemon;

beforeEach(() => {
  lab = new Lab();
  link = lab.daemon('a', { program: new URL('steering-child.mjs', import.meta.url).pathname });
});

afterEach(async () => {
  await lab.close();
});

async function open(lanes: number): Promise<void> {
  expect(await link.call('open', { device: 'tartan0', lanes })).toEqual({ queues: lanes + 1, problem: null });
  lab.configureLink('a');
}

interface Bursts {
  /** A flow has its own port and its own destination. */
  readonly port: number;
  readonly bytes?: number;
  readonly count: number;
  readonly rounds?: number;
  readonly silenceMs?: number;
}

/** To addresses that are routed into the link; nobody reads the queues meanwhile. */
async function send({ port, bytes = 1400, count, rounds = 1, silenceMs = 0 }: Bursts): Promise<void> {
  const numbers = [port, bytes, count, rounds, silenceMs].map(String);
  await run(inside(lab, 'a', [program('bursts'), 'send', `10.5.2.${port % 256}`, ...numbers]));
}

async function read(): Promise<readonly Seen[]> {
  return (await link.call('read')) as Seen[];
}

/** The packets of a flow as they were sent. */
function flow(seen: readonly Seen[], port: number): readonly Seen[] {
  return seen.filter(packet => packet.port === port).sort((a, b) => (a.number ?? 0) - (b.number ?? 0));
}

function queuesOf(packets: readonly Seen[]): readonly number[] {
  return [...new Set(packets.map(({ queue }) => queue))];
}

/** How many packets of a round went the sparse way before the first that did not; all later ones must not either. */
function sparseOf(packets: readonly Seen[], lanes: number): number {
  const first = packets.findIndex(({ queue }) => queue !== lanes);
  if (first < 0) return packets.length;
  expect(queuesOf(packets.slice(first)), 'queues after the first bulk packet').toEqual([packets[first]?.queue]);
  return first;
}

/** Of several the last is for dense flows. */
function bulkLanes(lanes: number): readonly number[] {
  return Array.from({ length: Math.max(1, lanes - 1) }, (_, lane) => lane);
}

test.each([1, 2, 3, 4])('%i lanes: a small flow is sparse, wherever it goes', async lanes => {
  await open(lanes);
  for (let port = 7000; port < 7020; port++) await send({ port, bytes: 64, count: 5 });
  const seen = (await read()).filter(({ port }) => port !== undefined && port >= 7000);
  expect(seen).toHaveLength(100);
  expect(queuesOf(seen)).toEqual([lanes]);
});

test.each([1, 2, 3, 4])('%i lanes: a fast flow becomes bulk at one point and stays in one queue', async lanes => {
  await open(lanes);
  // As long as what the kernel hands over uncut.
  lab.ip('a', 'link', 'set', 'tartan0', 'mtu', '9000');
  const bulk = new Set<number>();
  for (let port = 7000; port < 7012; port++) {
    await send({ port, bytes: 8000, count: 400 });
    const packets = flow(await read(), port);
    expect(packets).toHaveLength(400);
    const sparse = sparseOf(packets, lanes);
    expect(sparse).toBeGreaterThanOrEqual(Math.floor(burstBytes / (8000 + headerBytes + packetCost)));
    expect(sparse).toBeLessThan(400);
    bulk.add(packets.at(-1)?.queue ?? -1);
  }
  // Always the same flows, so that no chance decides whether each lane gets one.
  expect([...bulk].sort()).toEqual(bulkLanes(lanes));
});

test.each([1, 2, 3, 4])('%i lanes: one of small packets becomes dense at one point and stays there', async lanes => {
  await open(lanes);
  for (const [port, bytes] of [
    [7000, 16],
    [7001, 1400],
  ] as const) {
    await send({ port, bytes, count: 3000 });
    const packets = flow(await read(), port);
    const sparse = sparseOf(packets, lanes);
    expect(sparse).toBeGreaterThanOrEqual(Math.floor(burstBytes / (bytes + headerBytes + packetCost)));
    expect(sparse).toBeLessThan(packets.length);
    expect(packets.at(-1)?.queue).toBe(lanes - 1);
  }
});

interface Segments {
  /** Of data. */
  readonly bytes: number;
  readonly count: number;
  /** Source ports, in turn. */
  readonly ports?: number;
  /** Identification of the first packet. */
  readonly first?: number;
}

async function sendTcp(source: string, { bytes, count, ports = 1, first = 0 }: Segments): Promise<void> {
  const addresses = [source, '10.5.2.9'].map(text => Buffer.from(text.split('.').map(Number)).toString('hex')).join('');
  const numbers = [lab.linkIndex('a'), bytes, count, ports, first].map(String);
  await run(inside(lab, 'a', ['perl', '-MSocket', '-e', sendSegments, addresses, ...numbers]));
}

const sendSegments = String.raw`my ($addresses, $index, $bytes, $count, $ports, $first) = @ARGV;
  socket(S, 17, 2, 0) or die $!;
  my $to = pack('S n i S C C a8', 17, 0x0800, $index, 0, 0, 6, '');
  for my $i (0 .. $count - 1) {
    my $ip = pack('C C n n n C C n H*', 0x45, 0, 40 + $bytes, $first + $i, 0x4000, 64, 6, 0, $addresses);
    my $tcp = pack('n n N N C C n n n', 1024 + $i % $ports, 9, 1, 1, 0x50, 0x10, 512, 0, 0);
    defined send(S, $ip . $tcp . "\0" x $bytes, 0, $to) or die $!;
  }`;

/** In the order of sending. */
async function readTcp(): Promise<readonly Seen[]> {
  return (await read()).filter(({ protocol }) => protocol === 6).sort((a, b) => (a.id ?? 0) - (b.id ?? 0));
}

test('TCP that fills its segments is bulk, and tiny segments are dense', async () => {
  await open(2);
  for (const [source, bytes, queue] of [
    ['10.5.1.2', 1400, 0],
    ['10.5.1.3', 0, 1],
  ] as const) {
    await sendTcp(source, { bytes, count: 2000 });
    const packets = await readTcp();
    expect(sparseOf(packets, 2)).toBeGreaterThanOrEqual(Math.floor(burstBytes / (bytes + 40 + packetCost)));
    expect(sparseOf(packets, 2)).toBeLessThan(packets.length);
    expect(packets.at(-1)?.queue).toBe(queue);
  }
});

test('fault FQ2: of a container with a flood of many flows none is sparse, and others keep theirs', async () => {
  await open(2);
  // No flow is fast: each sends four packets.
  const flood = { bytes: 0, count: 4000, ports: 1000 };
  await sendTcp('10.5.1.2', flood);
  const sparse = (await readTcp()).filter(({ queue }) => queue === 2).length;
  expect(sparse).toBeGreaterThanOrEqual(Math.floor(burstBytes / (40 + packetCost)));
  expect(sparse).toBeLessThan(flood.count / 2);
  await Promise.all([sendTcp('10.5.1.2', flood), sendTcp('10.5.1.3', { bytes: 0, count: 50, first: 30_000 })]);
  const others = (await readTcp()).filter(({ id = 0 }) => id >= 30_000);
  expect(others).toHaveLength(50);
  expect(queuesOf(others)).toEqual([2]);
  // What is not TCP is judged apart, of the same container too.
  await send({ port: 7000, bytes: 64, count: 5 });
  expect(queuesOf(flow(await read(), 7000))).toEqual([2]);
});

test('a bulk flow stays bulk while it sends, however little, and is sparse after a silence', async () => {
  await open(2);
  await send({ port: 7000, count: 200, rounds: 6, silenceMs: 20 });
  const packets = flow(await read(), 7000);
  const begin = sparseOf(
    packets.filter(({ round }) => round === 0),
    2,
  );
  for (const [i, { queue, sentMs = 0 }] of packets.entries()) {
    // A sender that got no processor for so long was silent.
    if (i > 0 && sentMs - (packets[i - 1]?.sentMs ?? 0) >= quietMs) break;
    expect(queue === 2, `packet ${i} is sparse`).toBe(i < begin);
  }
  await send({ port: 7000, count: 200, rounds: 4, silenceMs: quietMs * 1.2 });
  const rounds = flow(await read(), 7000);
  for (let round = 1; round < 4; round++) {
    const sparse = sparseOf(
      rounds.filter(packet => packet.round === round),
      2,
    );
    expect(sparse, `round ${round}`).toBeGreaterThan(0);
    expect(sparse, `round ${round}`).toBeLessThan(200);
  }
});

test('another flow stays sparse while one is bulk', async () => {
  await open(2);
  // What a container sends before one of its flows is bulk is judged together.
  await send({ port: 7000, count: 150 });
  await Promise.all([
    send({ port: 7000, count: 150, rounds: 20, silenceMs: 5 }),
    send({ port: 7001, count: 1, rounds: 100, silenceMs: 1 }),
  ]);
  const seen = await read();
  expect(flow(seen, 7000).filter(({ queue }) => queue !== 2).length).toBeGreaterThan(2000);
  expect(queuesOf(flow(seen, 7001))).toEqual([2]);
});

test('the fragments of a datagram stay together', async () => {
  await open(3);
  await send({ port: 7000, bytes: 4000, count: 300 });
  const queues = new Map<number, Set<number>>();
  for (const { id, queue, protocol } of await read())
    if (protocol === 17 && id !== undefined) queues.set(id, (queues.get(id) ?? new Set()).add(queue));
  expect(queues.size).toBe(300);
  // The one within which the flow became bulk: its first fragments go the sparse way, which is read first.
  expect([...queues.values()].filter(({ size }) => size > 1).length).toBeLessThanOrEqual(1);
  expect(new Set([...queues.values()].flatMap(set => [...set])).size).toBe(2);
});

/** A packet socket takes what no IP stack would send (packet(7)). */
const sendRaw = String.raw`my ($index, $hex) = @ARGV; socket(S, 17, 3, 0) or die $!;
  defined send(S, pack('H*', $hex), 0, pack('S n i S C C a8', 17, 0x0800, $index, 0, 0, 0, '')) or die $!;`;

test('a packet that is too short for a header goes to the first queue and does no harm', async () => {
  await open(2);
  await read();
  const cut = Buffer.from(`4500001c000040004006${'00'.repeat(2)}0a0501000a0502091b581b58`, 'hex');
  const lengths = Array.from({ length: cut.length - 1 }, (_, i) => i + 1);
  for (const length of lengths) {
    const hex = cut.subarray(0, length).toString('hex');
    await run(inside(lab, 'a', ['perl', '-MSocket', '-e', sendRaw, String(lab.linkIndex('a')), hex]));
  }
  const short = (await read()).filter(({ bytes }) => bytes < cut.length);
  expect(short.map(({ bytes }) => bytes)).toEqual(lengths);
  expect(queuesOf(short)).toEqual([0]);
  await send({ port: 7000, bytes: 64, count: 5 });
  expect(queuesOf(flow(await read(), 7000))).toEqual([2]);
});
