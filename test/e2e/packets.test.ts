/** Bad packets on the wire (vectors/packets.json): each ends in exactly the counter that the vector names. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { inject, type OuterDatagram } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

interface Vector {
  readonly id: string;
  readonly dir: string;
  readonly outer_from: string;
  readonly name: string;
  readonly hex: string;
  readonly counter: string;
}

const vectors = JSON.parse(readFileSync(new URL('../vectors/packets.json', import.meta.url), 'utf8')) as Vector[];

/** The vectors are written for 10.5.1.0/24 at 192.0.2.1 with the peer 10.5.2.0/24 at 192.0.2.2. */
const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  opened.node('a').preferSubnet('10.5.1.0/24');
  opened.node('b').preferSubnet('10.5.2.0/24');
  await opened.bringUp();
});

function datagram({ outer_from, hex }: Vector): OuterDatagram {
  const [from = '', port = ''] = outer_from.split(':');
  return { from, fromPort: Number(port), to: '192.0.2.1', toPort: 8285, hex };
}

/** In addition to the counter that a packet ends in. */
const beside = new Set(['rx_trimmed', 'rx_opts', 'rx_port']);

async function received(): Promise<Readonly<Record<string, number>>> {
  const counters = await lab().node('a').counters();
  return Object.fromEntries(Object.entries(counters).filter(([name]) => name.startsWith('rx_') && name !== 'rx_bytes'));
}

function total(counters: Readonly<Record<string, number>>): number {
  return Object.entries(counters).reduce((sum, [name, value]) => sum + (beside.has(name) ? 0 : value), 0);
}

function difference(after: Readonly<Record<string, number>>, before: Readonly<Record<string, number>>) {
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, value]) => [name, value - (before[name] ?? 0)] as const)
      .filter(([, value]) => value !== 0),
  );
}

/** Our own address as outer source: the receiving kernel drops it before any socket sees it (a martian). */
const neverArrives = 'P39';
const arriving = vectors.filter(({ dir, id }) => dir === 'rx' && id !== neverArrives);

test.each(arriving)('$id $name: $counter', async vector => {
  const before = await received();
  await inject(lab().spaces, 'b', [datagram(vector)]);
  await until('the packet is counted', async () => total(await received()) > total(before));
  const changed = difference(await received(), before);
  expect(changed).toEqual(beside.has(vector.counter) ? { rx_ok: 1, [vector.counter]: 1 } : { [vector.counter]: 1 });
});

test('P39 our own address as outer source never reaches the overlay', async () => {
  const before = await received();
  const vector = vectors.find(({ id }) => id === neverArrives);
  const marker = vectors.find(({ id }) => id === 'P01');
  if (!vector || !marker) throw new Error('the vectors are gone');
  await inject(lab().spaces, 'b', [datagram(vector), datagram(marker)]);
  await until('the packet after it is counted', async () => total(await received()) > total(before));
  const changed = difference(await received(), before);
  expect([{ rx_short: 1 }, { rx_short: 1, rx_not_member: 1 }]).toContainEqual(changed);
});

test('another source port of a member passes and is counted beside', async () => {
  const before = await received();
  const good = vectors.find(({ id }) => id === 'P49');
  if (!good) throw new Error('the vectors are gone');
  await inject(lab().spaces, 'b', [{ ...datagram(good), fromPort: 40_000 }]);
  await until('the packet is counted', async () => total(await received()) > total(before));
  expect(difference(await received(), before)).toEqual({ rx_ok: 1, rx_port: 1 });
});

test('a flood of them loses nothing of the good flow, and every packet is in one counter', async () => {
  const before = await received();
  const flow = await lab().flow(lab().node('b'), lab().node('a'));
  const bad = arriving.filter(({ id }) => id !== 'P51').map(datagram);
  for (let round = 0; round < 20; round++) await inject(lab().spaces, 'b', bad);
  const report = await flow.stop();
  expect(report).toMatchObject({ lost: 0, duplicates: 0 });
  const expected = report.sent + 20 * bad.length;
  await until('all are counted', async () => total(await received()) - total(before) >= expected);
  expect(total(await received()) - total(before)).toBe(expected);
  expect(lab().node('a').daemon.events('datapath.died')).toEqual([]);
});
