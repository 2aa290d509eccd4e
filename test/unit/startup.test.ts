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
      'fence false',
      'publish 10.5.2.0/24 via 192.0.2.2:8285, 10.5.3.0/24 via 192.0.2.3:8285',
    ]);
    expect(written).toHaveLength(1);
    expect(events).toEqual(['lease.remembered', 'plan.applied', 'daemon.ready']);
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

  it('goes on without a step when etcd gives the same subnet', async () => {
    const { agent, store, datapath, written, notified, answer } = silent();
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    const calls = datapath.calls.length;
    store.push(...saved.peers.map(peer => ({ ...peer, createRevision: 3n })));
    answer();
    await vi.waitFor(() => expect(isReady(agent)).toBe(true));
    expect(agent.unconfirmed).toBe(false);
    expect(store.requests[0]?.previous[0]).toMatchObject({ source: 'state', subnet: saved.lease.subnet });
    await vi.waitFor(() => expect(snapshot(agent, 'x').peers.map(({ state }) => state)).toEqual(['live', 'live']));
    expect(datapath.calls).toHaveLength(calls);
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

  it('leaves the traffic alone when etcd refuses us for another reason', async () => {
    const { agent, store, datapath, answer, running } = silent({ onLost: 'degraded' });
    store.acquired.unshift(new TartanError('PERMISSION', 'role'));
    await vi.waitFor(() => expect(agent.phase).toBe('ready'));
    answer();
    await expect(running).rejects.toMatchObject({ code: 'PERMISSION' });
    expect(datapath.calls).not.toContain('fence true');
    expect(agent.ports.state.read('n')).toMatchObject({ state: { saved: { ttlSeconds: 60 } } });
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
