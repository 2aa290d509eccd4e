import { afterEach, expect, it, vi } from 'vitest';
import { chooseBackend } from '../../src/backend/all.js';
import { Reconciler, type Desired } from '../../src/agent/reconciler.js';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import { FakeDatapath, fakeLease, FakeHost } from '../support/fakes.js';

const address = parseIpv4('192.0.2.1');
const backend = chooseBackend({
  network: parseNetworkConfig('{"Network":"10.5.0.0/16"}'),
  node: { id: 'n', bootId: 'b', publicIp: address, interface: { name: 'eth0', address, mtu: 1500 } },
  ipMasquerade: 'off',
  forwardRules: true,
  engine: 'user' as const,
});
const self = fakeLease('10.5.1.0/24', '192.0.2.1', 'n');
const stop = new AbortController();
let passes = 0;

function start(
  peers: () => Desired['peers'],
  signal = new AbortController(),
  plans: () => typeof backend = () => backend,
  resyncMs = 60_000,
): { host: FakeHost; datapath: FakeDatapath; reconciler: Reconciler; signal: AbortController } {
  const host = new FakeHost();
  const datapath = new FakeDatapath();
  const reconciler = new Reconciler({ host, datapath, log: silentLog }, 'default', () => ({
    backend: plans(),
    self,
    peers: peers(),
    needs: { forwarding: false, kernel: 'off' },
  }));
  passes = 0;
  reconciler.run(resyncMs, AbortSignal.any([signal.signal, stop.signal]), () => void passes++).catch(() => {});
  return { host, datapath, reconciler, signal };
}

afterEach(() => vi.useRealTimers());

/** What a ring starts is done. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise(resolve => setImmediate(resolve));
}

it('applies the host plan and publishes the peers, then rests', async () => {
  const { host, datapath } = start(() => [fakeLease('10.5.2.0/24', '192.0.2.2')]);
  await vi.waitFor(() => expect(passes).toBe(1));
  expect(host.calls).toEqual([
    'apply link tartan0 mtu 1472 10.5.1.0/32; 10.5.0.0/16 metric 4096 unreachable; 10.5.0.0/16 metric 0 dev tartan0',
  ]);
  expect(datapath.calls).toEqual(['publish 10.5.2.0/24 via 192.0.2.2:8285']);
});

it('sweeps a host once a minute if it tells of every change', async () => {
  const { host, signal } = start(() => [], undefined, undefined, 1);
  host.hearsAll = true;
  await vi.waitFor(() => expect(passes).toBeGreaterThan(20), { timeout: 5000 });
  // The first one changes the host, so another one looks at what came of it.
  signal.abort();
  expect(host.sweeps).toBeLessThanOrEqual(2);
});

it('sweeps a host again and again if it does not tell of every change', async () => {
  const { host, signal } = start(() => [], undefined, undefined, 1);
  await vi.waitFor(() => expect(host.sweeps).toBeGreaterThan(5), { timeout: 5000 });
  signal.abort();
});

it('publishes nothing for a plan without a tunnel, and rests', async () => {
  const withoutTunnel = {
    ...backend,
    plan: (...given: Parameters<typeof backend.plan>) => ({ ...backend.plan(...given), tunnel: undefined }),
  };
  const { host, datapath, reconciler } = start(
    () => [fakeLease('10.5.2.0/24', '192.0.2.2')],
    undefined,
    () => withoutTunnel,
  );
  await vi.waitFor(() => expect(passes).toBe(1));
  host.ring();
  await vi.waitFor(() => expect(passes).toBe(2));
  reconciler.ring();
  await settled();
  expect(host.calls).toHaveLength(2);
  expect(datapath.calls).toEqual(['check']);
});

it('ten thousand rings cost few passes, and an unchanged table is not published again', async () => {
  const { host, datapath, reconciler } = start(() => [fakeLease('10.5.2.0/24', '192.0.2.2')]);
  await vi.waitFor(() => expect(passes).toBe(1));
  for (let count = 0; count < 10_000; count++) reconciler.ring();
  await settled();
  expect(passes).toBe(1);
  for (let count = 0; count < 10_000; count++) host.ring();
  await vi.waitFor(() => expect(passes).toBe(2));
  expect(datapath.calls.filter(call => call !== 'check')).toHaveLength(1);
});

it('a peer that moved is one new table', async () => {
  let hop = '192.0.2.2';
  const { datapath, reconciler } = start(() => [fakeLease('10.5.2.0/24', hop)]);
  await vi.waitFor(() => expect(passes).toBe(1));
  hop = '192.0.2.9';
  reconciler.ring();
  await vi.waitFor(() => expect(datapath.calls).toHaveLength(2));
  expect(datapath.calls[1]).toBe('publish 10.5.2.0/24 via 192.0.2.9:8285');
});

it('a host that refuses keeps no route from the data plane and is tried again', async () => {
  const signal = new AbortController();
  const host = new FakeHost();
  const datapath = new FakeDatapath();
  host.failures.push(new TartanError('HOST_REFUSED', 'no'), new TartanError('HOST_REFUSED', 'still no'));
  const reconciler = new Reconciler({ host, datapath, log: silentLog }, 'default', () => ({
    backend,
    self,
    peers: [],
    needs: { forwarding: false, kernel: 'off' },
  }));
  passes = 0;
  reconciler.run(60_000, signal.signal, () => void passes++).catch(() => {});
  await vi.waitFor(() => expect(reconciler.failures).toBe(1));
  expect(reconciler.problems).toEqual(['no']);
  expect(datapath.calls).toEqual(['publish ']);
  await vi.waitFor(() => expect(passes).toBe(1), 5000);
  expect(reconciler.failures).toBe(0);
  expect(reconciler.problems).toEqual([]);
  expect(host.calls).toHaveLength(3);
  expect(reconciler.passes).toMatchObject({ total: 3, failed: 2, changed: 1, lastMs: expect.any(Number) });
  signal.abort();
});

it('a change seen by the kernel rings', async () => {
  const { host } = start(() => []);
  await vi.waitFor(() => expect(passes).toBe(1));
  host.ring();
  await vi.waitFor(() => expect(passes).toBe(2));
});

it('a change is not made to wait by what a sweep took', async () => {
  const { host, signal } = start(() => [], undefined, undefined, 1);
  host.hearsAll = true;
  host.sweepMs = 500;
  await vi.waitFor(() => expect(host.sweeps).toBe(2), { timeout: 5_000 });
  await vi.waitFor(() => expect(passes).toBeGreaterThanOrEqual(2), { timeout: 5_000 });
  host.ring();
  await vi.waitFor(() => expect(passes).toBeGreaterThan(2), { timeout: 1_000 });
  signal.abort();
});

it('conflicts are shown as problems', async () => {
  const { host, reconciler } = start(() => []);
  await vi.waitFor(() => expect(passes).toBe(1));
  host.conflicts = ['route_conflict 10.5.0.0/16'];
  host.ring();
  await vi.waitFor(() => expect(reconciler.problems).toEqual(['route_conflict 10.5.0.0/16']));
});

it('fault C23: a change of peers is published at once, and the host is not looked at', async () => {
  let peers = [fakeLease('10.5.2.0/24', '192.0.2.2')];
  const { host, datapath, reconciler } = start(() => peers);
  await vi.waitFor(() => expect(passes).toBe(1));
  for (const hop of [3, 4, 5]) {
    peers = [fakeLease('10.5.2.0/24', `192.0.2.${hop}`)];
    reconciler.ring();
    await settled();
    expect(datapath.calls.at(-1)).toBe(`publish 10.5.2.0/24 via 192.0.2.${hop}:8285`);
  }
  expect(host.calls).toHaveLength(1);
});

it('fault C7: while the host does not answer, a new peer is published', async () => {
  let peers = [fakeLease('10.5.2.0/24', '192.0.2.2')];
  const { host, datapath, reconciler } = start(() => peers);
  await vi.waitFor(() => expect(passes).toBe(1));
  host.apply = () => new Promise(() => {});
  host.ring();
  await settled();
  peers = [...peers, fakeLease('10.5.3.0/24', '192.0.2.3')];
  reconciler.ring();
  await settled();
  expect(datapath.calls.at(-1)).toContain('10.5.3.0/24 via 192.0.2.3');
  expect(passes).toBe(1);
});

it('fault C23: a change of the host part of the plan starts a pass, also while the reconciler rests', async () => {
  let plans = backend;
  const { host, reconciler } = start(
    () => [],
    undefined,
    () => plans,
  );
  await vi.waitFor(() => expect(passes).toBe(1));
  const { plan } = backend;
  plans = {
    ...backend,
    plan: (...given) => ({
      ...plan(...given),
      host: { ...plan(...given).host, sysctls: [['net.ipv4.ip_forward', '1']] },
    }),
  };
  reconciler.ring();
  await vi.waitFor(() => expect(host.calls.at(-1)).toContain('ip_forward=1'));
});

it('fault C7: what cannot be published is a problem, counts as a failure, and is tried again', async () => {
  let peers: Desired['peers'] = [];
  const { datapath, host, reconciler } = start(() => peers);
  await vi.waitFor(() => expect(passes).toBe(1));
  const publish = datapath.publish.bind(datapath);
  datapath.publish = () => {
    throw new TartanError('DATAPATH_FAILED', 'memory is full');
  };
  peers = [fakeLease('10.5.2.0/24', '192.0.2.2')];
  host.ring();
  await vi.waitFor(() => expect(reconciler.failures).toBeGreaterThan(0));
  expect(reconciler.problems).toEqual(['memory is full']);
  datapath.publish = publish;
  await vi.waitFor(() => expect(reconciler.failures).toBe(0), 5000);
  expect(reconciler.problems).toEqual([]);
});

it('fault B4: what takes packets away is told with the peers that it hides', async () => {
  const { host, reconciler } = start(() => [
    fakeLease('10.5.2.0/24', '192.0.2.2'),
    fakeLease('10.5.3.0/24', '192.0.2.3'),
  ]);
  const text = 'route_conflict 10.5.2.0/25 dev br0';
  const diversions = [{ text, range: parsePrefix('10.5.2.0/25') }];
  host.apply = async () => ({ changes: [], conflicts: [text], diversions });
  host.ring();
  await vi.waitFor(() => expect(reconciler.problems).toEqual([`${text}, hides 10.5.2.0/24 of 192.0.2.2`]));
});
