/**
 * A host in bulk beside one that goes packet by packet, or whose kernel lacks some of the offloads: neither notices.
 * `plain` knows nothing but a bare IP packet in a datagram, as any flannel peer does.
 */
import { describe, expect, test } from 'vitest';
import { datagrams, messages } from './speed-parts.js';
import { expectAll, expectNoTrouble, sendFile, useSpeedLab } from './speed-lab.js';

const fileBytes = 40_000_000;
const both = ['a', 'b'] as const;

const pairs = (['wire', 'whole'] as const).flatMap(underlay =>
  (['plain', 'bare', 'older'] as const).map(b => [b, underlay] as const),
);

describe.each(pairs)('fast with %s, underlay %s', (b, underlay) => {
  const lab = useSpeedLab({ underlay, a: 'fast', b });

  test('files both ways at once arrive whole', async () => {
    const [there, back] = await Promise.all(both.map(from => sendFile(lab(), from, fileBytes)));
    expect(there?.checksum).not.toBe(back?.checksum);
  });

  test.each(both)('datagrams of 16 to 65,000 bytes from %s arrive all, unchanged and in order', async from => {
    await expectAll(lab(), from, datagrams(10));
  });

  test.each(both)('segments of an application on %s arrive as they were cut', async from => {
    await expectAll(lab(), from, messages(4));
  });

  test('fault N8: a queue has room for 32 MiB of super-packets, or for 5000 packets where there are none', () => {
    const lengths = both.map(host => /qlen (\d+)/.exec(lab().ip(host, 'link', 'show', 'tartan0'))?.[1]);
    expect(lengths).toEqual(['512', { plain: '500', bare: '5000', older: '512' }[b]]);
  });

  test('no packet of all that was refused anywhere', async () => {
    await expectNoTrouble(lab());
  });
});
