/** The choice of the interface that carries the tunnel, on made-up hosts. */
import { describe, expect, test } from 'vitest';
import type { HostAddress, HostInterface } from '../../src/host/host.js';
import { chooseUnderlay, type UnderlayOptions } from '../../src/host/underlay/choose.js';
import { isTartanError, messageOf, TartanError } from '../../src/lib/errors.js';
import { formatIpv4, parseIpv4, prefixAround, type Ipv4 } from '../../src/model/ip.js';

function address(text: string): HostAddress {
  const [bare = '', ...flags] = text.split(' ');
  const own = parseIpv4(bare);
  return {
    address: own,
    prefix: prefixAround(own, 24),
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
