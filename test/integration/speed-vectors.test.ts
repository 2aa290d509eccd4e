/**
 * Bad packets among good ones that go in bulk, all of them from the same member: a bad one takes only itself, and is
 * counted by its name. Host a is the one that the vectors are written for; a TCP flow from b to a never ends.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BurstReceiver, sendSegments } from '../support/burst.js';
import { changed, innerPacket } from '../support/inner-packet.js';
import { run } from '../support/tools.js';
import { inject } from '../support/traffic.js';
import {
  arriving,
  beside,
  datagramOf,
  difference,
  receivedOf,
  type Counters,
  type Vector,
} from '../support/vectors.js';
import { until } from './datapath-lab.js';
import { complete, inner, refusedByKernel, sendFile, useSpeedLab, type SpeedLab } from './speed-lab.js';

const fileBytes = 100_000_000;
/** Packets of the flow that must pass around each vector. */
const company = 200;
const burstPort = 7004;

/** Files one after another, each of which must arrive whole; what went on before and after is checked by `stop`. */
class Bulk {
  readonly #done: Promise<number>;
  #over = false;

  constructor(lab: SpeedLab) {
    this.#done = this.#send(lab);
    this.#done.catch(() => {});
  }

  async #send(lab: SpeedLab): Promise<number> {
    let files = 0;
    for (; !this.#over; files++) await sendFile(lab, 'b', fileBytes);
    return files;
  }

  stop(): Promise<number> {
    this.#over = true;
    return this.#done;
  }
}

/** A packet that passes cannot be told from the flow's; what is counted beside it can. */
function markOf({ counter }: Vector): Counters {
  return counter === 'rx_ok' ? {} : { [counter]: 1 };
}

const passing = (vector: Vector): boolean => vector.counter === 'rx_ok' || beside.has(vector.counter);

describe.each(['whole', 'wire'] as const)('underlay %s', underlay => {
  const lab = useSpeedLab({ underlay, a: 'fast', b: 'fast' });
  let bulk: Bulk;
  let before: { readonly a: Counters; readonly b: Counters };
  let injected = 0;

  /** Without what the flow counts in. */
  async function marks(): Promise<{ readonly marks: Counters; readonly passed: number }> {
    const { rx_ok: passed = 0, ...others } = receivedOf(await lab().counters('a'));
    return { marks: others, passed };
  }

  /** What `send` added beside the flow, when `count` packets are in the counters and the flow went on around them. */
  async function added(count: number, send: () => Promise<void>): Promise<Counters> {
    const first = await marks();
    await until('the flow', marks, ({ passed }) => passed > first.passed + company);
    await send();
    const sent = await marks();
    const sum = (now: Counters): number => Object.values(difference(now, first.marks)).reduce((a, b) => a + b, 0);
    const last = await until(
      `${count} packets in their counters`,
      marks,
      now => sum(now.marks) >= count && now.passed > sent.passed + company,
    );
    return difference(last.marks, first.marks);
  }

  beforeAll(async () => {
    // No more under way than the sockets' buffers and the 256 places of the veth hold: every packet that b sends is one that
    // a counts.
    await run(lab().inside('a', ['sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 131072 262144']));
    before = { a: await lab().counters('a'), b: await lab().counters('b') };
    bulk = new Bulk(lab());
  });
  afterAll(() => bulk.stop().catch(() => {}));

  test.each(arriving)('$id $name: $counter', async vector => {
    const expected = markOf(vector);
    const count = Object.keys(expected).length;
    expect(await added(count, () => inject(lab(), 'b', [datagramOf(vector)]))).toEqual(expected);
    if (passing(vector)) injected++;
  });

  test('a flood of all of them', async () => {
    const rounds = 10;
    const flood = arriving.filter(({ id }) => id !== 'P51');
    const expected: Record<string, number> = {};
    for (const name of flood.flatMap(vector => Object.keys(markOf(vector))))
      expected[name] = (expected[name] ?? 0) + rounds;
    const count = Object.values(expected).reduce((a, b) => a + b, 0);
    const seen = await added(count, async () => {
      for (let round = 0; round < rounds; round++) await inject(lab(), 'b', flood.map(datagramOf));
    });
    expect(seen).toEqual(expected);
    injected += rounds * flood.filter(passing).length;
  });

  /** One message of datagrams of equal length from another port of the member: `bad` ones between good ones. */
  async function burst(bytes: number, bad: readonly ((good: Buffer) => Buffer)[]): Promise<Counters> {
    const segments = Array.from({ length: 2 * bad.length + 1 }, (_, number) => {
      const addresses = { source: '10.5.2.9', destination: inner.a };
      const good = innerPacket({ number, bytes, ...addresses, port: burstPort });
      return bad[(number - 1) / 2]?.(good) ?? good;
    });
    const receiver = await BurstReceiver.open(lab(), 'a', burstPort);
    const seen = await added(segments.length, () =>
      sendSegments(lab(), { from: 'b', address: '192.0.2.1', port: 8285, segments }),
    );
    const good = bad.length + 1;
    expect(await receiver.report(segments.length)).toEqual({
      ...complete,
      received: good,
      lost: bad.length,
      firstLost: 1,
    });
    return seen;
  }

  test('vectors inside one UDP_SEGMENT message take only themselves', async () => {
    const bad = arriving.filter(({ hex, counter }) => hex.length === 96 && counter !== 'rx_ok');
    const chosen = bad.filter(({ outer_from }) => outer_from.startsWith('192.0.2.2:'));
    expect(chosen.length).toBeGreaterThan(10);
    const expected: Record<string, number> = { rx_port: chosen.length + 1 };
    for (const { counter } of chosen) expected[counter] = (expected[counter] ?? 0) + 1;
    expect(
      await burst(
        48,
        chosen.map(
          ({ hex }) =>
            () =>
              Buffer.from(hex, 'hex'),
        ),
      ),
    ).toEqual(expected);
    injected += chosen.length + 1;
  });

  test('damaged segments of one UDP_SEGMENT message take only themselves', async () => {
    const spoiled = (at: number) => (good: Buffer) => {
      const copy = Buffer.from(good);
      copy[at] = (copy[at] ?? 0) ^ 0x10;
      return copy;
    };
    const errors = (await refusedByKernel(lab(), 'a'))['Udp InCsumErrors'] ?? 0;
    const seen = await burst(1000, [
      spoiled(10),
      good => changed(good, 8, 0),
      // The inner checksum is not ours to judge; merging must not make it right.
      spoiled(500),
      good => changed(good, 0, 0x55),
      good => changed(good, 2, 1001 >> 8, 1001 & 255),
      good => changed(good, 12, 10, 5, 3, 9),
      spoiled(999),
      good => changed(good, 16, 10, 5, 3, 1),
      good => changed(good, 0, 0x44),
      good => changed(good, 12, 127, 0, 0, 1),
    ]);
    expect(seen).toEqual({
      rx_bad_csum: 1,
      rx_ttl: 1,
      rx_bad_version: 1,
      rx_bad_len: 1,
      rx_spoof_src: 1,
      rx_bad_dst: 1,
      rx_bad_ihl: 1,
      rx_martian: 1,
      rx_port: 13,
    });
    expect((await refusedByKernel(lab(), 'a'))['Udp InCsumErrors']).toBe(errors + 2);
    injected += 13;
  });

  test('the flow lost nothing: what a counts is what b sent and what passed of the rest', async () => {
    expect(await bulk.stop()).toBeGreaterThan(0);
    const passed = async (): Promise<number> => {
      const [a, b] = [await lab().counters('a'), await lab().counters('b')];
      return (difference(a, before.a)['rx_ok'] ?? 0) - (difference(b, before.b)['tx_ok'] ?? 0);
    };
    // b counts a packet after it was sent.
    await until('all are counted', passed, count => count === injected);
    expect((await refusedByKernel(lab(), 'a'))['Tcp InCsumErrors']).toBe(0);
    const { rx_gso, rx_error_tun } = await lab().counters('a');
    expect([rx_gso, rx_error_tun]).toEqual([0, 0]);
  });
});
