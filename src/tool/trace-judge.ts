/**
 * Judges the way of one packet from this host, or a container on it, to an overlay address: step by step what decides, and
 * where it would be lost. Pure.
 */
import type { Status, StatusPeer } from '../agent/status.js';
import { formatIpv4, parsePrefix, prefixContains, type Ipv4 } from '../model/ip.js';
import { kernelDevice, kernelPort } from '../model/plan.js';
import { peerLabel, stateOf } from './peer-view.js';
import type { WayFacts, WayRoute } from './trace-facts.js';
import { formatDuration } from './table.js';

export interface TraceStep {
  readonly name:
    | 'network'
    | 'lease'
    | 'route'
    | 'firewall'
    | 'source'
    | 'data plane'
    | 'peer'
    | 'mtu'
    | 'underlay'
    | 'other end'
    | 'bridge';
  /** `unknown`: what decides could not be read. */
  readonly state: 'passes' | 'lost' | 'unknown';
  readonly text: string;
  /** What to do where it is lost. */
  readonly next: string | null;
}

export interface TraceQuestion {
  readonly to: Ipv4;
  /** undefined: this host itself. */
  readonly from: Ipv4 | undefined;
  readonly status: Status;
  /** The link of the data plane. */
  readonly device: string;
}

/** Steps as far as the packet gets: the last one is where it is lost, or arrives. */
export function judgeWay(question: TraceQuestion, facts: WayFacts): readonly TraceStep[] {
  const steps: TraceStep[] = [];
  for (const step of stepsOf(question, facts)) {
    steps.push(step);
    if (step.state === 'lost') break;
  }
  return steps;
}

/** The peer whose lease has the address. */
export function peerOf(status: Status, to: Ipv4): StatusPeer | undefined {
  return status.peers.find(({ subnet }) => prefixContains(parsePrefix(subnet), to));
}

function* stepsOf(question: TraceQuestion, facts: WayFacts): Generator<TraceStep> {
  const { to, status } = question;
  const network = status.network;
  const address = formatIpv4(to);
  if (network === null)
    return yield lost('network', `the daemon has no network yet (${status.phase})`, 'tartan status');
  if (!prefixContains(parsePrefix(network), to)) {
    yield routeStep(facts, undefined);
    return yield lost(
      'network',
      `${address} is outside of the overlay network ${network}: tartan does not carry it`,
      `give an address of ${network}; whose is which: tartan leases`,
    );
  }
  if (!status.lease) return yield lost('lease', `this host has no lease (${status.phase})`, 'tartan status');
  if (prefixContains(parsePrefix(status.lease.subnet), to)) return yield* ownSteps(question, facts);
  const peer = peerOf(status, to);
  if (!peer)
    return yield lost(
      'lease',
      `no lease that this host knows has ${address}: the data plane drops it (tx_noroute) and answers "no route"`,
      'see who has which subnet: tartan leases; entries that were refused: tartan status -o wide',
    );
  yield passes('lease', `${address} is of ${peerLabel(peer)}${leaseNote(peer)}`);
  yield* tunnelSteps(question, facts, peer);
}

/** Our own subnet: the tunnel has no part in it. */
function* ownSteps({ to, status, device }: TraceQuestion, facts: WayFacts): Generator<TraceStep> {
  const { lease } = status;
  yield passes(
    'lease',
    `${formatIpv4(to)} is in this host's own lease ${lease?.subnet ?? ''}: the tunnel has no part in it`,
  );
  yield routeStep(facts, undefined);
  const route = facts.route.known ? facts.route.value : undefined;
  if (typeof route === 'object' && route.isLocal) return yield passes('bridge', 'it is an address of this host itself');
  if (typeof route === 'string' || route?.link === device)
    return yield lost(
      'bridge',
      'no bridge of this host has this part of the lease: Docker has another subnet, or its network is not there',
      'tartan docker verify',
    );
  yield* firewallSteps(facts, device);
  yield passes('bridge', `${route?.link ?? 'the bridge'} reaches it directly, if a container has the address`);
}

function* tunnelSteps(question: TraceQuestion, facts: WayFacts, peer: StatusPeer): Generator<TraceStep> {
  yield routeStep(facts, question.device);
  yield* firewallSteps(facts, question.device);
  yield sourceStep(question, facts);
  yield dataPlaneStep(question.status, peer);
  yield mtuStep(question.status, peer);
  yield underlayStep(question.status, facts, peer);
  yield peerStep(peer);
  yield otherEndStep(question, peer);
}

function leaseNote({ state, secondsLeft }: StatusPeer): string {
  const left = secondsLeft === null ? '' : `, for ${formatDuration(secondsLeft)} more`;
  switch (state) {
    case 'live':
      return '';
    case 'held-down':
      return `, which vanished from etcd and stays routed${left}`;
    case 'forgotten':
      return `, which the store forgot; it stays routed${left}`;
    case 'remembered':
      return ', of the state file: etcd has not confirmed it';
  }
}

/** @param device where the route must lead; undefined: anywhere */
function routeStep({ route, inLink }: WayFacts, device: string | undefined): TraceStep {
  if (!inLink.known) return unread('route', inLink.why);
  if (!route.known) return unread('route', route.why);
  if (typeof route.value === 'string') return lost('route', ...refusalOf(route.value, inLink.value));
  const text = `${inLink.value === undefined ? 'this host' : `in at ${inLink.value}`} -> ${describe(route.value)}`;
  if (device === undefined || route.value.link === device) return passes('route', text);
  const { rules, table } = route.value;
  const rule = rules.length > 0 ? `; rule ${rules.join(', ')} asks table ${table}: ip rule` : '';
  return lost(
    'route',
    `${text}: this is not ${device}, the packet leaves the overlay`,
    `see what diverts it: tartan doctor; ip route show table ${table}${rule}`,
  );
}

function describe({ link, gateway, source, table, isLocal, rules }: WayRoute): string {
  if (isLocal) return `this host itself (${link})`;
  const via = gateway === undefined ? '' : ` via ${formatIpv4(gateway)}`;
  const from = source === undefined ? '' : ` from ${formatIpv4(source)}`;
  const why = table === mainTable ? '' : `, table ${table}${rules.length > 0 ? ` by rule ${rules.join(', ')}` : ''}`;
  return `${link}${via}${from}${why}`;
}

const mainTable = 254;

/** ip_route_input(9) and the types of routes: why the kernel refuses a packet. */
function refusalOf(code: string, inLink: string | undefined): readonly [text: string, next: string] {
  switch (code) {
    case 'EXDEV':
      return [
        `rp_filter refuses the packet at ${inLink}: the answer would leave by another link`,
        `sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.${inLink}.rp_filter (2 is loose, the larger one counts)`,
      ];
    case 'EACCES':
      return ['a route or rule prohibits it', 'ip rule; ip route'];
    case 'EINVAL':
      return ['the kernel refuses the packet: a blackhole route, or a source that cannot be', 'ip rule; ip route'];
    default:
      return inLink === undefined
        ? ['this host has no route to it: the tunnel is away, or a route of others refuses it', 'tartan status']
        : [
            `this host does not forward it from ${inLink}: forwarding is off, or there is no route`,
            `sysctl net.ipv4.conf.${inLink}.forwarding net.ipv4.ip_forward; tartan docker verify`,
          ];
  }
}

function* firewallSteps({ innerDrop, inLink }: WayFacts, device: string): Generator<TraceStep> {
  if (!innerDrop.known) return yield unread('firewall', innerDrop.why);
  if (innerDrop.value)
    return yield lost(
      'firewall',
      `dropped at ${innerDrop.value.hook}: ${innerDrop.value.rule}`,
      `change that rule, or accept before it what comes in on ${device} or leaves by it; tartan docker verify`,
    );
  const hooks = inLink.known && inLink.value !== undefined ? 'forwarded' : 'sent';
  yield passes('firewall', `no rule of this host drops it where it is ${hooks} (judged as a new TCP connection)`);
}

/** The data plane passes on what our own lease may send. */
function sourceStep({ from, status }: TraceQuestion, facts: WayFacts): TraceStep {
  const route = facts.route.known && typeof facts.route.value === 'object' ? facts.route.value : undefined;
  const source = from ?? route?.source;
  const own = status.lease?.subnet;
  if (source === undefined || own === undefined)
    return unread('source', 'the source that the kernel chooses is not known');
  const text = formatIpv4(source);
  if (prefixContains(parsePrefix(own), source)) return passes('source', `${text} is in this host's lease ${own}`);
  if (status.docker?.masquerade === true)
    return passes('source', `${text} is outside of this host's lease: it is masqueraded as the tunnel's address`);
  return lost(
    'source',
    `${text} is outside of this host's lease ${own}: the data plane drops it (tx_spoof_src)`,
    'send from an address of the lease; --ip-masq masquerades others, --no-source-check lets them pass',
  );
}

function dataPlaneStep({ datapath, lease }: Status, { watched }: StatusPeer): TraceStep {
  if (lease?.state === 'lost')
    return lost('data plane', 'the lease is lost, both directions drop (tx_fenced)', 'tartan leases -o wide');
  if (!datapath) return unread('data plane', 'the daemon has none, or an older one does not tell');
  const { pid, generationAdopted: adopted, generationPublished: published } = datapath;
  if (watched?.engine === 'kernel')
    return passes(
      'data plane',
      `the engine kernel sends it by ${kernelDevice}; what is too long for that goes by user space`,
    );
  if (pid === null)
    return lost('data plane', 'no data process runs, the kernel queues and drops', 'journalctl -u tartand -p warning');
  const lag = adopted < published ? `, which is behind the published ${published}` : '';
  const reason = watched?.engineReason ?? null;
  const why = reason === null ? '' : `; not by the kernel: ${reason}`;
  return passes('data plane', `process ${pid} finds the peer in table ${adopted}${lag}; counted as tx_ok${why}`);
}

function mtuStep({ docker }: Status, { watched }: StatusPeer): TraceStep {
  const [tunnel, path] = [docker?.mtu, watched?.pathMtu.out ?? undefined];
  if (tunnel === undefined) return unread('mtu', 'the daemon does not tell the MTU of the tunnel');
  if (path === undefined || path >= tunnel)
    return passes(
      'mtu',
      `packets of up to ${tunnel} bytes${path === undefined ? '; the path was not measured yet' : ', the path carries them'}`,
    );
  return passes(
    'mtu',
    `the tunnel takes ${tunnel} bytes, this path carries ${path}: longer ones are cut, or with DF answered by "fragmentation needed"`,
  );
}

/** Our own filters for the tunnel's packets. */
function underlayStep(status: Status, { outerDrops }: WayFacts, { publicIp, watched }: StatusPeer): TraceStep {
  const port = watched?.engine === 'kernel' ? kernelPort : (status.backend?.port ?? '');
  const way = `UDP ${status.node.publicIp ?? ''} -> ${publicIp}:${port}${status.interface ? ` by ${status.interface.name}` : ''}`;
  if (!outerDrops.known) return unread('underlay', `${way}; the packet filters: ${outerDrops.why}`);
  const drop =
    outerDrops.value.find(({ what }) => what === 'out') ?? outerDrops.value.find(({ what }) => what === 'in');
  if (!drop) return passes('underlay', `${way}, no rule of this host drops it`);
  const direction = drop.what === 'out' ? 'the packets' : 'the answers';
  return lost('underlay', `${way}: a rule of this host drops ${direction}: ${drop.rule}`, drop.repair);
}

function peerStep(peer: StatusPeer): TraceStep {
  const { watched } = peer;
  const state = stateOf(peer);
  if (state === 'silent')
    return lost('peer', watched?.reason ?? 'it does not answer', watched?.nextStep ?? `tartan ping ${peer.subnet}`);
  const heard = watched?.heardSeconds ?? null;
  const rtt = watched?.roundTripMs ? `, round trip ${watched.roundTripMs.p50.toFixed(2)} ms` : '';
  if (watched?.state === 'up')
    return passes('peer', `it is up${heard === null ? '' : `, heard ${formatDuration(heard)} ago`}${rtt}`);
  return unread('peer', `nothing was heard of it yet (${state}); ask it: tartan ping ${peer.subnet}`);
}

function otherEndStep({ to, status }: TraceQuestion, peer: StatusPeer): TraceStep {
  return passes(
    'other end',
    `${peer.hostName ?? peer.publicIp} takes packets of ${status.node.publicIp ?? 'this host'} (else rx_not_member) with a ` +
      `source of ${status.lease?.subnet ?? ''} (else rx_spoof_src) for ${peer.subnet} (else rx_bad_dst), counts rx_ok, and its ` +
      `kernel passes them on to ${formatIpv4(to)}`,
  );
}

function passes(name: TraceStep['name'], text: string): TraceStep {
  return { name, state: 'passes', text, next: null };
}

function lost(name: TraceStep['name'], text: string, next: string): TraceStep {
  return { name, state: 'lost', text, next };
}

function unread(name: TraceStep['name'], text: string): TraceStep {
  return { name, state: 'unknown', text, next: null };
}
