/** The choice of the interface that carries the tunnel, on made-up hosts. */
import { describe, expect, test, vi } from 'vitest';
import type { HostAddress, HostInterface } from '../../src/host/host.js';
import { carrierMtu } from '../../src/host/underlay/carrier.js';
import { openUnderlay } from '../../src/host/underlay/check.js';
import { chooseUnderlay, type UnderlayOptions } from '../../src/host/underlay/choose.js';
import { isTartanError, messageOf, TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { formatIpv4, parseIpv4, parsePrefix, prefixAround, type Ipv4 } from '../../src/model/ip.js';
import { FakeHost } from '../support/fakes.js';

function address(text: string): HostAddress {
  const [bare = '', ...flags] = text.split(' ');
  const own = parseIpv4(bare);
  return {
    address: own,
    prefix: prefixAround(own, flags.includes('host') ? 32 : 24),
    deprecated: flags.includes('deprecated'),
    permanent: !flags.includes('dynamic'),
  };
}

function link(
  index: number,
  name: string,
  addresses: readonly string[],
  more: Partial<HostInterface> = {},
): HostInterface {
  return { index, name, mtu: 1500, up: true, addresses: addresses.map(address), ...more };
}

const links = [
  link(1, 'lo', ['127.0.0.1'], { mtu: 65_536 }),
  link(3, 'eth1', ['169.254.7.7', '198.51.100.5 dynamic', '198.51.100.6', '198.51.100.7 deprecated'], { mtu: 9000 }),
  link(2, 'eth0', ['192.0.2.1']),
  link(4, 'll0', ['169.254.9.9']),
  link(5, 'bare', [], { up: false }),
];

const host = {
  interfaces: async () => links,
  routeTo: async (to: Ipv4) =>
    to === parseIpv4('198.51.100.99') ? { interfaceName: 'eth1', source: parseIpv4('198.51.100.5') } : undefined,
  defaultRoute: async () => ({ interfaceName: 'eth0', gateway: parseIpv4('192.0.2.254') }),
};

async function choice(
  options: Partial<UnderlayOptions>,
  on: Parameters<typeof chooseUnderlay>[0] = host,
): Promise<string> {
  try {
    const chosen = await chooseUnderlay(on, { iface: [], ifaceRegex: [], ...options });
    const { name, mtu, reason } = chosen;
    return `${name} ${formatIpv4(chosen.address)} mtu ${mtu} as ${formatIpv4(chosen.publicIp)}: ${reason}`;
  } catch (error) {
    expect(isTartanError(error, 'HOST_REFUSED')).toBe(true);
    return messageOf(error);
  }
}

describe('found', () => {
  test.each<readonly [string, Partial<UnderlayOptions>, string]>([
    ['nothing given', {}, 'eth0 192.0.2.1 mtu 1500 as 192.0.2.1: default route'],
    ['a name', { iface: ['eth1'] }, 'eth1 198.51.100.6 mtu 9000 as 198.51.100.6: --iface eth1'],
    ['an address', { iface: ['198.51.100.5'] }, 'eth1 198.51.100.5 mtu 9000 as 198.51.100.5: --iface 198.51.100.5'],
    ['the second of two', { iface: ['eth9', 'eth0'] }, 'eth0 192.0.2.1 mtu 1500 as 192.0.2.1: --iface eth0'],
    [
      'a pattern on addresses, in index order',
      { ifaceRegex: [/^1/] },
      'eth0 192.0.2.1 mtu 1500 as 192.0.2.1: --iface-regex ^1',
    ],
    [
      'a pattern on a further address',
      { ifaceRegex: [/\.5$/] },
      'eth1 198.51.100.5 mtu 9000 as 198.51.100.5: --iface-regex \\.5$',
    ],
    [
      'a pattern on names',
      { ifaceRegex: [/^eth1$/] },
      'eth1 198.51.100.6 mtu 9000 as 198.51.100.6: --iface-regex ^eth1$',
    ],
    [
      'names before patterns',
      { iface: ['eth0'], ifaceRegex: [/eth1/] },
      'eth0 192.0.2.1 mtu 1500 as 192.0.2.1: --iface eth0',
    ],
    [
      'can-reach last, with the source the kernel would take',
      { iface: ['nope'], ifaceCanReach: parseIpv4('198.51.100.99') },
      'eth1 198.51.100.5 mtu 9000 as 198.51.100.5: --iface-can-reach 198.51.100.99',
    ],
    [
      'a public address of our own',
      { publicIp: parseIpv4('198.51.100.6') },
      'eth1 198.51.100.6 mtu 9000 as 198.51.100.6: --public-ip 198.51.100.6',
    ],
    [
      'a public address behind NAT with an interface',
      { publicIp: parseIpv4('203.0.113.9'), iface: ['eth0'] },
      'eth0 192.0.2.1 mtu 1500 as 203.0.113.9: --iface eth0',
    ],
    [
      'link-local with a public address',
      { publicIp: parseIpv4('203.0.113.9'), iface: ['ll0'] },
      'll0 169.254.9.9 mtu 1500 as 203.0.113.9: --iface ll0',
    ],
  ])('%s', async (_, options, expected) => {
    expect(await choice(options)).toBe(expected);
  });
});

describe('refused, with what was tried and what there is', () => {
  const there =
    'There is lo (127.0.0.1), eth1 (169.254.7.7 198.51.100.5 198.51.100.6 198.51.100.7), eth0 (192.0.2.1), ' +
    'll0 (169.254.9.9), bare (no IPv4 address, down): name one with --iface';

  test.each<readonly [Partial<UnderlayOptions>, string]>([
    [
      {
        iface: ['eth9', '192.0.2.77', 'bare', 'lo', '127.0.0.1'],
        ifaceRegex: [/^wg/],
        ifaceCanReach: parseIpv4('203.0.113.1'),
      },
      '--iface eth9: no such interface; --iface 192.0.2.77: no interface has this address; ' +
        '--iface bare: bare has no usable IPv4 address; --iface lo: lo has no usable IPv4 address; ' +
        '--iface 127.0.0.1: 127.0.0.1 on lo is not reachable for peers; ' +
        '--iface-regex ^wg: no address and no name of an interface matches; --iface-can-reach 203.0.113.1: no route leads there',
    ],
    [{ iface: ['ll0'] }, '--iface ll0: 169.254.9.9 on ll0 is link-local, peers refuse it; give --public-ip too'],
    [
      { publicIp: parseIpv4('203.0.113.9') },
      '--public-ip 203.0.113.9: no interface has this address; behind NAT give --iface too',
    ],
  ])('%#', async (options, expected) => {
    expect(await choice(options)).toBe(`no interface for the tunnel: ${expected}. ${there}`);
  });

  test('no default route, several next hops, MTU 0', async () => {
    expect(await choice({}, { ...host, defaultRoute: async () => undefined })).toContain(
      'default route: there is none in the main table',
    );
    const several = new TartanError('HOST_REFUSED', 'several next hops');
    expect(await choice({}, { ...host, defaultRoute: () => Promise.reject(several) })).toContain(
      'default route: several next hops',
    );
    const odd = { ...host, interfaces: async () => [link(2, 'eth0', ['192.0.2.1'], { mtu: 0 })] };
    expect(await choice({}, odd)).toContain('default route: eth0 says MTU 0');
    expect(await choice({}, { ...host, interfaces: async () => [] })).toContain('There is none: name one with --iface');
  });
});

describe('fault B10: an address of /32 beside one with a network', () => {
  const on = (...addresses: readonly string[]): Parameters<typeof choice>[1] => ({
    ...host,
    interfaces: async () => [link(2, 'eth0', addresses)],
  });

  test.each([
    [['192.0.2.9 host', '192.0.2.1'], '192.0.2.1'],
    [['192.0.2.9 host', '192.0.2.1 dynamic'], '192.0.2.1'],
    [['192.0.2.9 host', '192.0.2.8 host'], '192.0.2.9'],
    [['169.254.7.7', '192.0.2.9 host'], '192.0.2.9'],
  ])('of %j it is %s', async (addresses, expected) => {
    expect(await choice({}, on(...addresses))).toContain(` ${expected} mtu 1500 `);
    expect(await choice({ iface: ['eth0'] }, on(...addresses))).toContain(` ${expected} mtu 1500 `);
  });

  test('where several could be meant they are named', async () => {
    const chosen = async (...addresses: readonly string[]): Promise<readonly string[]> =>
      (await chooseUnderlay(on(...addresses) ?? host, { iface: [], ifaceRegex: [] })).rivals;
    expect(await chosen('192.0.2.1', '192.0.2.9 host')).toEqual([]);
    expect(await chosen('192.0.2.1', '192.0.2.7', '169.254.1.1')).toEqual(['192.0.2.7']);
    expect(await chosen('192.0.2.9 host', '192.0.2.8 host')).toEqual(['192.0.2.8']);
  });
});

describe('fault B6: the MTU is that of the link by which peers are reached', () => {
  const lo = link(1, 'lo', ['192.0.2.1 host'], { mtu: 65_536 });
  const uplink = link(2, 'eth0', ['198.51.100.1'], { mtu: 1400 });
  const storage = link(3, 'eth1', ['203.0.113.1'], { mtu: 9000 });
  const at = parseIpv4('192.0.2.1');
  const all = [lo, uplink, storage];
  const routed = {
    interfaces: async () => all,
    routeTo: async (to: Ipv4) => ({
      interfaceName: to === parseIpv4('203.0.113.9') ? 'eth1' : 'eth0',
      source: at,
    }),
    defaultRoute: async () => undefined,
  };

  const near = { publicIp: parseIpv4('192.0.2.7') };
  const far = { publicIp: parseIpv4('203.0.113.9') };

  test('an address of /32 on lo, with routed uplinks', async () => {
    expect(await choice({ iface: ['192.0.2.1'] }, routed)).toContain('lo 192.0.2.1 mtu 1400 ');
    expect(await carrierMtu(routed, all, lo, at, [far])).toBe(9000);
    expect(await carrierMtu(routed, all, lo, at, [far, near])).toBe(1400);
  });

  test('an address with a network: its own link, and less where peers are reached by a narrower one', async () => {
    const own = parseIpv4('203.0.113.1');
    expect(await choice({ iface: ['eth1'] }, routed)).toContain('eth1 203.0.113.1 mtu 9000 ');
    expect(await carrierMtu(routed, all, storage, own, [far])).toBe(9000);
    expect(await carrierMtu(routed, all, storage, own, [near])).toBe(1400);
  });

  test('fault C17: of many peers few are looked at', async () => {
    let looks = 0;
    const peer = {
      get publicIp() {
        looks++;
        return far.publicIp;
      },
    };
    expect(
      await carrierMtu(
        routed,
        all,
        lo,
        at,
        Array.from({ length: 57_000 }, () => peer),
      ),
    ).toBe(9000);
    expect(looks).toBeLessThanOrEqual(8);
  });
});

describe('fault B5, fault B4: a network that the host itself needs is refused', () => {
  const network = parsePrefix('10.5.0.0/16');
  async function refusal(endpoint: string, more: readonly HostInterface[] = [], names: readonly string[] = []) {
    const network0 = { ...host, interfaces: async () => [...links, ...more] };
    const underlay = openUnderlay(
      Object.assign(new FakeHost(), network0),
      { iface: [], ifaceRegex: [], etcd: { endpoints: [endpoint] } },
      silentLog,
      { lookUp: async () => names },
    );
    await underlay.choose();
    const known = await underlay.refresh(network).catch(messageOf);
    try {
      underlay.check(network);
      expect(known).toBeUndefined();
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  test('etcd by a name, by all the addresses that it has', async () => {
    expect(await refusal('http://10.5.9.9:2379')).toContain('contains 10.5.9.9, an etcd endpoint: choose');
    expect(await refusal('https://etcd.test:2379', [], ['192.0.2.7', '10.5.9.9'])).toContain(
      'contains 10.5.9.9, an etcd endpoint (etcd.test): choose',
    );
    expect(await refusal('https://etcd.test:2379', [], ['192.0.2.7'])).toBeUndefined();
  });

  test('an endpoint given by an IPv6 address is no name that is looked up', async () => {
    const asked: string[] = [];
    const underlay = openUnderlay(
      Object.assign(new FakeHost(), host),
      {
        iface: [],
        ifaceRegex: [],
        etcd: { endpoints: ['http://[::1]:2379', 'https://[2001:db8::7]', 'http://a.test'] },
      },
      silentLog,
      { lookUp: async name => (asked.push(name), ['192.0.2.7']) },
    );
    await underlay.choose();
    expect(asked).toEqual(['a.test']);
  });

  test('a look-up leaves no timer behind', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      await refusal('https://etcd.test:2379', [], ['192.0.2.7']);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test('a network of another link that covers it; one inside of it is left to the running daemon', async () => {
    const wide = { ...link(9, 'eth9', []), addresses: [{ ...address('10.5.0.1'), prefix: parsePrefix('10.0.0.0/8') }] };
    expect(await refusal('http://192.0.2.7:2379', [wide])).toMatch(/lies inside 10\.0\.0\.0\/8 of eth9/);
    expect(await refusal('http://192.0.2.7:2379', [link(9, 'eth9', ['10.5.9.1'])])).toBeUndefined();
    expect(await refusal('http://192.0.2.7:2379', [{ ...wide, name: 'tartan0' }])).toBeUndefined();
  });
});
