/** Judges the way of outer packets: the link, its address and MTU, the routes to the peers, the firewall of this host. */
import type { Finding } from '../docker/verify/finding.js';
import { listed } from '../docker/verify/finding.js';
import type { OuterDrop } from '../host/firewall/outer-drops.js';
import { factValue } from '../lib/fact.js';
import { formatIpv4 } from '../model/ip.js';
import type { Status } from '../agent/status.js';
import { check, diagnosis, uncheckedIf, type Check } from './check.js';
import type { DoctorFacts, PeerRoute, UnderlayFindings } from './facts.js';
import { problemsAt } from './judge-problems.js';

export function judgeUnderlay({ status: fact, underlay, host }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  if (!status?.interface) return [];
  const { name, address } = status.interface;
  const others = underlay.candidates.length === 0 ? '' : `; there is ${underlay.candidates.join(', ')} too`;
  return [
    check('Underlay', `the tunnel leaves from ${address} on ${name}${others}`, [
      ...problemsAt(status, ['underlay']),
      ...judgeLink(status, underlay),
    ]),
    check('Underlay', 'peers are reached by it', judgeRoutes(status, underlay)),
    check('Underlay', 'reverse path checks let peers in', judgeReversePath(underlay, host.reversePath)),
    check('Underlay', 'the firewall of this host lets the tunnel pass', judgeDrops(status, underlay)),
  ];
}

function judgeLink(status: Status, { link, tunnel }: UnderlayFindings): readonly Finding[] {
  const { name = '', address = '' } = status.interface ?? {};
  const told = status.placedProblems.some(({ place }) => place === 'underlay');
  if (!link.known) return uncheckedIf('underlay-link', name, link);
  const found = link.value;
  const [inner, wide] = [factValue(tunnel)?.mtu, status.docker?.mtu];
  const overhead = 28;
  const needed = Math.max(inner ?? 0, wide ?? 0) + overhead;
  if (told && !(found?.up && found.hasAddress)) return [];
  if (!found || !found.hasAddress)
    return [
      diagnosis('error', 'underlay-address', {
        found: found ? `${name} has not the address ${address} any more` : `there is no link ${name}`,
        cause: 'the address or the link was taken away',
        expected: `${address} on ${name}, or another interface named by --iface`,
        repair: `ip -4 address show ${found ? name : ''}`.trim(),
      }),
    ];
  if (!found.up)
    return [
      diagnosis('error', 'underlay-down', {
        found: `${name} is down`,
        cause: 'the cable, the switch, or somebody set it down',
        expected: `${name} up`,
        repair: `ip link set ${name} up`,
      }),
    ];
  if (found.isRouted || found.mtu >= needed || wide === undefined) return [];
  return [
    diagnosis('error', 'underlay-mtu', {
      found: `${name} has MTU ${found.mtu}, containers may send ${wide}, which is ${wide + overhead} in the tunnel`,
      cause: `the MTU of ${name} was changed after Docker got its settings`,
      expected: `MTU ${needed} on ${name}, or ${found.mtu - overhead} for Docker`,
      repair: `ip link set ${name} mtu ${needed}, or systemctl restart docker`,
    }),
  ];
}

function judgeRoutes(status: Status, { routes, link }: UnderlayFindings): readonly Finding[] {
  if (!routes.known) return uncheckedIf('peer-routes', 'the routes to the peers', routes);
  const own = factValue(link);
  const silent = new Set(
    status.peers.filter(({ watched }) => watched?.state === 'silent').map(({ publicIp }) => publicIp),
  );
  const none = routes.value.filter(({ outer }) => !outer);
  const astray =
    !own || own.isRouted ? [] : routes.value.filter(({ outer }) => outer && outer.interfaceName !== own.name);
  return [
    ...(none.length === 0
      ? []
      : [
          diagnosis('error', 'no-route-to-peer', {
            found: `no route leads to ${addressesOf(none)}`,
            cause: 'the default route is gone, or a rule refuses',
            expected: 'a route to each peer',
            repair: `ip route get ${addressesOf(none.slice(0, 1))}`,
          }),
        ]),
    ...(astray.length === 0
      ? []
      : [
          judgeAstray(
            astray,
            status,
            astray.some(one => silent.has(formatIpv4(one.publicIp))),
          ),
        ]),
    ...judgeInner(status, routes.value),
  ];
}

/** @param suffers one of these peers is silent */
function judgeAstray(astray: readonly PeerRoute[], { interface: link }: Status, suffers: boolean): Finding {
  const [first] = astray;
  const { name = '', address = '' } = link ?? {};
  return diagnosis(suffers ? 'error' : 'warning', 'wrong-interface', {
    found: `the tunnel leaves from ${address} on ${name}, and the route to ${addressesOf(astray)} leaves by ${first?.outer?.interfaceName ?? '-'}`,
    cause: 'the tunnel was given the wrong network card, or the lease of the peer has the wrong address',
    expected: `peers that are reached by ${name}`,
    repair: `start tartand with --iface ${first?.outer?.interfaceName ?? 'NAME'}, or name the right --public-ip on the peer`,
  });
}

function judgeInner(status: Status, routes: readonly PeerRoute[]): readonly Finding[] {
  const told = status.placedProblems.some(({ place }) => place === 'host');
  const device = 'tartan0';
  const diverted = routes.filter(({ inner }) => inner?.interfaceName !== device);
  if (told || diverted.length === 0 || !status.ready || status.datapath === null) return [];
  const by = diverted[0]?.inner?.interfaceName;
  return [
    diagnosis('error', 'route-diverted', {
      found: `packets to ${listed(diverted.map(({ subnet }) => subnet))} leave by ${by ?? 'no link'} and not by ${device}`,
      cause: 'a route or a policy rule of another program, or ours is gone',
      expected: `the route to ${status.network ?? 'the network'} by ${device}`,
      repair: `ip route get ${(diverted[0]?.subnet ?? '').replace(/\.\d+\/.*/, '.1')}; ip -4 rule`,
    }),
  ];
}

/** In strict mode the kernel drops what comes in by another link than the answer would leave by (RFC 3704). */
function judgeReversePath(
  { routes, link }: UnderlayFindings,
  { all, underlay }: DoctorFacts['host']['reversePath'],
): readonly Finding[] {
  const own = factValue(link);
  const mode = Math.max(Number(factValue(all) ?? 0), Number(factValue(underlay) ?? 0));
  const astray = (factValue(routes) ?? []).filter(({ outer }) => outer && outer.interfaceName !== own?.name);
  if (!own || own.isRouted || mode !== 1 || astray.length === 0) return uncheckedIf('rp-filter', 'rp_filter', all);
  return [
    diagnosis('error', 'rp-filter-drops', {
      found: `rp_filter is strict on ${own.name}, and the way to ${addressesOf(astray)} leaves by ${astray[0]?.outer?.interfaceName ?? '-'}`,
      cause: 'the kernel drops packets of a peer that come in by another link than answers leave by',
      expected: 'net.ipv4.conf.all.rp_filter = 2 (loose)',
      repair: 'sysctl -w net.ipv4.conf.all.rp_filter=2',
    }),
  ];
}

const dropWords: Readonly<Record<OuterDrop['what'], readonly [id: string, what: string, expected: string]>> = {
  in: ['udp-in-dropped', 'packets of the tunnel that come in', 'to be accepted'],
  new: ['udp-new-dropped', 'packets of peers that this host has not sent to lately', 'to be accepted without a state'],
  out: ['udp-out-dropped', 'packets of the tunnel that go out', 'to be accepted'],
  forward: ['forward-dropped-by-rule', 'packets between containers of two hosts', 'to be accepted before'],
  icmp: [
    'icmp-dropped',
    'ICMP errors that tell a path MTU',
    'to be accepted, so that large packets are cut and not lost',
  ],
};

function judgeDrops(status: Status, { drops }: UnderlayFindings): readonly Finding[] {
  if (!drops.known) return uncheckedIf('outer-firewall', 'the rules for the tunnel', drops);
  return drops.value.map(({ what, rule, repair, peers }) => {
    const [id, which, expected] = dropWords[what];
    const isAll = peers.length === 0 || peers.length >= Math.min(status.peers.length, 16);
    const severity = what !== 'new' && what !== 'icmp' ? 'error' : 'warning';
    return diagnosis(severity, id, {
      found: `${rule} ${which}${isAll ? '' : `, those of ${listed(peers.map(formatIpv4))}`}${what === 'icmp' || what === 'forward' ? '' : ` (UDP port ${status.backend?.port ?? '-'})`}`,
      cause: 'the firewall of this host',
      expected,
      repair,
    });
  });
}

function addressesOf(routes: readonly PeerRoute[]): string {
  return listed(routes.map(({ publicIp }) => formatIpv4(publicIp)));
}
