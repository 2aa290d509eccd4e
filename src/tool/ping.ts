/**
 * `tartan ping` sends echo requests through the tunnel and tells of each peer whether it answers. An echo to a peer's
 * tunnel address (the base of its subnet) crosses our data plane, the underlay, the peer's data plane and its kernel,
 * and back.
 */
import type { Status, StatusPeer } from '../agent/status.js';
import { formatIpv4, parsePrefix, prefixContains, readIpv4, type Ipv4 } from '../model/ip.js';
import { apiVersion } from '../agent/status.js';
import type { Echo } from './echo.js';
import { formatTable, type Column } from './table.js';
import { exitStatus, type ExitStatus } from './error.js';
import { daemonStatus, print, type Call } from './commands.js';
import { findPeers } from './peers.js';

export interface PingResult {
  readonly subnet: string;
  readonly publicIp: string;
  readonly address: string;
  /** By which the requests went, as the daemon said before; null: not known. */
  readonly engine: 'user' | 'kernel' | null;
  readonly sent: number;
  readonly received: number;
  /** Lowest of the round trips; null without an answer. */
  readonly rttMs: number | null;
  /** Why the last request had no answer; null when all had. */
  readonly reason: string | null;
}

const timeoutMs = 1_000;
/** Peers that are asked at once: a thousand peers that are down must not take a thousand seconds. */
const parallel = 64;

const columns: readonly Column<PingResult>[] = [
  { title: 'PEER', cell: result => result.subnet },
  { title: 'PUBLIC IP', cell: result => result.publicIp },
  { title: 'ENGINE', cell: result => result.engine ?? '-' },
  {
    title: 'ANSWERS',
    cell: ({ sent, received }) => ({ text: `${received} of ${sent}`, colour: received === sent ? 'good' : 'bad' }),
  },
  { title: 'RTT', cell: ({ rttMs }) => (rttMs === null ? '-' : `${rttMs.toFixed(2)} ms`) },
  { title: 'REASON', cell: ({ reason }) => reason ?? '' },
];

export interface PingOptions {
  /** Requests to each peer. */
  readonly count: number;
  /** Bytes of the whole IP packet. */
  readonly size: number;
  /** Nobody on the way may cut a packet. */
  readonly df: boolean;
}

/** IPv4 and ICMP. */
export const echoHeaderBytes = 28;

/** @param targets subnets, node ids, host names or addresses; none of them means every peer */
export async function pingPeers(call: Call, targets: readonly string[], options: PingOptions): Promise<ExitStatus> {
  const status = await daemonStatus(call);
  const { peers } = status;
  const chosen =
    targets.length === 0
      ? peers.map(peer => ({ peer, address: baseOf(peer) }))
      : targets.flatMap(target => find(peers, target));
  if (chosen.length === 0) return sayNoPeers(call, status);
  const echo = await call.io.ports.openEcho();
  try {
    const results: PingResult[] = [];
    for (let first = 0; first < chosen.length; first += parallel) {
      const group = chosen.slice(first, first + parallel);
      results.push(...(await Promise.all(group.map(({ peer, address }) => ping(echo, peer, address, options)))));
    }
    print(call, { apiVersion, kind: 'PingList', items: results }, (output, paint) =>
      formatTable(columns, results, output, paint),
    );
    return results.every(({ sent, received }) => sent === received) ? exitStatus.ok : exitStatus.checkFailed;
  } finally {
    echo.close();
  }
}

/** Nothing was asked, so nothing is known to answer: that is no success. */
function sayNoPeers(call: Call, { phase, ready }: Status): ExitStatus {
  print(call, { apiVersion, kind: 'PingList', items: [] }, () => '');
  const why = ready
    ? 'no other host has a lease in the network yet; see them with: tartan leases'
    : `tartand is not ready (${phase}); see why with: tartan status`;
  call.io.stderr(`note: this host knows no peers, so none was asked: ${why}\n`);
  return exitStatus.checkFailed;
}

async function ping(
  echo: Echo,
  peer: StatusPeer,
  address: Ipv4,
  { count, size, df }: PingOptions,
): Promise<PingResult> {
  const rtts: number[] = [];
  let reason: string | null = null;
  for (let sent = 0; sent < count; sent++) {
    const answer = await echo.ping(address, { timeoutMs, payloadBytes: size - echoHeaderBytes, df });
    if ('rttMs' in answer) rtts.push(answer.rttMs);
    else reason = answer.reason;
  }
  const rttMs = rtts.length === 0 ? null : Math.min(...rtts);
  return {
    subnet: peer.subnet,
    publicIp: peer.publicIp,
    address: formatIpv4(address),
    engine: peer.watched?.engine ?? null,
    sent: count,
    received: rtts.length,
    rttMs,
    reason,
  };
}

function baseOf(peer: StatusPeer): Ipv4 {
  return parsePrefix(peer.subnet).base;
}

interface Target {
  readonly peer: StatusPeer;
  readonly address: Ipv4;
}

/** An address within a subnet is asked itself, other words mean the tunnel's address. */
function find(peers: readonly StatusPeer[], target: string): readonly Target[] {
  const address = readIpv4(target);
  return findPeers(peers, [target]).map(peer => {
    const isWithin = address !== undefined && prefixContains(parsePrefix(peer.subnet), address);
    return { peer, address: isWithin ? address : baseOf(peer) };
  });
}
