/**
 * The problems that the daemon tells itself, each as one finding with an id of its place: they are shown as they are,
 * and nothing is read out of their prose but the word before the first blank, which is a name.
 */
import type { PlacedProblem, Status } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import { diagnosis } from './check.js';

interface PlaceWords {
  readonly id: string;
  readonly severity: Finding['severity'];
  readonly cause: string;
  readonly expected: string;
  readonly repair: string;
}

const words: Readonly<Record<PlacedProblem['place'], PlaceWords>> = {
  network: {
    id: 'network-document',
    severity: 'error',
    cause: 'the network document in etcd, or that it is absent',
    expected: 'a network document that this host can use',
    repair: 'tartan config get shows it, tartan config set FILE replaces it',
  },
  underlay: {
    id: 'underlay-problem',
    severity: 'error',
    cause: 'the interface that carries the tunnel changed under it',
    expected: 'an interface with a usable address, outside of the overlay network',
    repair: 'ip -4 address show, then name the interface with --iface',
  },
  store: {
    id: 'store-problem',
    severity: 'error',
    cause: 'etcd, or the way to it',
    expected: 'an answer of etcd',
    repair: 'do what it says; tartan status -o wide shows which endpoint answers',
  },
  lease: {
    id: 'lease-problem',
    severity: 'error',
    cause: 'etcd has not confirmed the lease, or gave the subnet to another host',
    expected: 'a held lease',
    repair: 'tartan leases shows who holds the subnet',
  },
  'data-plane': {
    id: 'data-plane-problem',
    severity: 'error',
    cause: 'the data process of this host',
    expected: 'a data process that carries packets by the newest table',
    repair: 'journalctl -u tartand -n 50, then systemctl restart tartand',
  },
  peers: {
    id: 'peers-problem',
    severity: 'warning',
    cause: 'their hosts, their daemons, or the way to them',
    expected: 'each peer with a lease, and an answer of it',
    repair: 'tartan peers',
  },
  host: {
    id: 'host-problem',
    severity: 'error',
    cause: 'something else on this host has what the overlay needs',
    expected: 'the links, routes and rules that tartand plans',
    repair: 'ip -4 route show table all; ip -4 rule; nft list ruleset: find what is named, and remove it',
  },
  docker: {
    id: 'docker-problem',
    severity: 'error',
    cause: 'the settings of Docker on this host',
    expected: 'each setting in one place',
    repair: 'tartan docker verify',
  },
};

/** Names by which problems of the host begin, and what to do there. */
const hostNames: Readonly<Record<string, Partial<PlaceWords>>> = {
  route_conflict: {
    cause: 'a route or a policy rule of another program',
    repair: 'ip -4 route show table all; ip -4 rule: remove what is named, or let its program leave the network alone',
  },
  rule_conflict: { cause: 'a packet filter rule of another program', repair: 'do what it says after "accept them"' },
  iptables_variants: { cause: 'two kinds of iptables are in use', repair: 'update-alternatives --config iptables' },
};

const lostWords: Partial<PlaceWords> = {
  id: 'lease-lost',
  cause: 'the subnet belongs to another host, or an operator released or reserved it elsewhere',
  repair: 'systemctl restart tartand: it leases another subnet, then restart Docker',
};

export function problemsAt(status: Status, places: readonly PlacedProblem['place'][]): readonly Finding[] {
  return status.placedProblems
    .filter(({ place }) => places.includes(place))
    .map(({ place, text }) => {
      const name = place === 'host' ? (/^(\w+_\w+)\b/.exec(text)?.[1] ?? '') : '';
      const isLost = place === 'lease' && status.lease?.state === 'lost';
      const own = name in hostNames ? { ...hostNames[name], id: name.replaceAll('_', '-') } : isLost ? lostWords : {};
      const { id, severity, ...rest } = { ...words[place], ...own };
      return diagnosis(severity, id, { found: text, ...rest });
    });
}
