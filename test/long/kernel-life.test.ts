/** The engine kernel over many daemons, and its end a minute after the network document has switched it off. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Daemon } from '../integration/datapath-lab.js';
import { KernelLab, pairOf } from '../integration/kernel-lab.js';
import { keyPrefix } from '../support/lab.js';
import type { LabHost } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

describe('programs and maps', () => {
  let lab: KernelLab;
  let a: Daemon;

  beforeAll(async () => {
    lab = new KernelLab();
    ({ a } = await lab.bothInKernel());
  });
  afterAll(() => lab.close());

  test('ten daemons one after the other replace them: none of 1000 a second is lost', async () => {
    const numbered = await lab.flow();
    for (let round = 0; round < 10; round++) {
      await a.kill();
      a = await lab.kernelUp('a');
    }
    expect(await numbered.stop()).toMatchObject({ lost: 0, reordered: 0, duplicates: 0 });
    expect((await pairOf(a))?.engine).toBe('kernel');
  });
});

describe('a withdrawal', () => {
  const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());
  const document = (engine: string): string => `{"Network":"10.5.0.0/16","Engine":"${engine}"}`;

  const engineOf = async (host: LabHost): Promise<string | undefined> =>
    (await host.status()).peers[0]?.watched?.engine;

  /** What there is of the engine kernel on a host: its links, filters and rules, and its mark at tartan0. */
  async function left(host: LabHost): Promise<string> {
    const texts = await Promise.all([
      host.run('ip', '-d', 'link'),
      host.run('tc', 'filter', 'show', 'dev', 'tartan0', 'egress'),
      host.run('iptables', '-t', 'raw', '-S'),
    ]);
    return (texts.join('\n').match(/tartan-k|data plane of tartan|persist on|direct-action|4790/g) ?? []).join();
  }

  test('announced no more at once, received for a minute, then nothing is left of it; none of 1000 a second is lost', async () => {
    const [a, b] = [lab().node('a'), lab().node('b')];
    await until('both by the kernel', async () => {
      await a.pingFromContainer(b.containerAddress);
      return (await engineOf(a)) === 'kernel' && (await engineOf(b)) === 'kernel';
    });
    const flows = [await lab().flow(a, b), await lab().flow(b, a)];
    const began = performance.now();
    await lab().setNetwork(document('user'));
    await until('leases without it', async () => {
      const leases = await Promise.all(
        [a, b].map(({ subnet }) => lab().etcd.get(`${keyPrefix}/subnets/${subnet.replace('/', '-')}`)),
      );
      return leases.every(text => text !== undefined && !text.includes('"kernel"'));
    });
    expect(performance.now() - began).toBeLessThan(5_000);
    await delay(50_000);
    for (const host of [a, b]) {
      expect((await host.status()).datapath?.kernel).toMatchObject({ wanted: 'user', state: 'on' });
      expect(await left(host)).toContain('tartan-k');
    }
    for (const host of [a, b])
      await until('the end', async () => (await host.status()).datapath?.kernel?.state === 'off', 30_000);
    expect(performance.now() - began).toBeGreaterThan(59_000);
    for (const host of [a, b]) await until('nothing left', async () => (await left(host)) === '', 10_000);
    await lab().setNetwork(document('auto'));
    await until(
      'both by the kernel again',
      async () => [await engineOf(a), await engineOf(b)].join() === 'kernel,kernel',
    );
    for (const flow of flows) {
      const { sent, lost, duplicates } = await flow.stop();
      expect([lost, duplicates]).toEqual([0, 0]);
      expect(sent).toBeGreaterThan(60_000);
    }
  });
});
