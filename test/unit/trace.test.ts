import { describe, expect, it } from 'vitest';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { known, unknown } from '../../src/lib/fact.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { runTool } from '../../src/tool/tool.js';
import type { WayFacts, WayRequest, WayRoute } from '../../src/tool/trace-facts.js';
import { noPorts, sampleStatus, unexpected, unmeasured } from '../support/samples.js';

const base = sampleStatus.peers[0] as StatusPeer;
const watched = (more: Partial<PeerWatched>): PeerWatched => ({ ...unmeasured, state: 'up', heardSeconds: 3, ...more });
const status: Status = {
  ...sampleStatus,
  peers: [{ ...base, hostName: 'host-b', watched: watched({ roundTripMs: { p50: 0.25, p99: null } }) }],
  datapath: {
    engine: 'tun',
    pid: 4711,
    threads: 1,
    generationPublished: 3,
    generationAdopted: 3,
    respawns: 0,
    features: [],
    warnings: [],
    kernel: null,
    counters: {},
  },
};
const tunnel: WayRoute = {
  link: 'tartan0',
  gateway: undefined,
  source: parseIpv4('10.5.1.0'),
  table: 254,
  isLocal: false,
  rules: [],
};
const well: WayFacts = {
  inLink: known(undefined),
  route: known(tunnel),
  innerDrop: known(undefined),
  outerDrops: known([]),
};

async function trace(line: string, facts: Partial<WayFacts> = {}, of: Partial<Status> = {}) {
  let [out, err] = ['', ''];
  const requests: WayRequest[] = [];
  const io = {
    env: {},
    stdout: (text: string) => void (out += text),
    stderr: (text: string) => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: {
      ...noPorts,
      readStatus: async () => ({ kind: 'status', status: { ...status, ...of } }) as const,
      readWay: async (request: WayRequest) => {
        requests.push(request);
        return { ...well, ...facts };
      },
    },
  };
  const exit = await runTool(['/usr/bin/node', '/usr/bin/tartan', 'trace', ...line.split(' ')], io);
  return { status: exit, out, err, requests };
}

const peerWith = (more: Partial<StatusPeer>): Partial<Status> => ({
  peers: [{ ...(status.peers[0] as StatusPeer), ...more }],
});
const fromContainer = { inLink: known('docker0') };

describe('tartan trace', () => {
  it('tells each step of a packet that arrives', async () => {
    const outcome = await trace('10.5.2.7');
    expect(outcome).toMatchObject({ status: 0, err: '' });
    expect(outcome.out.split('\n')).toEqual([
      'STEP        STATE   BY',
      'lease       passes  10.5.2.7 is of peer 10.5.2.0/24 (host-b, 192.0.2.2)',
      'route       passes  this host -> tartan0 from 10.5.1.0',
      'firewall    passes  no rule of this host drops it where it is sent (judged as a new TCP connection)',
      "source      passes  10.5.1.0 is in this host's lease 10.5.1.0/24",
      'data plane  passes  process 4711 finds the peer in table 3; counted as tx_ok',
      'mtu         passes  packets of up to 1472 bytes; the path was not measured yet',
      'underlay    passes  UDP 192.0.2.1 -> 192.0.2.2:8285 by eth0, no rule of this host drops it',
      'peer        passes  it is up, heard 3s ago, round trip 0.25 ms',
      expect.stringMatching(
        /^other end {3}passes {2}host-b takes packets of 192\.0\.2\.1 .* passes them on to 10\.5\.2\.7$/,
      ),
      '',
      'arrives at 10.5.2.7',
      '',
    ]);
    expect(outcome.requests).toEqual([
      {
        to: parseIpv4('10.5.2.7'),
        from: undefined,
        outer: { device: 'eth0', address: parseIpv4('192.0.2.1'), port: 8285, peer: parseIpv4('192.0.2.2') },
      },
    ]);
  });

  it('by the engine kernel, and why not', async () => {
    const watched = status.peers[0]?.watched;
    if (!watched) throw new Error('the sample is watched');
    const by = await trace('10.5.2.7', {}, peerWith({ watched: { ...watched, engine: 'kernel' } }));
    expect(by.out).toContain('data plane  passes  the engine kernel sends it by tartan-k; what is too long');
    expect(by.out).toContain('underlay    passes  UDP 192.0.2.1 -> 192.0.2.2:4790 by eth0');
    expect(by.requests[0]?.outer).toMatchObject({ port: 4790, isKernel: true });
    const engineReason = 'no answer on UDP 4790 for 12 s';
    const not = await trace('10.5.2.7', {}, peerWith({ watched: { ...watched, engineReason } }));
    expect(not.out).toContain('counted as tx_ok; not by the kernel: no answer on UDP 4790 for 12 s');
  });

  it('as a document', async () => {
    const { out } = await trace('10.5.2.7 --from 10.5.1.2 -o json', fromContainer, { lease: null });
    expect(JSON.parse(out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'Trace',
      from: '10.5.1.2',
      to: '10.5.2.7',
      arrives: false,
      lostAt: 'lease',
      next: 'tartan status',
      steps: [{ name: 'lease', state: 'lost', text: 'this host has no lease (ready)', next: 'tartan status' }],
    });
  });

  it.each<[what: string, line: string, facts: Partial<WayFacts>, of: Partial<Status>, lost: RegExp, next: RegExp]>([
    ['an address outside', '192.0.2.9', {}, {}, /^lost at network: .*outside of .*10\.5\.0\.0\/16/m, /tartan leases/],
    [
      'no network yet',
      '10.5.2.7',
      {},
      { network: null, phase: 'waiting-for-network' },
      /^lost at network: .*waiting/m,
      /status/,
    ],
    [
      'an address of no lease',
      '10.5.9.7',
      {},
      {},
      /^lost at lease: no lease .*10\.5\.9\.7.*tx_noroute/m,
      /tartan leases/,
    ],
    [
      'a foreign route',
      '10.5.2.7',
      { route: known({ ...tunnel, link: 'eth1', gateway: parseIpv4('192.0.2.253') }) },
      {},
      /^lost at route: .*eth1 via 192\.0\.2\.253.*leaves the overlay/m,
      /ip route show table 254/,
    ],
    [
      'a policy rule',
      '10.5.2.7',
      { route: known({ ...tunnel, link: 'wg0', table: 52, rules: [5210] }) },
      {},
      /^lost at route: .*wg0.*table 52 by rule 5210/m,
      /ip route show table 52; rule 5210/,
    ],
    ['no route', '10.5.2.7', { route: known('ENETUNREACH') }, {}, /^lost at route: .*tunnel is away/m, /tartan status/],
    [
      'no forwarding',
      '10.5.2.7',
      { ...fromContainer, route: known('EHOSTUNREACH') },
      {},
      /^lost at route: .*does not forward it from docker0/m,
      /conf\.docker0\.forwarding/,
    ],
    [
      'rp_filter',
      '10.5.2.7',
      { ...fromContainer, route: known('EXDEV') },
      {},
      /^lost at route: rp_filter/m,
      /docker0\.rp_filter/,
    ],
    [
      'a firewall',
      '10.5.2.7',
      { ...fromContainer, innerDrop: known({ hook: 'forward', rule: "nft inet x f: its rule 'drop' drops" }) },
      {},
      /^lost at firewall: dropped at forward: nft inet x/m,
      /docker verify/,
    ],
    [
      'a foreign source',
      '10.5.2.7 --from 10.9.0.2',
      fromContainer,
      { docker: null },
      /^lost at source: 10\.9\.0\.2 .*tx_spoof_src/m,
      /--ip-masq/,
    ],
    [
      'no data process',
      '10.5.2.7',
      {},
      { datapath: { ...(status.datapath as NonNullable<Status['datapath']>), pid: null } },
      /^lost at data plane: no data process/m,
      /journalctl/,
    ],
    [
      'a lost lease',
      '10.5.2.7',
      {},
      { lease: { subnet: '10.5.1.0/24', state: 'lost', deadlineSeconds: 0 } },
      /^lost at data plane: .*tx_fenced/m,
      /leases/,
    ],
    [
      'a blocked port',
      '10.5.2.7',
      {
        outerDrops: known([
          { what: 'out', rule: 'iptables filter OUTPUT: r', repair: 'iptables -I OUTPUT', peers: [] },
        ]),
      },
      {},
      /^lost at underlay: .*drops the packets: iptables filter OUTPUT/m,
      /^next: iptables -I OUTPUT$/m,
    ],
    [
      'a silent peer',
      '10.5.2.7',
      {},
      peerWith({ watched: watched({ state: 'silent', reason: 'no ARP', nextStep: 'power it on' }) }),
      /^lost at peer: no ARP$/m,
      /^next: power it on$/m,
    ],
    [
      'Docker elsewhere',
      '10.5.1.7',
      { route: known(tunnel) },
      {},
      /^lost at bridge: no bridge .*Docker has another subnet/m,
      /docker verify/,
    ],
  ])('loses a packet at %s', async (_, line, facts, of, lost, next) => {
    const outcome = await trace(line, facts, of);
    expect(outcome).toMatchObject({ status: 2, err: '' });
    expect(outcome.out).toMatch(lost);
    expect(outcome.out).toMatch(next);
    expect(outcome.out.match(/^\S.* lost {3}/gm)).toHaveLength(1);
  });

  it.each<[what: string, line: string, facts: Partial<WayFacts>, of: Partial<Status>, text: RegExp]>([
    [
      'a container here',
      '10.5.1.7',
      { route: known({ ...tunnel, link: 'docker0' }) },
      {},
      /bridge +passes +docker0 reaches it directly/,
    ],
    [
      'this host',
      '10.5.1.1',
      { route: known({ ...tunnel, isLocal: true }) },
      {},
      /bridge +passes +it is an address of this host/,
    ],
    [
      'a masqueraded source',
      '10.5.2.7 --from 10.9.0.2',
      fromContainer,
      {},
      /source +passes +10\.9\.0\.2 .*masqueraded/,
    ],
    [
      'a narrow path',
      '10.5.2.7',
      {},
      peerWith({ watched: watched({ pathMtu: { out: 1372, in: null } }) }),
      /mtu +passes .*1472 bytes, this path carries 1372/,
    ],
    [
      'a peer held down',
      '10.5.2.7',
      {},
      peerWith({ state: 'held-down', secondsLeft: 50 }),
      /lease +passes .*stays routed, for 50s more/,
    ],
    [
      'a peer of an older daemon',
      '10.5.2.7',
      {},
      peerWith({ watched: null }),
      /peer +unknown[^]*as far as is known \(not read: peer\)/,
    ],
    ['unread rules', '10.5.2.7', { innerDrop: unknown('EPERM') }, {}, /firewall +unknown +EPERM[^]*not read: firewall/],
    ['an unread route', '10.5.2.7', { route: unknown('EPERM') }, {}, /route +unknown +EPERM/],
  ])('goes on past %s', async (_, line, facts, of, text) => {
    const outcome = await trace(line, facts, of);
    expect(outcome.status).toBe(0);
    expect(outcome.out).toMatch(text);
  });

  it('every loss has a next step, and no text of a peer reaches the terminal raw', async () => {
    const evil = peerWith({
      hostName: 'x\u001b[2J',
      watched: watched({ state: 'silent', reason: '\u0007', nextStep: '\u009b' }),
    });
    const { out } = await trace('10.5.2.7', {}, evil);
    expect(out.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });

  it.each(['host-b', '10.5.2', '10.5.2.7 --from x'])('%s is 64', async line => {
    const outcome = await trace(line);
    expect(outcome).toMatchObject({ status: 64, out: '' });
    expect(outcome.err).toContain('is not an IPv4 address');
  });
});
