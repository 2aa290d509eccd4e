/**
 * Plans that hold more than the tunnel, by the host adapter against the kernel, in a namespace of its own.
 *
 *   u0 192.0.2.1/24 (underlay)     tartan0 (TUN, no reader)
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseIpv4, parsePrefix } from '../../src/model/ipv4.js';
import type { HostPlan, RoutePlan } from '../../src/model/plan.js';
import { HostLab, type RemoteHost } from '../support/host-lab.js';

let lab: HostLab;
let host: RemoteHost;

const nothing: HostPlan = { links: [], routes: [], sysctls: [], firewall: [] };

beforeEach(async () => {
  lab = await HostLab.open();
  lab.run('ip link add u0 type veth peer name u1');
  lab.run('ip addr add 192.0.2.1/24 dev u0');
  lab.run('ip link set u0 up');
  lab.run('ip link set u1 up');
  host = await lab.host();
});

afterEach(() => lab.close());

function routes(): string {
  return lab.run('ip -4 route show table main');
}

describe('gateway routes', () => {
  const byGateway: RoutePlan = {
    kind: 'gateway',
    destination: parsePrefix('10.5.2.0/24'),
    gateway: parseIpv4('192.0.2.2'),
    metric: 0,
  };
  const onLink: RoutePlan = {
    kind: 'gateway',
    destination: parsePrefix('10.5.3.0/24'),
    gateway: parseIpv4('10.5.3.0'),
    device: 'u0',
    onlink: true,
    metric: 0,
  };
  const plan: HostPlan = { ...nothing, routes: [byGateway, onLink] };

  test('are made once, put back and removed', async () => {
    const add = [
      'route add 10.5.2.0/24 metric 0 via 192.0.2.2',
      'route add 10.5.3.0/24 metric 0 via 10.5.3.0 dev u0 onlink',
    ];
    expect((await host.apply(plan)).changes).toEqual(add);
    expect(await host.apply(plan)).toEqual({ changes: [], conflicts: [] });
    expect(routes()).toMatch(/^10\.5\.2\.0\/24 via 192\.0\.2\.2 dev u0 proto 84 $/m);
    expect(routes()).toMatch(/^10\.5\.3\.0\/24 via 10\.5\.3\.0 dev u0 proto 84 onlink/m);
    lab.run('ip route del 10.5.3.0/24');
    lab.run('ip route change 10.5.2.0/24 via 192.0.2.7 proto 84');
    expect((await host.apply(plan)).changes).toEqual([
      'route replace 10.5.2.0/24 metric 0 via 192.0.2.2',
      ...add.slice(1),
    ]);
    expect(await host.apply(plan)).toEqual({ changes: [], conflicts: [] });
    expect((await host.cleanup()).changes).toEqual([
      'route remove 10.5.2.0/24 metric 0 via 192.0.2.2 dev u0',
      'route remove 10.5.3.0/24 metric 0 via 10.5.3.0 dev u0 onlink',
    ]);
    expect(routes()).not.toContain('10.5.');
  });
});
