/**
 * Judges one peer: evidence in, a verdict out. Silence is told only after three questions over three seconds, and its
 * reason is the strongest that the evidence gives: what the kernel or a router said before what is only not heard.
 *
 *   a peer that answers probes   unknown -> up -> silent -> up
 *   any other                    unwatched -> up -> silent -> up
 */
import { formatIpv4, type Ipv4 } from '../model/ip.js';
import type { PeerWatched } from './status.js';

/** Unanswered questions in a row, since the last answer. */
export interface Unanswered {
  readonly count: number;
  /** When the first of them was asked; undefined for none. CLOCK_BOOTTIME ms, as all times here. */
  readonly sinceMs: number | undefined;
}

/** The kernel finds no hardware address of the neighbour that packets to the peer go to: itself, or a gateway. */
export interface DeadNeighbour {
  readonly address: Ipv4;
  readonly device: string;
}

/** An ICMP error that quotes a datagram of ours to the peer. */
export interface IcmpRefusal {
  readonly from: Ipv4;
  readonly type: number;
  readonly code: number;
  readonly atMs: number;
}

export interface PeerEvidence {
  readonly nowMs: number;
  readonly address: Ipv4;
  readonly port: number;
  /** For the next step; undefined where its lease does not say. */
  readonly hostName: string | undefined;
  /** The first host address of its subnet, which is asked where probes are not answered. */
  readonly inside: Ipv4;
  /** It answers probes; any other host is asked by ICMP echo. */
  readonly probed: boolean;
  /** By user space: what its kernel path says is no word of its processes. */
  readonly heardMs: number | undefined;
  readonly heardByKernelMs?: number | undefined;
  /** The last answer to a probe, or to an echo. */
  readonly answeredMs: number | undefined;
  readonly unanswered: Unanswered;
  readonly neighbour: DeadNeighbour | undefined;
  readonly icmp: IcmpRefusal | undefined;
  /** The host answers an echo outside the tunnel; undefined: not asked. */
  readonly hostAnswers: boolean | undefined;
  /** Other peers that were heard lately. */
  readonly othersHeard: number;
  /** Other peers that something was sent to lately and that were not heard. */
  readonly othersSilent: number;
  /** Of this host. */
  readonly self: { readonly address: Ipv4; readonly device: string };
}

export type SilenceKind = 'no-arp' | 'refused' | 'icmp' | 'one-way' | 'this-host' | 'nothing-heard' | 'stopped';

export interface Verdict extends Pick<PeerWatched, 'state' | 'reason' | 'nextStep'> {
  /** Of a silent peer. */
  readonly kind: SilenceKind | undefined;
}

/** So many questions, over so long, must have had no answer. */
const silence = { questions: 3, ms: 3_000 } as const;
/** A host that does not answer probes is up for so long after it was heard. */
const heardForMs = 60_000;
/** What was heard within this time is heard now. */
const heardNowMs = 15_000;
/** A packet may have been on its way when a question was asked. */
const onTheWayMs = 500;
/** An ICMP error says nothing of later times. */
const icmpForMs = 60_000;

const up: Verdict = { state: 'up', kind: undefined, reason: null, nextStep: null };
const unreachable = 3;
const timeExceeded = 11;
const portUnreachable = 3;
const fragmentationNeeded = 4;
const prohibited: ReadonlySet<number> = new Set([9, 10, 13]);
const noHost: ReadonlySet<number> = new Set([0, 1, 5, 6, 7, 11, 12]);

export function judgePeer(evidence: PeerEvidence): Verdict {
  const { probed, heardMs, answeredMs } = evidence;
  if (!probed) return judgeUnprobed(evidence);
  if (isUnanswered(evidence)) return silentFor(evidence);
  return heardMs === undefined && answeredMs === undefined ? { ...up, state: 'unknown' } : up;
}

/** Who never answered an echo proves nothing by not doing so, whatever it sends. */
function judgeUnprobed(evidence: PeerEvidence): Verdict {
  const { heardMs = -Infinity, answeredMs, nowMs } = evidence;
  if (isUnanswered(evidence) && !isHeardNow(evidence)) {
    if (answeredMs !== undefined) return silentFor(evidence);
    const found = hardEvidence(evidence);
    if (found) return { ...verdictOf('unwatched', found), kind: undefined };
  }
  return answeredMs !== undefined || nowMs - heardMs <= heardForMs ? up : { ...up, state: 'unwatched' };
}

function isUnanswered({ unanswered: { count, sinceMs }, nowMs }: PeerEvidence): boolean {
  return count >= silence.questions && sinceMs !== undefined && nowMs - sinceMs >= silence.ms;
}

/** What was heard before the first question without an answer says nothing of now. */
function isHeardNow({ heardMs, unanswered, nowMs }: Pick<PeerEvidence, 'heardMs' | 'unanswered' | 'nowMs'>): boolean {
  if (heardMs === undefined || nowMs - heardMs > heardNowMs) return false;
  return unanswered.sinceMs === undefined || heardMs > unanswered.sinceMs + onTheWayMs;
}

interface Finding {
  readonly kind: SilenceKind;
  readonly reason: string;
  readonly nextStep: string;
}

function verdictOf(state: Verdict['state'], found: Finding | undefined): Verdict {
  return { state, kind: found?.kind, reason: found?.reason ?? null, nextStep: found?.nextStep ?? null };
}

function silentFor(evidence: PeerEvidence): Verdict {
  const found = hardEvidence(evidence) ?? oneWay(evidence) ?? thisHost(evidence) ?? nothing(evidence);
  const goesOn = isHeardNow({ ...evidence, heardMs: evidence.heardByKernelMs });
  return verdictOf(
    'silent',
    goesOn ? { ...found, reason: `${found.reason}; packets go on by the kernel engine` } : found,
  );
}

function hardEvidence(evidence: PeerEvidence): Finding | undefined {
  return noArp(evidence) ?? icmpError(evidence);
}

function noArp({ neighbour, address, hostName }: PeerEvidence): Finding | undefined {
  if (!neighbour) return undefined;
  const [who, peer, on] = [formatIpv4(neighbour.address), formatIpv4(address), neighbour.device];
  const look = `ip neighbour show ${who} dev ${on}`;
  if (neighbour.address !== address)
    return {
      kind: 'no-arp',
      reason: `the gateway ${who} on the way to ${peer} does not answer ARP on ${on} (powered off, another network, wrong interface)`,
      nextStep: `see that ${who} is on and that the route is right: ip route get ${peer}; ${look}`,
    };
  return {
    kind: 'no-arp',
    reason: `${peer} does not answer ARP on ${on} (powered off, another network, wrong interface)`,
    nextStep: `see that ${hostName ?? 'its host'} is on and has ${peer}: ${look}`,
  };
}

function icmpError(evidence: PeerEvidence): Finding | undefined {
  const { icmp, address, port, nowMs, answeredMs, heardMs, self, neighbour } = evidence;
  if (!icmp || nowMs - icmp.atMs > icmpForMs) return undefined;
  if (icmp.atMs < Math.max(answeredMs ?? -Infinity, heardMs ?? -Infinity)) return undefined;
  const [peer, from, there] = [formatIpv4(address), formatIpv4(icmp.from), onHost(evidence)];
  if (icmp.type === timeExceeded)
    return {
      kind: 'icmp',
      reason: `packets to ${peer} run in a circle of routes: ${from} gave up (ICMP time exceeded)`,
      nextStep: `see the routes on the way: traceroute -n ${peer}`,
    };
  if (icmp.type !== unreachable || icmp.code === fragmentationNeeded) return undefined;
  if (icmp.code === portUnreachable)
    return {
      kind: 'refused',
      reason: `${peer} refuses UDP ${port} (ICMP port unreachable${icmp.from === address ? '' : ` from ${from}`}): no tartan data process listens there, or a firewall rejects`,
      nextStep: `${there}: systemctl status tartand; ss -lun sport = ${port}; nft list ruleset`,
    };
  if (noHost.has(icmp.code) && icmp.from === self.address)
    return noArp({ ...evidence, neighbour: neighbour ?? { address, device: self.device } });
  const what = prohibited.has(icmp.code)
    ? 'administratively prohibited'
    : noHost.has(icmp.code)
      ? 'host unreachable'
      : `unreachable, code ${icmp.code}`;
  return {
    kind: 'icmp',
    reason: `packets to ${peer} are answered by ICMP ${what} from ${from}`,
    nextStep: prohibited.has(icmp.code)
      ? `allow UDP ${port} from ${formatIpv4(self.address)} to ${peer} on ${from}`
      : `see that ${from} has a route to ${peer}, and that its host is on`,
  };
}

function oneWay(evidence: PeerEvidence): Finding | undefined {
  const { address, port, self } = evidence;
  if (!isHeardNow(evidence)) return undefined;
  const [peer, here] = [formatIpv4(address), formatIpv4(self.address)];
  return {
    kind: 'one-way',
    reason: `we hear ${peer} and it does not answer: UDP ${port} from here to there is blocked, or its answers do not come back`,
    nextStep: `${onHost(evidence)}, and here: nft list ruleset (UDP ${port} from ${here})`,
  };
}

/** Where nobody is heard, the cause is rather here than on every other host. */
function thisHost({ othersHeard, othersSilent, port, self }: PeerEvidence): Finding | undefined {
  if (othersHeard > 0 || othersSilent === 0) return undefined;
  return {
    kind: 'this-host',
    reason: `this host hears none of ${othersSilent + 1} peers: UDP ${port} does not come in or go out here (a firewall, ${self.device} is the wrong interface)`,
    nextStep: `here: nft list ruleset; iptables -S; ip route get ADDRESS; tcpdump -ni ${self.device} udp port ${port}`,
  };
}

function nothing(evidence: PeerEvidence): Finding {
  const { address, port, othersHeard, hostAnswers, hostName, probed, inside } = evidence;
  const [peer, there] = [formatIpv4(address), onHost(evidence)];
  const look = `${there}: systemctl status tartand; ss -lun sport = ${port}; nft list ruleset`;
  if (!probed)
    return {
      kind: 'stopped',
      reason: `${peer} was heard and is not any more, and ${formatIpv4(inside)} behind it does not answer: UDP ${port} is blocked on the way, or its host or daemon is down`,
      nextStep: `${there}: see that its daemon runs; ss -lun sport = ${port}; nft list ruleset`,
    };
  const others =
    othersHeard === 0 ? '' : `, ${othersHeard} other ${othersHeard === 1 ? 'peer answers' : 'peers answer'}`;
  if (hostAnswers)
    return {
      kind: 'nothing-heard',
      reason: `${peer} is silent${others}, its host answers ping: UDP ${port} is blocked on the way, or no data process runs there`,
      nextStep: look,
    };
  if (hostAnswers === false)
    return {
      kind: 'nothing-heard',
      reason: `${peer} is silent${others}, its host does not answer ping: it is down or cut off, or a firewall drops everything`,
      nextStep: `see that ${hostName ?? peer} is on; ping ${peer}; ${look}`,
    };
  const here = othersHeard === 0 ? ' or here' : '';
  return {
    kind: 'nothing-heard',
    reason: `${peer} is silent${others}: UDP ${port} is blocked on the way${here}, or its host is down`,
    nextStep: `ping ${peer}; ${look}`,
  };
}

function onHost({ hostName, address }: PeerEvidence): string {
  return `on ${hostName ?? formatIpv4(address)}`;
}
