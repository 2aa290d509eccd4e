/** Bad packets on the wire (vectors/packets.json): each ends in exactly the counter that the vector names. */
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { inject } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';
import {
  arriving,
  beside,
  datagramOf,
  difference,
  neverArrives,
  receivedOf,
  totalOf,
  vectors,
  type Counters,
} from '../support/vectors.js';

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  opened.node('a').preferSubnet('10.5.1.0/24');
  opened.node('b').preferSubnet('10.5.2.0/24');
  await opened.bringUp();
});

/** Without the questions and answers of the real host b, which come when they want; a vector that is one is asked for. */
async function received(probes = false): Promise<Counters> {
  const all = receivedOf(await lab().node('a').counters());
  return Object.fromEntries(Object.entries(all).filter(([name]) => probes || name !== 'rx_probe'));
}

test.each(arriving)('$id $name: $counter', async vector => {
  const isProbe = vector.counter === 'rx_probe';
  const before = await received(isProbe);
  await inject(lab().spaces, 'b', [datagramOf(vector)]);
  await until('the packet is counted', async () => totalOf(await received(isProbe)) > totalOf(before));
  const changed = difference(await received(isProbe), before);
  if (isProbe) return expect(Object.keys(changed)).toEqual(['rx_probe']);
  expect(changed).toEqual(beside.has(vector.counter) ? { rx_ok: 1, [vector.counter]: 1 } : { [vector.counter]: 1 });
});

test('P39 our own address as outer source never reaches the overlay', async () => {
  const before = await received();
  const vector = vectors.find(({ id }) => id === neverArrives);
  const marker = vectors.find(({ id }) => id === 'P01');
  if (!vector || !marker) throw new Error('the vectors are gone');
  await inject(lab().spaces, 'b', [datagramOf(vector), datagramOf(marker)]);
  await until('the packet after it is counted', async () => 'rx_short' in difference(await received(), before));
  const changed = difference(await received(), before);
  expect([{ rx_short: 1 }, { rx_short: 1, rx_not_member: 1 }]).toContainEqual(changed);
});

test('another source port of a member passes and is counted beside', async () => {
  const before = await received();
  const good = vectors.find(({ id }) => id === 'P49');
  if (!good) throw new Error('the vectors are gone');
  await inject(lab().spaces, 'b', [{ ...datagramOf(good), fromPort: 40_000 }]);
  await until('the packet is counted', async () => totalOf(await received()) > totalOf(before));
  expect(difference(await received(), before)).toEqual({ rx_ok: 1, rx_port: 1 });
});

test('a flood of them loses nothing of the good flow, and every packet is in one counter', async () => {
  const before = await received();
  const flow = await lab().flow(lab().node('b'), lab().node('a'));
  const bad = arriving.filter(({ id, counter }) => id !== 'P51' && counter !== 'rx_probe').map(datagramOf);
  for (let round = 0; round < 20; round++) await inject(lab().spaces, 'b', bad);
  const report = await flow.stop();
  expect(report).toMatchObject({ lost: 0, duplicates: 0 });
  const expected = report.sent + 20 * bad.length;
  await until('all are counted', async () => totalOf(await received()) - totalOf(before) >= expected);
  expect(totalOf(await received()) - totalOf(before)).toBe(expected);
  expect(lab().node('a').daemon.events('datapath.died')).toEqual([]);
});
