/** A backend without a data plane, for tests: a vxlan link, with a route, a neighbour and an entry for each peer. */
import type { Backend, BackendContext } from '../../src/backend/backend.js';
import { addressBytes, prefixAround, type Ipv4 } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import type { Plan } from '../../src/model/plan.js';

export const vxlanDevice = 'vx6';
const vni = 6;

function macOf(address: Ipv4): string {
  return `02:00${Buffer.from(addressBytes(address)).toString('hex').replace(/../g, ':$&')}`;
}

export function vxlanBackend({ node, network }: BackendContext): Backend {
  const [device, mac, mtu] = [vxlanDevice, macOf(node.publicIp), node.interface.mtu - 50];
  const plan = ({ subnet }: Lease, peers: readonly Lease[]): Plan => ({
    tunnel: undefined,
    host: {
      links: [
        {
          name: device,
          make: { kind: 'vxlan', vni, port: 8472, local: node.interface.address, mac },
          mtu,
          address: prefixAround(subnet.base, 32),
        },
      ],
      neighbours: peers.map(peer => ({ device, address: peer.subnet.base, mac: macOf(peer.publicIp) })),
      forwarding: peers.map(({ publicIp }) => ({ device, mac: macOf(publicIp), destination: publicIp })),
      routes: [
        { kind: 'unreachable', destination: network.network, metric: 4096 },
        ...peers.map(peer => ({
          kind: 'gateway' as const,
          destination: peer.subnet,
          gateway: peer.subnet.base,
          device,
          onlink: true,
          metric: 0,
        })),
      ],
      sysctls: [[`net.ipv6.conf.${device}.disable_ipv6`, '1']],
      firewall: [
        { network: network.network, subnet, device, forward: true, masquerade: 'on', nftables: network.nftables },
      ],
    },
  });
  return { type: 'vxlan', mtu, announce: () => ({ type: 'vxlan', data: { VNI: vni, VtepMAC: mac } }), plan };
}
