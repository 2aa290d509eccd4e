/** What the page says of a host and of several: pure data. */
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { hostPageOf, pageDataOf, type PageEvent, type PageSources } from '../../src/web/page-data.js';
import { pageHostOf, shownStateOf } from '../../src/web/page-host.js';
import { hostRowOf, matrixOf, type HostSource } from '../../src/web/matrix.js';
import { OtherHosts } from '../../src/web/other-hosts.js';
import { Refreshed } from '../../src/web/refreshed.js';
import { parseStatusDocument, SavedDocument } from '../../src/web/saved-documents.js';
import { sampleStatus } from '../support/samples.js';

const upWatched: PeerWatched = {
  state: 'up',
  stateSeconds: 60,
  reason: null,
  nextStep: null,
  heardSeconds: 1,
  roundTripMs: { p50: 1.24, p99: null },
  loss: 0,
  pathMtu: { out: 1472, in: null },
  addressSeen: null,
  engine: 'user',
  engineReason: null,
  sent: { packets: 1, bytes: 100 },
  received: { packets: 1, bytes: 100 },
  sentBitsPerSecond: 1000,
  receivedBitsPerSecond: null,
};

function peer(index: number, watched: Partial<PeerWatched> | null, more: Partial<StatusPeer> = {}): StatusPeer {
  return {
    subnet: `10.5.${index}.0/24`,
    publicIp: `192.0.2.${index}`,
    nodeId: `node-${index}`,
    state: 'live',
    secondsLeft: null,
    hostName: `host-${index}`,
    backend: 'udp',
    watched: watched && { ...upWatched, ...watched },
    ...more,
  };
}

function host(index: number, peers: readonly StatusPeer[], more: Partial<Status> = {}): Status {
  return {
    ...sampleStatus,
    node: { id: `node-${index}`, bootId: 'boot', publicIp: `192.0.2.${index}` },
    lease: { subnet: `10.5.${index}.0/24`, state: 'held', deadlineSeconds: 100 },
    peers,
    ...more,
  };
}

test('troubled peers come first, each with its reason and next step', () => {
  const silent = peer(4, { state: 'silent', reason: 'nothing heard', nextStep: 'open UDP 8285' });
  const view = pageHostOf(host(1, [peer(2, {}), peer(3, null), silent, peer(5, { loss: 0.02 })]));
  expect(view.peers.map(({ subnet }) => subnet)).toEqual(['10.5.4.0/24', '10.5.5.0/24', '10.5.2.0/24', '10.5.3.0/24']);
  expect(view.peers[0]).toMatchObject({ state: 'silent', reason: 'nothing heard; open UDP 8285', p50: 1.24 });
  expect(view.peers[3]).toMatchObject({ state: 'unknown', p50: null, loss: null, mtuOut: null });
});

test.each([
  ['live', 'up', 'up'],
  ['held-down', 'up', 'held-down'],
  ['held-down', 'silent', 'silent'],
  ['remembered', null, 'remembered'],
  ['live', null, 'unknown'],
] as const)('a peer that is %s and measured as %s is shown as %s', (state, measured, shown) => {
  expect(shownStateOf(peer(2, measured && { state: measured }, { state }))).toBe(shown);
});

test('an address seen elsewhere and the time that a peer stays routed are told', () => {
  const moved = peer(2, { addressSeen: '198.51.100.7:1024' }, { state: 'held-down', secondsLeft: 41.6 });
  expect(pageHostOf(host(1, [moved])).peers[0]).toMatchObject({
    address: '192.0.2.2, seen from 198.51.100.7:1024',
    reason: 'routed 42 s longer',
  });
});

test('the engine of each peer, and why it is not the kernel', () => {
  const byKernel = peer(2, { engine: 'kernel' });
  const not = peer(3, { engineReason: 'no answer on UDP 4790 for 9 s' });
  expect(pageHostOf(host(1, [byKernel, not])).peers).toMatchObject([
    { engine: 'kernel', reason: null },
    { engine: 'user', reason: 'by user space: no answer on UDP 4790 for 9 s' },
  ]);
});

test('drops are the counters of lost packets, the most first; what passed and notes are none', () => {
  const counters = { rx_ok: 9, rx_bytes: 900, tx_no_route: 2, rx_source: 7, rx_port: 3, tx_full: 0, odd: 4 };
  const datapath = {
    engine: 'tun',
    pid: 1,
    threads: 3,
    generationPublished: 1,
    generationAdopted: 1,
    respawns: 0,
    features: [],
    warnings: ['small buffers'],
    kernel: null,
    counters,
  };
  const view = pageHostOf(host(1, [], { datapath }));
  expect(view.drops).toEqual([
    { direction: 'in', reason: 'source', packets: 7 },
    { direction: 'out', reason: 'no_route', packets: 2 },
  ]);
  expect(view.problems).toEqual([{ place: null, text: 'small buffers' }]);
});

test('a problem is told once, with its place where it is known', () => {
  const problems = ['etcd is silent', 'odd rule'];
  const view = pageHostOf(host(1, [], { problems, placedProblems: [{ place: 'store', text: 'etcd is silent' }] }));
  expect(view.problems).toEqual([
    { place: 'store', text: 'etcd is silent' },
    { place: null, text: 'odd rule' },
  ]);
});

test('events are shown newest first, a bounded number and only what the page shows', () => {
  const kept = Array.from({ length: 300 }, (_, id) => ({
    time: 't',
    level: 'info' as const,
    event: 'e',
    message: `${id}`,
    fields: { secret: 1 },
  }));
  const failure = null;
  const page = hostPageOf(
    { value: undefined, ageSeconds: null, failure: 'no socket' },
    { value: kept satisfies readonly PageEvent[], ageSeconds: 0, failure },
    false,
  );
  expect(page).toMatchObject({ view: null, failure: 'no socket', others: false });
  expect(page.events).toHaveLength(200);
  expect(page.events[0]).toEqual({ time: 't', level: 'info', event: 'e', message: '299' });
});

function source(status: Status | undefined, name = 'file'): HostSource {
  return { source: name, row: status && hostRowOf(status), ageSeconds: 1, failure: status ? null : 'away' };
}

test('a matrix has a row for each document and a column for each host that somebody knows', () => {
  const silent = { state: 'silent', reason: 'no ARP answer' } as const;
  const a = host(1, [peer(2, {}), peer(3, silent)]);
  const b = host(2, [peer(1, { loss: 0.5 }), peer(3, { state: 'unwatched' })]);
  const matrix = matrixOf([source(a), source(b), source(undefined, 'c.json')]);
  expect(matrix.columns).toEqual(['host-1, 10.5.1.0/24', 'host-2, 10.5.2.0/24', 'c.json', 'host-3, 10.5.3.0/24']);
  expect(matrix.rows.map(({ cells }) => cells)).toEqual(['.u s', 'l. w', '']);
  expect(matrix.rows[0]?.roundTrips).toEqual([-1, 12, -1, 12]);
  expect(matrix.rows[0]?.why.map(([column, place]) => [column, matrix.reasons[place]])).toEqual([[3, 'no ARP answer']]);
  expect(matrix.rows[2]).toMatchObject({ failure: 'away', good: false });
});

test('another host that holds the subnet for a peer is told, not taken for the same', () => {
  const matrix = matrixOf([source(host(1, [peer(2, {}, { nodeId: 'thief' })])), source(host(2, [peer(1, {})]))]);
  expect(matrix.rows.map(({ cells }) => cells)).toEqual(['.o', 'u.']);
  expect(matrix.reasons).toEqual(['node thief is known there']);
});

test('a row that reaches nobody says why a bounded number of times', () => {
  const peers = Array.from({ length: 200 }, (_, at) => peer(at + 2, { state: 'silent', reason: `cause ${at}` }));
  const matrix = matrixOf([source(host(1, peers))]);
  expect(matrix.rows[0]?.cells).toBe(`.${'s'.repeat(200)}`);
  expect(matrix.rows[0]?.why).toHaveLength(20);
});

test('five hundred hosts are a matrix of less than two megabytes, made in little time', () => {
  const subnetOf = (at: number): string => `10.${at >> 8}.${at & 255}.0/24`;
  const hosts = Array.from({ length: 500 }, (_, own) => {
    const others = Array.from({ length: 500 }, (_, at) => peer(at, {}, { subnet: subnetOf(at), nodeId: `node-${at}` }));
    const lease = { subnet: subnetOf(own), state: 'held' as const, deadlineSeconds: 1 };
    return source(host(own, others.toSpliced(own, 1), { lease }));
  });
  const before = process.cpuUsage();
  const text = JSON.stringify(matrixOf(hosts));
  expect(process.cpuUsage(before).user).toBeLessThan(2_000_000);
  expect(text.length).toBeLessThan(2_000_000);
  expect(text.match(/"cells":"u*\.u*"/g)).toHaveLength(500);
});

test('a value is read once for many, again when it is old, and kept when that fails', async () => {
  let nowMs = 0;
  let reads = 0;
  let broken = false;
  const value = new Refreshed(
    async () => {
      if (broken) throw new Error('gone');
      return ++reads;
    },
    10_000,
    error => (error as Error).message,
    () => nowMs,
  );
  const all = await Promise.all([value.current(), value.current(), value.current()]);
  expect(all).toEqual(Array.from({ length: 3 }, () => ({ value: 1, ageSeconds: 0, failure: null })));
  nowMs = 9_999;
  expect(await value.current()).toMatchObject({ value: 1, ageSeconds: 9.999 });
  nowMs = 10_000;
  expect(await value.current()).toMatchObject({ value: 2, ageSeconds: 0 });
  [nowMs, broken] = [30_000, true];
  expect(await value.current()).toEqual({ value: 2, ageSeconds: 20, failure: 'gone' });
});

test('a reading that never ends leaves the older value, and says so', async () => {
  let nowMs = 0;
  const answers = [Promise.resolve(1), new Promise<number>(() => {})];
  const value = new Refreshed(
    () => answers.shift() ?? Promise.reject(new Error('third')),
    1,
    String,
    () => nowMs,
  );
  expect((await value.current()).value).toBe(1);
  nowMs = 5_000;
  expect(await value.current()).toEqual({ value: 1, ageSeconds: 5, failure: 'no answer yet' });
  expect((await value.current()).value).toBe(1);
  expect(answers).toEqual([]);
});

test('a saved document is read again when it was written anew; what is none is named', async () => {
  const directory = mkdtempSync(join(tmpdir(), `tartan-web-${process.pid}-`));
  try {
    const path = join(directory, 'a.json');
    const document = new SavedDocument(path);
    await expect(document.read()).rejects.toThrow(`${path} cannot be read (ENOENT`);
    writeFileSync(path, JSON.stringify(host(1, [])));
    utimesSync(path, 1000, 1000);
    expect(await document.readIfChanged()).toMatchObject({ madeMs: 1_000_000, status: { ready: true } });
    expect(await document.readIfChanged()).toBeUndefined();
    writeFileSync(path, '{"apiVersion":"tartan/v1"}');
    await expect(document.readIfChanged()).rejects.toThrow(`${path} is no Status (kind differs)`);
    expect(() => parseStatusDocument('<', path)).toThrow(
      `${path} is not JSON, expected one that tartan status -o json`,
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
});

const never = <T>(reason: string): Refreshed<T> =>
  new Refreshed<T>(
    () => Promise.reject(new Error(reason)),
    1,
    error => (error as Error).message,
  );

function sourcesOf(status: Status | undefined): PageSources {
  return {
    status: status ? new Refreshed(async () => status, 1, String) : never('no daemon'),
    events: never('no daemon'),
    leases: never('etcd is away'),
  };
}

test('this host is the first row unless a document is of it, and a host is shown by its number', async () => {
  const document = { source: 'b.json', readIfChanged: async () => ({ status: host(2, []), madeMs: Date.now() }) };
  const others = new OtherHosts([{ ...document, read: document.readIfChanged }]);
  const ask = async (path: string, query: string, own: Status | undefined): Promise<unknown> => {
    const text = await pageDataOf(path, new URLSearchParams(query), sourcesOf(own), others);
    return text && JSON.parse(text);
  };
  const rows = [{ source: 'this host' }, { source: 'b.json' }];
  expect(await ask('/data/matrix', '', host(1, []))).toMatchObject({ value: { own: 1, rows } });
  expect(await ask('/data/matrix', '', host(2, []))).toMatchObject({ value: { own: 0, rows: rows.slice(1) } });
  expect(await ask('/data/matrix', '', undefined)).toMatchObject({ value: { own: 0, rows: rows.slice(1) } });
  expect(await ask('/data/other', 'n=0', undefined)).toMatchObject({ name: '192.0.2.2, 10.5.2.0/24' });
  for (const query of ['', 'n=1', 'n=-1', 'n=x', 'n=__proto__', 'n=99999999'])
    expect(await ask('/data/other', query, undefined)).toBeUndefined();
  expect(await ask('/data/leases', '', undefined)).toEqual({ ageSeconds: null, failure: 'etcd is away' });
  expect(await ask('/data/host', '', undefined)).toMatchObject({ view: null, failure: 'no daemon', others: true });
});
