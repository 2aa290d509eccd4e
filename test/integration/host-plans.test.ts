/**
 * Plans that hold more than the tunnel, by the host adapter against the kernel, in a namespace of its own.
 *
 *   u0 192.0.2.1/24 (underlay)     tartan0 (TUN, no reader)
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { HostPlan, RoutePlan } from '../../src/model/plan.js';
import { emptyPlan } from '../support/fakes.js';
import { HostLab, type RemoteHost } from '../support/host-lab.js';

let lab: HostLab;
let host: RemoteHost;

beforeEach(async () => {
  lab = await HostLab.open();
  lab.addUnderlay();
  host = await lab.host();
});

afterEach(() => lab.close());

/** A network over a vxlan link, with one peer. */
function vxlanPlan(name: string, number: number): HostPlan {
  const network = parsePrefix(`10.${number}.0.0/16`);
  const mac = '02:00:00:00:00:02';
  return {
    links: [
      {
        name,
        make: { kind: 'vxlan', vni: number, port: 8472, local: parseIpv4('192.0.2.1'), mac: '02:00:00:00:00:01' },
        mtu: 1450,
        address: parsePrefix(`10.${number}.1.0/32`),
      },
    ],
    neighbours: [{ device: name, address: parseIpv4(`10.${number}.2.0`), mac }],
    forwarding: [{ device: name, mac, destination: parseIpv4('192.0.2.2') }],
    routes: [
      { kind: 'unreachable', destination: network, metric: 4096 },
      {
        kind: 'gateway',
        destination: parsePrefix(`10.${number}.2.0/24`),
        gateway: parseIpv4(`10.${number}.2.0`),
        device: name,
        onlink: true,
        metric: 0,
      },
    ],
    sysctls: [
      [`net.ipv4.conf.${name}.rp_filter`, '2'],
      [`net.ipv6.conf.${name}.disable_ipv6`, '1'],
    ],
    firewall: [],
  };
}

const nothingToDo = { changes: [], conflicts: [] };

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
  const plan: HostPlan = { ...emptyPlan, routes: [byGateway, onLink] };

  test('are made once, put back and removed', async () => {
    const add = [
      'route add 10.5.2.0/24 metric 0 via 192.0.2.2',
      'route add 10.5.3.0/24 metric 0 via 10.5.3.0 dev u0 onlink',
    ];
    expect((await host.apply('default', plan)).changes).toEqual(add);
    expect(await host.apply('default', plan)).toEqual(nothingToDo);
    expect(routes()).toMatch(/^10\.5\.2\.0\/24 via 192\.0\.2\.2 dev u0 proto 167 $/m);
    expect(routes()).toMatch(/^10\.5\.3\.0\/24 via 10\.5\.3\.0 dev u0 proto 167 onlink/m);
    lab.run('ip route del 10.5.3.0/24');
    lab.run('ip route change 10.5.2.0/24 via 192.0.2.7 proto 167');
    expect((await host.apply('default', plan)).changes).toEqual([
      'route replace 10.5.2.0/24 metric 0 via 192.0.2.2',
      ...add.slice(1),
    ]);
    expect(await host.apply('default', plan)).toEqual(nothingToDo);
    expect((await host.cleanup()).changes).toEqual([
      'route remove 10.5.2.0/24 metric 0 via 192.0.2.2 dev u0',
      'route remove 10.5.3.0/24 metric 0 via 10.5.3.0 dev u0 onlink',
    ]);
    expect(routes()).not.toContain('10.5.');
  });
});

describe('a created link', () => {
  const plan = vxlanPlan('vx7', 7);
  const linkUp = [
    'sysctl net.ipv4.conf.vx7.rp_filter=2',
    'sysctl net.ipv6.conf.vx7.disable_ipv6=1',
    'link set vx7 mtu 1450',
    'address add 10.7.1.0/32 dev vx7',
    'link set vx7 up',
  ];
  const add = 'link add vx7 vxlan id 7 port 8472 local 192.0.2.1 mac 02:00:00:00:00:01';
  const entries = [
    'neighbour add 10.7.2.0 lladdr 02:00:00:00:00:02 dev vx7',
    'forwarding add 02:00:00:00:00:02 dst 192.0.2.2 dev vx7',
  ];
  const unreachable = 'route add 10.7.0.0/16 metric 4096 unreachable';
  const peer = 'route add 10.7.2.0/24 metric 0 via 10.7.2.0 dev vx7 onlink';

  test('is made with all that goes through it, and nothing the second time', async () => {
    expect(await host.apply('default', plan)).toEqual({
      changes: [add, ...linkUp, ...entries, unreachable, peer],
      conflicts: [],
    });
    expect(await host.apply('default', plan)).toEqual(nothingToDo);
    expect(lab.run('ip -d link show vx7')).toMatch(
      /UP.* mtu 1450 [^]*ether 02:00:00:00:00:01 [^]*vxlan id 7 local 192\.0\.2\.1 .*dstport 8472 nolearning [^]*alias tartan default/,
    );
    expect(lab.run('ip -o -4 addr show dev vx7')).toMatch(/inet 10\.7\.1\.0\/32 scope global/);
    expect(lab.run('ip neigh show dev vx7')).toMatch(/^10\.7\.2\.0 lladdr 02:00:00:00:00:02 PERMANENT/);
    expect(lab.run('bridge fdb show dev vx7').trim()).toBe('02:00:00:00:00:02 dst 192.0.2.2 self permanent');
    expect(routes()).toMatch(/^10\.7\.2\.0\/24 via 10\.7\.2\.0 dev vx7 proto 167 onlink/m);
    expect(lab.run('cat /proc/sys/net/ipv4/conf/vx7/rp_filter')).toBe('2\n');
  });

  test('each part that somebody deletes or changes is put back', async () => {
    await host.apply('default', plan);
    const repairs: [string, string[]][] = [
      ['ip neigh del 10.7.2.0 dev vx7', entries.slice(0, 1)],
      [
        'ip neigh replace 10.7.2.0 lladdr 02:00:00:00:00:09 dev vx7 nud permanent',
        ['neighbour replace 10.7.2.0 lladdr 02:00:00:00:00:02 dev vx7'],
      ],
      [
        'ip neigh add 10.7.3.0 lladdr 02:00:00:00:00:03 dev vx7 nud permanent',
        ['neighbour remove 10.7.3.0 lladdr 02:00:00:00:00:03 dev vx7'],
      ],
      ['bridge fdb del 02:00:00:00:00:02 dev vx7 dst 192.0.2.2', entries.slice(1)],
      [
        'bridge fdb replace 02:00:00:00:00:02 dev vx7 dst 192.0.2.9',
        ['forwarding replace 02:00:00:00:00:02 dst 192.0.2.2 dev vx7'],
      ],
      [
        'bridge fdb add 02:00:00:00:00:03 dev vx7 dst 192.0.2.3',
        ['forwarding remove 02:00:00:00:00:03 dst 192.0.2.3 dev vx7'],
      ],
      ['ip route del 10.7.2.0/24', [peer]],
      // Without an address the kernel forgets everything else of IPv4 on the link.
      ['ip addr del 10.7.1.0/32 dev vx7', ['address add 10.7.1.0/32 dev vx7', entries[0] ?? '', peer]],
      ['ip link set vx7 down', ['link set vx7 up', entries[0] ?? '', peer]],
      ['ip link del vx7', [add, ...linkUp, ...entries, peer]],
    ];
    for (const [command, changes] of repairs) {
      lab.run(command);
      expect((await host.apply('default', plan)).changes, command).toEqual(changes);
      expect(await host.apply('default', plan), command).toEqual(nothingToDo);
    }
  });

  test('is made again when it is set otherwise, and removed when no plan wants it', async () => {
    await host.apply('default', plan);
    lab.run('ip link set vx7 type vxlan learning');
    const again = ['link remove vx7', add, ...linkUp, ...entries, peer];
    expect((await host.apply('default', plan)).changes).toEqual(again);
    const other = vxlanPlan('vx8', 8);
    expect((await host.apply('default', other)).changes.slice(-4)).toEqual([
      'route add 10.8.2.0/24 metric 0 via 10.8.2.0 dev vx8 onlink',
      'route remove 10.7.2.0/24 metric 0 via 10.7.2.0 dev vx7 onlink',
      'route remove 10.7.0.0/16 metric 4096 unreachable',
      'link remove vx7',
    ]);
    expect(await host.apply('default', other)).toEqual(nothingToDo);
    expect((await host.cleanup()).changes).toEqual([
      'route remove 10.8.2.0/24 metric 0 via 10.8.2.0 dev vx8 onlink',
      'route remove 10.8.0.0/16 metric 4096 unreachable',
      'link remove vx8',
    ]);
    expect(await host.cleanup()).toEqual(nothingToDo);
    expect(lab.run('ip -br link')).not.toMatch(/vx|tartan/);
  });

  test('a death between its making and its alias leaves a link that the next pass removes', async () => {
    lab.run('ip link add tartan-new type vxlan id 7 dstport 8472 local 192.0.2.1 nolearning');
    expect((await host.apply('default', plan)).changes.slice(0, 2)).toEqual(['link remove tartan-new', add]);
    expect(await host.apply('default', plan)).toEqual(nothingToDo);
    lab.run('ip link add tartan-new type bridge');
    expect((await host.apply('default', emptyPlan)).changes.slice(-2)).toEqual([
      'link remove vx7',
      'link remove tartan-new',
    ]);
    expect(lab.run('ip -br link')).not.toContain('tartan-new');
  });

  test('somebody else has its name: named, not touched, and nothing goes through it', async () => {
    lab.run('ip link add vx7 type vxlan id 7 dstport 8472 local 192.0.2.1');
    // Its own IPv6 address is tentative for a while.
    lab.run('ip link set vx7 addrgenmode none');
    lab.run('ip addr add 198.51.100.7/24 dev vx7');
    lab.run('ip link set vx7 up');
    lab.run('ip neigh add 198.51.100.8 lladdr 02:00:00:00:00:08 dev vx7 nud permanent');
    lab.run('bridge fdb add 02:00:00:00:00:08 dev vx7 dst 192.0.2.8');
    const state = (): string =>
      ['ip -d -o addr show vx7', 'ip neigh', 'bridge fdb', 'sysctl net.ipv4.conf.vx7']
        .map(one => lab.run(one))
        .join('');
    const before = state();
    const conflicts = ['link_conflict vx7: not ours, and has the name of a link of ours'];
    expect(await host.apply('default', plan)).toEqual({ changes: [unreachable], conflicts });
    expect(await host.apply('default', plan)).toEqual({ changes: [], conflicts });
    expect((await host.cleanup()).changes).toEqual(['route remove 10.7.0.0/16 metric 4096 unreachable']);
    expect(state()).toBe(before);
  });

  test('entries on a link of others are refused, and the rest is made', async () => {
    const neighbours = [...plan.neighbours, ...plan.neighbours.map(entry => ({ ...entry, device: 'u0' }))];
    const bad = { ...plan, neighbours };
    await expect(host.apply('default', bad)).rejects.toThrow(
      'neighbour add 10.7.2.0 lladdr 02:00:00:00:00:02 dev u0: u0 is no link that the plan creates',
    );
    expect(lab.run('ip neigh show dev u0')).toBe('');
    expect(routes()).toMatch(/^10\.7\.2\.0\/24 via 10\.7\.2\.0 dev vx7/m);
  });
});

describe.each(['iptables', 'nftables'] as const)('two networks, rules by %s', kind => {
  const planOf = (name: string, number: number): HostPlan => ({
    ...vxlanPlan(name, number),
    firewall: [
      {
        network: parsePrefix(`10.${number}.0.0/16`),
        subnet: parsePrefix(`10.${number}.1.0/24`),
        device: name,
        forward: true,
        masquerade: 'on',
        nftables: kind === 'nftables',
      },
    ],
  });
  const [a, b] = [planOf('vx7', 7), planOf('vx8', 8)];
  const networks = ['a', 'b'];

  /** All of the host that names one network or the other, one line each. */
  function stateOf(number: number): string {
    const commands = [
      'ip -o -d link',
      'ip -o -4 addr',
      'ip neigh',
      'bridge fdb',
      'ip -4 route',
      ...(kind === 'nftables' ? ['nft --stateless list ruleset'] : ['iptables-save']),
    ];
    const lines = commands.flatMap(command => lab.run(command).split('\n'));
    const own = lines.filter(line => new RegExp(`vx${number}|10\\.${number}\\.`).test(line));
    return own.map(line => line.replace(/^\d+: /, '')).join('\n');
  }

  test('stand beside each other, and one is taken away without a change of the other', async () => {
    const both = await lab.host({ networks });
    const { changes } = await both.apply('a', a);
    expect(changes.slice(0, 1)).toEqual(['link add vx7 vxlan id 7 port 8472 local 192.0.2.1 mac 02:00:00:00:00:01']);
    expect((await both.apply('b', b)).conflicts).toEqual([]);
    for (const [network, plan] of [
      ['a', a],
      ['b', b],
    ] as const)
      expect(await both.apply(network, plan)).toEqual(nothingToDo);
    expect(lab.run('ip link show vx8')).toContain('alias tartan b');
    const ofB = stateOf(8);
    expect(ofB.split('\n').length).toBeGreaterThan(11);
    const taken = (await both.apply('a', undefined)).changes.filter(change => !/^(iptables|nft) /.test(change));
    expect(taken).toEqual([
      'route remove 10.7.2.0/24 metric 0 via 10.7.2.0 dev vx7 onlink',
      'route remove 10.7.0.0/16 metric 4096 unreachable',
      'link remove vx7',
    ]);
    expect(stateOf(7)).toBe('');
    expect(stateOf(8)).toBe(ofB);
    expect(await both.apply('b', b)).toEqual(nothingToDo);
    await both.cleanup();
    expect(stateOf(8)).toBe('');
  });

  test('a new process removes nothing until it knows both plans', async () => {
    const before = await lab.host({ networks });
    await before.apply('a', a);
    await before.apply('b', b);
    const made = [stateOf(7), stateOf(8)];
    await before.close();
    const next = await lab.host({ networks });
    const moved = planOf('vx7', 9);
    const { changes } = await next.apply('a', moved);
    expect(changes.filter(change => change.includes('remove'))).toEqual(['link remove vx7']);
    expect(stateOf(8)).toBe(made[1]);
    expect(await next.apply('a', moved)).toEqual(nothingToDo);
    await next.apply('b', b);
    expect(stateOf(8)).toBe(made[1]);
    for (const [network, plan] of [
      ['a', moved],
      ['b', b],
    ] as const)
      expect(await next.apply(network, plan)).toEqual(nothingToDo);
    expect(lab.filters()).not.toMatch(/10\.7\./);
    expect(routes()).not.toMatch(/10\.7\./);
    await next.apply('a', a);
    expect([stateOf(7), stateOf(8)]).toEqual(made);
  });

  test('what one network cannot have does not fail the other, and a clash is named', async () => {
    const both = await lab.host({ networks });
    const missing: HostPlan = {
      ...a,
      links: [{ name: 'tartan9', make: { kind: 'tun' }, mtu: 1400, address: undefined }],
      routes: [{ kind: 'device', destination: parsePrefix('10.7.0.0/16'), device: 'tartan9', metric: 0 }],
    };
    await expect(both.apply('a', missing)).rejects.toThrow(/there is no link tartan9; the data plane makes it/);
    expect((await both.apply('b', b)).conflicts).toEqual([]);
    await expect(both.apply('a', missing)).rejects.toThrow(/there is no link tartan9; the data plane makes it/);
    const clash = ['plan_conflict link vx8: the networks a and b plan it, a keeps it'];
    expect((await both.apply('a', planOf('vx8', 7))).conflicts).toEqual(clash);
    expect(await both.apply('b', b)).toEqual({ changes: [], conflicts: clash });
    expect(lab.run('ip -d link show vx8')).toMatch(/vxlan id 7 [^]*alias tartan a/);
    expect(lab.run('ip -4 route get 10.7.2.9')).toContain('dev vx8');
    expect(() => lab.run('ip -4 route get 10.8.2.9')).toThrow(/No route to host/);
  });
});
