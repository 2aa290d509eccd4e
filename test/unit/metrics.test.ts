/** The metrics as text: names, units, labels, what is bounded, and that every counter of the data process has its place. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { noteCounters } from '../../src/admin/counter-metrics.js';
import { metricsText } from '../../src/admin/metrics.js';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { sampleStatus } from '../support/samples.js';

const process = { cpuSeconds: 1.5, residentBytes: 4096, openDescriptors: 20, startedSeconds: 900 };
const root = fileURLToPath(new URL('../..', import.meta.url));

const datapath: NonNullable<Status['datapath']> = {
  engine: 'tun',
  pid: 4711,
  threads: 3,
  generationPublished: 7,
  generationAdopted: 6,
  respawns: 1,
  handovers: 2,
  features: ['udp_gro'],
  warnings: ['small buffer'],
  warningKinds: ['kernel'],
  kernel: null,
  counters: { tx_ok: 10, tx_bytes: 1000, rx_ok: 9, rx_bytes: 900, tx_noroute: 3, rx_spoof_src: 4, rx_port: 5 },
};

const watched: PeerWatched = {
  state: 'up',
  stateSeconds: 60,
  reason: null,
  nextStep: null,
  heardSeconds: 1,
  roundTripMs: { p50: 0.5, p99: 2 },
  loss: 0.25,
  pathMtu: { out: 1472, in: 1400 },
  addressSeen: null,
  engine: 'user',
  engineReason: null,
  sent: { packets: 5, bytes: 500 },
  received: { packets: 4, bytes: 400 },
  sentBitsPerSecond: 10,
  receivedBitsPerSecond: 20,
};

function peer(number: number, more: Partial<PeerWatched> = {}): StatusPeer {
  const [sample] = sampleStatus.peers;
  if (!sample) throw new Error('no sample');
  const subnet = `10.${64 + (number >> 8)}.${number & 255}.0/24`;
  return { ...sample, subnet, hostName: `host-${number}`, watched: { ...watched, ...more } };
}

/** The series of a scrape with their values. */
async function scrape(more: Partial<Status>, peers = 50): Promise<ReadonlyMap<string, number>> {
  const text = await metricsText({ status: { ...sampleStatus, ...more }, nowSeconds: 1000, process, peers });
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'));
  const series = lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))] as const);
  expect(new Set(series.map(([name]) => name)).size).toBe(series.length);
  return new Map(series);
}

function values(series: ReadonlyMap<string, number>, ...names: readonly string[]): readonly (number | undefined)[] {
  return names.map(name => series.get(name));
}

it('tells lease, etcd, passes, data process and Docker in base units', async () => {
  const series = await scrape({
    lease: { subnet: '10.5.1.0/24', state: 'unknown', deadlineSeconds: 50, ttlSeconds: 60, renewFailures: 3 },
    store: {
      answeredSeconds: 4,
      watchSeconds: 100,
      refused: null,
      endpoints: [
        { url: 'http://192.0.2.254:2379', state: 'answers', reason: null },
        { url: 'http://192.0.2.253:2379', state: 'silent', reason: 'no answer' },
      ],
    },
    passes: { total: 9, failed: 2, changed: 1, totalMs: 450, lastMs: 50 },
    datapath,
    docker: sampleStatus.docker && { ...sampleStatus.docker, conflicts: ['bip stands twice'] },
    problems: ['the lease is unknown'],
  });
  const expected = {
    'tartan_build_info{version="0.1.0"}': 1,
    tartan_ready: 1,
    tartan_healthy: 0,
    tartan_problems: 1,
    'tartan_phase{phase="ready"}': 1,
    'tartan_phase{phase="lost"}': 0,
    'tartan_lease_state{state="held"}': 0,
    'tartan_lease_state{state="unknown"}': 1,
    tartan_lease_expiry_timestamp_seconds: 1050,
    tartan_lease_ttl_seconds: 60,
    tartan_lease_renew_failures_total: 3,
    tartan_etcd_up: 1,
    tartan_etcd_refused: 0,
    tartan_etcd_last_answer_timestamp_seconds: 996,
    tartan_etcd_watch_start_timestamp_seconds: 900,
    'tartan_etcd_endpoints{state="answers"}': 1,
    'tartan_etcd_endpoints{state="silent"}': 1,
    'tartan_etcd_endpoints{state="refused"}': 0,
    'tartan_passes_total{result="ok"}': 7,
    'tartan_passes_total{result="failed"}': 2,
    tartan_passes_changed_total: 1,
    tartan_passes_duration_seconds_total: 0.45,
    tartan_pass_last_duration_seconds: 0.05,
    'tartan_datapath_info{engine="tun"}': 1,
    tartan_datapath_up: 1,
    tartan_datapath_generations_behind: 1,
    tartan_datapath_respawns_total: 1,
    tartan_datapath_handovers_total: 2,
    'tartan_datapath_feature_info{feature="udp_gro"}': 1,
    tartan_docker_in_sync: 0,
    tartan_docker_conflicts: 1,
    tartan_tunnel_mtu_bytes: 1472,
    tartan_interface_mtu_bytes: 1500,
    process_cpu_seconds_total: 1.5,
    process_open_fds: 20,
  };
  expect(Object.fromEntries(Object.keys(expected).map(name => [name, series.get(name)]))).toEqual(expected);
});

it('tells the engines, and why packets go by user space, in series that no second changes', async () => {
  const kernel = { wanted: 'auto', state: 'on', reason: null, peers: 1 } as const;
  const silent = 'no answer on UDP 4790 for';
  const peers = [peer(1, { engine: 'kernel' }), peer(2, { engineReason: `${silent} 12 s` }), peer(3)];
  const series = await scrape({ datapath: { ...datapath, kernel }, peers });
  const told = [...series.keys()].filter(name => /kernel_engine_info|by_user_info/.test(name));
  expect(told).toEqual([
    'tartan_kernel_engine_info{wanted="auto",state="on",reason=""}',
    'tartan_peer_by_user_info{peer="10.64.2.0/24",reason="no answer on UDP 4790"}',
  ]);
  const later = await scrape({
    datapath: { ...datapath, kernel },
    peers: [peer(2, { engineReason: `${silent} 3 min` })],
  });
  expect([...later.keys()].filter(name => name.includes('by_user_info'))).toEqual(told.slice(1));
});

it('is silent about what is not known', async () => {
  const series = await scrape({ lease: null, store: null, passes: null, docker: null, datapath: null, peers: [] });
  const names = [...series.keys()].join('\n');
  expect(names).not.toMatch(/etcd|passes|expiry|docker|datapath|drops|tunnel_mtu|NaN/);
  expect(series.get('tartan_lease_state{state="none"}')).toBe(1);
  const reserved = await scrape({ lease: { subnet: '10.5.1.0/24', state: 'held', deadlineSeconds: null } });
  expect([...reserved.keys()].join()).not.toContain('expiry');
});

it('an etcd that is silent for over a minute, or refuses, is down', async () => {
  type State = NonNullable<Status['store']>['endpoints'][number]['state'];
  const up = async (
    answeredSeconds: number | null,
    refused: string | null,
    ...states: readonly State[]
  ): Promise<number | undefined> => {
    const endpoints = states.map(state => ({ url: 'http://192.0.2.254:2379', state, reason: null }));
    return (await scrape({ store: { answeredSeconds, watchSeconds: null, refused, endpoints } })).get('tartan_etcd_up');
  };
  expect(await up(60, null)).toBe(1);
  expect(await up(61, null)).toBe(0);
  expect(await up(null, null)).toBe(0);
  expect(await up(1, 'permission denied')).toBe(0);
  expect(await up(1, null, 'silent', 'answers')).toBe(1);
  expect(await up(1, null, 'unknown')).toBe(1);
  expect(await up(10, null, 'silent', 'refused')).toBe(0);
});

it('gives each counter of the data process one place', async () => {
  const series = await scrape({ datapath });
  expect(values(series, 'tartan_tx_packets_total', 'tartan_tx_bytes_total')).toEqual([10, 1000]);
  expect(values(series, 'tartan_rx_packets_total', 'tartan_rx_bytes_total')).toEqual([9, 900]);
  expect(series.get('tartan_drops_total{direction="tx",reason="noroute"}')).toBe(3);
  expect(series.get('tartan_drops_total{direction="rx",reason="spoof_src"}')).toBe(4);
  expect(series.get('tartan_datapath_events_total{event="rx_port"}')).toBe(5);
});

it('knows which counters of counters.h are no drops', () => {
  const header = readFileSync(`${root}/native/shared/counters.h`, 'utf8');
  const lists = [...header.matchAll(/#define COUNTERS_NOTES\w*\(X\)((?:.*\\\n)*.*)/g)].map(([, list = '']) => list);
  const names = [...lists.join().matchAll(/X\((\w+)\)/g)].map(([, name = '']) => name);
  expect(names.length).toBeGreaterThan(10);
  const byName = names.filter(name => /^[rt]x_/.test(name) && !/_(ok|bytes)$/.test(name));
  // A probe ends here and is no drop.
  expect(header).toContain('X(rx_probe)');
  expect([...noteCounters].sort()).toEqual([...byName, 'rx_probe'].sort());
});

it('sums over all peers, whoever has series of its own', async () => {
  const peers = [
    peer(1),
    peer(2, { state: 'silent', loss: 1, roundTripMs: null, pathMtu: { out: 1300, in: null } }),
    peer(3, { state: 'unknown', loss: 0, roundTripMs: { p50: 3, p99: null }, addressSeen: '198.51.100.1:8285' }),
    { ...peer(4), watched: null },
    peer(5, { loss: 0.5, sentBitsPerSecond: null, receivedBitsPerSecond: 0, state: 'unwatched' }),
  ];
  for (const most of [0, 50]) {
    const series = await scrape({ peers }, most);
    const states = ['up', 'silent', 'unknown', 'unwatched'].map(state => `tartan_peers{state="${state}"}`);
    expect(values(series, ...states)).toEqual([1, 1, 2, 1]);
    expect(series.get('tartan_peer_leases{state="live"}')).toBe(5);
    expect(series.get('tartan_peers_loss_ratio{over="mean"}')).toBeCloseTo(1.75 / 4);
    expect(series.get('tartan_peers_loss_ratio{over="max"}')).toBe(1);
    expect(series.get('tartan_peers_rtt_seconds{over="max"}')).toBe(0.003);
    expect(series.get('tartan_peers_path_mtu_bytes{over="min"}')).toBe(1300);
    expect(values(series, 'tartan_peers_lossy', 'tartan_peers_path_mtu_reduced')).toEqual([1, 1]);
    expect(series.get('tartan_peers_address_changed')).toBe(1);
    expect([...series.keys()].filter(name => name.startsWith('tartan_peer_info'))).toHaveLength(most && 5);
  }
});

it('a peer with series of its own', async () => {
  const series = await scrape({ peers: [peer(1), peer(2, { state: 'silent' }), peer(3, { state: 'unwatched' })] });
  const of = (name: string, more = ''): number | undefined => series.get(`${name}{peer="10.64.1.0/24"${more}}`);
  expect(of('tartan_peer_info', ',host="host-1",public_ip="192.0.2.2",backend="udp"')).toBe(1);
  expect(of('tartan_peer_rtt_seconds', ',percentile="50"')).toBe(0.0005);
  expect(of('tartan_peer_rtt_seconds', ',percentile="99"')).toBe(0.002);
  expect(of('tartan_peer_path_mtu_bytes', ',direction="in"')).toBe(1400);
  expect([of('tartan_peer_loss_ratio'), of('tartan_peer_tx_bytes_total')]).toEqual([0.25, 500]);
  const up = [1, 2, 3].map(number => series.get(`tartan_peer_up{peer="10.64.${number}.0/24"}`));
  expect(up).toEqual([1, 0, undefined]);
});

it('bounds the series at 5,000 peers: the silent have half of the places, traffic decides the rest', async () => {
  const peers = Array.from({ length: 5000 }, (_, number) =>
    peer(number, { sentBitsPerSecond: number % 977, state: number % 50 === 0 ? 'silent' : 'up' }),
  );
  const counters = Object.fromEntries(Array.from({ length: 256 }, (_, number) => [`tx_reason${number}`, number]));
  const series = await scrape({ peers, datapath: { ...datapath, counters } });
  expect(series.size).toBeLessThan(50 * 12 + 256 + 100);
  const chosen = [...series].filter(([name]) => name.startsWith('tartan_peer_up'));
  expect(chosen).toHaveLength(50);
  expect(chosen.filter(([, up]) => up === 0)).toHaveLength(25);
  expect(series.has('tartan_peer_up{peer="10.67.208.0/24"}')).toBe(true);
  expect(series.get('tartan_peers{state="up"}')).toBe(4900);
  expect((await scrape({ peers }, 1000)).size).toBeGreaterThan(10_000);
});

it('text of other hosts stays one label of one line', async () => {
  const hostName = `"} 1\ntartan_ready 0\n\u001b[2J\u0007\ud800\\${'x'.repeat(500)}`;
  const text = await metricsText({
    status: { ...sampleStatus, peers: [{ ...peer(1), hostName }] },
    nowSeconds: 1000,
    process,
    peers: 50,
  });
  const line = text.split('\n').find(each => each.startsWith('tartan_peer_info{')) ?? '';
  expect(line).toMatch(/host="\\"\} 1\?tartan_ready 0\?\?\[2J\?\?\\\\x{30,50}",public_ip/);
  expect(text).not.toMatch(/\p{Cc}(?<!\n)/u);
});
