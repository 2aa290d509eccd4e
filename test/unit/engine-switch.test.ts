/** Which engine is asked for, what the lease says of it, and in which order: the lease ceases first, the engine later. */
import { expect, it, vi } from 'vitest';
import { EngineSwitch } from '../../src/agent/engine-switch.js';
import { LocalNode } from '../../src/agent/local-node.js';
import type { SavedState } from '../../src/agent/saved-state.js';
import { snapshot } from '../../src/agent/snapshot.js';
import type { Features } from '../../src/model/features.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import type { EngineChoice } from '../../src/model/plan.js';
import { make, stop, underlay } from '../support/agent-bed.js';
import { FakeDatapath, FakeHeld, fakeLease, tick } from '../support/fakes.js';
import { blankMeasurement } from '../support/samples.js';

const kernel = { port: 4790, vni: 1 };
const both: Features = { probe: 1, kernel };
const network = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const leaseWith = (features: Features): FakeHeld =>
  new FakeHeld({ ...fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), features });

function bed(flag: EngineChoice) {
  const time = { nowMs: 1000 };
  const datapath = new FakeDatapath();
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const clock = { now: () => time.nowMs, sleep: async () => {} };
  const node = new LocalNode({ id: 'n', bootId: 'b' }, underlay);
  return { time, datapath, engine: new EngineSwitch({ datapath, clock, log, node }, flag) };
}

it('announces the engine while it offers, and withdraws it when it is gone', () => {
  const { datapath, engine } = bed('auto');
  expect(engine.begin(network, undefined)).toEqual({ probe: 1 });
  expect([engine.asked, engine.use]).toEqual(['auto', 'off']);
  datapath.kernelOffer = kernel;
  const plain = leaseWith({ probe: 1, inner6: 1 });
  expect(engine.announce(plain, true)).toBe(true);
  expect(plain.updates).toEqual([{ features: { inner6: 1, ...both } }]);
  expect(engine.announce(leaseWith(both), true)).toBe(false);
  datapath.kernelOffer = undefined;
  const announced = leaseWith(both);
  engine.announce(announced, true);
  expect(announced.updates).toEqual([{ features: { probe: 1 } }]);
});

it('switched off by the document, it sends no more at once, withdraws, and receives for 60 s after that', () => {
  const { time, datapath, engine } = bed('kernel');
  datapath.kernelOffer = kernel;
  engine.begin(network, undefined);
  engine.announce(leaseWith(both), true);
  expect(engine.use).toBe('sends');
  expect(engine.follow('user')).toBe(true);
  expect([engine.use, engine.asked, engine.wanted]).toEqual(['receives', 'kernel', 'user']);
  const announced = leaseWith(both);
  engine.announce(announced, true);
  expect(announced.updates).toEqual([{ features: { probe: 1 } }]);
  // etcd is silent: as long as the lease says it, peers send by it.
  time.nowMs += 600_000;
  engine.announce(announced, true);
  expect(engine.asked).toBe('kernel');
  engine.announce(leaseWith({ probe: 1 }), true);
  time.nowMs += 59_999;
  expect(engine.asked).toBe('kernel');
  time.nowMs += 1;
  expect(engine.asked).toBe('user');
  expect(engine.follow('auto')).toBe(true);
  expect(engine.asked).toBe('kernel');
});

it('a restart announces what was announced, until the engine runs; another boot does not', () => {
  const saved = (bootId: string): SavedState => ({
    network,
    lease: { ...fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), bootId, features: both },
    address: underlay.interface.address,
    ttlSeconds: 60,
    renewedAtMs: 0,
    renewedAtWallMs: 0,
    peers: [],
  });
  expect(bed('auto').engine.begin(network, saved('b'))).toEqual(both);
  expect(bed('auto').engine.begin(network, saved('a'))).toEqual({ probe: 1 });
  const { time, engine } = bed('user');
  expect(engine.begin(network, saved('b'))).toEqual({ probe: 1 });
  expect(engine.asked).toBe('kernel');
  engine.announce(leaseWith({ probe: 1 }), true);
  time.nowMs += 60_000;
  expect(engine.asked).toBe('user');
});

it('nobody switches the engine on by a lease that he altered', () => {
  const { engine } = bed('user');
  engine.begin(network, undefined);
  engine.announce(leaseWith(both), true);
  expect(engine.asked).toBe('user');
});

it('tries again to give the data plane what is asked for', async () => {
  const { engine } = bed('auto');
  const give = vi.fn(async () => {});
  give.mockRejectedValueOnce(new Error('no'));
  engine.keepAsked(give);
  await tick(stop.signal);
  engine.keepAsked(give);
  engine.keepAsked(give);
  expect(give).toHaveBeenCalledTimes(2);
});

it('the document switches the engine of a running agent off and on, and no MTU moves', async () => {
  const { agent, store, host, datapath, events } = make({ engine: 'auto' });
  agent.ports.clock.sleep = (_, signal) => tick(signal);
  datapath.kernelOffer = kernel;
  const held = leaseWith(both);
  store.acquired.unshift(held);
  agent.run(stop.signal).catch(() => {});
  store.push({ ...fakeLease('10.5.2.0/24', '192.0.2.2'), features: both });
  await vi.waitFor(() => expect(agent.reconciler.tunnel).toMatchObject([{ kernel }]));
  expect(datapath.started).toMatchObject({ engine: 'auto', vni: 1, mtu: 1464 });
  store.networks.splice(0, 1, '{"Network":"10.5.0.0/16","Engine":"user"}');
  store.documentChanged();
  await vi.waitFor(() => expect(agent.reconciler.tunnel?.[0]?.kernel).toBeUndefined());
  await vi.waitFor(() => expect(held.updates).toEqual([{ features: { probe: 1 } }]));
  // The lease of this fake goes on saying it, so the engine goes on receiving.
  expect(datapath.started).toMatchObject({ engine: 'auto', mtu: 1464 });
  expect(agent.problem).toBeUndefined();
  store.networks.splice(0, 1, '{"Network":"10.5.0.0/16"}');
  store.documentChanged();
  await vi.waitFor(() => expect(agent.reconciler.tunnel).toMatchObject([{ kernel }]));
  await vi.waitFor(() => expect(datapath.started).toMatchObject({ engine: 'auto', mtu: 1464 }));
  expect(events.filter(event => event === 'engine.changed')).toHaveLength(2);
  expect(host.calls.every(call => call.includes('mtu 1464'))).toBe(true);
});

it('the status tells the engine of the host and of each peer, each with its reason once', async () => {
  const { agent, store, datapath } = make({ engine: 'auto' });
  agent.run(stop.signal).catch(() => {});
  const leases = [2, 3, 4].map(n => ({
    ...fakeLease(`10.5.${n}.0/24`, `192.0.2.${n}`),
    features: n === 4 ? { probe: 1 as const } : both,
  }));
  store.push(...leases);
  datapath.kernelOffer = kernel;
  datapath.kernel = { state: 'on', peers: 1 };
  await vi.waitFor(() => expect(agent.reconciler.tunnel).toHaveLength(3));
  datapath.measured = [
    { ...blankMeasurement, identity: '10.5.2.0/24 peer', engine: 'kernel' },
    {
      ...blankMeasurement,
      identity: '10.5.3.0/24 peer',
      engine: 'user',
      engineReason: 'no answer on UDP 4790 for 12 s',
    },
  ];
  await agent.watch.look();
  const engines = (): unknown =>
    snapshot(agent, 'x').peers.map(({ watched }) => [watched?.engine, watched?.engineReason]);
  expect(engines()).toEqual([
    ['kernel', null],
    ['user', 'no answer on UDP 4790 for 12 s'],
    ['user', 'its lease does not announce the kernel engine'],
  ]);
  expect(snapshot(agent, 'x').datapath?.kernel).toEqual({ wanted: 'auto', state: 'on', reason: null, peers: 1 });
  // Nothing else was measured.
  datapath.measured = datapath.measured.map(one => ({ ...one, engineReason: 'no answer on UDP 4790 for 13 s' }));
  await agent.watch.look();
  expect(engines()).toContainEqual(['user', 'no answer on UDP 4790 for 13 s']);
  // What holds for the host is said of the host alone.
  datapath.kernelOffer = undefined;
  datapath.kernel = { state: 'unavailable', reason: 'EPERM', peers: 0 };
  expect(engines()).toContainEqual(['user', null]);
  expect(snapshot(agent, 'x').datapath?.kernel).toMatchObject({ state: 'unavailable', reason: 'EPERM' });
});

it('the saved state has what the lease announces, so that a start after a kill announces it too', async () => {
  const { agent, store } = make({ engine: 'auto' });
  let nowMs = 1000;
  agent.ports.clock.now = () => (nowMs += 500);
  agent.ports.clock.sleep = (_, signal) => tick(signal);
  const held = leaseWith({ probe: 1 });
  store.acquired.unshift(held);
  agent.run(stop.signal).catch(() => {});
  store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
  const saved = (): unknown => {
    const read = agent.ports.state.read('n');
    return read.kind === 'found' ? read.state.saved?.lease.features : undefined;
  };
  await vi.waitFor(() => expect(saved()).toEqual({ probe: 1 }));
  Object.assign(held, { lease: { ...held.lease, features: both } });
  await vi.waitFor(() => expect(saved()).toEqual(both));
});
