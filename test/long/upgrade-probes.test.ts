/** What an earlier commit hears of the hosts of this tree: packets of containers, no question, nothing by the kernel. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { earlierProgram } from '../support/earlier.js';
import { Capture } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b', 'c'] }, async opened => {
  opened.node('b').program = earlierProgram;
  await opened.bringUp();
});

/** First bytes that no IPv4 header has (RFC 791, 3.1): what we send beside packets. */
const notBare = 'udp port 8285 and udp[8] & 0xf0 != 0x40';

test('0 datagrams but bare packets to a host of an earlier commit, under traffic', async () => {
  const [a, b, c] = [lab().node('a'), lab().node('b'), lab().node('c')];
  const [atEarlier, atOurs] = [
    await Capture.open(lab().spaces, 'b', 'eth0', `(${notBare}) or udp port 4790`),
    await Capture.open(lab().spaces, 'c', 'eth0', notBare),
  ];
  const bare = await Capture.open(lab().spaces, 'b', 'eth0', 'udp port 8285 and udp[8] & 0xf0 = 0x40');
  const flows = [await lab().flow(a, b, 100), await lab().flow(b, a, 100), await lab().flow(a, c, 100)];
  await delay(20_000);
  for (const flow of flows) expect((await flow.stop()).lost).toBe(0);
  const [earlier, ours] = [await atEarlier.stop(), await atOurs.stop()];
  const packets = await bare.stop();
  process.stdout.write(
    `bare packets at the earlier: ${packets.length}; others: ${earlier.length}, at ours ${ours.length}\n`,
  );
  expect(packets.length).toBeGreaterThan(2000);
  // The filter finds questions where they are asked.
  expect(ours.length).toBeGreaterThan(2);
  expect(earlier).toEqual([]);
});
