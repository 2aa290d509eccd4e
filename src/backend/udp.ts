/**
 * The udp backend: bare inner packets in UDP, as flannel's. Every lease of the network is a peer whatever its
 * BackendType, and is reached on our own configured port (flannel-compat.md section 0, rule 6).
 */
import type { Lease } from '../model/lease.js';
import { sortTunnelRoutes, type HostPlan, type Plan } from '../model/plan.js';
import { TartanError } from '../lib/errors.js';
import type { Backend, BackendContext } from './backend.js';

/** Outer IPv4 header (20) and UDP header (8). */
const overheadBytes = 28;
/** RFC 791: every host must take 68 bytes in one piece. */
const smallestMtu = 68;
export const udpDevice = 'tartan0';
/** Below every route that carries traffic: the tunnel's own has metric 0. */
const unreachableMetric = 4096;

export function udpBackend(context: BackendContext & { readonly port: number }): Backend {
  const { node, port } = context;
  const mtu = node.interface.mtu - overheadBytes;
  if (mtu < smallestMtu) {
    throw new TartanError(
      'HOST_REFUSED',
      `MTU ${node.interface.mtu} of ${node.interface.name} leaves no room for the tunnel, at least ${smallestMtu + overheadBytes} is needed`,
    );
  }
  return {
    type: 'udp',
    mtu,
    announce: () => ({ type: 'udp' }),
    plan: (self, peers, forwarding = false): Plan => ({
      tunnel: sortTunnelRoutes(peers.map(peer => ({ subnet: peer.subnet, endpoint: peer.publicIp, port }))),
      host: hostPlan(context, self, mtu, forwarding),
    }),
  };
}

function hostPlan(context: BackendContext, self: Lease, mtu: number, forwarding: boolean): HostPlan {
  const { network, nftables } = context.network;
  return {
    links: [{ name: udpDevice, mtu, address: { base: self.subnet.base, length: 32 } }],
    routes: [
      // First, so that no packet of the overlay ever finds only the default route.
      { kind: 'unreachable', destination: network, metric: unreachableMetric },
      { kind: 'device', destination: network, device: udpDevice, metric: 0 },
    ],
    sysctls: [
      // Not net.ipv4.ip_forward: Docker's rules of iptables make FORWARD's policy DROP only when Docker switches that
      // on itself. Were it on before, the host would route for everybody, into containers and into the overlay. Docker
      // with nftables does neither: it sets no policy and does not start without.
      ...(forwarding ? [['net.ipv4.ip_forward', '1'] as const] : []),
      [`net.ipv4.conf.${udpDevice}.forwarding`, '1'],
      [`net.ipv4.conf.${udpDevice}.accept_redirects`, '0'],
      [`net.ipv4.conf.${udpDevice}.send_redirects`, '0'],
      // ICMP errors of the data plane come from the tunnel address, which is the host's own: without this the kernel
      // drops them as martians. Peers cannot use it: their inner source must be of their own subnet.
      [`net.ipv4.conf.${udpDevice}.accept_local`, '1'],
      // Loose: whatever the peers send comes in here, also where the way back is by another link (a client behind a
      // peer). The kernel takes the larger of this and conf.all, so that a strict host is loosened for the tunnel only.
      [`net.ipv4.conf.${udpDevice}.rp_filter`, '2'],
      // The tunnel carries IPv4 only: no router solicitations of the kernel's own into it, and no answer to one.
      [`net.ipv6.conf.${udpDevice}.accept_ra`, '0'],
      [`net.ipv6.conf.${udpDevice}.disable_ipv6`, '1'],
    ],
    firewall: {
      network,
      subnet: self.subnet,
      device: udpDevice,
      forward: context.forwardRules,
      masquerade: context.ipMasquerade,
      nftables,
    },
  };
}
