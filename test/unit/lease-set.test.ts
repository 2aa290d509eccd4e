/** The look-up of overlaps against the naive one. */
import { expect, it } from 'vitest';
import { ipv4FromNumber, prefixAround, prefixesOverlap, type Prefix } from '../../src/model/ip.js';
import { Prefixes } from '../../src/model/lease-set.js';
import { seeded } from '../support/lease-world.js';

it('an overlap is found whatever the lengths and the order of questions', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seeded(seed);
    const lengths = seed % 2 === 0 ? [24] : [20, 22, 24, 25, 28];
    const any = (): Prefix =>
      prefixAround(
        ipv4FromNumber(0x0a050000 + Math.floor(random() * 0x8000)),
        lengths[Math.floor(random() * lengths.length)] ?? 24,
      );
    const prefixes = new Prefixes();
    const added: Prefix[] = [];
    for (let turn = 0; turn < 40; turn++) {
      const asked = any();
      const found = prefixes.overlapping(asked);
      const overlaps = added.some(other => prefixesOverlap(other, asked));
      expect(found !== undefined && prefixesOverlap(found, asked), `seed ${seed}`).toBe(overlaps);
      if (overlaps) continue;
      prefixes.add(asked);
      added.push(asked);
    }
  }
});
