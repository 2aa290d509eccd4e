/** A host where all is well, to start from in the tests of what doctor judges. */
import type { DoctorFacts } from '../../src/doctor/facts.js';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import { known } from '../../src/lib/fact.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { sampleFacts, samplePlan } from './docker-facts.js';
import { sampleStatus } from './samples.js';

export const upWatched: PeerWatched = {
  state: 'up',
  stateSeconds: 60,
  reason: null,
  nextStep: null,
  heardSeconds: 1,
  roundTripMs: { p50: 0.4, p99: null },
  loss: 0,
  pathMtu: { out: 1472, in: 1472 },
  addressSeen: null,
  engine: 'user',
  engineReason: null,
  sent: { packets: 1, bytes: 100 },
  received: { packets: 1, bytes: 100 },
  sentBitsPerSecond: 0,
  receivedBitsPerSecond: 0,
};

/** The peer 10.5.2.0/24 of the sample, as it is watched. */
export function watchedPeer(watched: Partial<PeerWatched>, changes: Partial<StatusPeer> = {}): StatusPeer {
  const [peer] = sampleStatus.peers;
  if (!peer) throw new Error('the sample has a peer');
  return { ...peer, hostName: 'host-b', ...changes, watched: { ...upWatched, ...watched } };
}

export const sampleDatapath: NonNullable<Status['datapath']> = {
  engine: 'tun',
  pid: 4242,
  threads: 3,
  generationPublished: 2,
  generationAdopted: 2,
  respawns: 0,
  handovers: 0,
  features: [],
  warnings: [],
  warningKinds: [],
  kernel: null,
  counters: { rx_dropped: 0, tx_dropped: 0 },
};

export const wellStatus: Status = {
  ...sampleStatus,
  peers: [watchedPeer({})],
  datapath: sampleDatapath,
  store: {
    answeredSeconds: 4,
    watchSeconds: 60,
    refused: null,
    endpoints: [{ url: 'http://192.0.2.254:2379', state: 'answers', reason: null }],
  },
  daemon: { pid: 4000, clockSetSeconds: 0, stateDir: '/var/lib/tartan', subnetFile: '/run/flannel/subnet.env' },
};

const [pathBytes, pathFiles] = [known(1e9), known(1e6)];
const process = {
  state: 'S',
  openFiles: known(30),
  openFilesMax: known(1024),
  starved: known(0),
};
export const wellProcess = { ...process, pid: 4000 };
export const wallMs = Date.UTC(2026, 0, 1);

export const wellFacts: DoctorFacts = {
  status: known(wellStatus),
  later: known(wellStatus),
  own: {
    daemon: known(wellProcess),
    dataProcess: known({ ...process, pid: 4242 }),
    places: [{ path: '/var/lib/tartan', refusal: undefined, freeBytes: pathBytes, freeFiles: pathFiles }],
    subnetFile: {
      path: '/run/flannel/subnet.env',
      text: known('FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n'),
    },
    certificates: [{ path: '/etc/tartan/client.pem', validFromMs: known(0), validToMs: known(Date.UTC(2027, 0, 1)) }],
    lastFailure: undefined,
    wallMs,
  },
  host: {
    kernel: '6.1.0',
    tunDevice: known(undefined),
    settings: known([{ name: 'net.ipv4.conf.tartan0.forwarding', wanted: '1', found: known('1') }]),
    reversePath: { all: known('0'), underlay: known('0') },
    conntrack: known({ count: 10, max: 262_144 }),
    pressure: known(1),
    linkManagers: [],
  },
  underlay: {
    link: known({ name: 'eth0', mtu: 1500, up: true, hasAddress: true, isRouted: false }),
    tunnel: known({ mtu: 1472, up: true }),
    candidates: ['eth1 198.51.100.1'],
    routes: known([
      {
        publicIp: parseIpv4('192.0.2.2'),
        subnet: '10.5.2.0/24',
        outer: { interfaceName: 'eth0', source: parseIpv4('192.0.2.1') },
        inner: { interfaceName: 'tartan0', source: parseIpv4('10.5.1.0') },
      },
    ]),
    drops: known([]),
    kernelDrops: known([]),
  },
  docker: known({ plan: samplePlan, facts: sampleFacts }),
};
