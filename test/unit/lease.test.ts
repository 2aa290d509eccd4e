import { describe, expect, it } from 'vitest';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import {
  formatLeaseKey,
  formatLeaseValue,
  parseLeaseValue,
  readDualStackKey,
  readLeaseKey,
  type Lease,
} from '../../src/model/lease.js';
import { vetLeases } from '../../src/model/lease-set.js';
import { readHostName } from '../../src/model/node.js';

describe('lease keys', () => {
  it.each(['10.5.1.0-24', '10.5.0.0-16', '192.0.2.2-31'])('%s survives a round trip', name => {
    const subnet = readLeaseKey(name);
    expect(subnet && formatLeaseKey(subnet)).toBe(name);
  });

  it.each([
    'foo',
    '../config',
    '10.5.1.0',
    '10.5.1.0-32',
    '10.5.1.0-0',
    '10.5.1.0-024',
    '10.5.1.7-24',
    '10.05.1.0-24',
    '10.5.1.0-24&fd00::-64',
    '10.5.1.0-24\u0000ÿ',
    ' 10.5.1.0-24',
    '10.5.1.0-24 ',
    'a/10.5.1.0-24',
    '10x5y1z0-24',
  ])('%j is refused', name => {
    expect(readLeaseKey(name)).toBeUndefined();
  });
});

describe('lease values', () => {
  it('are written as flannel writes them, ours with two more members', () => {
    const flannel = '{"PublicIP":"192.168.50.1","PublicIPv6":null}';
    expect(formatLeaseValue(parseLeaseValue(flannel))).toBe(flannel);
    const vxlan =
      '{"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"12:cb:11:d7:9d:34"}}';
    expect(formatLeaseValue(parseLeaseValue(vxlan))).toBe(vxlan);
    const ours = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"a-1","bootId":"b.2"}';
    expect(formatLeaseValue(parseLeaseValue(ours))).toBe(ours);
    expect(parseLeaseValue(ours)).toMatchObject({ nodeId: 'a-1', bootId: 'b.2', released: false });
  });

  it('have the name of the host, and none where it says no host name', () => {
    const text = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"a","hostName":"host-b.example"}';
    expect(parseLeaseValue(text).hostName).toBe('host-b.example');
    expect(formatLeaseValue(parseLeaseValue(text))).toBe(text);
    for (const bad of [
      '7',
      'null',
      '""',
      '"a b"',
      '"\\u001b[2J"',
      '"-a"',
      '"a..b"',
      `"${'a'.repeat(64)}"`,
      '{}',
      '"é"',
    ])
      expect(parseLeaseValue(text.replace('"host-b.example"', bad))).toMatchObject({
        hostName: undefined,
        nodeId: 'a',
      });
    expect(readHostName(`${'a.'.repeat(126)}a`)).toHaveLength(253);
    expect(readHostName(`${'a.'.repeat(126)}aa`)).toBeUndefined();
  });

  it('take member names in any case and the mapped form of an address, as Go does', () => {
    expect(parseLeaseValue('{"publicip":"::ffff:1.2.3.4"}').publicIp).toBe(parseIpv4('1.2.3.4'));
  });

  it('keep the real PublicIP whatever __proto__ says', () => {
    expect(parseLeaseValue('{"__proto__":{"PublicIP":"192.0.2.66"},"PublicIP":"192.0.2.2"}').publicIp).toBe(
      parseIpv4('192.0.2.2'),
    );
  });

  it.each([
    '',
    'null',
    '[]',
    '"x"',
    '{}',
    '{"PublicIP":null}',
    '{"PublicIP":1}',
    '{"PublicIP":""}',
    '{"PublicIP":"01.2.3.4"}',
    '{"PublicIP":"fd00::1"}',
    '{"PublicIP":"0.0.0.0"}',
    '{"PublicIP":"127.0.0.1"}',
    '{"PublicIP":"224.0.0.1"}',
    '{"PublicIP":"1.2.3.4","nodeId":7}',
    '{"PublicIP":"1.2.3.4","nodeId":"a b"}',
    `{"PublicIP":"1.2.3.4","x":"${'A'.repeat(20000)}"}`,
  ])('%.40s is refused', text => {
    expect(() => parseLeaseValue(text)).toThrow();
  });
});

describe('peers among the leases', () => {
  const self = {
    network: parsePrefix('10.5.0.0/16'),
    subnet: parsePrefix('10.5.1.0/24'),
    publicIp: parseIpv4('192.0.2.1'),
  };
  function lease(subnet: string, publicIp: string, created = 1n): Lease {
    return {
      subnet: parsePrefix(subnet),
      ...parseLeaseValue(`{"PublicIP":"${publicIp}"}`),
      createRevision: created,
      revision: created,
      leaseId: '1',
    };
  }
  function vet(...leases: Lease[]): { peers: string[]; rejected: string[] } {
    const vetted = vetLeases({ leases, rejected: [], revision: 9n }, self);
    return {
      peers: vetted.peers.map(peer => formatPrefix(peer.subnet)),
      rejected: vetted.rejected.map(entry => `${entry.key} ${entry.reason}`),
    };
  }

  it('are all but our own', () => {
    expect(vet(lease('10.5.1.0/24', '192.0.2.1'), lease('10.5.2.0/24', '192.0.2.2'))).toEqual({
      peers: ['10.5.2.0/24'],
      rejected: [],
    });
  });

  it.each([
    ['10.5.0.0/16', '192.0.2.2', 'is not a part of the network'],
    ['10.0.0.0/8', '192.0.2.2', 'is not a part of the network'],
    ['192.0.2.0/24', '192.0.2.2', 'is not a part of the network'],
    ['10.5.1.128/25', '192.0.2.2', 'overlaps our own subnet'],
    ['10.5.0.0/23', '192.0.2.2', 'overlaps our own subnet'],
    ['10.5.2.0/24', '192.0.2.1', 'has our own public address'],
    ['10.5.2.0/24', '10.5.7.7', 'has a public address inside the overlay'],
  ])('%s at %s is refused alone: %s', (subnet, publicIp, reason) => {
    const vetted = vet(lease(subnet, publicIp), lease('10.5.9.0/24', '192.0.2.9'));
    expect(vetted.peers).toEqual(['10.5.9.0/24']);
    expect(vetted.rejected).toEqual([expect.stringContaining(reason)]);
  });

  it.each([
    ['10.5.4.0/24', '10.5.4.0/23'],
    ['10.5.4.0/24', '10.5.4.0/25'],
    ['10.5.4.0/24', '10.5.4.128/25'],
    ['10.5.5.0/24', '10.5.4.0/22'],
  ])('the older of %s and %s stays, in any order', (older, younger) => {
    const a = lease(older, '192.0.2.2', 5n);
    const b = lease(younger, '192.0.2.3', 6n);
    expect(vet(a, b).peers).toEqual([older]);
    expect(vet(b, a).peers).toEqual([older]);
  });

  it('may share an address', () => {
    expect(vet(lease('10.5.2.0/24', '192.0.2.2'), lease('10.5.4.0/24', '192.0.2.2')).peers).toEqual([
      '10.5.2.0/24',
      '10.5.4.0/24',
    ]);
  });
});

it.each([
  ['10.5.1.0-24&fd00::-64', '10.5.1.0/24'],
  ['10.5.1.0-24&fd42:42:0:2c::-64', '10.5.1.0/24'],
  ['10.5.1.0-24&::-0', '10.5.1.0/24'],
  ['10.5.1.0-24', undefined],
  ['10.5.1.7-24&fd00::-64', undefined],
  ['10.5.1.0-24&fd00::', undefined],
  ['10.5.1.0-24&x::-64', undefined],
  ['10.5.1.0-24&fd00::-129', undefined],
  ['10.5.1.0-24&fd00:::-64', undefined],
  ['10.5.1.0-24&fd00::-64&', undefined],
])('fault F11: the IPv4 part of the key %s is %s', (name, subnet) => {
  const read = readDualStackKey(name);
  expect(read && formatPrefix(read)).toBe(subnet);
});
