import { beforeEach, describe, expect, it } from 'vitest';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { formatBytes, formatRate } from '../../src/tool/peer-view.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, sampleStatus, unexpected, unmeasured } from '../support/samples.js';

const peer = (n: number, watched: Partial<PeerWatched> | null, more: Partial<StatusPeer> = {}): StatusPeer => ({
  subnet: `10.5.${n}.0/24`,
  publicIp: `192.0.2.${n}`,
  nodeId: `node-${n}`,
  state: 'live',
  secondsLeft: null,
  hostName: `host-${n}`,
  backend: 'udp',
  watched: watched && { ...unmeasured, ...watched },
  ...more,
});

const peers = [
  peer(2, {
    state: 'up',
    heardSeconds: 1,
    roundTripMs: { p50: 0.213, p99: 12.5 },
    loss: 0,
    pathMtu: { out: 1472, in: 1472 },
    sent: { packets: 10, bytes: 2048 },
    received: { packets: 9, bytes: 3_500_000 },
    sentBitsPerSecond: 1_234_567,
    receivedBitsPerSecond: 12,
  }),
  peer(3, {
    state: 'silent',
    reason: '192.0.2.3 does not answer ARP on eth0',
    nextStep: 'power it on',
    loss: 0.5,
    addressSeen: '192.0.2.33:8285',
    engineReason: 'no answer on UDP 4790 for 9 s',
  }),
  peer(4, { state: 'up', engine: 'kernel' }, { state: 'held-down', secondsLeft: 58 }),
  peer(5, null, { hostName: null }),
];

let status: Status;

beforeEach(() => {
  status = { ...sampleStatus, peers };
});

async function run(line: string) {
  let [out, err] = ['', ''];
  const io = {
    env: {},
    stdout: (text: string) => void (out += text),
    stderr: (text: string) => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: { ...noPorts, readStatus: async () => ({ kind: 'status', status }) as const },
  };
  const words = line.split(' ').filter(word => word !== '');
  return { status: await runTool(['/usr/bin/node', '/usr/bin/tartan', ...words], io), out, err };
}

describe('tartan peers', () => {
  it('has one line for each', async () => {
    const outcome = await run('peers');
    expect(outcome).toMatchObject({ status: 0, err: '' });
    expect(outcome.out.split('\n')).toEqual([
      'PEER         HOST    PUBLIC IP  BACKEND  STATE      ENGINE  RTT      LOSS  MTU   IN        OUT         REASON',
      '10.5.2.0/24  host-2  192.0.2.2  udp      up         user    0.21 ms  0%    1472  12 bit/s  1.2 Mbit/s',
      '10.5.3.0/24  host-3  192.0.2.3  udp      silent     user    -        50%   -     -         -           192.0.2.3 does not answer ARP on eth0; its packets come from 192.0.2.33:8285; by user space: no answer on UDP 4790 for 9 s',
      '10.5.4.0/24  host-4  192.0.2.4  udp      held-down  kernel  -        -     -     -         -           vanished from etcd, 58s left',
      '10.5.5.0/24  -       192.0.2.5  udp      unknown    -       -        -     -     -         -',
      '',
    ]);
  });

  it('wide has what a closer look wants, JSON the part of the status', async () => {
    const [head = '', first] = (await run('peers -o wide')).out.split('\n');
    expect(head.split(/ {2,}/)).toEqual(
      expect.arrayContaining(['P99', 'MTU IN', 'HEARD', 'RECEIVED', 'SENT', 'NODE', 'REASON']),
    );
    expect(first).toMatch(/13 ms .*1s ago {2}3\.3 MiB {3}2\.0 KiB {2}node-2$/);
    expect(JSON.parse((await run('peers -o json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'PeerList',
      items: peers,
    });
  });

  it.each([
    ['--state silent', ['10.5.3.0/24']],
    ['--state held-down', ['10.5.4.0/24']],
    ['--state unwatched', []],
    ['host-2', ['10.5.2.0/24']],
    ['10.5.3.77 192.0.2.2 node-2', ['10.5.3.0/24', '10.5.2.0/24']],
    ['host-2 host-3 --state up', ['10.5.2.0/24']],
  ])('chooses by %s', async (words, subnets) => {
    const { items } = JSON.parse((await run(`peers -o json ${words}`)).out) as { items: StatusPeer[] };
    expect(items.map(({ subnet }) => subnet)).toEqual(subnets);
  });

  it('says what is no peer, no state, and that there are none', async () => {
    expect(await run('peers 10.9.9.9')).toMatchObject({
      status: 1,
      err: expect.stringContaining("'10.9.9.9' is no peer"),
    });
    expect(await run('peers --state down')).toMatchObject({ status: 64, err: expect.stringContaining('silent') });
    status = { ...status, peers: [] };
    const alone = await run('peers');
    expect(alone).toMatchObject({ status: 0, err: expect.stringContaining('knows no peers') });
  });

  it('lets no control byte of another host through', async () => {
    status = { ...status, peers: [peer(2, { reason: '\u001b[2J' }, { hostName: 'evil\u001b]0;x\u0007' })] };
    for (const line of ['peers', 'peers -o wide', 'status -o wide', 'status'])
      expect((await run(line)).out.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });

  it('prints 5,000 peers quickly', async () => {
    const many = Array.from({ length: 5000 }, (_, n) =>
      peer(n % 250, { state: n % 7 === 0 ? 'silent' : 'up', reason: n % 7 === 0 ? 'no answer' : null, loss: 0 }),
    );
    status = { ...status, peers: many };
    const begunMs = performance.now();
    expect((await run('peers')).out.split('\n')).toHaveLength(5002);
    expect(performance.now() - begunMs).toBeLessThan(2000);
  });
});

describe('rates and sizes', () => {
  it.each([
    [null, '-'],
    [0, '0 bit/s'],
    [999, '999 bit/s'],
    [1000, '1.0 kbit/s'],
    [123_456, '123 kbit/s'],
    [2.5e9, '2.5 Gbit/s'],
  ])('%s is %s', (rate, text) => expect(formatRate(rate)).toBe(text));

  it.each([
    [0, '0 B'],
    [1536, '1.5 KiB'],
    [2 ** 40, '1.0 TiB'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));
});
