/** What every HostNetwork must do: the kernel's, and the fake that the agent's tests stand on. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { HostNetwork } from '../../src/host/host.js';
import { parsePrefix } from '../../src/model/ip.js';
import type { HostPlan } from '../../src/model/plan.js';
import { emptyPlan, FakeHost } from '../support/fakes.js';
import { HostLab } from '../support/host-lab.js';

interface Bench {
  readonly host: HostNetwork;
  /** Somebody else changes a link, an address or a route. */
  disturb(): void;
  close(): Promise<void>;
}

function fakeBench(): Bench {
  const host = new FakeHost();
  return { host, disturb: () => host.ring(), close: () => host.close() };
}

async function kernelBench(): Promise<Bench> {
  const lab = await HostLab.open();
  lab.run('ip tuntap add dev tartan0 mode tun');
  return { host: await lab.host(), disturb: () => lab.run('ip link set tartan0 mtu 1300'), close: () => lab.close() };
}

function planOf(network: string): HostPlan {
  const destination = parsePrefix(network);
  return {
    ...emptyPlan,
    links: [{ name: 'tartan0', make: { kind: 'tun' }, mtu: 1472, address: { base: destination.base, length: 32 } }],
    routes: [
      { kind: 'unreachable', destination, metric: 4096 },
      { kind: 'device', destination, device: 'tartan0', metric: 0 },
    ],
  };
}

describe.each([
  ['fake', fakeBench],
  ['kernel', kernelBench],
])('%s', (_, open) => {
  const { signal } = new AbortController();
  let bench: Bench;

  beforeEach(async () => {
    bench = await open();
  });

  afterEach(() => bench.close());

  test('a plan is made once', async () => {
    expect((await bench.host.apply('default', planOf('10.5.0.0/16'), { signal })).changes).not.toEqual([]);
    expect(await bench.host.apply('default', planOf('10.5.0.0/16'), { signal })).toEqual({
      changes: [],
      conflicts: [],
    });
  });

  test('another plan is a change, and so is the way back', async () => {
    for (const network of ['10.5.0.0/16', '10.6.0.0/16', '10.5.0.0/16']) {
      expect((await bench.host.apply('default', planOf(network), { signal })).changes).not.toEqual([]);
      expect((await bench.host.apply('default', planOf(network), { signal })).changes).toEqual([]);
    }
  });

  test('a network that plans nothing any more: its part goes, once', async () => {
    await bench.host.apply('default', planOf('10.5.0.0/16'), { signal });
    expect((await bench.host.apply('default', undefined, { signal })).changes).not.toEqual([]);
    expect(await bench.host.apply('default', undefined, { signal })).toEqual({ changes: [], conflicts: [] });
  });

  test('a change by somebody else rings', async () => {
    const rung = vi.fn();
    bench.host.onChange(rung);
    bench.disturb();
    await vi.waitFor(() => expect(rung).toHaveBeenCalled(), { timeout: 5000 });
  });
});
