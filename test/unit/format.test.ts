import { describe, expect, it } from 'vitest';
import type { Status } from '../../src/agent/status.js';
import { formatStatus } from '../../src/tool/status-view.js';
import { formatDuration, formatFields, formatTable, openPaint, type Column } from '../../src/tool/table.js';
import { sampleStatus } from '../support/samples.js';

const plain = openPaint({ isTty: false, env: {} });

const status: Status = {
  ...sampleStatus,
  peers: [
    {
      subnet: '10.5.2.0/24',
      publicIp: '192.0.2.2',
      nodeId: 'node-b',
      state: 'live',
      secondsLeft: null,
      hostName: null,
      backend: 'udp',
      watched: null,
    },
    {
      subnet: '10.5.3.0/24',
      publicIp: '192.0.2.3',
      nodeId: null,
      state: 'held-down',
      secondsLeft: 58,
      hostName: null,
      backend: 'udp',
      watched: null,
    },
    {
      subnet: '10.5.4.0/24',
      publicIp: '192.0.2.4',
      nodeId: null,
      state: 'forgotten',
      secondsLeft: 7200,
      hostName: null,
      backend: 'udp',
      watched: null,
    },
  ],
  datapath: {
    engine: 'tun',
    pid: 4711,
    threads: 2,
    generationPublished: 42,
    generationAdopted: 42,
    respawns: 0,
    features: [],
    warnings: [],
    counters: { txPackets: 12, rxPackets: 0, dropNoRoute: 3 },
  },
};

describe('status', () => {
  it('on one screen', () => {
    expect(formatStatus(status, 'table', plain)).toBe(
      [
        'state           ready',
        'version         0.1.0',
        'node            node-a',
        'public address  192.0.2.1',
        'interface       eth0, 192.0.2.1, MTU 1500',
        'network         10.5.0.0/16',
        'backend         udp, port 8285',
        'lease           10.5.1.0/24, held, 23h 59m left without a sign of life',
        'peers           3',
        'data plane      tun, process 4711, 2 threads, published 42, adopted 42, respawns 0',
        '',
      ].join('\n'),
    );
  });

  it('names the offloads in force', () => {
    const datapath = { ...status.datapath, features: ['tun_csum', 'udp_gro'] } as Status['datapath'];
    expect(formatStatus({ ...status, datapath }, 'table', plain)).toContain('\noffloads        tun_csum udp_gro\n');
  });

  it('wide: peers, refused entries and counters too', () => {
    const rejected = [{ key: '10.5.2.128-25', reason: 'overlaps the older lease 10.5.2.0/24' }];
    expect(
      formatStatus({ ...status, rejected }, 'wide', plain)
        .split('\n')
        .slice(10),
    ).toEqual([
      'refused         1 lease entries, see -o wide',
      '',
      'PEER         PUBLIC IP  NODE    STATE',
      '10.5.2.0/24  192.0.2.2  node-b  live',
      '10.5.3.0/24  192.0.2.3  -       held-down, 58s left',
      '10.5.4.0/24  192.0.2.4  -       kept, forgotten by the store, 2h left',
      '',
      'refused 10.5.2.128-25  overlaps the older lease 10.5.2.0/24',
      '',
      'txPackets    12',
      'dropNoRoute  3',
      '',
    ]);
  });

  it('of a daemon that has nothing yet', () => {
    const nothing: Status = {
      ...status,
      phase: 'waiting-for-network',
      ready: false,
      problems: ['etcd does not answer', 'second\u001b[2J'],
      node: { ...status.node, publicIp: null },
      lease: null,
      network: null,
      backend: null,
      interface: null,
      peers: [],
      datapath: null,
    };
    expect(formatStatus(nothing, 'wide', plain)).toBe(
      [
        'state           waiting-for-network',
        'version         0.1.0',
        'node            node-a',
        'public address  -',
        'interface       -',
        'network         -',
        'backend         -',
        'lease           -',
        'peers           0',
        'data plane      -',
        'problem         etcd does not answer',
        'problem         second?[2J',
        '',
      ].join('\n'),
    );
  });

  it('a reservation has no deadline', () => {
    const text = formatStatus(
      { ...status, lease: { subnet: '10.5.1.0/24', state: 'unknown', deadlineSeconds: null } },
      'table',
      plain,
    );
    expect(text).toContain('10.5.1.0/24, unknown, reserved\n');
  });
});

describe('tables', () => {
  const columns: readonly Column<readonly [string, string]>[] = [
    { title: 'A', cell: ([a]) => a },
    { title: 'B', cell: ([, b]) => ({ text: b, colour: 'good' }), wide: true },
  ];

  it('leave wide columns out, end no line in spaces, and are only a head when empty', () => {
    expect(formatTable(columns, [['long cell', 'x']], 'table', plain)).toBe('A\nlong cell\n');
    expect(formatTable(columns, [['a', 'x']], 'wide', plain)).toBe('A  B\na  x\n');
    expect(formatTable(columns, [], 'wide', plain)).toBe('A  B\n');
  });

  it('let no control byte through', () => {
    expect(formatTable(columns, [['\u001b[31mred\n\u009b', '\t']], 'wide', plain)).toBe(
      'A           B\n?[31mred??  ?\n',
    );
  });

  it('are coloured on a terminal only, and not where NO_COLOR is set', () => {
    const text = (isTty: boolean, env: Record<string, string>): string =>
      formatFields([['state', { text: 'ready', colour: 'good' }]], openPaint({ isTty, env }));
    expect(text(true, {})).toContain('\u001b[32mready');
    expect(text(true, { NO_COLOR: '' })).toContain('\u001b[32mready');
    expect(text(true, { NO_COLOR: '1' })).toBe('state  ready\n');
    expect(text(false, {})).toBe('state  ready\n');
  });

  it('align whether coloured or not', () => {
    const colourful = openPaint({ isTty: true, env: {} });
    const rows = [
      ['a', 'b'],
      ['aaa', 'b'],
    ] as const;
    const seen = formatTable(columns, rows, 'wide', colourful).replace(/\u001b\[\d+m/g, '');
    expect(seen.split('\n').map(line => line.trimEnd())).toEqual(formatTable(columns, rows, 'wide', plain).split('\n'));
  });
});

describe('durations', () => {
  it.each([
    [0, '0s'],
    [-5, '0s'],
    [0.9, '0s'],
    [59.9, '59s'],
    [60, '1m'],
    [61, '1m 1s'],
    [3600, '1h'],
    [3601, '1h'],
    [86_399, '23h 59m'],
    [86_400, '1d'],
    [315_360_000, '3650d'],
  ])('%d s is %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text));
});
