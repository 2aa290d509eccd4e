/** The ranges of names that guard a subnet: they have every key that overlaps it, and few others. */
import { expect, it } from 'vitest';
import { parsePrefix, prefixesOverlap } from '../../src/model/ip.js';
import { formatLeaseKey } from '../../src/model/lease.js';
import { overlappingNames } from '../../src/store/overlap.js';
import { seeded } from '../support/lease-world.js';

const has = (subnet: string, name: string): boolean =>
  overlappingNames(parsePrefix(subnet)).some(({ start, end }) => name >= start && name < end);

it('fault C12: every key that overlaps is guarded, whatever the lengths', () => {
  const random = seeded(12);
  const draw = (): ReturnType<typeof parsePrefix> => {
    const length = 1 + Math.floor(random() * 30);
    // Few different octets, so that many pairs overlap.
    const bits = Array.from({ length: 32 }, (_, index) => (index < length && random() < 0.2 ? 1 : 0)).join('');
    const octets = [0, 8, 16, 24].map(from => parseInt(bits.slice(from, from + 8), 2));
    return parsePrefix(`${octets.join('.')}/${length}`);
  };
  let overlaps = 0;
  for (let count = 0; count < 20_000; count++) {
    const [subnet, other] = [draw(), draw()];
    if (!prefixesOverlap(subnet, other)) continue;
    overlaps++;
    const names = overlappingNames(subnet);
    for (const name of [formatLeaseKey(other), `${formatLeaseKey(other)}&fd00::-64`])
      expect(
        names.some(({ start, end }) => name >= start && name < end),
        `${formatLeaseKey(subnet)} ${name}`,
      ).toBe(true);
    // etcd permits 128 operations; tombstones have as many.
    expect(2 * names.length + 2).toBeLessThan(128);
  }
  expect(overlaps).toBeGreaterThan(500);
});

it('fault C12: what happens elsewhere is not guarded', () => {
  for (const name of ['10.5.70.0-24', '10.5.8.0-24', '10.5.4.0-23', '10.50.7.0-24', '1.5.7.0-24', '10.5.7-24'])
    expect(has('10.5.7.0/24', name), name).toBe(false);
  expect(has('10.5.4.0/22', '10.5.8.0-24')).toBe(false);
});
