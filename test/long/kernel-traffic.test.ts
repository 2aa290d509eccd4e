/**
 * What an overlay must not change, with real packets between containers, over both underlays of the bench: two hosts with
 * the engine kernel, and one beside a host of user space, of the build before it, and of flannel's bare format (the bench's
 * `plain`; no real flanneld).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Scope } from '../../src/lib/scope.js';
import { datagrams, messages } from '../integration/speed-parts.js';
import { sendBurst } from '../support/burst.js';
import { earlierProgram } from '../support/earlier.js';
import { faultsOf, MixLab, topologies, type Other } from '../support/mix-lab.js';
import {
  bothWays,
  crossCongested,
  crossEsp,
  crossFragments,
  crossMarked,
  crossVxlan,
  longestDf,
  onNarrowPath,
  probeDf,
  widenContainer,
} from '../support/mix-packets.js';

const others: readonly Other[] = ['kernel', 'user', 'earlier', 'plain'];
const cases = topologies.flatMap(topology => others.map(other => ({ topology, other })));
/** Segments of 1,436 bytes fill the tunnel of the engine kernel (MTU 1464), as those of 1,444 do that of user space. */
const segments = messages(4).map(part => part.replaceAll('1444', '1436').replaceAll('1443', '1435'));
const fileBytes = 200_000_000;

beforeAll(() => {
  process.stdout.write('| pair | underlay | step | seen |\n|---|---|---|---|\n');
});

describe.each(cases)('kernel and $other, $topology', ({ topology, other }) => {
  const scope = new Scope();
  let mix: MixLab;
  let faults: Readonly<Record<string, number>>;
  const byKernel = other === 'kernel';

  beforeAll(async () => {
    mix = await MixLab.open(scope, { topology, other, earlierProgram });
    faults = await faultsOf(mix);
  });
  afterAll(() => scope.close());

  function tell(step: string, what: string): void {
    process.stdout.write(`| kernel-${other} | ${topology} | ${step} | ${what} |\n`);
  }

  test('files both ways at once keep their checksums', async () => {
    const { a, b, lab } = mix;
    const transfers = await Promise.all([lab.transfer(a, b, fileBytes), lab.transfer(b, a, fileBytes)]);
    for (const [place, { sent, received, seconds }] of transfers.entries()) {
      const { source } = received;
      expect(source).toBe([a, b][place]?.containerAddress);
      expect(received).toEqual({ ...sent, source });
      tell(
        `file of 200 MB ${['out', 'back'][place]}`,
        `intact, ${((fileBytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s`,
      );
    }
  });

  test.each([
    ['datagrams of 16 to 65,000 bytes', datagrams(4)],
    ['UDP_SEGMENT messages', segments],
  ])('%s', async (name, parts) => {
    for (const { from, to } of bothWays(mix)) {
      // Behind a host without the engine containers have the MTU 1472: they learn what the others' bridge carries.
      await probeDf({ from, to }, 1472);
      const [ends, address] = [{ from: from.containerNamespace, to: to.containerNamespace }, to.containerAddress];
      const { sent, lost, corrupted, duplicates, reordered } = await sendBurst(mix.lab.spaces, {
        ...ends,
        address,
        port: 7003,
        parts,
      });
      tell(`${name} from ${from.letter}`, `sent ${sent}, lost ${lost}, corrupted ${corrupted}, reordered ${reordered}`);
      expect({ lost, corrupted, duplicates, reordered }).toEqual({
        lost: 0,
        corrupted: 0,
        duplicates: 0,
        reordered: 0,
      });
    }
  });

  test('VXLAN between the containers', async () => {
    for (const { sent, received } of await crossVxlan(mix, 50_000_000))
      expect(received).toEqual({ ...sent, source: received.source });
    tell('50 MB each way inside VXLAN', 'intact');
  });

  test('ESP packets, fragments, options, TTL and TOS', async () => {
    for (const ends of bothWays(mix)) {
      const esp = await crossEsp(ends);
      const fragments = await crossFragments(ends);
      const marked = await crossMarked(ends);
      tell(`ESP from ${ends.from.letter}`, `${esp.intact} of ${esp.sent} intact`);
      tell(`fragments from ${ends.from.letter}`, `${fragments.intact} of ${fragments.sent} intact`);
      tell(
        `marks from ${ends.from.letter}`,
        `TTL ${marked.map(({ ttl }) => ttl).join()}; TOS ${marked.map(({ tos }) => tos).join()}`,
      );
      expect(esp.intact).toBe(esp.sent);
      expect(fragments.intact).toBe(fragments.sent);
      // User space takes one of the TTL too, as flannel does.
      expect(marked.map(({ ttl }) => ttl)).toEqual(marked.map(() => (byKernel ? 62 : 61)));
      expect(marked.map(({ tos }) => tos)).toEqual([0, 0, 1, 2, 3, 0xb8]);
      expect(marked[1]?.options.toString('hex')).toBe('88041234');
    }
  });

  test('congestion of the underlay arrives inside by the kernel (RFC 6040)', async () => {
    const came = await crossCongested(mix, byKernel ? 4790 : 8285, [1, 2, 3]);
    tell('ECT(1), ECT(0), CE congested outside', `arrive as ${came.join()}`);
    expect(came).toEqual(byKernel ? [3, 3, 3] : [1, 2, 3]);
  });

  test('DF: the longest packet arrives, one byte more is answered; a narrow path too, and without DF all arrives', async () => {
    await Promise.all([widenContainer(mix.a), widenContainer(mix.b)]);
    const limit = { a: 1464, b: byKernel ? 1464 : 1472 };
    for (const ends of bothWays(mix)) {
      const bytes = ends.from === mix.a ? limit.a : limit.b;
      const answers = await longestDf(ends, bytes);
      tell(`DF from ${ends.from.letter}, ${bytes} and ${bytes + 1}`, answers.join(', '));
      expect(answers).toEqual(['arrives', bytes]);
    }
    const narrow = 1300 - (byKernel ? 36 : 28);
    const answers = await onNarrowPath(mix, 1300, narrow);
    tell(`path of 1300: DF ${narrow}, ${narrow + 1}, 1400 without DF`, answers.join(', '));
    expect(answers).toEqual(['arrives', narrow, true]);
  });

  test('no checksum was wrong, no reassembly failed', async () => {
    const now = await faultsOf(mix);
    tell('broken packets of all stacks', JSON.stringify(now));
    expect(now).toEqual(faults);
  });
});
