/** `tartan peers`: every peer of this host with what was measured of it. */
import { parsePrefix, prefixContains, readIpv4, shown } from '../model/ip.js';
import type { StatusPeer } from '../agent/status.js';
import { daemonStatus, print, type Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { peerListOf, peerTable, type PeerState } from './peer-view.js';

/** @param targets as `findPeers` takes them; none of them means every peer */
export async function showPeers(
  call: Call,
  targets: readonly string[],
  state: PeerState | undefined,
): Promise<ExitStatus> {
  const status = await daemonStatus(call);
  const chosen = targets.length === 0 ? status.peers : findPeers(status.peers, targets);
  const list = peerListOf({ ...status, peers: chosen }, state);
  print(call, list, (output, paint) => peerTable(list.items, output, paint));
  if (status.peers.length === 0)
    call.io.stderr('note: this host knows no peers; see who has a lease with: tartan leases\n');
  return exitStatus.ok;
}

/**
 * @param targets subnets, node ids, host names, public addresses, or addresses within a subnet; two hosts may have one name
 * @throws ToolError for a target that is no peer
 */
export function findPeers(peers: readonly StatusPeer[], targets: readonly string[]): readonly StatusPeer[] {
  const found = targets.flatMap(target => {
    const matches = peers.filter(peer => isNamed(peer, target));
    const around = matches.length === 0 ? peerAround(peers, target) : undefined;
    if (around) return [around];
    if (matches.length > 0) return matches;
    throw new ToolError(
      exitStatus.error,
      `'${shown(target)}' is no peer of this host`,
      'see the peers with: tartan peers',
    );
  });
  return [...new Set(found)];
}

function isNamed(peer: StatusPeer, text: string): boolean {
  return [peer.subnet, peer.publicIp, peer.nodeId, peer.hostName].includes(text);
}

/** The peer whose subnet has the address. */
export function peerAround(peers: readonly StatusPeer[], text: string): StatusPeer | undefined {
  const address = readIpv4(text);
  return address === undefined ? undefined : peers.find(peer => prefixContains(parsePrefix(peer.subnet), address));
}
