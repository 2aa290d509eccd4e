/**
 * The devices of the kernel engine: what is not ours is left alone and named, a stranger's packets never come in, and what
 * is deleted under traffic is made again within a second while user space carries on.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { run, until, type Daemon } from './datapath-lab.js';
import { patience } from '../support/tools.js';
import { KernelLab, kernelState, pairOf } from './kernel-lab.js';

let lab: KernelLab;

function links(host: 'a' | 'b'): string {
  return lab.ip(host, '-o', 'link');
}

function setting(name: string): string {
  return run(...lab.inside('a', 'sysctl', '-n', name)).trim();
}

function filters(device: string): string {
  return run(...lab.inside('a', 'tc', 'filter', 'show', 'dev', device, device === 'tartan0' ? 'egress' : 'ingress'));
}

async function untilRepaired(daemon: Daemon, probe: () => boolean): Promise<void> {
  const began = Date.now();
  await until('a repair', probe, seen => seen, 5000);
  expect(Date.now() - began).toBeLessThan(1500 * patience);
  expect((await kernelState(daemon)).kernel.state).toBe('on');
}

async function unavailable(arrange: () => void): Promise<string | undefined> {
  arrange();
  const { daemon } = await lab.up('a', { engines: true });
  const { kernel, kernelOffer, pid } = await kernelState(daemon);
  expect(kernel.state).toBe('unavailable');
  expect(kernelOffer).toBeUndefined();
  expect(pid).toBeDefined();
  expect((await pairOf(daemon))?.engine).toBe('user');
  await daemon.kill();
  await lab.daemon('a').call('cleanup', { runDir: lab.runDir('a'), device: 'tartan0' });
  return kernel.reason;
}

describe('at the start', () => {
  beforeEach(() => {
    lab = new KernelLab();
  });

  afterEach(async () => {
    await lab.close();
  });

  test('a link of the name that is not ours is left alone and named', async () => {
    const reason = await unavailable(() => lab.ip('a', 'link', 'add', 'tartan-k', 'type', 'bridge'));
    expect(reason).toContain('tartan-k is a link of kind bridge without an alias, and not ours');
    expect(links('a')).toContain('tartan-k');
  });

  test('a vxlan link with our port is left alone and named', async () => {
    const kind = ['type', 'vxlan', 'id', '7', 'dstport', '4790', 'dev', 'under', 'local', '192.0.2.1'];
    const reason = await unavailable(() => {
      lab.ip('a', 'link', 'add', 'foreign', ...kind);
      lab.ip('a', 'link', 'set', 'foreign', 'up');
    });
    expect(reason).toBe(
      'UDP port 4790 of the kernel engine is taken: the vxlan link foreign has it, which is not ours: see ip -d link show foreign',
    );
    expect(links('a')).toMatch(/foreign: .*UP/);
    expect(links('a')).not.toContain('tartan');
  });

  test('the kernel link comes down without its filter, with forwarding and IPv6 off, and ours by its alias', async () => {
    run(
      ...lab.inside('a', 'sysctl', '-q', '-w', 'net.ipv4.conf.all.forwarding=1', 'net.ipv4.conf.default.forwarding=1'),
    );
    const a = await lab.kernelUp('a');
    expect(setting('net.ipv4.conf.tartan-k.forwarding')).toBe('0');
    expect(setting('net.ipv6.conf.tartan-k.disable_ipv6')).toBe('1');
    expect(lab.ip('a', 'link', 'show', 'tartan-k')).toContain('alias data plane of tartan');
    expect(lab.ip('a', '-d', 'link', 'show', 'tartan0')).toContain('persist on');
    expect(lab.ip('a', 'address', 'show', 'dev', 'tartan-k')).not.toContain('inet');
    // As Docker does it.
    run(...lab.inside('a', 'sysctl', '-q', '-w', 'net.ipv4.ip_forward=0', 'net.ipv4.ip_forward=1'));
    await untilRepaired(a, () => setting('net.ipv4.conf.tartan-k.forwarding') === '0');
  });
});

describe('under traffic', () => {
  let a: Daemon;

  beforeAll(async () => {
    lab = new KernelLab();
    ({ a } = await lab.bothInKernel());
  });

  afterAll(async () => {
    await lab.close();
  });

  /** How many packets were lost to something done to the kernel link, and how many milliseconds that took. */
  async function lostTo(work: () => void): Promise<{ readonly lost: number; readonly tookMs: number }> {
    const numbered = await lab.flow();
    await delay(300);
    const began = Date.now();
    work();
    const tookMs = Date.now() - began;
    await untilRepaired(a, () => /tartan-k: .*UP/.test(links('a')) && filters('tartan-k').includes('tartan'));
    await delay(300);
    const { lost, duplicates } = await numbered.stop();
    expect(duplicates).toBe(0);
    expect((await pairOf(a))?.engine).toBe('kernel');
    return { lost, tookMs };
  }

  // The kernel drops what is sent to a link from the first step of closing it, and tells of it after the last.
  test.each([
    ['deleted', 'delete', []],
    ['set down', 'set', ['down']],
  ] as const)(
    'the kernel link is %s under traffic: nothing is lost once the kernel has told, and it is made again',
    async (_, verb, change) => {
      const { lost, tookMs } = await lostTo(() => lab.ip('a', 'link', verb, 'tartan-k', ...change));
      // A look each second would lose 500 of them.
      expect(lost).toBeLessThanOrEqual(tookMs + 100 * patience);
      if (verb === 'delete')
        expect((await a.state()).events.join('\n')).toContain('made again: the link tartan-k, the filter of tartan-k');
      expect(await lab.lost(100)).toBe(0);
    },
  );

  test('the filter of the kernel link is deleted under traffic: what goes out is not lost', async () => {
    for (let round = 0; round < 3; round++) {
      const { lost } = await lostTo(() =>
        run(...lab.inside('a', 'tc', 'filter', 'delete', 'dev', 'tartan-k', 'ingress')),
      );
      expect(lost).toBe(0);
    }
  });

  test('the filter at the tun is deleted under traffic: none of 1000 a second is lost, and it is made again', async () => {
    const numbered = await lab.flow();
    await delay(300);
    for (let round = 0; round < 3; round++) {
      run(...lab.inside('a', 'tc', 'filter', 'delete', 'dev', 'tartan0', 'egress'));
      await untilRepaired(a, () => filters('tartan0').includes('tartan'));
    }
    expect(await numbered.stop()).toMatchObject({ lost: 0, duplicates: 0 });
    run(...lab.inside('a', 'tc', 'qdisc', 'delete', 'dev', 'tartan0', 'clsact'));
    await untilRepaired(a, () => filters('tartan0').includes('tartan'));
  });

  test('the tun is deleted: it is made again with its filter, and packets go by the kernel again', async () => {
    const before = lab.linkIndex('a');
    lab.ip('a', 'link', 'delete', 'tartan0');
    await until(
      'a new tun with its filter',
      () => lab.hasLink('a') && lab.linkIndex('a') !== before && filters('tartan0').includes('tartan'),
      seen => seen,
    );
    lab.configureLink('a');
    await until(
      'traffic',
      () => lab.reaches(),
      seen => seen,
    );
    expect(await lab.lost(500)).toBe(0);
    expect(lab.ip('a', '-d', 'link', 'show', 'tartan0')).toContain('persist on');
    expect((await kernelState(a)).kernel).toEqual({ state: 'on', peers: 1 });
  });

  test('the queue of the kernel link is deleted under a flood of a stranger: nothing of it comes in', async () => {
    run(...lab.inside('a', 'sysctl', '-q', '-w', 'net.ipv4.conf.all.forwarding=1'));
    // A container of a, and a stranger who sends by VXLAN-GPE as a member would.
    lab.ip('a', 'link', 'add', 'ct', 'type', 'bridge');
    lab.ip('a', 'link', 'set', 'ct', 'up');
    lab.ip('a', 'address', 'add', '10.5.1.1/24', 'dev', 'ct');
    lab.ip('b', 'address', 'add', '192.0.2.66/24', 'dev', 'under');
    const counted = ['input', 'forward'].map(
      hook => `chain ${hook} { type filter hook ${hook} priority -400; udp dport 9 counter; };`,
    );
    run(...lab.inside('a', 'nft', `table ip seen { ${counted.join(' ')} }`));
    run(
      ...lab.inside(
        'a',
        'nft',
        'table ip came { chain c { type filter hook prerouting priority -400; udp dport 9 counter; }; }',
      ),
    );
    const flood = lab.flood('192.0.2.66', ['10.5.1.1', '10.5.1.9', '10.5.1.0']);
    const listed = (table: string): string => run(...lab.inside('a', 'nft', 'list', 'table', 'ip', table));
    // Some come as far as the stack, while there is no filter: chance may want more rounds.
    const came = (): boolean => /counter packets [1-9]/.test(listed('came'));
    try {
      for (let round = 0; round < 10 || (!came() && flood.exitCode === null); round++) {
        await delay(50);
        run(...lab.inside('a', 'tc', 'qdisc', 'delete', 'dev', 'tartan-k', 'clsact'));
        await until(
          'the filter',
          () => filters('tartan-k').includes('tartan'),
          seen => seen,
        );
      }
      expect(flood.exitCode).toBeNull();
    } finally {
      flood.kill('SIGKILL');
    }
    expect(came()).toBe(true);
    expect(listed('seen').match(/counter packets \d+/g)).toEqual(['counter packets 0', 'counter packets 0']);
  });
});
