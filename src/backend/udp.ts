/**
 * The udp backend: it sends bare inner packets in UDP, as flannel's udp backend does. Every lease of the network is a
 * peer, whatever its BackendType, and packets go to the port that this host has configured.
 */
import { whyNotKernel, type KernelOffer } from '../model/features.js';
import type { Lease } from '../model/lease.js';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import { vniOf } from '../model/network.js';
import { kernelDevice, kernelPort, probeFeature, type HostPlan, type Plan, type TunnelPeer } from '../model/plan.js';
import { TartanError } from '../lib/errors.js';
import type { Backend, BackendContext, PlanNeeds } from './backend.js';
import { TunnelPeers } from './tunnel-peers.js';

/** The outer IPv4 header has 20 bytes, the UDP header 8; that of VXLAN-GPE of the kernel engine 8 more. */
const overheadBytes = { user: 28, kernel: 36 } as const;
/** RFC 791: every host must accept a datagram of 68 bytes without fragmentation. */
const smallestMtu = 68;
export const udpDevice = 'tartan0';
/** Every route that carries traffic has a lower metric and wins: the route of the tunnel has metric 0. */
const unreachableMetric = 4096;

export function udpBackend(context: BackendContext): Backend {
  const { node } = context;
  const { port } = context.network.backend;
  // By the document at the start of the daemon: its Engine is followed live, and containers keep the MTU they began with.
  const isUserOnly = context.engine === 'user' || context.network.engine === 'user';
  const overhead = overheadBytes[isUserOnly ? 'user' : 'kernel'];
  const mtu = node.interface.mtu - overhead;
  if (mtu < smallestMtu) {
    throw new TartanError(
      'HOST_REFUSED',
      `MTU ${node.interface.mtu} of ${node.interface.name} leaves no room for the tunnel, at least ${smallestMtu + overhead} is needed`,
    );
  }
  const ours = { port: kernelPort, vni: vniOf(context.network.backend) };
  const userPeers = new TunnelPeers(lease => tunnelPeer(lease, port));
  const kernelPeers = new TunnelPeers(lease => tunnelPeer(lease, port, ours));
  return {
    type: 'udp',
    mtu,
    announce: () => ({ type: 'udp', data: undefined }),
    plan: (self, peers, { forwarding = false, kernel = 'off' } = {}): Plan => ({
      tunnel: (kernel === 'sends' ? kernelPeers : userPeers).of(peers),
      host: hostPlan(context, self, mtu, { forwarding, kernel }),
    }),
  };
}

/** A node keeps its identity when it moves. flannel's leases name no node: there another address is another peer. */
function tunnelPeer(lease: Lease, port: number, ours?: KernelOffer): TunnelPeer {
  const { subnet, nodeId, publicIp, features } = lease;
  return {
    identity: `${formatPrefix(subnet)} ${nodeId ?? formatIpv4(publicIp)}`,
    prefixes: [subnet],
    endpoint: publicIp,
    port,
    features: features.probe === 1 ? probeFeature : 0,
    ...(ours && whyNotKernel(features, ours) === undefined && { kernel: ours }),
  };
}

/** Settings of the tunnel's link, with dots for slashes. */
export const linkSysctls: HostPlan['sysctls'] = [
  [`net.ipv4.conf.${udpDevice}.forwarding`, '1'],
  [`net.ipv4.conf.${udpDevice}.accept_redirects`, '0'],
  [`net.ipv4.conf.${udpDevice}.send_redirects`, '0'],
  // ICMP errors of the data plane have the first host address as source, which is an address of this host: without
  // this setting the kernel drops them as martians. Peers cannot use that address: the data plane accepts only inner
  // sources of the peer's own subnet.
  [`net.ipv4.conf.${udpDevice}.accept_local`, '1'],
  // Loose mode: packets arrive here whose way back uses another link, those of a client behind a peer and the ICMP
  // errors of the data plane. The kernel takes the larger of this value and conf.all, so a strict host is loose on
  // this link only.
  [`net.ipv4.conf.${udpDevice}.rp_filter`, '2'],
  // The tunnel carries IPv4 only: the kernel sends no router solicitations into it and accepts no advertisements.
  [`net.ipv6.conf.${udpDevice}.accept_ra`, '0'],
  [`net.ipv6.conf.${udpDevice}.disable_ipv6`, '1'],
];

function hostPlan(context: BackendContext, self: Lease, mtu: number, needs: Required<PlanNeeds>): HostPlan {
  const { forwarding, kernel } = needs;
  const local = context.node.interface.address;
  const { network, nftables } = context.network;
  return {
    links: [{ name: udpDevice, make: { kind: 'tun' }, mtu, address: { base: self.subnet.base, length: 32 } }],
    neighbours: [],
    forwarding: [],
    routes: [
      // This route is added first, so that no packet of the overlay ever finds only the default route.
      { kind: 'unreachable', destination: network, metric: unreachableMetric },
      { kind: 'device', destination: network, device: udpDevice, metric: 0 },
    ],
    sysctls: [
      // With iptables, Docker sets the policy of FORWARD to DROP only when Docker itself enables net.ipv4.ip_forward.
      // If the plan enabled it, the host would route for everybody, into containers and into the overlay. With
      // nftables, Docker sets no policy, does not enable forwarding and does not start without it.
      ...(forwarding ? [['net.ipv4.ip_forward', '1'] as const] : []),
      ...linkSysctls,
    ],
    firewall: [
      {
        network,
        subnet: self.subnet,
        device: udpDevice,
        forward: context.forwardRules,
        masquerade: context.ipMasquerade,
        nftables,
        ...(context.docker?.pools && { rivalMasquerade: true }),
        ...(kernel !== 'off' && { kernel: { link: kernelDevice, local, port: kernelPort } }),
      },
    ],
  };
}
