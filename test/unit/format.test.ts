import { describe, expect, it } from 'vitest';
import { statusSchema, type Status, type StatusPeer } from '../../src/agent/status.js';
import { formatStatus } from '../../src/tool/status-view.js';
import { formatDuration, formatFields, formatTable, openPaint, type Column } from '../../src/tool/table.js';
import { sampleStatus, unmeasured } from '../support/samples.js';

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
    warningKinds: [],
    kernel: null,
    counters: { txPackets: 12, rxPackets: 0, dropNoRoute: 3 },
  },
};

describe('status', () => {
  it.each([
    [{ wanted: 'user', state: 'off', reason: 'this host runs with --engine=user' }, 'user space: this host runs with'],
    [{ wanted: 'user', state: 'on', reason: 'Engine ..' }, 'user space, the kernel engine only receives: Engine ..'],
    [
      { wanted: 'auto', state: 'unavailable', reason: 'EPERM' },
      'user space, the kernel engine is not available: EPERM',
    ],
    [{ wanted: 'auto', state: 'on', reason: null }, 'kernel for 1 of 3 peers, user space for the others'],
  ] as const)('the engine of %j', (kernel, text) => {
    if (!status.datapath) throw new Error('the sample has one');
    const datapath = { ...status.datapath, kernel: { ...kernel, peers: 1 } };
    expect(formatStatus({ ...status, datapath }, 'table', plain)).toContain(`engine      ${text}`);
  });

  it('on one screen', () => {
    expect(formatStatus(status, 'table', plain)).toBe(
      [
        'ready, 3 peers, 2 vanished from etcd, lease held',
        '',
        'host        node node-a',
        'underlay    192.0.2.1 on eth0 (192.0.2.1, MTU 1500)',
        'lease       10.5.1.0/24 of 10.5.0.0/16, held, 23h 59m left without a sign of life',
        'backend     udp, port 8285, packets up to 1472 bytes',
        'peers       3: 1 held-down, 1 forgotten',
        'data plane  tun, process 4711, 2 threads, table 42, respawns 0',
        'version     0.1.0',
        '',
      ].join('\n'),
    );
  });

  const silent = (n: number): StatusPeer => ({
    ...(sampleStatus.peers[0] as StatusPeer),
    subnet: `10.5.${n}.0/24`,
    hostName: `host-${n}`,
    watched: {
      ...unmeasured,
      state: 'silent',
      reason: `192.0.2.${n} does not answer ARP on eth0`,
      nextStep: `look whether host-${n} is on`,
    },
  });
  const ill: Status = {
    ...status,
    summary: 'impaired, 1 of 3 peers answer, etcd answered 40 s ago',
    problems: ['etcd does not answer', 'no member answers', 'peer 10.5.3.0/24: 192.0.2.3 does not answer ARP on eth0'],
    placedProblems: [
      { place: 'store', text: 'etcd does not answer' },
      { place: 'store', text: 'no member answers' },
      { place: 'peers', text: 'peer 10.5.3.0/24: 192.0.2.3 does not answer ARP on eth0' },
    ],
    peers: [sampleStatus.peers[0] as StatusPeer, silent(3), silent(4)],
    store: {
      answeredSeconds: 40,
      watchSeconds: 100,
      refused: null,
      endpoints: [{ url: 'http://192.0.2.254:2379', state: 'silent', reason: 'no answer within 3 s' }],
    },
  };

  it('the truth first, then what is wrong once each with its next step, then facts, in 24 lines of 80', () => {
    const lines = formatStatus(ill, 'table', plain).split('\n');
    expect(lines.slice(0, 10)).toEqual([
      'impaired, 1 of 3 peers answer, etcd answered 40 s ago',
      '',
      'wrong  etcd does not answer',
      'wrong  no member answers',
      'next   see that etcd runs and answers here: tartan leases',
      'wrong  peer 10.5.3.0/24 (host-3, 192.0.2.2): 192.0.2.3 does not answer ARP on eth0',
      'next   look whether host-3 is on',
      'wrong  peer 10.5.4.0/24 (host-4, 192.0.2.2): 192.0.2.4 does not answer ARP on eth0',
      'next   look whether host-4 is on',
      '',
    ]);
    expect(lines).toContain('peers       3: 2 silent');
    expect(lines).toContain('etcd        answered 40s ago, 0 of 1 endpoints answer');
    expect(lines.reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 80)), 0)).toBeLessThanOrEqual(24);
  });

  it('names five troubles, wide all of them and the endpoints', () => {
    const many = { ...ill, peers: Array.from({ length: 20 }, (_, n) => silent(n + 3)) };
    const text = formatStatus(many, 'table', plain);
    expect(text).toContain('\n       17 more, see -o wide\n');
    expect(text.split('\n').length).toBeLessThanOrEqual(24);
    const wide = formatStatus(many, 'wide', plain);
    expect(wide.match(/^wrong {2}peer/gm)).toHaveLength(20);
    expect(wide).toContain('endpoint    http://192.0.2.254:2379 silent: no answer within 3 s\n');
  });

  it('peers with one cause are one trouble, and the daemon is not repeated', () => {
    const reason = 'this host hears none of 3 peers: UDP 8285 does not come in';
    const deaf = [3, 4, 5].map(silent).map(peer => {
      return { ...peer, watched: peer.watched && { ...peer.watched, reason, nextStep: 'nft list ruleset' } };
    });
    const text = `${reason}; next: nft list ruleset`;
    const narrow = 'packets of 1372 bytes reach 192.0.2.3; next: raise the MTU on the way';
    const lines = formatStatus(
      {
        ...ill,
        summary: `impaired, 0 of 3 peers answer, etcd answered 1 s ago: ${text} (and 2 more)`,
        problems: [text, '4 more peers do not answer; next: tartan peers', narrow],
        placedProblems: [text, '4 more peers do not answer; next: tartan peers', narrow].map(problem => {
          return { place: 'peers', text: problem };
        }),
        peers: deaf,
      },
      'table',
      plain,
    ).split('\n');
    expect(lines.slice(0, 7)).toEqual([
      'impaired, 0 of 3 peers answer, etcd answered 1 s ago',
      '',
      'wrong  packets of 1372 bytes reach 192.0.2.3',
      'next   raise the MTU on the way',
      `wrong  3 peers, such as peer 10.5.3.0/24 (host-3, 192.0.2.2): ${reason}`,
      'next   nft list ruleset',
      '',
    ]);
  });

  it('of an older daemon: its problems, without a place', () => {
    const { placedProblems: _, ...older } = ill;
    const parsed = statusSchema.parse({ ...older, summary: undefined, health: { state: 'impaired', reasons: [] } });
    const [first, , second] = formatStatus(parsed, 'table', plain).split('\n');
    expect(first).toBe('impaired, 3 peers, lease held');
    expect(second).toBe('wrong  etcd does not answer');
  });

  it('wide: peers, refused entries, offloads and counters too', () => {
    const rejected = [{ key: '10.5.2.128-25', reason: 'overlaps the older lease 10.5.2.0/24' }];
    const datapath = { ...status.datapath, features: ['tun_csum', 'udp_gro'] } as Status['datapath'];
    const text = formatStatus({ ...status, datapath, rejected }, 'wide', plain);
    expect(text).toContain('\nwrong  1 lease entry is refused\nnext   tartan status -o wide\n');
    expect(text).toContain('\nboot id     boot-1\noffloads    tun_csum udp_gro\n');
    expect(text).toMatch(/\n10\.5\.4\.0\/24 .* kept, forgotten by the store, 2h left\n/);
    expect(text).toContain('\nrefused 10.5.2.128-25  overlaps the older lease 10.5.2.0/24\n');
    expect(text).toMatch(/\n\ntxPackets {4}12\ndropNoRoute {2}3\n$/);
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
    expect(formatStatus(nothing, 'table', plain)).toBe(
      [
        'waiting-for-network',
        '',
        'wrong  etcd does not answer',
        'wrong  second?[2J',
        'next   journalctl -u tartand -p warning',
        '',
        'host        node node-a',
        'underlay    -',
        'lease       -',
        'backend     -',
        'peers       0',
        'data plane  -',
        'version     0.1.0',
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
    expect(text).toContain('10.5.1.0/24 of 10.5.0.0/16, unknown, reserved\n');
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

  it('look the same when they are long', () => {
    const rows = Array.from({ length: 300 }, (_, n) => [String(n), 'x'.repeat(n % 7)] as const);
    const lines = formatTable(columns, rows, 'wide', plain).split('\n');
    const short = formatTable(columns, rows.slice(-90), 'wide', plain).split('\n');
    expect(lines.slice(-91)).toEqual(short.slice(1));
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
