/** Judges the peers as the daemon watches them: who is silent and why, narrow paths, other backends, hosts long gone. */
import type { Status, StatusPeer } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import { listed } from '../docker/verify/finding.js';
import { factValue } from '../lib/fact.js';
import { check, diagnosis, tunnelOverhead, type Check } from './check.js';
import type { DoctorFacts } from './facts.js';
import { problemsAt } from './judge-problems.js';

/** A peer that is silent for so long has probably left without a goodbye. */
const goneSeconds = 86_400;
/** Findings that name one peer each; the rest is a sum. */
const namedMax = 8;
const strangerWords = {
  id: 'stranger',
  cause: 'the address of a host is translated on the way, or its lease names another one',
  expected: 'packets from addresses that leases name',
  repair: 'start tartand on that host with --public-ip, the address that others see',
};

export function judgePeers({ status: fact }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  if (!status) return [];
  const watched = status.peers.filter(peer => peer.watched !== null);
  const up = watched.filter(peer => peer.watched?.state === 'up').length;
  const silent = status.peers.filter(peer => peer.watched?.state === 'silent');
  const good = watched.length === 0 ? `${status.peers.length} peers` : `${up} of ${status.peers.length} peers answer`;
  return [
    check('Peers', good, [...judgeSilent(silent), ...judgeTold(status, silent)]),
    check('Peers', 'paths carry full packets', judgePaths(status)),
    check('Peers', 'peers come from where their leases say', judgeAddresses(status)),
    check('Peers', 'peers run the same kind', judgeKinds(status)),
  ];
}

function judgeSilent(silent: readonly StatusPeer[]): readonly Finding[] {
  const gone = silent.filter(isGone);
  const rest = silent.filter(peer => !isGone(peer));
  const more = rest.slice(namedMax);
  return [
    ...rest.slice(0, namedMax).map(judgeOne),
    ...(more.length === 0
      ? []
      : [
          diagnosis('error', 'peers-silent', {
            found: `${more.length} more peers are silent`,
            cause: 'many at once have one cause: this host, or the network between',
            expected: 'an answer of each peer',
            repair: 'tartan peers --state silent',
          }),
        ]),
    ...gone.slice(0, namedMax).map(peer =>
      diagnosis('warning', 'peer-gone', {
        found: `${peerNameOf(peer)} has not been heard for more than a day`,
        cause: 'its host was taken away without tartan leave, and its lease is reserved or has not ended',
        expected: 'no lease of a host that is gone',
        repair: `tartan lease release ${peer.subnet} --force`,
      }),
    ),
  ];
}

function isGone({ watched }: StatusPeer): boolean {
  const heard = watched?.heardSeconds ?? null;
  return (heard === null ? (watched?.stateSeconds ?? 0) : heard) >= goneSeconds;
}

function judgeOne(peer: StatusPeer): Finding {
  const { reason = null, nextStep = null } = peer.watched ?? {};
  return diagnosis('error', 'peer-silent', {
    found: `${peerNameOf(peer)} is silent`,
    cause: reason ?? 'not known',
    expected: 'an answer within seconds',
    repair: nextStep ?? `tartan ping ${peer.publicIp}`,
  });
}

/** What the daemon says of peers beside those that findings of their own name. */
function judgeTold(status: Status, silent: readonly StatusPeer[]): readonly Finding[] {
  const named = [...silent, ...narrowPeers(status).map(({ peer }) => peer)];
  return problemsAt(status, ['peers'])
    .filter(({ found }) => isOfStranger(found) || !named.some(peer => tells(found, peer)))
    .map(finding => (isOfStranger(finding.found) ? { ...finding, ...strangerWords } : finding));
}

/** Tells of an address that no lease names; the silent peer in it is the likely one (agent/peer-problems.ts). */
function isOfStranger(text: string): boolean {
  return text.includes(', which no lease names, ');
}

function tells(text: string, { publicIp, subnet, hostName, watched }: StatusPeer): boolean {
  const reason = watched?.reason ?? null;
  return (
    (reason !== null && text.startsWith(reason)) ||
    [publicIp, subnet, hostName].some(name => name !== null && hasWord(text, name))
  );
}

function hasWord(text: string, word: string): boolean {
  return text.split(/[\s,:;()]+/).includes(word);
}

/** Peers to or from which the path carries less than containers may send. */
function narrowPeers({ peers, docker }: Status): readonly { readonly peer: StatusPeer; readonly least: number }[] {
  return peers.flatMap(peer => {
    const { out, in: inward } = peer.watched?.pathMtu ?? { out: null, in: null };
    const least = Math.min(out ?? Infinity, inward ?? Infinity);
    return least < (docker?.mtu ?? 0) ? [{ peer, least }] : [];
  });
}

function judgePaths(status: Status): readonly Finding[] {
  const wanted = status.docker?.mtu ?? 0;
  return narrowPeers(status)
    .slice(0, namedMax)
    .map(({ peer, least }) =>
      diagnosis('warning', 'path-mtu', {
        found: `the path to ${peerNameOf(peer)} carries packets of ${least} bytes, containers may send ${wanted}`,
        cause: 'a link on the way has a smaller MTU than the interface of the tunnel',
        expected: `${wanted} bytes`,
        repair: `set the MTU of the interface to ${least + tunnelOverhead(status)} on both hosts, then systemctl restart docker`,
      }),
    );
}

function judgeAddresses({ peers }: Status): readonly Finding[] {
  return peers
    .filter(({ watched }) => typeof watched?.addressSeen === 'string')
    .slice(0, namedMax)
    .map(peer =>
      diagnosis('warning', 'peer-address', {
        found: `packets of ${peerNameOf(peer)} come from ${peer.watched?.addressSeen ?? ''}`,
        cause: 'its address is translated on the way, or it sends by another interface',
        expected: peer.publicIp,
        repair: `start tartand there with --public-ip ${(peer.watched?.addressSeen ?? '').replace(/:\d+$/, '')}`,
      }),
    );
}

function judgeKinds({ peers, backend }: Status): readonly Finding[] {
  const others = peers.filter(peer => backend && peer.backend !== null && peer.backend !== backend.type);
  const unwatched = peers.filter(({ watched }) => watched?.state === 'unwatched');
  return [
    ...(others.length === 0
      ? []
      : [
          diagnosis('note', 'peer-backend', {
            found: `${listed(others.map(peer => `${peerNameOf(peer)} says ${peer.backend ?? '-'}`))}, this host is ${backend?.type ?? '-'}`,
            cause: 'the network document was changed, and they were not restarted since',
            expected: `backend ${backend?.type ?? '-'} on each host`,
            repair: 'restart the daemons of the hosts that differ',
          }),
        ]),
    ...(unwatched.length === 0
      ? []
      : [
          diagnosis('note', 'peer-unwatched', {
            found: `${listed(unwatched.map(peerNameOf))} cannot be asked`,
            cause: 'flannel, or a tartan of an earlier version, which answers no questions',
            expected: 'tartan of this version on each host',
            repair: 'tartan features show',
          }),
        ]),
  ];
}

export function peerNameOf({ publicIp, subnet, hostName }: StatusPeer): string {
  return `${hostName === null ? '' : `${hostName} `}${publicIp} (${subnet})`;
}
