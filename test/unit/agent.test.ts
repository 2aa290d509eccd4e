import { expect, it, vi } from 'vitest';
import { Agent } from '../../src/agent/agent.js';
import type { AgentOptions } from '../../src/agent/ports.js';
import { isReady, snapshot } from '../../src/agent/snapshot.js';
import { chooseBackend } from '../../src/backend/all.js';
import { TartanError } from '../../src/lib/errors.js';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { address, make, stop } from '../support/agent-bed.js';
import { FakeHeld, fakeLease, never, tick } from '../support/fakes.js';
import { blankMeasurement } from '../support/samples.js';

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
  expect(events).toEqual(['lease.acquired', 'plan.applied', 'plan.applied', 'daemon.ready']);
  expect(isReady(agent)).toBe(true);
  expect(snapshot(agent, 'x')).toMatchObject({
    phase: 'ready',
    lease: { subnet: '10.5.1.0/24', state: 'held' },
    peers: [{ subnet: '10.5.2.0/24', publicIp: '192.0.2.2', nodeId: 'peer' }],
  });
  stop.abort(new Error('bye'));
  await expect(running).rejects.toThrow('bye');
});

it('forwards before Docker may start, where Docker does not switch that on', async () => {
  const { agent, store, host, notified } = make({}, true);
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(notified).toEqual(['READY=1']));
  expect(host.calls.map(call => call.endsWith('net.ipv4.ip_forward=1'))).toEqual([false, true]);
});

it('a plan without a tunnel needs no data plane: it is stopped, nothing is published, the status has none', async () => {
  const withoutTunnel: AgentOptions['chooseBackend'] = context => {
    const backend = chooseBackend(context);
    return { ...backend, plan: (...given) => ({ ...backend.plan(...given), tunnel: undefined }) };
  };
  const { agent, store, datapath, notified } = make({ chooseBackend: withoutTunnel });
  agent.run(stop.signal).catch(() => {});
  store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(notified).toEqual(['READY=1']));
  expect(datapath.calls).toEqual(['stop']);
  expect(snapshot(agent, 'x')).toMatchObject({ ready: true, problems: [], datapath: null });
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
  agent.ports.state.write({ nodeId: 'n', subnet: parsePrefix('10.5.8.0/24'), saved: undefined });
  agent.run(stop.signal).catch(() => {});
  await vi.waitFor(() => expect(store.requests).toHaveLength(1));
  expect(store.requests[0]?.backend).toEqual({ type: 'udp', data: undefined });
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
    expect(agent.problem).toMatch(
      /^config_mismatch: .*Network is 10\.77\.0\.0\/16 now and was 10\.5\.0\.0\/16; .* kept/,
    ),
  );
  store.documentChanged();
  await vi.waitFor(() => expect(agent.problem).toMatch(/^config_invalid: .*the last good document is kept/));
  store.documentChanged();
  await vi.waitFor(() => expect(agent.problem).toBeUndefined());
  expect(events.filter(event => event === 'network.differs')).toHaveLength(2);
  expect(datapath.calls).toHaveLength(calls);
});

it('fault F5: names each member in which the document differs from what runs, also where the range is the same', async () => {
  const { agent, store } = make();
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  const network = '"Network":"10.5.0.0/16"';
  for (const [document, named, same] of [
    [
      `{${network},"Backend":{"Type":"vxlan","VNI":7}}`,
      'Backend is {"Type":"vxlan","vni":7} now and was {"Type":"udp"',
      'SubnetLen',
    ],
    [`{${network},"Backend":{"Type":"udp","Port":8286}}`, 'Backend is {"Type":"udp","Port":8286} now', 'Network is'],
    [
      `{${network},"SubnetLen":26,"EnableNFTables":true}`,
      'SubnetLen is 26 now and was 24, EnableNFTables is true now',
      'Backend',
    ],
  ] as const) {
    store.networks.splice(0, 1, document);
    store.documentChanged();
    await vi.waitFor(() => expect(agent.problem).toContain(named));
    expect(agent.problem).not.toContain(same);
    expect(snapshot(agent, 'x').problems[0]).toMatch(
      /^config_(mismatch: .*kept until a restart|invalid: .*last good document is kept)$/,
    );
  }
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

it('fault N2: what the data plane suffers from is a problem of the status', async () => {
  const { agent, store, datapath } = make();
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(isReady(agent)).toBe(true));
  datapath.problems = ['data process 1 has not answered for 4 s'];
  const status = snapshot(agent, 'x');
  expect(status.problems).toEqual(datapath.problems);
  expect(status.placedProblems).toEqual(datapath.problems.map(text => ({ place: 'data-plane', text })));
  expect(status.datapath).not.toHaveProperty('problems');
});

it('tells by how much the clock of the host was set since it began', () => {
  const { agent } = make();
  expect(snapshot(agent, 'x').daemon).toMatchObject({ pid: process.pid, clockSetSeconds: 0 });
  const later = new Agent({ ...agent.ports, wallNow: () => wallMs }, agent.options);
  wallMs = -90_000;
  expect(snapshot(later, 'x').daemon?.clockSetSeconds).toBe(-90);
});

let wallMs = 0;

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
  expect(datapath.forwardUntilMs).toBe(6 * 60_000);
});

it('degraded: a lost subnet stops the traffic, and the daemon stays until it is told to go', async () => {
  const { agent, store, datapath } = make({ onLost: 'degraded' });
  const held = new FakeHeld(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'));
  store.acquired.unshift(held);
  const running = agent.run(stop.signal);
  const ended = vi.fn();
  running.catch(ended);
  store.push();
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  held.lose(new TartanError('LEASE_LOST', 'node y owns it'));
  expect(datapath.calls.at(-1)).toBe('fence true');
  for (let turn = 0; turn < 20; turn++) await tick(new AbortController().signal);
  expect(ended).not.toHaveBeenCalled();
  expect(snapshot(agent, 'x')).toMatchObject({ phase: 'lost', ready: false, lease: { state: 'lost' } });
  stop.abort(new Error('bye'));
  await expect(running).rejects.toThrow('bye');
});

it('writes to the state file what a later start can use, and its last peers when it ends', async () => {
  const { agent, store } = make();
  const running = agent.run(stop.signal);
  running.catch(() => {});
  store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  expect(agent.ports.state.read('n')).toMatchObject({ state: { saved: { ttlSeconds: 60, address, renewedAtMs: 0 } } });
  stop.abort(new Error('bye'));
  await expect(running).rejects.toThrow('bye');
  const read = agent.ports.state.read('n');
  expect(read).toMatchObject({
    state: { saved: { lease: { bootId: 'b', leaseId: '77' }, peers: [{ nodeId: 'peer' }] } },
  });
});

it('peers of the state file are no reason to change what a running data process knows better', async () => {
  const first = make();
  const life = new AbortController();
  const before = first.agent.run(life.signal);
  before.catch(() => {});
  first.store.push();
  await vi.waitFor(() => expect(first.agent.phase).toBe('ready'));
  life.abort(new Error('killed'));
  await before.catch(() => {});
  // Its file knows no peer; the one that came after the last write is in the table of the data process.
  const { agent, store, datapath } = make();
  const running = agent.run(stop.signal);
  running.catch(() => {});
  await vi.waitFor(() => expect(agent.phase).toBe('configuring'));
  for (let turn = 0; turn < 20; turn++) await tick(new AbortController().signal);
  expect(datapath.calls.filter(call => call.startsWith('publish'))).toEqual([]);
  store.push(fakeLease('10.5.2.0/24', '192.0.2.2'));
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  expect(datapath.calls.find(call => call.startsWith('publish'))).toContain('10.5.2.0/24');
  stop.abort(new Error('bye'));
  await running.catch(() => {});
});

it('another address and MTU of the host: the tunnel, the store, the lease, the plan and the files follow', async () => {
  const there = parseIpv4('192.0.2.77');
  const moved = { publicIp: there, interface: { name: 'eth1', address: there, mtu: 9000 } };
  const { agent, store, datapath, written } = make({}, false, moved);
  const [held] = store.acquired;
  store.push();
  const running = agent.run(stop.signal).catch(() => {});
  await vi.waitFor(() => expect(written.at(-1)?.mtu).toBe(8972));
  expect(datapath.calls.filter(call => call.startsWith('start'))).toEqual([
    'start 10.5.1.0/24 on 192.0.2.1:8285 mtu 1472',
    'start 10.5.1.0/24 on 192.0.2.77:8285 mtu 8972',
  ]);
  // fault N20: what the underlay carries is received.
  expect(datapath.started).toMatchObject({ mtu: 8972, underlayMtu: 9000 });
  expect(store.reconnections).toBe(1);
  expect(held instanceof FakeHeld && held.updates).toContainEqual({ publicIp: there });
  stop.abort();
  await running;
});

it.each([true, false])(
  'fault C1: a moved address is in the state file at once (confirmed by etcd: %s)',
  async confirmed => {
    const there = parseIpv4('192.0.2.77');
    const moved = { publicIp: there, interface: { name: 'eth1', address: there, mtu: 1500 } };
    const { agent, store } = make({}, false, moved);
    const saved = {
      network: await store.network(),
      lease: { ...fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), bootId: 'b' },
      address: parseIpv4('192.0.2.1'),
      ttlSeconds: 60,
      renewedAtMs: 0,
      renewedAtWallMs: 0,
      peers: [fakeLease('10.5.2.0/24', '192.0.2.2')],
    };
    agent.ports.state.write({ nodeId: 'n', subnet: saved.lease.subnet, saved });
    if (!confirmed) {
      const sleep = agent.ports.clock.sleep;
      agent.ports.clock.sleep = (ms, signal) =>
        ms === 1000 && agent.phase !== 'ready' ? tick(signal) : sleep(ms, signal);
      store.network = async () => (await never(stop.signal), expect.fail());
    } else store.push(...saved.peers);
    const running = agent.run(stop.signal).catch(() => {});
    await vi.waitFor(() => expect(agent.ports.node.current.publicIp).toBe(there));
    const read = agent.ports.state.read('n');
    expect(read).toMatchObject({ state: { saved: { address: there, lease: { publicIp: there }, renewedAtMs: 0 } } });
    expect(read.kind === 'found' && read.state.saved?.peers).toHaveLength(1);
    stop.abort();
    await running;
  },
);

it('saves its own address, though somebody altered the lease in etcd', async () => {
  const { agent, store } = make();
  store.acquired[0] = new FakeHeld(fakeLease('10.5.1.0/24', '192.0.2.66', 'n'));
  const running = agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  stop.abort();
  await running;
  const read = agent.ports.state.read('n');
  expect(read.kind === 'found' && read.state.saved?.lease.publicIp).toBe(parseIpv4('192.0.2.1'));
});

it('logs once what keeps Docker from its settings, and shows it for as long as it lasts', async () => {
  const { agent, store, host, events, conflicts } = make();
  conflicts.push('daemon.json has bip');
  agent.run(stop.signal).catch(() => {});
  store.push(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'));
  await vi.waitFor(() => expect(snapshot(agent, 'x')).toMatchObject({ ready: true, problems: conflicts }));
  host.ring();
  await vi.waitFor(() => expect(host.calls.length).toBeGreaterThan(1));
  conflicts.length = 0;
  host.ring();
  await vi.waitFor(() => expect(snapshot(agent, 'x').problems).toEqual([]));
  expect(events.filter(event => event === 'docker.conflict')).toHaveLength(1);
});

it('announces that probes are answered: with the lease, and by one update of a lease that says otherwise', async () => {
  const { agent, store } = make();
  const held = new FakeHeld(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'));
  store.acquired.unshift(held);
  let ticks = 0;
  const sleep = agent.ports.clock.sleep;
  agent.ports.clock.sleep = (ms, signal) => (ms === 2000 && ticks++ < 50 ? tick(signal) : sleep(ms, signal));
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(ticks).toBeGreaterThan(40));
  expect(store.requests[0]?.features).toEqual({ probe: 1 });
  // The fake store wrote a lease without it.
  expect(held.updates).toEqual([{ features: { probe: 1 } }]);
});

it('announces nothing while a data process of another build runs', async () => {
  const { agent, store, datapath } = make();
  datapath.answersProbes = false;
  const held = new FakeHeld({ ...fakeLease('10.5.1.0/24', '192.0.2.1', 'n'), features: { probe: 1, inner6: 1 } });
  store.acquired.unshift(held);
  agent.run(stop.signal).catch(() => {});
  store.push();
  await vi.waitFor(() => expect(held.updates).toEqual([{ features: { inner6: 1 } }]));
  expect(store.requests[0]?.features).toEqual({});
});

it('fault D17: a peer that answers no question is told in the status, with the cause and the next step', async () => {
  const { agent, store, host, datapath } = make();
  const features = { probe: 1 } as const;
  agent.run(stop.signal).catch(() => {});
  const lease = { ...fakeLease('10.5.2.0/24', '192.0.2.2'), features, hostName: 'host-b' };
  store.push(lease, { ...fakeLease('10.5.3.0/24', '192.0.2.3'), features });
  await vi.waitFor(() => expect(agent.phase).toBe('ready'));
  const traffic = { packets: 4, bytes: 400 };
  const measured = { ...blankMeasurement, loss: 1, sent: traffic };
  datapath.measured = [{ ...measured, identity: '10.5.2.0/24 peer', sentMs: 1000, asked: 1, askedMs: 1000 }];
  host.dead.set('192.0.2.2', 'eth0');
  await agent.watch.look();
  const before = snapshot(agent, 'x');
  expect(before.problems).toEqual([]);
  expect(before.summary).toContain('0 of 2 peers answer, 2 not heard yet');
  datapath.measured = datapath.measured.map(one => ({ ...one, asked: 4, askedMs: 3900 }));
  agent.ports.clock.now = () => 4100;
  await agent.watch.look();
  const status = snapshot(agent, 'x');
  const reason = '192.0.2.2 does not answer ARP on eth0 (powered off, another network, wrong interface)';
  expect(status.peers[0]).toMatchObject({
    hostName: 'host-b',
    watched: { state: 'silent', reason, loss: 1, sent: traffic },
  });
  expect(status).toMatchObject({ health: { state: 'impaired' }, ready: true });
  const nextStep = 'see that host-b is on and has 192.0.2.2: ip neighbour show 192.0.2.2 dev eth0';
  expect(status.placedProblems).toEqual([{ place: 'peers', text: `${reason}; next: ${nextStep}` }]);
  expect(status.summary).toBe(
    `impaired, 0 of 2 peers answer, 1 not heard yet, etcd has not answered: ${status.problems[0]}`,
  );
});
