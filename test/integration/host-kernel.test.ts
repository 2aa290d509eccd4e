/**
 * The host adapter against the kernel, in a namespace of its own.
 *
 *   u0 192.0.2.1/24 (underlay, default via .254)     tartan0 (TUN, no reader)     docker0 10.5.1.1/24
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseIpv4, parsePrefix, formatIpv4 } from '../../src/model/ip.js';
import type { FirewallPlan, HostPlan, LinkPlan } from '../../src/model/plan.js';
import { emptyPlan } from '../support/fakes.js';
import { HostLab, type RemoteHost } from '../support/host-lab.js';

let lab: HostLab;
let host: RemoteHost;

const network = parsePrefix('10.5.0.0/16');
const firewall: FirewallPlan = {
  network,
  subnet: parsePrefix('10.5.1.0/24'),
  device: 'tartan0',
  forward: true,
  masquerade: 'on',
  nftables: false,
};

const tun: LinkPlan = { name: 'tartan0', make: { kind: 'tun' }, mtu: 1472, address: parsePrefix('10.5.1.0/32') };

const plan: HostPlan = {
  ...emptyPlan,
  links: [tun],
  routes: [
    { kind: 'unreachable', destination: network, metric: 4096 },
    { kind: 'device', destination: network, device: 'tartan0', metric: 0 },
  ],
  sysctls: [
    ['net.ipv4.ip_forward', '1'],
    ['net.ipv4.conf.tartan0.send_redirects', '0'],
    ['net.ipv4.conf.tartan0.rp_filter', '2'],
    ['net.ipv6.conf.tartan0.accept_ra', '0'],
    ['net.ipv6.conf.tartan0.disable_ipv6', '1'],
  ],
  firewall: [firewall],
};

beforeEach(async () => {
  lab = await HostLab.open();
  lab.addUnderlay();
  lab.run('ip route add default via 192.0.2.254');
  makeTun();
  host = await lab.host();
});

afterEach(() => lab.close());

function makeTun(): void {
  lab.run('ip tuntap add dev tartan0 mode tun');
}

function routes(): string {
  return lab.run('ip -4 route show table main');
}

describe('apply', () => {
  test('makes all that is planned, and nothing the second time', async () => {
    const first = await host.apply('default', plan);
    expect(first.changes.map(change => change.replace(/iptables -t (\w+).*/, 'iptables $1'))).toEqual([
      'sysctl net.ipv4.ip_forward=1',
      'sysctl net.ipv4.conf.tartan0.send_redirects=0',
      'sysctl net.ipv4.conf.tartan0.rp_filter=2',
      'sysctl net.ipv6.conf.tartan0.accept_ra=0',
      'sysctl net.ipv6.conf.tartan0.disable_ipv6=1',
      'link set tartan0 mtu 1472',
      'link set tartan0 txqueuelen 512',
      'address add 10.5.1.0/32 dev tartan0',
      'link set tartan0 up',
      'route add 10.5.0.0/16 metric 4096 unreachable',
      'route add 10.5.0.0/16 metric 0 dev tartan0',
      'iptables raw',
      'iptables filter',
      'iptables nat',
    ]);
    expect(first.conflicts).toEqual([]);
    expect(await host.apply('default', plan)).toEqual({ changes: [], conflicts: [] });
    expect(routes()).toMatch(/^10\.5\.0\.0\/16 dev tartan0 proto 167 (?!scope)/m);
    expect(routes()).toMatch(/^unreachable 10\.5\.0\.0\/16 proto 167 metric 4096/m);
    expect(lab.run('ip -o -4 addr show dev tartan0')).toMatch(/inet 10\.5\.1\.0\/32 scope global/);
    expect(lab.run('ip link show tartan0')).toMatch(/UP.* mtu 1472 .*qlen 512/);
    expect(lab.run('cat /proc/sys/net/ipv4/conf/tartan0/send_redirects')).toBe('0\n');
  });

  test('a link that was set down and up again gets its routes back', async () => {
    await host.apply('default', plan);
    lab.run('ip link set tartan0 down');
    expect(routes()).not.toMatch(/dev tartan0/);
    expect(routes()).toMatch(/unreachable 10\.5\.0\.0\/16/);
    expect((await host.apply('default', plan)).changes).toEqual([
      'link set tartan0 up',
      'route add 10.5.0.0/16 metric 0 dev tartan0',
    ]);
  });

  test('without the link its steps fail by name, all others are made', async () => {
    lab.run('ip link del tartan0');
    const refused = host.apply('default', plan);
    await expect(refused).rejects.toMatchObject({ code: 'HOST_REFUSED' });
    await expect(refused).rejects.toThrow(/link set tartan0 up: there is no link tartan0; the data plane makes it/);
    expect(routes()).toMatch(/unreachable 10\.5\.0\.0\/16 proto 167 metric 4096/);
    expect(lab.rules()).toContain('TARTAN-POSTRTG');
    makeTun();
    await host.apply('default', plan);
    expect(routes()).toMatch(/^10\.5\.0\.0\/16 dev tartan0 proto 167/m);
  });

  test('our route that somebody deleted or changed is restored', async () => {
    await host.apply('default', plan);
    lab.run('ip route del 10.5.0.0/16 dev tartan0 proto 167');
    lab.run('ip route change unreachable 10.5.0.0/16 metric 4096 proto 99');
    expect((await host.apply('default', plan)).changes).toEqual(['route add 10.5.0.0/16 metric 0 dev tartan0']);
    lab.run('ip route del unreachable 10.5.0.0/16 metric 4096');
    expect((await host.apply('default', plan)).changes).toEqual(['route add 10.5.0.0/16 metric 4096 unreachable']);
  });

  test('our route by another link is replaced, ours that is not planned removed', async () => {
    await host.apply('default', plan);
    lab.run('ip route del 10.5.0.0/16 dev tartan0 proto 167');
    lab.run('ip route add 10.5.0.0/16 dev u0 proto 167');
    lab.run('ip route add 10.6.0.0/16 dev u0 proto 167');
    lab.run('ip route add unreachable 10.6.0.0/16 metric 4096 proto 167');
    expect((await host.apply('default', plan)).changes).toEqual([
      'route replace 10.5.0.0/16 metric 0 dev tartan0',
      'route remove 10.6.0.0/16 metric 0 dev u0',
      'route remove 10.6.0.0/16 metric 4096 unreachable',
    ]);
    expect((await host.apply('default', plan)).changes).toEqual([]);
  });

  test('another address: the new one before the old one goes, a foreign one stays', async () => {
    await host.apply('default', plan);
    lab.run('ip addr add 198.51.100.9/24 dev tartan0');
    const moved = { ...plan, links: [{ ...tun, mtu: 1400, address: parsePrefix('10.5.7.0/32') }] };
    expect((await host.apply('default', moved)).changes).toEqual([
      'link set tartan0 mtu 1400',
      'address add 10.5.7.0/32 dev tartan0',
      'address remove 10.5.1.0/32 dev tartan0',
    ]);
    expect(lab.run('ip -o -4 addr show dev tartan0').match(/inet \S+/g)).toEqual([
      'inet 198.51.100.9/24',
      'inet 10.5.7.0/32',
    ]);
  });

  test('no way out in clear: with the tunnel gone the answer is unreachable, not the default route', async () => {
    await host.apply('default', plan);
    lab.run('ip link del tartan0');
    expect(() => lab.run('ip route get 10.5.2.2')).toThrow(/No route to host/);
    expect(await host.routeTo(parseIpv4('10.5.2.2'))).toBeUndefined();
  });
});

describe('what is not ours', () => {
  test('a foreign route in our place is named and stays, and ours stays away', async () => {
    lab.run('ip route add 10.5.0.0/16 via 192.0.2.9');
    lab.run('ip route add 10.5.2.0/24 via 192.0.2.9 proto static');
    const before = lab.run('ip -j -4 route show table all dev u0');
    const { conflicts } = await host.apply('default', plan);
    expect(conflicts).toEqual([
      'route_conflict 10.5.0.0/16 metric 0 via 192.0.2.9 dev u0 proto 3: not ours, and where ours belongs',
      'route_conflict 10.5.2.0/24 metric 0 via 192.0.2.9 dev u0 proto 4: not ours, takes packets from tartan0',
    ]);
    expect(lab.run('ip -j -4 route show table all dev u0')).toBe(before);
    lab.run('ip route del 10.5.0.0/16 via 192.0.2.9');
    expect((await host.apply('default', plan)).changes).toEqual(['route add 10.5.0.0/16 metric 0 dev tartan0']);
  });

  test('cleanup leaves routes, addresses and rules as they were', async () => {
    lab.run('ip route add 10.9.0.0/16 via 192.0.2.9 proto 85');
    lab.run('iptables -A FORWARD -s 203.0.113.0/24 -j DROP');
    lab.run('iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE');
    lab.run('ip link set tartan0 up');
    const state = (): string[] => [lab.run('ip -j -4 route show table all'), lab.run('ip -j -4 addr'), lab.rules()];
    const before = state();
    await host.apply('default', plan);
    expect(state()).not.toEqual(before);
    const { changes } = await host.cleanup();
    expect(changes.slice(0, 3)).toEqual([
      'route remove 10.5.0.0/16 metric 0 dev tartan0',
      'route remove 10.5.0.0/16 metric 4096 unreachable',
      'address remove 10.5.1.0/32 dev tartan0',
    ]);
    const [routesAfter, addressesAfter = '', rulesAfter] = state();
    expect([routesAfter, rulesAfter]).toEqual([before[0], before[2]]);
    // The MTU and the queue stay as set: they go with the link, which the data plane removes.
    const plain = (text = ''): string => text.replace(/"(mtu|txqlen)":\d+/g, '');
    expect(plain(addressesAfter)).toBe(plain(before[1]));
    expect(await host.cleanup()).toEqual({ changes: [], conflicts: [] });
  });
});

describe('firewall', () => {
  test('flushed by somebody: ours come back, nothing else', async () => {
    await host.apply('default', plan);
    const made = lab.rules();
    lab.run('iptables-restore', '*raw\nCOMMIT\n*filter\nCOMMIT\n*nat\nCOMMIT\n');
    expect(lab.rules()).toBe('');
    const { changes } = await host.apply('default', plan);
    expect(changes.map(change => change.split(' -N ')[0]?.split(' -I ')[0])).toEqual([
      'iptables -t raw',
      'iptables -t filter',
      'iptables -t nat',
    ]);
    expect(lab.rules()).toBe(made);
  });

  test('a Docker 28 that comes later: raw rule first again, accept before its drops, its rules unchanged', async () => {
    await host.apply('default', plan);
    lab.run(
      'iptables-restore --noflush',
      [
        '*raw',
        '-I PREROUTING -d 10.5.1.2/32 ! -i docker0 -j DROP',
        'COMMIT',
        '*filter',
        ':DOCKER - [0:0]',
        ':DOCKER-FORWARD - [0:0]',
        '-A DOCKER ! -i docker0 -o docker0 -j DROP',
        '-I FORWARD -j DOCKER-FORWARD',
        '-A DOCKER-FORWARD -j DOCKER',
        'COMMIT',
        '*nat',
        '-I POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE',
        'COMMIT',
        '',
      ].join('\n'),
    );
    await host.apply('default', plan);
    expect(await host.apply('default', plan)).toEqual({ changes: [], conflicts: [] });
    const first = (table: string, chain: string): string | undefined =>
      lab
        .run(`iptables -t ${table} -S ${chain}`)
        .split('\n')
        .filter(line => line.startsWith('-A'))[0];
    expect(first('raw', 'PREROUTING')).toMatch(/-i tartan0 .*-j ACCEPT/);
    expect(first('filter', 'FORWARD')).toMatch(/-j DOCKER-USER/);
    expect(first('nat', 'POSTROUTING')).toMatch(/-j TARTAN-POSTRTG/);
    expect(lab.rules()).toContain('-A PREROUTING -d 10.5.1.2/32 ! -i docker0 -j DROP');
    await host.cleanup();
    expect(lab.rules()).not.toMatch(/tartan/i);
    expect(lab.rules()).toContain('-A POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE');
  });

  test('switched off: our rules go, and only they', async () => {
    await host.apply('default', plan);
    await host.apply('default', { ...plan, firewall: [{ ...firewall, masquerade: 'off' }] });
    expect(lab.rules()).not.toContain('MASQUERADE');
    expect(lab.rules()).toContain('DOCKER-USER');
    await host.apply('default', { ...plan, firewall: [{ ...firewall, masquerade: 'off', forward: false }] });
    expect(lab.rules()).toBe('');
  });

  test('two kernels side by side change their rules at the same time', async () => {
    const other = await HostLab.open();
    try {
      other.run('ip tuntap add dev tartan0 mode tun');
      const second = await other.host();
      for (let round = 0; round < 5; round++) {
        await Promise.all([host.apply('default', plan), second.apply('default', plan)]);
        await Promise.all([host.cleanup(), second.cleanup()]);
      }
      expect(other.rules()).toBe('');
    } finally {
      await other.close();
    }
  });
});

describe('changes', () => {
  test('rings for links, addresses and routes of others', async () => {
    const rung = async (command: string): Promise<void> => {
      const before = host.rings;
      lab.run(command);
      await vi.waitFor(() => expect(host.rings).toBeGreaterThan(before), { timeout: 5000 });
    };
    await rung('ip route add 198.51.100.0/24 dev u0');
    await rung('ip addr add 192.0.2.77/32 dev u0');
    await rung('ip link set u0 mtu 1400');
    await rung('ip link del tartan0');
  });

  test('20000 changes of others while the program is busy: alive, and it rings', async () => {
    const before = host.rings;
    const blocked = host.block(3000);
    const lines = (verb: string): string =>
      Array.from({ length: 10_000 }, (_, i) => `route ${verb} 198.18.${i >> 8}.${i & 255}/32 dev u0\n`).join('');
    lab.run('ip -batch -', lines('add') + lines('del'));
    await blocked;
    await vi.waitFor(() => expect(host.rings).toBeGreaterThan(before), { timeout: 5000 });
    expect((await host.apply('default', plan)).changes).toContain('route add 10.5.0.0/16 metric 0 dev tartan0');
  });

  test('lists of many routes are whole while they change', async () => {
    const lines = (verb: string): string =>
      Array.from({ length: 5000 }, (_, i) => `route ${verb} 198.18.${i >> 8}.${i & 255}/32 dev u0 proto 99\n`).join('');
    await host.apply('default', plan);
    lab.run('ip -batch -', lines('add'));
    const churn = lab.runAsync('ip route flush proto 99');
    for (let i = 0; i < 10; i++) expect((await host.apply('default', plan)).changes).toEqual([]);
    await churn;
  });
});

describe('reading', () => {
  test('interfaces, the default route and routes to an address', async () => {
    const u0 = (await host.interfaces()).find(({ name }) => name === 'u0');
    expect(u0).toMatchObject({ mtu: 1500, up: true });
    expect(u0?.addresses.map(one => formatIpv4(one.address))).toEqual(['192.0.2.1']);
    expect(u0?.addresses[0]).toMatchObject({ permanent: true, deprecated: false });
    expect(await host.defaultRoute()).toEqual({ interfaceName: 'u0', gateway: parseIpv4('192.0.2.254') });
    expect(await host.routeTo(parseIpv4('203.0.113.1'))).toEqual({
      interfaceName: 'u0',
      source: parseIpv4('192.0.2.1'),
    });
    lab.run('ip route del default');
    expect(await host.defaultRoute()).toBeUndefined();
    expect(await host.routeTo(parseIpv4('203.0.113.1'))).toBeUndefined();
  });

  test('a default route with several next hops is refused, the lowest metric is taken', async () => {
    lab.run('ip route add default via 192.0.2.253 metric 50');
    expect(await host.defaultRoute()).toMatchObject({ gateway: parseIpv4('192.0.2.254') });
    lab.run('ip route replace default nexthop via 192.0.2.253 nexthop via 192.0.2.252');
    await expect(host.defaultRoute()).rejects.toThrow(/several next hops: name the interface with --iface/);
  });
});

describe('what takes packets away', () => {
  const conflicts = async (): Promise<readonly string[]> => (await host.apply('default', plan)).conflicts;
  const taken = 'not ours, takes packets from tartan0';

  test('fault B4: networks and routes of the host inside of the overlay are named, and are left alone', async () => {
    lab.run('ip link add br0 type bridge');
    lab.run('ip link set br0 up');
    lab.run('ip addr add 10.5.9.1/24 dev br0');
    lab.run('ip addr add 10.5.1.1/24 dev br0');
    for (const [at, kind] of ['blackhole', 'unreachable', 'prohibit', 'throw'].entries())
      lab.run(`ip route add ${kind} 10.5.2${at}.0/24`);
    lab.run('ip route add blackhole 10.4.0.0/16');
    const found = await conflicts();
    expect([...found].sort()).toEqual([
      `route_conflict 10.5.20.0/24 metric 0 blackhole proto 3: ${taken}`,
      `route_conflict 10.5.21.0/24 metric 0 unreachable proto 3: ${taken}`,
      `route_conflict 10.5.22.0/24 metric 0 prohibit proto 3: ${taken}`,
      `route_conflict 10.5.23.0/24 metric 0 throw proto 3: ${taken}`,
      `route_conflict 10.5.9.0/24 metric 0 dev br0 proto 2: ${taken}`,
      `route_conflict 10.5.9.1/32 metric 0 dev br0 local proto 2: ${taken}`,
    ]);
    lab.run('ip addr del 10.5.9.1/24 dev br0');
    for (const at of [0, 1, 2, 3]) lab.run(`ip route del 10.5.2${at}.0/24`);
    expect(await conflicts()).toEqual([]);
  });

  test('fault B4b: a policy rule that wins over the main table is named, one that does not is not', async () => {
    lab.run('ip route add default via 192.0.2.254 table 100');
    lab.run('ip route add 198.51.100.0/24 via 192.0.2.254 table 101');
    for (const rule of [
      'from all lookup 101 priority 100',
      'from 198.51.100.0/24 lookup 100 priority 101',
      'to 198.51.100.0/24 lookup 100 priority 102',
      'from all fwmark 7 lookup 100 priority 103',
      'from all lookup 100 priority 40000',
      'from all iif u0 lookup 100 priority 104',
    ])
      lab.run(`ip rule add ${rule}`);
    expect(await conflicts()).toEqual([]);
    lab.run('ip rule add from 10.5.0.0/16 lookup 100 priority 200');
    lab.run('ip rule add to 10.5.3.0/24 blackhole priority 201');
    expect(await conflicts()).toEqual([
      `route_conflict rule 200, table 100, 0.0.0.0/0 metric 0 via 192.0.2.254 dev u0 proto 3: ${taken}`,
      `route_conflict rule 201 (it refuses): ${taken}`,
    ]);
    lab.run('ip rule del priority 200');
    lab.run('ip rule del priority 201');
    // As wg-quick makes them: the main table is asked first, without its default route.
    lab.run('ip rule add not fwmark 51820 lookup 100 priority 301');
    expect(await conflicts()).toHaveLength(1);
    lab.run('ip rule add lookup main suppress_prefixlength 0 priority 300');
    expect(await conflicts()).toEqual([]);
  });

  test('fault B4b: a rule that comes rings', async () => {
    await host.apply('default', plan);
    const before = host.rings;
    lab.run('ip rule add from 10.5.0.0/16 lookup 100 priority 200');
    await vi.waitFor(() => expect(host.rings).toBeGreaterThan(before), { timeout: 5000 });
  });
});

test('fault U14: routes of an earlier version are replaced without a moment between', async () => {
  lab.run('ip link set tartan0 up');
  lab.run('ip addr add 10.5.1.0/32 dev tartan0');
  lab.run('ip route add 10.5.0.0/16 dev tartan0 proto 84');
  lab.run('ip route add unreachable 10.5.0.0/16 metric 4096 proto 84');
  lab.run('ip route add blackhole 10.77.0.0/16 metric 100 proto 84');
  const { changes } = await host.apply('default', plan);
  expect(changes.filter(change => /route|address/.test(change))).toEqual([
    'route replace 10.5.0.0/16 metric 4096 unreachable',
    'route replace 10.5.0.0/16 metric 0 dev tartan0',
  ]);
  expect(
    routes()
      .split('\n')
      .filter(line => line.includes('proto 84') || line.includes('ovn')),
  ).toEqual([expect.stringMatching(/^blackhole 10\.77\.0\.0\/16/)]);
  expect((await host.apply('default', plan)).changes).toEqual([]);
});
