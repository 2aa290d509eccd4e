/**
 * Everything arrives as it was sent while packets go in bulk, whatever of them the underlay carries in one piece:
 * super-packets whole, frames of the MTU that are merged again, the same without checksum offload.
 */
import { describe, expect, test } from 'vitest';
import { directUnderlays } from '../bench/lab.js';
import { datagrams, messages } from './speed-parts.js';
import { expectAll, expectNoTrouble, sendFile, useSpeedLab } from './speed-lab.js';

const fileBytes = 200_000_000;

describe.each(directUnderlays)('underlay %s', underlay => {
  const lab = useSpeedLab({ underlay, a: 'fast', b: 'fast' });

  test('files both ways at once arrive whole', async () => {
    const [there, back] = await Promise.all([sendFile(lab(), 'a', fileBytes), sendFile(lab(), 'b', fileBytes)]);
    expect(there.checksum).not.toBe(back.checksum);
  });

  test('datagrams of 16 to 65,000 bytes arrive all, unchanged and in order', async () => {
    await expectAll(lab(), 'a', datagrams(70));
  });

  test('segments of an application that uses UDP_SEGMENT arrive as they were cut', async () => {
    await expectAll(lab(), 'a', messages(20));
  });

  test('no packet of all that was refused anywhere', async () => {
    await expectNoTrouble(lab());
  });
});
