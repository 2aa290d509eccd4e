/** Facts that differ from those of a sound host in one thing, and the finding that each must give. */
import type { PlacedProblem, Status } from '../../src/agent/status.js';
import type { DoctorFacts } from '../../src/doctor/facts.js';
import { factValue, known, unknown } from '../../src/lib/fact.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { sampleFacts, samplePlan } from './docker-facts.js';
import { sampleDatapath, wallMs, watchedPeer, wellFacts, wellProcess, wellStatus } from './doctor-facts.js';

const { own, host, underlay } = wellFacts;

export function withStatus(change: Partial<Status>): Partial<DoctorFacts> {
  const status = known({ ...wellStatus, ...change });
  return { status, later: status };
}

export function withProblem(
  place: PlacedProblem['place'],
  text: string,
  more: Partial<Status> = {},
): Partial<DoctorFacts> {
  return withStatus({ problems: [text], placedProblems: [{ place, text }], ...more });
}

export function withDatapath(
  before: Partial<Status['datapath']>,
  after: Partial<Status['datapath']> = before,
): Partial<DoctorFacts> {
  return {
    status: known({ ...wellStatus, datapath: { ...sampleDatapath, ...before } }),
    later: known({ ...wellStatus, datapath: { ...sampleDatapath, ...after } }),
  };
}

const [route] = factValue(underlay.routes) ?? [];
if (!route) throw new Error('the sample has a route');
const byOther = { ...route, outer: { interfaceName: 'eth1', source: parseIpv4('198.51.100.1') } };
const link = { name: 'eth0', mtu: 1500, up: true, hasAddress: true, isRouted: false };
const place = own.places[0] ?? { path: '', refusal: undefined, freeBytes: known(0), freeFiles: known(0) };
export const away = unknown('nobody listens on /run/tartan/tartand.sock');

export type Row = readonly [severity: string, id: string, words: RegExp, change: Partial<DoctorFacts>];

/** The words stand in evidence, cause or next step. */
export const rows: readonly Row[] = [
  [
    'error',
    'daemon-away',
    /no tartand runs here/,
    { status: away, later: away, own: { ...own, daemon: known(undefined) } },
  ],
  [
    'error',
    'daemon-away',
    /kill -CONT 4000/,
    { status: away, own: { ...own, daemon: known({ ...wellProcess, state: 'T' }) } },
  ],
  [
    'error',
    'daemon-away',
    /used up its 1024/,
    { status: away, own: { ...own, daemon: known({ ...wellProcess, openFiles: known(1024) }) } },
  ],
  [
    'error',
    'daemon-away',
    /DUPLICATE/,
    { status: away, own: { ...own, daemon: known(undefined), lastFailure: 'DUPLICATE' } },
  ],
  ['error', 'daemon-not-ready', /configuring/, withStatus({ ready: false, phase: 'configuring' })],
  ['note', 'daemon-version', /tartand is 0\.0\.9/, withStatus({ version: '0.0.9' })],
  [
    'error',
    'descriptors-used-up',
    /LimitNOFILE/,
    { own: { ...own, daemon: known({ ...wellProcess, openFiles: known(1000) }) } },
  ],
  ['error', 'directory-read-only', /remount,rw/, { own: { ...own, places: [{ ...place, refusal: 'EROFS' }] } }],
  ['error', 'directory-gone', /ENOTDIR/, { own: { ...own, places: [{ ...place, refusal: 'ENOTDIR' }] } }],
  ['unchecked', 'directory', /EACCES/, { own: { ...own, places: [{ ...place, refusal: 'EACCES' }] } }],
  ['error', 'disk-full', /file system is full/, { own: { ...own, places: [{ ...place, freeBytes: known(0) }] } }],
  ['error', 'disk-full', /0 files left/, { own: { ...own, places: [{ ...place, freeFiles: known(0) }] } }],
  ['warning', 'disk-full', /4096 bytes/, { own: { ...own, places: [{ ...place, freeBytes: known(4096) }] } }],
  [
    'error',
    'subnet-file',
    /names 10\.5\.9\.0\/24, the lease is 10\.5\.1\.0\/24/,
    {
      own: {
        ...own,
        subnetFile: {
          path: 'x',
          text: known(
            'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.9.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n',
          ),
        },
      },
    },
  ],
  ['error', 'subnet-file', /names no subnet/, { own: { ...own, subnetFile: { path: 'x', text: known(undefined) } } }],
  [
    'note',
    'clock-set',
    /back by 90 s/,
    withStatus({ daemon: { pid: 1, clockSetSeconds: -90, stateDir: '/', subnetFile: '/' } }),
  ],
  [
    'error',
    'network-document',
    /no network document.*tartan config set/s,
    withProblem('network', 'there is no network document'),
  ],
  ['error', 'store-problem', /etcd refuses/, withProblem('store', 'etcd refuses user x')],
  [
    'error',
    'store-silent',
    /etcdctl --endpoints=http:\/\/192\.0\.2\.254:2379/,
    withStatus({
      store: { answeredSeconds: 90, watchSeconds: null, refused: null, endpoints: wellStatus.store?.endpoints ?? [] },
    }),
  ],
  [
    'error',
    'store-refuses',
    /no permission for held/,
    withStatus({ store: { answeredSeconds: 1, watchSeconds: 1, refused: 'no permission for held/', endpoints: [] } }),
  ],
  [
    'warning',
    'endpoint-silent',
    /192\.0\.2\.9:2379 does not answer: timeout/,
    withStatus({
      store: {
        answeredSeconds: 1,
        watchSeconds: 1,
        refused: null,
        endpoints: [
          ...(wellStatus.store?.endpoints ?? []),
          { url: 'http://192.0.2.9:2379', state: 'silent', reason: 'timeout' },
        ],
      },
    }),
  ],
  ['error', 'lease-problem', /lease is unknown/, withProblem('lease', 'the lease is unknown')],
  [
    'error',
    'lease-lost',
    /restart tartand/,
    withProblem('lease', 'the lease is lost', {
      ready: false,
      lease: { subnet: '10.5.1.0/24', state: 'lost', deadlineSeconds: 0 },
    }),
  ],
  [
    'error',
    'lease-ending',
    /ends in 300 s/,
    withStatus({ lease: { subnet: '10.5.1.0/24', state: 'unknown', deadlineSeconds: 300 } }),
  ],
  [
    'error',
    'address-twice',
    /two hosts have one address/,
    withStatus({ rejected: [{ key: 'subnets/10.5.9.0-24', reason: 'has our own public address' }] }),
  ],
  [
    'warning',
    'lease-refused',
    /is not a part/,
    withStatus({ rejected: [{ key: 'subnets/10.9.9.0-24', reason: 'is not a part of the network' }] }),
  ],
  [
    'error',
    'certificate-expired',
    /2025-12-31/,
    { own: { ...own, certificates: [{ path: 'c.pem', validFromMs: known(0), validToMs: known(wallMs - 1) }] } },
  ],
  [
    'warning',
    'certificate-ends',
    /ends in 2 days/,
    {
      own: {
        ...own,
        certificates: [{ path: 'c.pem', validFromMs: known(0), validToMs: known(wallMs + 2.5 * 86_400_000) }],
      },
    },
  ],
  [
    'error',
    'certificate-not-yet',
    /clock of this host/,
    {
      own: { ...own, certificates: [{ path: 'c.pem', validFromMs: known(wallMs + 1), validToMs: known(wallMs * 2) }] },
    },
  ],
  [
    'unchecked',
    'certificate',
    /no such file/,
    {
      own: {
        ...own,
        certificates: [{ path: 'c.pem', validFromMs: unknown('x'), validToMs: unknown('there is no such file') }],
      },
    },
  ],
  ['error', 'underlay-problem', /underlay_lost/, withProblem('underlay', 'underlay_lost: no address')],
  [
    'error',
    'underlay-address',
    /has not the address 192\.0\.2\.1/,
    { underlay: { ...underlay, link: known({ ...link, hasAddress: false }) } },
  ],
  ['error', 'underlay-address', /there is no link eth0/, { underlay: { ...underlay, link: known(undefined) } }],
  ['error', 'underlay-down', /ip link set eth0 up/, { underlay: { ...underlay, link: known({ ...link, up: false }) } }],
  [
    'error',
    'underlay-mtu',
    /eth0 has MTU 1400.*1472/,
    { underlay: { ...underlay, link: known({ ...link, mtu: 1400 }) } },
  ],
  [
    'error',
    'no-route-to-peer',
    /ip route get 192\.0\.2\.2/,
    { underlay: { ...underlay, routes: known([{ ...route, outer: undefined }]) } },
  ],
  [
    'warning',
    'wrong-interface',
    /leaves by eth1.*--iface eth1/s,
    { underlay: { ...underlay, routes: known([byOther]) } },
  ],
  [
    'error',
    'wrong-interface',
    /leaves by eth1/,
    {
      ...withStatus({ peers: [watchedPeer({ state: 'silent' })] }),
      underlay: { ...underlay, routes: known([byOther]) },
    },
  ],
  [
    'error',
    'route-diverted',
    /10\.5\.2\.0\/24 leave by eth0 and not by tartan0/,
    {
      underlay: {
        ...underlay,
        routes: known([{ ...route, inner: { interfaceName: 'eth0', source: parseIpv4('192.0.2.1') } }]),
      },
    },
  ],
  [
    'error',
    'rp-filter-drops',
    /rp_filter=2/,
    {
      host: { ...host, reversePath: { all: known('1'), underlay: known('0') } },
      underlay: { ...underlay, routes: known([byOther]) },
    },
  ],
  [
    'error',
    'udp-in-dropped',
    /insert rule/,
    {
      underlay: {
        ...underlay,
        drops: known([
          { what: 'in', rule: "nft inet t input: its rule 'drop' drops", repair: 'nft insert rule', peers: [] },
        ]),
      },
    },
  ],
  [
    'error',
    'udp-out-dropped',
    /go out/,
    { underlay: { ...underlay, drops: known([{ what: 'out', rule: 'r drops', repair: 'x', peers: [] }]) } },
  ],
  [
    'warning',
    'udp-new-dropped',
    /not sent to lately/,
    { underlay: { ...underlay, drops: known([{ what: 'new', rule: 'r drops', repair: 'x', peers: [] }]) } },
  ],
  [
    'warning',
    'icmp-dropped',
    /path MTU/,
    { underlay: { ...underlay, drops: known([{ what: 'icmp', rule: 'r drops', repair: 'x', peers: [] }]) } },
  ],
  ['unchecked', 'outer-firewall', /denied/, { underlay: { ...underlay, drops: unknown('iptables-save: denied') } }],
  [
    'error',
    'peer-silent',
    /host-b 192\.0\.2\.2.*does not answer ARP.*arping/s,
    withStatus({
      peers: [watchedPeer({ state: 'silent', reason: 'does not answer ARP', nextStep: 'arping 192.0.2.2' })],
    }),
  ],
  [
    'warning',
    'peer-gone',
    /lease release 10\.5\.2\.0\/24 --force/,
    withStatus({ peers: [watchedPeer({ state: 'silent', heardSeconds: null, stateSeconds: 90_000 })] }),
  ],
  [
    'warning',
    'path-mtu',
    /1372 bytes.*1400/s,
    withStatus({ peers: [watchedPeer({ pathMtu: { out: 1372, in: null } })] }),
  ],
  [
    'warning',
    'peer-address',
    /203\.0\.113\.9/,
    withStatus({ peers: [watchedPeer({ addressSeen: '203.0.113.9:8285' })] }),
  ],
  ['note', 'peer-backend', /says vxlan/, withStatus({ peers: [watchedPeer({}, { backend: 'vxlan' })] })],
  ['note', 'peer-unwatched', /flannel/, withStatus({ peers: [watchedPeer({ state: 'unwatched' })] })],
  [
    'warning',
    'stranger',
    /198\.18\.9\.9.*perhaps of 192\.0\.2\.2.*translated/s,
    withProblem('peers', '3 packets from 198.18.9.9, which no lease names, dropped: perhaps of 192.0.2.2 (host-b)', {
      peers: [watchedPeer({ state: 'silent', reason: 'does not answer ARP', nextStep: 'arping 192.0.2.2' })],
    }),
  ],
  ['warning', 'peers-problem', /vanished/, withProblem('peers', '1 of 1 peers: vanished without a goodbye')],
  ['error', 'data-plane-problem', /no data process runs/, withProblem('data-plane', 'no data process runs')],
  ['error', 'data-process-away', /restart tartand/, { status: away, own: { ...own, dataProcess: known(undefined) } }],
  ['error', 'table-behind', /goes by table 1, the newest is 2/, withDatapath({ generationAdopted: 1 })],
  ['note', 'respawned', /3 times/, withDatapath({ respawns: 3 })],
  ['warning', 'receive-drops', /7 during this check/, withDatapath({}, { counters: { rx_dropped: 7 } })],
  [
    'warning',
    'receive-drops',
    /waits for a processor 80 %/,
    {
      ...withDatapath({}, { counters: { rx_dropped: 7 } }),
      own: { ...own, dataProcess: known({ ...wellProcess, starved: known(0.8) }) },
    },
  ],
  ['warning', 'send-drops', /tx_dropped/, withDatapath({}, { counters: { tx_dropped: 7 } })],
  [
    'warning',
    'kernel-gives-less',
    /smaller/,
    withDatapath({ warnings: ['a buffer is smaller'], warningKinds: ['kernel'] }),
  ],
  ['warning', 'kernel-gives-less', /smaller/, withDatapath({ warnings: ['a buffer is smaller'] })],
  ['warning', 'account', /sysusers/, withDatapath({ warnings: ['of nobody'], warningKinds: ['account'] })],
  ['warning', 'no-room', /free -m/, withDatapath({ warnings: ['no number is free'], warningKinds: ['room'] })],
  [
    'warning',
    'spoofed-packets',
    /masquerade/,
    withDatapath({ warnings: ['dropped as spoofed'], warningKinds: ['spoofed'] }),
  ],
  [
    'warning',
    'data-process-build',
    /took? over|take over/,
    withDatapath({ warnings: ['another build'], warningKinds: ['build'] }),
  ],
  ['note', 'starved', /80 %/, { own: { ...own, dataProcess: known({ ...wellProcess, starved: known(0.8) }) } }],
  [
    'error',
    'docker0-subnet',
    /docker0 is on/,
    { docker: known({ plan: { ...samplePlan, bridge: samplePlan.network }, facts: sampleFacts }) },
  ],
  [
    'note',
    'docker-absent',
    /not installed/,
    {
      docker: known({
        plan: samplePlan,
        facts: {
          ...sampleFacts,
          engine: { kind: 'silent', reason: 'no socket' },
          commandLine: known(undefined),
          program: undefined,
          unit: known(undefined),
        },
      }),
    },
  ],
  [
    'warning',
    'docker-stopped',
    /does not run/,
    {
      docker: known({
        plan: samplePlan,
        facts: { ...sampleFacts, engine: { kind: 'silent', reason: 'no socket' }, commandLine: known(undefined) },
      }),
    },
  ],
  ['error', 'docker-problem', /stands twice/, withProblem('docker', 'bip stands twice')],
  ['unchecked', 'docker', /late/, { docker: unknown('late') }],
  ['error', 'tun-device', /modprobe tun/, { host: { ...host, tunDevice: known('ENOENT') } }],
  ['error', 'tun-device', /is forbidden.*allow the device/s, { host: { ...host, tunDevice: known('EPERM') } }],
  [
    'error',
    'link-setting',
    /sysctl -w net\.ipv4\.conf\.tartan0\.forwarding=1/,
    {
      host: {
        ...host,
        settings: known([{ name: 'net.ipv4.conf.tartan0.forwarding', wanted: '1', found: known('0') }]),
      },
    },
  ],
  [
    'error',
    'conntrack-full',
    /262144 of 262144/,
    { host: { ...host, conntrack: known({ count: 262_144, max: 262_144 }) } },
  ],
  [
    'warning',
    'conntrack-full',
    /nf_conntrack_max=2000/,
    { host: { ...host, conntrack: known({ count: 950, max: 1000 }) } },
  ],
  ['warning', 'link-managed', /Unmanaged=yes/, { host: { ...host, linkManagers: ['systemd-networkd'] } }],
  ['warning', 'link-managed', /unmanaged-devices/, { host: { ...host, linkManagers: ['NetworkManager'] } }],
  ['note', 'processor-pressure', /95 %/, { host: { ...host, pressure: known(95) } }],
  [
    'error',
    'route-conflict',
    /policy rule of another program/,
    withProblem('host', 'route_conflict 10.5.2.0/24 dev eth1: not ours'),
  ],
  ['error', 'host-problem', /tun0/, withProblem('host', 'the link tun0 is not ours')],
];
