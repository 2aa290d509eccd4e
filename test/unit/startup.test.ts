/** A start while etcd is silent: what comes up by the saved state, and what etcd's answer makes of it. */
import { describe, expect, it, vi } from 'vitest';
import type { AgentOptions } from '../../src/agent/ports.js';
import type { SavedState } from '../../src/agent/saved-state.js';
import { isReady, snapshot } from '../../src/agent/snapshot.js';
import { TartanError } from '../../src/lib/errors.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import { address, make, stop } from '../support/agent-bed.js';
import { FakeHeld, fakeLease, never, tick } from '../support/fakes.js';

describe('a start while etcd is silent', () => {
  const saved: SavedState = {
    network: parseNetworkConfig('{"Network":"10.5.0.0/16"}'),
    lease: { ...fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), bootId: 'b' },
    address,
    ttlSeconds: 60,
    renewedAtMs: 0,
    renewedAtWallMs: 0,
    peers: [fakeLease('10.5.2.0/24', '192.0.2.2'), fakeLease('10.5.3.0/24', '192.0.2.3')],
  };

  /** The store answers nothing until `answer` is called; a second passes at once, other sleeps take a turn. */
  function silent(options: Partial<AgentOptions> = {}, start: SavedState = saved) {
    const made = make(options);
    const { agent, store } = made;
    agent.ports.state.write({ nodeId: 'n', subnet: start.lease.subnet, saved: start });
    let answer = (): void => {};
    const answered = new Promise<void>(resolve => (answer = resolve));
    const network = store.network.bind(store);
    store.network = async () => (await answered, network());
    const sleeps: number[] = [];
    agent.ports.clock.sleep = (ms, signal) => (sleeps.push(ms), sleeps.length > 1 ? never(signal) : tick(signal));
    const running = agent.run(stop.signal);
    running.catch(() => {});
    return { ...made, answer, running, sleeps };
  }

  it('brings tunnel, peers and Docker up from the state file, UNKNOWN and not ready', async () => {
    const { agent, datapath, notified, written, events, sleeps } = silent();
    await vi.waitFor(() => expect(notified).toEqual(['READY=1']));
    expect(sleeps[0]).toBe(1000);
    expect(datapath.calls).toEqual([
      'start 10.5.1.0/24 on 192.0.2.1:8285 mtu 1472',
      'publish 10.5.2.0/24 via 192.0.2.2:8285, 10.5.3.0/24 via 192.0.2.3:8285',
      'fence false',
    ]);
    expect(written).toHaveLength(1);
    expect(events).toEqual(['lease.remembered', 'plan.applied', 'plan.applied', 'daemon.ready']);
    expect(isReady(agent)).toBe(false);
    expect(snapshot(agent, 'x')).toMatchObject({
      phase: 'ready',
      ready: false,
      lease: { subnet: '10.5.1.0/24', state: 'unknown' },
      network: '10.5.0.0/16',
      peers: [{ state: 'remembered' }, { state: 'remembered' }],
      problems: [
        'the lease is unknown',
        'network, subnet and peers are those of the state file, etcd has not answered',
      ],
    });
  });

  it("fault C21: tells that the subnet may be another's once its quarantine is over", async () => {
    const { agent } = silent();
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    const told = (): boolean => snapshot(agent, 'x').problems.some(problem => problem.includes("may be another's"));
    expect(told()).toBe(false);
    agent.ports.clock.now = () => 7 * 60_000;
    expect(told()).toBe(true);
    expect(snapshot(agent, 'x').health?.state).toBe('impaired');
  });

  it('goes on without a step when etcd gives the same subnet', async () => {
    const { agent, store, datapath, written, notified, answer } = silent();
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    const steps = (): readonly string[] => datapath.calls.filter(call => call !== 'check');
    const before = steps().length;
    store.push(...saved.peers.map(peer => ({ ...peer, createRevision: 3n })));
    answer();
    await vi.waitFor(() => expect(isReady(agent)).toBe(true));
    expect(agent.unconfirmed).toBe(false);
    expect(store.requests[0]?.previous[0]).toMatchObject({ source: 'state', subnet: saved.lease.subnet });
    await vi.waitFor(() => expect(snapshot(agent, 'x').peers.map(({ state }) => state)).toEqual(['live', 'live']));
    expect(steps()).toHaveLength(before);
    expect(written).toHaveLength(1);
    expect(notified).toEqual(['READY=1']);
    expect(snapshot(agent, 'x').problems).toEqual([]);
  });

  it('then follows the real lease', async () => {
    const { agent, store, answer, events } = silent();
    const held = new FakeHeld(saved.lease);
    store.acquired.unshift(held);
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    answer();
    await vi.waitFor(() => expect(isReady(agent)).toBe(true));
    held.become('gone');
    expect(agent.ownLease?.status).toBe('gone');
    expect(events.filter(event => event === 'lease.state')).toHaveLength(2);
    held.lose(new TartanError('LEASE_LOST', 'node y owns it'));
    expect(agent.phase).toBe('lost');
  });

  it.each([
    ['gives another subnet', new FakeHeld(fakeLease('10.5.7.0/24', '192.0.2.1', 'n')), 'LEASE_LOST', 75],
    ['has no subnet left', new TartanError('NO_FREE_SUBNET', 'full'), 'LEASE_LOST', 75],
    ['knows another host like us', new TartanError('DUPLICATE_NODE', 'node n lives'), 'DUPLICATE_NODE', 73],
  ])('stops the traffic and forgets the subnet when etcd %s', async (_, answerOf, code, exitCode) => {
    const { agent, store, datapath, written, answer, running } = silent();
    store.acquired.unshift(answerOf);
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    answer();
    await expect(running).rejects.toMatchObject({ code, exitCode });
    expect(datapath.calls.at(-1)).toBe('fence true');
    expect(written).toHaveLength(1);
    expect(agent.ports.state.read('n')).toMatchObject({ kind: 'found', state: { saved: undefined } });
  });

  it.each(['network', 'acquire'] as const)(
    'fault B3: stands on the state file while etcd refuses the login (%s), says so, and goes on asking',
    async call => {
      const { agent, store, datapath, answer } = silent();
      const refused = new TartanError('PERMISSION', 'etcd refuses user x');
      if (call === 'network') store.networks.unshift(refused);
      else store.acquired.unshift(refused);
      await vi.waitFor(() => expect(agent.phase).toBe('ready'));
      let ask = (): void => {};
      const asked = new Promise<void>(resolve => (ask = resolve));
      agent.ports.clock.sleep = async (ms, signal) => (ms < 1000 ? asked : never(signal));
      answer();
      await vi.waitFor(() => expect(snapshot(agent, 'x').problems).toContain('etcd refuses user x'));
      expect(snapshot(agent, 'x').problems).toContain('network, subnet and peers are those of the state file');
      expect(snapshot(agent, 'x').placedProblems[0]).toEqual({ place: 'store', text: 'etcd refuses user x' });
      expect(datapath.calls).not.toContain('fence true');
      expect(agent.ports.state.read('n')).toMatchObject({ state: { saved: { ttlSeconds: 60 } } });
      ask();
      await vi.waitFor(() => expect(isReady(agent)).toBe(true));
      expect(snapshot(agent, 'x').problems).toEqual([]);
    },
  );

  it('fault B3: ends where etcd refuses the login and there is no state file to stand on', async () => {
    const { agent, store } = make();
    store.networks.unshift(new TartanError('PERMISSION', 'etcd refuses user x'));
    await expect(agent.run(stop.signal)).rejects.toMatchObject({ code: 'PERMISSION' });
  });

  it.each([
    ['fault B1: a document with a typo', '{"Network":"10.5.0.0/16",}'],
    ['fault B1: a document that is gone', new TartanError('CONFIG_INVALID', 'there is no network document')],
    ['fault F6: a document that cannot be run', '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'],
  ])('%s: the lease is held with the last good one, and what etcd answered is said', async (_, document) => {
    const { agent, store, events } = make();
    agent.ports.state.write({ nodeId: 'n', subnet: saved.lease.subnet, saved });
    store.networks[0] = document;
    agent.run(stop.signal).catch(() => {});
    store.push();
    store.documentChanged();
    await vi.waitFor(() => expect(isReady(agent)).toBe(true));
    expect(events).toContain('network.kept');
    expect(store.requests[0]?.network).toEqual(saved.network);
    await vi.waitFor(() => expect(agent.problem).toMatch(/^config_invalid: .*the last good document is kept$/));
    store.networks[0] = '{"Network":"10.5.0.0/16"}';
    store.documentChanged();
    await vi.waitFor(() => expect(agent.problem).toBeUndefined());
  });

  it('fault B2: judges the state file again when the wall clock moves', async () => {
    const lease = { ...saved.lease, bootId: 'before' };
    const { agent, notified, events, sleeps } = silent({}, { ...saved, lease, renewedAtWallMs: 1_700_000_000_000 });
    let ring = (): void => {};
    agent.ports.clock.sleep = (ms, signal) => {
      sleeps.push(ms);
      return ms === 1000 && !notified.length
        ? new Promise(resolve => (ring = () => resolve(undefined)))
        : never(signal);
    };
    await vi.waitFor(() => expect(events).toEqual(['state.refused']));
    ring();
    await tick(stop.signal);
    expect(agent.phase).toBe('waiting-for-network');
    Object.assign(agent.ports, { wallNow: () => 1_700_000_010_000 });
    await vi.waitFor(() => {
      ring();
      expect(notified).toEqual(['READY=1']);
    });
    expect(events).toEqual(['state.refused', 'lease.remembered', 'plan.applied', 'plan.applied', 'daemon.ready']);
  });

  it('waits for etcd with a file that may not be used', async () => {
    const { agent, events, datapath } = silent({}, { ...saved, address: parseIpv4('192.0.2.9') });
    await vi.waitFor(() => expect(agent.phase).toBe('waiting-for-network'));
    expect(events).toEqual(['state.refused']);
    expect(datapath.calls).toEqual([]);
  });

  it('has the peers of the state file also when etcd answers at once, and keeps those it misses for a while', async () => {
    const { agent, store } = make();
    agent.ports.state.write({ nodeId: 'n', subnet: saved.lease.subnet, saved });
    agent.run(stop.signal).catch(() => {});
    store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
    await vi.waitFor(() =>
      expect(snapshot(agent, 'x').peers.map(({ subnet, state }) => `${subnet} ${state}`)).toEqual([
        '10.5.2.0/24 live',
        '10.5.3.0/24 held-down',
      ]),
    );
  });
});
