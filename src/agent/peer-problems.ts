/** What of the peers is a problem of this host: those that matter now and do not answer, narrow paths, strangers. */
import type { Stranger } from '../datapath/datapath.js';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import type { WatchedPeer } from './watched-peer.js';

/** Peers that are named of each kind. */
const namedMost = 3;

export function problemsOfPeers(
  active: readonly WatchedPeer[],
  pending: readonly WatchedPeer[],
  strangers: readonly Stranger[],
  { mtu, nowMs }: { readonly mtu: number; readonly nowMs: number },
): readonly string[] {
  const quiet = active.filter(({ verdict }) => verdict.reason !== null);
  const silent = pending.filter(({ verdict }) => verdict.state === 'silent');
  return [
    ...silences(quiet),
    ...narrowPaths(active, mtu, nowMs),
    ...(silent.length === 0 ? [] : strangers.map(stranger => describeStranger(stranger, silent))),
  ];
}

/** One text for all that have the same cause here. */
function silences(quiet: readonly WatchedPeer[]): readonly string[] {
  const texts = new Set(quiet.map(({ verdict: { reason, nextStep } }) => `${reason}; next: ${nextStep}`));
  return some([...texts], 'peers do not answer');
}

function narrowPaths(active: readonly WatchedPeer[], mtu: number, nowMs: number): readonly string[] {
  const texts = active.flatMap(peer => {
    const out = peer.narrowTo(mtu, nowMs);
    if (out === undefined) return [];
    const to = formatIpv4(peer.tunnel.endpoint);
    return [
      `the path to ${to} carries packets of ${out} bytes, the tunnel has ${mtu}: longer ones are cut or refused; ` +
        `next: raise the MTU of the links between, or lower that of the underlay on the hosts`,
    ];
  });
  return some(texts, 'paths carry less than the tunnel');
}

function some(texts: readonly string[], what: string): readonly string[] {
  const more = texts.length - namedMost;
  return more <= 0 ? texts : [...texts.slice(0, namedMost), `${more} more ${what}; next: tartan peers`];
}

/** @param silent the peers that may be behind the address */
export function describeStranger({ address, packets }: Stranger, silent: readonly WatchedPeer[]): string {
  const count = packets === 1 ? '1 packet' : `${packets} packets`;
  const text = `${count} from ${formatIpv4(address)}, which no lease names, dropped`;
  const [likely] = silent;
  if (!likely) return text;
  const { endpoint } = likely.tunnel;
  const who = `${formatIpv4(endpoint)} (${likely.lease.hostName ?? formatPrefix(likely.lease.subnet)})`;
  const which =
    silent.length === 1
      ? `perhaps of ${who}, which is silent`
      : `perhaps of one of ${silent.length} silent peers, such as ${who}`;
  return `${text}: ${which}: an address translation on the way, or a wrong --public-ip there`;
}
