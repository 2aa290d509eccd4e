import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Agent } from '../../src/agent/agent.js';
import { isReady, snapshot } from '../../src/agent/snapshot.js';
import { StateFile } from '../../src/agent/state-file.js';
import type { DockerSettings } from '../../src/docker/docker.js';
import { chooseBackend } from '../../src/backend/all.js';
import { TartanError } from '../../src/lib/errors.js';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ipv4.js';
import { FakeDatapath, FakeHeld, fakeLease, FakeHost, FakeStore } from '../support/fakes.js';

const address = parseIpv4('192.0.2.1');
let stateDir: string;
let stop: AbortController;
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'tartan-agent-'));
  stop = new AbortController();
});
afterEach(() => {
  stop.abort();
  rmSync(stateDir, { recursive: true });
});

function make() {
  const store = new FakeStore();
  const host = new FakeHost();
  const datapath = new FakeDatapath();
  const events: string[] = [];
  const notified: string[] = [];
  const written: DockerSettings[] = [];
  const say = (event: string): void => void events.push(event);
  const clock = {
    now: () => 1000,
    sleep: (ms: number, signal: AbortSignal) => (ms >= 1000 ? never(signal) : tick(signal)),
  };
  const docker = {
    previousSubnet: () => parsePrefix('10.5.9.0/24'),
    write: (settings: DockerSettings) => (written.push(settings), []),
    remove: () => {},
  };
  const agent = new Agent(
    {
      store,
      host,
      datapath,
      docker,
      state: new StateFile(stateDir),
      clock,
      log: { debug: () => {}, info: say, warn: say, error: say },
      notify: state => void notified.push(state),
    },
    {
      node: { id: 'n', bootId: 'b', publicIp: address, interface: { name: 'eth0', address, mtu: 1500 } },
      ttlSeconds: 60,
      resyncMs: 60_000,
      ipMasquerade: 'on',
      forwardRules: true,
      checkSource: true,
      checkDestination: true,
      chooseBackend,
      checkNetwork: () => {},
    },
  );
  return { agent, store, host, datapath, events, notified, written };
}

function never(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
}

async function tick(signal: AbortSignal): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
  signal.throwIfAborted();
}

it('starts the tunnel before the host plan, and tells Docker and systemd last', async () => {
  const { agent, store, host, datapath, events, notified, written } = make();
  const running = agent.run(stop.signal);
  running.catch(() => {});
  await vi.waitFor(() =>
    expect(datapath.calls).toEqual(['start 10.5.1.0/24 on 192.0.2.1:8285 mtu 1472', 'fence false']),
  );
  expect(notified).toEqual([]);
  store.push(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(notified).toEqual(['READY=1']));
  expect(host.calls).toHaveLength(1);
  expect(datapath.calls.at(-1)).toBe('publish 10.5.2.0/24 via 192.0.2.2:8285');
  expect(written).toEqual([
    { network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.1.0/24'), mtu: 1472, ipMasquerade: true },
  ]);
  expect(events).toEqual(['lease.acquired', 'plan.applied', 'daemon.ready']);
  expect(isReady(agent)).toBe(true);
  expect(snapshot(agent, 'x')).toMatchObject({
    phase: 'ready',
    lease: { subnet: '10.5.1.0/24', state: 'held' },
    peers: [{ subnet: '10.5.2.0/24', publicIp: '192.0.2.2', nodeId: 'peer' }],
  });
  stop.abort(new Error('bye'));
  await expect(running).rejects.toThrow('bye');
});

it('waits for the network document, the lease and the socket, saying each reason once', async () => {
  const { agent, store, datapath, events } = make();
  store.networks.unshift(
    new TartanError('CONFIG_INVALID', 'absent'),
    '{"Network":"oops"}',
    new TartanError('STORE_UNAVAILABLE', 'down'),
  );
  store.acquired.unshift(new TartanError('NO_FREE_SUBNET', 'full'));
  datapath.failures.push(new TartanError('DATAPATH_FAILED', 'port taken'));
  agent.ports.clock.sleep = (_, signal) => tick(signal);
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(events).toContain('daemon.ready'));
  expect(events.filter(event => event.endsWith('.waiting'))).toEqual([
    'network.waiting',
    'network.waiting',
    'network.waiting',
    'lease.waiting',
    'datapath.waiting',
  ]);
  expect(agent.problem).toBeUndefined();
});

it('asks for the state file subnet first, then the one of subnet.env', async () => {
  const { agent, store } = make();
  agent.ports.state.write({ nodeId: 'n', network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.8.0/24') });
  agent.run(stop.signal).catch(() => {});
  await vi.waitFor(() => expect(store.requests).toHaveLength(1));
  expect(store.requests[0]?.previous.map(({ subnet, source }) => `${formatPrefix(subnet)} ${source}`)).toEqual([
    '10.5.8.0/24 state',
    '10.5.9.0/24 subnet-env',
  ]);
});

it('a duplicate node ends the daemon with its code', async () => {
  const { agent, store } = make();
  store.acquired.unshift(new TartanError('DUPLICATE_NODE', 'node x has it'));
  await expect(agent.run(stop.signal)).rejects.toMatchObject({ code: 'DUPLICATE_NODE' });
});

it('a lost lease stops the traffic at once and ends with LEASE_LOST; Docker is left alone', async () => {
  const { agent, store, datapath, written } = make();
  const held = new FakeHeld(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'));
  store.acquired.unshift(held);
  const running = agent.run(stop.signal);
  running.catch(() => {});
  store.push();
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  held.lose(new TartanError('LEASE_LOST', 'node y owns it'));
  expect(datapath.calls.at(-1)).toBe('fence true');
  await expect(running).rejects.toMatchObject({ code: 'LEASE_LOST' });
  expect(agent.phase).toBe('lost');
  expect(held.closed).toBe(true);
  expect(written).toHaveLength(1);
});

it('says that the network document changed or spoilt, keeps the running one, and forgets it when put right', async () => {
  const { agent, store, datapath, events } = make();
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  const calls = datapath.calls.length;
  store.networks.splice(0, 1, '{"Network":"10.77.0.0/16"}', 'garbage', '{"Network":"10.5.0.0/16"}');
  store.documentChanged();
  await vi.waitFor(() =>
    expect(agent.problem).toMatch(/^config_mismatch: .* 10\.77\.0\.0\/16; 10\.5\.0\.0\/16 is kept/),
  );
  store.documentChanged();
  await vi.waitFor(() => expect(agent.problem).toMatch(/^config_invalid: .*the last good document is kept/));
  store.documentChanged();
  await vi.waitFor(() => expect(agent.problem).toBeUndefined());
  expect(events.filter(event => event === 'network.differs')).toHaveLength(2);
  expect(datapath.calls).toHaveLength(calls);
});

it('is not ready while no data process runs', async () => {
  const { agent, store, datapath } = make();
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(isReady(agent)).toBe(true));
  const stats = datapath.stats();
  datapath.stats = () => ({ ...stats, pid: undefined });
  expect(isReady(agent)).toBe(false);
  expect(snapshot(agent, 'x').problems).toEqual(['no data process runs: packets of the overlay are not carried']);
});

it('names a bad entry once, however often the set comes', async () => {
  const { agent, store, events } = make();
  agent.run(stop.signal).catch(() => {});
  const bad = fakeLease('10.9.0.0/24', '192.0.2.7');
  for (let count = 0; count < 5; count++) store.push(bad);
  store.push(bad, fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(agent.peers.current).toHaveLength(1));
  expect(events.filter(event => event === 'peer.rejected')).toHaveLength(1);
  expect(snapshot(agent, 'x').rejected).toHaveLength(1);
});

it('the engine may forward for six TTLs after the last KeepAlive, and further while the daemon lives', async () => {
  const { agent, datapath } = make();
  agent.run(stop.signal).catch(() => {});
  await vi.waitFor(() => expect(datapath.calls).toContain('fence false'));
  expect(datapath.lastForwardUntilMs).toBe(6 * 60_000);
});
