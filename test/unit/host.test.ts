/** What the host adapter would do, as text: plan against what is there. */
import { mkdtempSync, readFileSync, rmSync, mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { clearLink, diffLink, type LinkContext } from '../../src/host/links.js';
import type { KernelAddress, KernelLink, KernelRoute } from '../../src/host/netlink/messages.js';
import { findDiversions } from '../../src/host/diversions.js';
import { diffRoutes, routeProtocol } from '../../src/host/routes.js';
import { attempt, impossible, runSteps } from '../../src/host/step.js';
import { sysctlSteps } from '../../src/host/sysctl.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { LinkPlan, RoutePlan } from '../../src/model/plan.js';

const linkNames = new Map([
  [1, 'lo'],
  [2, 'u0'],
  [3, 'tartan0'],
]);

/** `10.5.0.0/16 metric 0 via 192.0.2.9 dev u0 proto 4` */
function route(text: string): KernelRoute {
  const words = text.split(' ');
  const value = (name: string): string | undefined =>
    words.includes(name) ? words[words.indexOf(name) + 1] : undefined;
  const device = [...linkNames].find(([, name]) => name === value('dev'))?.[0];
  const unreachable = words.includes('unreachable');
  const gateway = value('via');
  return {
    destination: parsePrefix(words[0] ?? ''),
    metric: Number(value('metric') ?? 0),
    tos: 0,
    table: Number(value('table') ?? 254),
    protocol: Number(value('proto') ?? routeProtocol),
    type: unreachable ? 'unreachable' : 'unicast',
    typeNumber: unreachable ? 7 : 1,
    scope: Number(value('scope') ?? 0),
    linkIndex: device,
    gateway: gateway === undefined ? undefined : parseIpv4(gateway),
    onlink: words.includes('onlink'),
    source: undefined,
    multipath: false,
  };
}

const network = parsePrefix('10.5.0.0/16');
const wanted: readonly RoutePlan[] = [
  { kind: 'unreachable', destination: network, metric: 4096 },
  { kind: 'device', destination: network, device: 'tartan0', metric: 0 },
];

function routeCase(have: readonly string[], want = wanted): { steps: string[]; conflicts: readonly string[] } {
  const context = { protocol: routeProtocol, links: linkNames, networks: [network], own: [parsePrefix('10.5.1.0/24')] };
  const { steps, conflicts: clashes, foreign } = diffRoutes(want, have.map(route), context);
  const conflicts = [...clashes, ...findDiversions(want, foreign, [], context).map(({ text }) => text)];
  return { steps: steps.map(step => ('reason' in step ? `${step.text}: ${step.reason}` : step.text)), conflicts };
}

const planned = ['10.5.0.0/16 metric 4096 unreachable', '10.5.0.0/16 dev tartan0'];

describe('routes', () => {
  test('nothing there: the unreachable one first, so that no packet ever finds only the default route', () => {
    expect(routeCase([])).toEqual({
      steps: ['route add 10.5.0.0/16 metric 4096 unreachable', 'route add 10.5.0.0/16 metric 0 dev tartan0'],
      conflicts: [],
    });
  });

  test('as planned: nothing', () => {
    expect(routeCase(planned)).toEqual({ steps: [], conflicts: [] });
    expect(routeCase([...planned].reverse())).toEqual({ steps: [], conflicts: [] });
  });

  test('network changed: added before removed, what catches goes last', () => {
    const moved: readonly RoutePlan[] = [
      { kind: 'unreachable', destination: parsePrefix('10.6.0.0/16'), metric: 4096 },
      { kind: 'device', destination: parsePrefix('10.6.0.0/16'), device: 'tartan0', metric: 0 },
    ];
    expect(routeCase(planned, moved).steps).toEqual([
      'route add 10.6.0.0/16 metric 4096 unreachable',
      'route add 10.6.0.0/16 metric 0 dev tartan0',
      'route remove 10.5.0.0/16 metric 0 dev tartan0',
      'route remove 10.5.0.0/16 metric 4096 unreachable',
    ]);
  });

  test('ours by another link is replaced; a leftover of a replacement cut short is removed', () => {
    const old = '10.5.0.0/16 dev u0';
    expect(routeCase(['10.5.0.0/16 metric 4096 unreachable', old]).steps).toEqual([
      'route replace 10.5.0.0/16 metric 0 dev tartan0',
    ]);
    expect(routeCase([...planned, old]).steps).toEqual(['route remove 10.5.0.0/16 metric 0 dev u0']);
  });

  test('no link: that step says so, the rest stays', () => {
    const elsewhere: readonly RoutePlan[] = [{ kind: 'device', destination: network, device: 'tartan9', metric: 0 }];
    expect(routeCase([], elsewhere).steps).toEqual([
      'route add 10.5.0.0/16 metric 0 dev tartan9: there is no link tartan9; the data plane makes it',
    ]);
  });

  test('a foreign route in our place: named, left, nothing put beside it', () => {
    expect(routeCase(['10.5.0.0/16 via 192.0.2.9 dev u0 proto 4'])).toEqual({
      steps: ['route add 10.5.0.0/16 metric 4096 unreachable'],
      conflicts: ['route_conflict 10.5.0.0/16 metric 0 via 192.0.2.9 dev u0 proto 4: not ours, and where ours belongs'],
    });
  });

  test('a foreign route in our place, and ours is wrong: ours is removed, never replaced', () => {
    expect(routeCase(['10.5.0.0/16 dev u0 proto 4', '10.5.0.0/16 dev u0']).steps).toEqual([
      'route add 10.5.0.0/16 metric 4096 unreachable',
      'route remove 10.5.0.0/16 metric 0 dev u0',
    ]);
  });

  test('foreign routes inside the network are named, those of bridges (by the kernel) and other tables are not', () => {
    const have = [
      ...planned,
      '10.5.2.0/24 via 192.0.2.9 dev u0 proto 4',
      '10.5.1.0/24 dev u0 proto 2',
      '10.5.3.0/24 dev tartan0 proto 3',
      '10.5.0.0/16 metric 50 dev u0 proto 3',
      '10.5.0.0/16 dev u0 table 100 proto 167',
    ];
    expect(routeCase(have)).toEqual({
      steps: [],
      conflicts: [
        'route_conflict 10.5.2.0/24 metric 0 via 192.0.2.9 dev u0 proto 4: not ours, takes packets from tartan0',
      ],
    });
    const many = Array.from({ length: 40 }, (_, i) => `10.5.${i}.0/24 dev u0 proto 3`);
    expect(routeCase([...planned, ...many]).conflicts).toHaveLength(17);
    expect(routeCase([...planned, ...many]).conflicts.at(-1)).toBe('route_conflict 24 more like these');
  });

  test('fault B4: a connected network at a peer, and routes that refuse, are named; our own bridges are not', () => {
    const found = routeCase([
      ...planned,
      '10.5.1.0/24 dev u0 proto 2',
      '10.5.9.0/24 dev u0 proto 2',
      '10.5.8.0/24 unreachable proto 3',
    ]).conflicts;
    expect(found).toEqual([
      'route_conflict 10.5.9.0/24 metric 0 dev u0 proto 2: not ours, takes packets from tartan0',
      'route_conflict 10.5.8.0/24 metric 0 unreachable proto 3: not ours, takes packets from tartan0',
    ]);
  });

  test('fault U14: of routes with 84 only those of an earlier version are ours, and they are replaced', () => {
    const earlier = ['10.5.0.0/16 metric 4096 unreachable proto 84', '10.5.0.0/16 dev tartan0 proto 84'];
    expect(routeCase(earlier)).toEqual({
      steps: ['route replace 10.5.0.0/16 metric 4096 unreachable', 'route replace 10.5.0.0/16 metric 0 dev tartan0'],
      conflicts: [],
    });
    const ofOvn = ['198.51.100.0/24 dev u0 proto 84', '10.9.0.0/16 metric 4096 unreachable proto 84'];
    expect(routeCase([...planned, ...ofOvn])).toEqual({ steps: [], conflicts: [] });
    expect(routeCase([...planned, '10.5.3.0/24 dev u0 proto 84']).conflicts).toHaveLength(1);
    expect(routeCase([...planned, '10.7.0.0/16 dev tartan0 proto 84']).steps).toEqual([
      'route remove 10.7.0.0/16 metric 0 dev tartan0 proto 84',
    ]);
  });

  test('fault U15: ours of scope link, as an earlier version made it, is replaced', () => {
    const [unreachable = ''] = planned;
    expect(routeCase([unreachable, '10.5.0.0/16 dev tartan0 scope 253']).steps).toEqual([
      'route replace 10.5.0.0/16 metric 0 dev tartan0',
    ]);
  });

  describe('by a gateway', () => {
    const gateway = parseIpv4('192.0.2.9');
    const byGateway: RoutePlan = { kind: 'gateway', destination: parsePrefix('10.5.2.0/24'), gateway, metric: 0 };
    const onLink: RoutePlan = { ...byGateway, device: 'tartan0', onlink: true };
    const add = 'route add 10.5.2.0/24 metric 0 via 192.0.2.9';

    test('nothing there, or as planned: by any link, or by the named one', () => {
      expect(routeCase([], [byGateway]).steps).toEqual([add]);
      expect(routeCase(['10.5.2.0/24 via 192.0.2.9 dev u0'], [byGateway]).steps).toEqual([]);
      expect(routeCase([], [onLink]).steps).toEqual([`${add} dev tartan0 onlink`]);
      expect(routeCase(['10.5.2.0/24 via 192.0.2.9 dev tartan0 onlink'], [onLink]).steps).toEqual([]);
      expect(routeCase([], [{ ...byGateway, device: 'eth9' }]).steps).toEqual([
        `${add} dev eth9: there is no link eth9`,
      ]);
    });

    test.each([
      'via 192.0.2.8 dev tartan0 onlink',
      'via 192.0.2.9 dev u0 onlink',
      'via 192.0.2.9 dev tartan0',
      'dev u0',
    ])('ours %s is replaced', way => {
      expect(routeCase([`10.5.2.0/24 ${way}`], [onLink]).steps).toEqual([
        'route replace 10.5.2.0/24 metric 0 via 192.0.2.9 dev tartan0 onlink',
      ]);
    });

    test('foreign routes in its place or inside of it are named, and ours go', () => {
      const inside = '10.5.2.128/25 dev u0 proto 3';
      expect(routeCase(['10.5.2.0/24 via 192.0.2.9 dev u0 proto 4', inside], [byGateway])).toEqual({
        steps: [],
        conflicts: [
          'route_conflict 10.5.2.0/24 metric 0 via 192.0.2.9 dev u0 proto 4: not ours, and where ours belongs',
          'route_conflict 10.5.2.128/25 metric 0 dev u0 proto 3: not ours, takes packets from 192.0.2.9',
        ],
      });
      expect(routeCase(['10.5.2.0/24 via 192.0.2.9 dev tartan0 onlink'], []).steps).toEqual([
        'route remove 10.5.2.0/24 metric 0 via 192.0.2.9 dev tartan0 onlink',
      ]);
    });
  });

  test('cleanup: all of ours', () => {
    expect(routeCase([...planned, '10.7.0.0/16 via 192.0.2.1 dev u0', '10.8.0.0/16 dev u0 proto 3'], []).steps).toEqual(
      [
        'route remove 10.5.0.0/16 metric 0 dev tartan0',
        'route remove 10.7.0.0/16 metric 0 via 192.0.2.1 dev u0',
        'route remove 10.5.0.0/16 metric 4096 unreachable',
      ],
    );
  });
});

describe('links', () => {
  const plan: LinkPlan = { name: 'tartan0', make: { kind: 'tun' }, mtu: 1472, address: parsePrefix('10.5.1.0/32') };
  const plain = { alias: undefined, mac: undefined, vxlan: undefined };
  const tun: KernelLink = { index: 3, name: 'tartan0', mtu: 1472, up: true, queueLength: 5000, kind: 'tun', ...plain };
  const context: LinkContext = {
    protocol: routeProtocol,
    overlay: [network],
    tunQueueLength: 512,
    tunQueueLengthWithoutTso: 5000,
  };

  function address(text: string, protocol = 0, linkIndex = 3): KernelAddress {
    const [base = '', length] = text.split('/');
    const own = parseIpv4(base);
    const rest = { scope: 0, permanent: true, deprecated: false };
    return { linkIndex, address: own, peer: own, length: Number(length), protocol, ...rest };
  }

  function linkCase(links: readonly KernelLink[], addresses: readonly KernelAddress[]): string[] {
    const steps = diffLink(plan, links, addresses, context);
    return steps.map(step => ('reason' in step ? `${step.text}: ${step.reason}` : step.text));
  }

  test('fresh from the data plane', () => {
    expect(linkCase([{ ...tun, mtu: 1500, up: false, queueLength: 500 }], [])).toEqual([
      'link set tartan0 mtu 1472',
      'link set tartan0 txqueuelen 512',
      'address add 10.5.1.0/32 dev tartan0',
      'link set tartan0 up',
    ]);
  });

  test('as planned: nothing; a link that is no TUN keeps its queue', () => {
    expect(linkCase([tun], [address('10.5.1.0/32', routeProtocol)])).toEqual([]);
    expect(linkCase([{ ...tun, kind: 'vxlan', queueLength: 1000 }], [address('10.5.1.0/32')])).toEqual([]);
  });

  test('fault U14: the address of an earlier version is marked anew, one that is not planned goes', () => {
    const withEarlier = { ...context, earlierProtocol: 84 };
    const have = [address('10.5.1.0/32', 84), address('10.5.7.0/32', 84), address('198.51.100.9/32', 84)];
    expect(diffLink(plan, [tun], have, withEarlier).map(({ text }) => text)).toEqual([
      'address add 10.5.1.0/32 dev tartan0',
      'address remove 10.5.7.0/32 dev tartan0',
    ]);
  });

  test('the old address goes after the new one came, others stay', () => {
    const have = [
      address('10.5.7.0/32', routeProtocol),
      address('10.9.0.0/32', routeProtocol),
      address('10.5.8.0/32'),
      address('10.5.9.1/24'),
      address('198.51.100.9/32'),
      address('10.5.7.0/32', routeProtocol, 2),
    ];
    expect(linkCase([tun], have)).toEqual([
      'address add 10.5.1.0/32 dev tartan0',
      'address remove 10.5.7.0/32 dev tartan0',
      'address remove 10.9.0.0/32 dev tartan0',
      'address remove 10.5.8.0/32 dev tartan0',
    ]);
  });

  test('no link', () => {
    expect(linkCase([], [])).toEqual(['link set tartan0 up: there is no link tartan0; the data plane makes it']);
  });

  test('cleanup', () => {
    const steps = clearLink(tun, [address('10.5.1.0/32', routeProtocol), address('198.51.100.9/24')], context);
    expect(steps.map(step => step.text)).toEqual(['address remove 10.5.1.0/32 dev tartan0']);
  });
});

describe('settings', () => {
  test('written only when different; no IPv6 is no failure, another missing one is', async () => {
    const root = mkdtempSync(join(tmpdir(), `tartan-sysctl-${process.pid}-`));
    try {
      mkdirSync(join(root, 'net/ipv4/conf/tartan0'), { recursive: true });
      writeFileSync(join(root, 'net/ipv4/ip_forward'), '0\n');
      writeFileSync(join(root, 'net/ipv4/conf/tartan0/send_redirects'), '0\n');
      const steps = sysctlSteps(
        [
          ['net.ipv4.ip_forward', '1'],
          ['net.ipv4.conf.tartan0.send_redirects', '0'],
          ['net.ipv6.conf.tartan0.disable_ipv6', '1'],
          ['net.ipv4.conf.tartan9.send_redirects', '0'],
          ['net.ipv4...ip_forward', '1'],
        ],
        root,
      );
      const results = { changes: [], failures: [] };
      await runSteps(steps, results, new AbortController().signal);
      expect(results).toEqual({
        changes: ['sysctl net.ipv4.ip_forward=1'],
        failures: [
          `sysctl net.ipv4.conf.tartan9.send_redirects=0: there is no ${root}/net/ipv4/conf/tartan9/send_redirects`,
          "sysctl net.ipv4...ip_forward=1: 'net.ipv4...ip_forward' is not the name of a setting",
        ],
      });
      expect(readFileSync(join(root, 'net/ipv4/ip_forward'), 'utf8')).toBe('1\n');
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

describe('steps', () => {
  test('every step is tried; a missing capability is named; an abort ends between two', async () => {
    const results = { changes: [] as string[], failures: [] as string[] };
    const denied = Object.assign(new Error('EPERM'), { code: 'EPERM' });
    const ending = new AbortController();
    const steps = [
      impossible('a', 'no'),
      { text: 'b', run: async () => {} },
      { text: 'c', run: () => Promise.reject(denied) },
      { text: 'd', run: async () => ending.abort(new Error('over')) },
      { text: 'e', run: async () => {} },
    ];
    await expect(runSteps(steps, results, ending.signal)).rejects.toThrow('over');
    expect(results).toEqual({ changes: ['b', 'd'], failures: ['a: no', 'c: EPERM; CAP_NET_ADMIN is needed'] });
    await attempt('read', results, () => Promise.reject(new Error('broken')));
    expect(results.failures.at(-1)).toBe('read: broken');
  });
});
