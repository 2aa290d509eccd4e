import { describe, expect, it } from 'vitest';
import { isTartanError } from '../../src/lib/errors.js';
import { formatIpv4, formatPrefix, parsePrefix } from '../../src/model/ip.js';
import {
  formatNetworkConfig,
  vniOf,
  isLeasable,
  parseNetworkConfig,
  subnetAt,
  subnetCount,
} from '../../src/model/network.js';

function summary(document: object | string): string {
  const config = parseNetworkConfig(typeof document === 'string' ? document : JSON.stringify(document));
  return `${formatPrefix(config.network)} len ${config.subnetLength} ${formatIpv4(config.subnetMin)}-${formatIpv4(config.subnetMax)}`;
}

function errorOf(document: object | string): string {
  try {
    summary(document);
  } catch (error) {
    if (isTartanError(error, 'CONFIG_INVALID')) return error.message;
    throw error;
  }
  throw new Error('was accepted');
}

// The table of flannel-compat section 11.1, run against a real flanneld.
describe('the network document as flannel reads it', () => {
  it.each([
    [{ Network: '10.0.0.0/8' }, '10.0.0.0/8 len 24 10.0.1.0-10.255.255.0'],
    [{ NETWORK: '10.3.5.7/16', subnetlen: 28 }, '10.3.0.0/16 len 28 10.3.0.16-10.3.255.240'],
    [{ Network: '10.3.0.0/22' }, '10.3.0.0/22 len 24 10.3.1.0-10.3.3.0'],
    [{ Network: '10.3.0.0/23' }, '10.3.0.0/23 len 25 10.3.0.128-10.3.1.128'],
    [{ Network: '10.3.0.0/24' }, '10.3.0.0/24 len 26 10.3.0.64-10.3.0.192'],
    [{ Network: '10.3.0.0/28' }, '10.3.0.0/28 len 30 10.3.0.4-10.3.0.12'],
    [{ Network: '10.3.0.0/16', SubnetLen: 18 }, '10.3.0.0/16 len 18 10.3.64.0-10.3.192.0'],
    [{ Network: '10.3.0.0/16', SubnetLen: 30 }, '10.3.0.0/16 len 30 10.3.0.4-10.3.255.252'],
    [{ Network: '10.3.0.0/16', SubnetLen: 0 }, '10.3.0.0/16 len 24 10.3.1.0-10.3.255.0'],
    [{ Network: '10.3.0.0/16', SubnetLen: null }, '10.3.0.0/16 len 24 10.3.1.0-10.3.255.0'],
    [{ Network: '10.3.0.0/16', SubnetMin: '10.3.0.0' }, '10.3.0.0/16 len 24 10.3.0.0-10.3.255.0'],
    [{ Network: '10.3.0.0/16', SubnetMin: '10.3.9.0', SubnetMax: '10.3.9.0' }, '10.3.0.0/16 len 24 10.3.9.0-10.3.9.0'],
    [{ Network: '10.3.0.0/16', EnableIPv4: null }, '10.3.0.0/16 len 24 10.3.1.0-10.3.255.0'],
    ['{"Network":"10.5.0.0/16","Network":"10.6.0.0/16"}', '10.6.0.0/16 len 24 10.6.1.0-10.6.255.0'],
    ['{"__proto__":{"Network":"10.9.0.0/16"},"Network":"10.5.0.0/16"}', '10.5.0.0/16 len 24 10.5.1.0-10.5.255.0'],
  ])('%j', (document, expected) => {
    expect(summary(document)).toBe(expected);
  });

  it.each([
    [{ Network: '10.3.0.0/29' }, 'Network'],
    [{ Network: '10.3.0.0/16', SubnetLen: 17 }, 'SubnetLen'],
    [{ Network: '10.3.0.0/16', SubnetLen: 31 }, 'SubnetLen'],
    ['{"Network":"10.3.0.0/16","SubnetLen":24.0}', 'SubnetLen'],
    ['{"Network":"10.3.0.0/16","SubnetLen":1e400}', 'SubnetLen'],
    [{ Network: '10.3.0.0/16', SubnetMin: '10.3.0.5' }, 'SubnetMin'],
    [{ Network: '10.3.0.0/16', SubnetMax: '10.3.255.1' }, 'SubnetMax'],
    [{ Network: '10.3.0.0/16', SubnetMin: '10.4.0.0' }, 'SubnetMin'],
    [{ Network: '10.3.0.0/16', SubnetMin: '10.3.9.0', SubnetMax: '10.3.5.0' }, 'SubnetMin'],
    [{ Network: '10.3.0.0/16', SubnetMin: null }, 'SubnetMin'],
    [{ Network: '10.3.0.0/16', SubnetMin: '' }, 'SubnetMin'],
    [{ Network: null }, 'Network'],
    [{ Network: '10.3.0.0' }, 'Network'],
    [{ Network: '10.3.0.0/016' }, 'Network'],
    [{}, 'Network'],
    [{ Network: '0.0.0.0/0' }, 'Network'],
    [{ Network: '10.3.0.0/16', EnableIPv4: 'true' }, 'EnableIPv4'],
    [{ Network: '10.3.0.0/16', EnableIPv6: true }, 'EnableIPv6'],
    [{ Network: '10.3.0.0/16', Backend: 'vxlan' }, 'Backend'],
    [{ Network: '10.3.0.0/16', Backend: {} }, 'Backend.Type'],
    [{ Network: '10.3.0.0/16', Backend: null }, 'Backend'],
    [{ Network: '10.3.0.0/16', Backend: { Type: 'udp', Port: 65536 } }, 'Backend.Port'],
  ])('%j is refused and %s is named', (document, field) => {
    expect(errorOf(document)).toContain(`network document: ${field} `);
  });

  it('takes the backend in any case and fills in the port', () => {
    expect(parseNetworkConfig('{"network":"10.5.0.0/16","backend":{"TYPE":"UDP"}}').backend).toEqual({
      type: 'udp',
      port: 8285,
      members: new Map(),
    });
    expect(parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":9999}}').backend).toEqual({
      type: 'udp',
      port: 9999,
      members: new Map(),
    });
    expect(parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"VXLAN","VNI":7}}').backend).toEqual({
      type: 'vxlan',
      port: 0,
      members: new Map([['vni', 7]]),
    });
  });

  it('hands other members of the backend on, and writes of udp the port alone, as before', () => {
    const udp = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Later":{"a":1}}}');
    expect(udp.backend.members.get('later')).toEqual({ a: 1 });
    expect(formatNetworkConfig(udp)).toContain('"Backend":{"Type":"udp","Port":8285}}');
    const vxlan = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"VNI":7,"Type":"vxlan","GBP":true}}');
    expect(formatNetworkConfig(vxlan)).toContain('"Backend":{"Type":"vxlan","gbp":true,"vni":7}}');
  });

  it.each([
    ['{"Network":"10.5.0.0/16"}', 'auto', 1],
    ['{"Network":"10.5.0.0/16","Engine":"USER","Backend":{"Type":"udp","VNI":7}}', 'user', 7],
    ['{"Network":"10.5.0.0/16","engine":"auto","Backend":{"Type":"udp","VNI":0}}', 'auto', 1],
  ])('the engine and the VNI of %s, also through a document of our own', (text, engine, vni) => {
    const config = parseNetworkConfig(text);
    for (const one of [config, parseNetworkConfig(formatNetworkConfig(config))])
      expect([one.engine, vniOf(one.backend)]).toEqual([engine, vni]);
  });

  it.each(['"kernel"', '""', '1', '["user"]'])('refuses Engine %s, and says what it may be', engine => {
    expect(() => parseNetworkConfig(`{"Network":"10.5.0.0/16","Engine":${engine}}`)).toThrow(
      /Engine is .*, expected "user" \(no host uses the kernel engine\) or "auto"/,
    );
  });

  it('EnableNFTables is kept, also through a document of our own', () => {
    const config = parseNetworkConfig('{"Network":"10.5.0.0/16","EnableNFTables":true}');
    expect([config.nftables, config.warnings]).toEqual([true, []]);
    expect(parseNetworkConfig(formatNetworkConfig(config)).nftables).toBe(true);
    expect(formatNetworkConfig(parseNetworkConfig('{"Network":"10.5.0.0/16"}'))).not.toContain('NFT');
  });

  it('warns about host bits', () => {
    expect(parseNetworkConfig('{"Network":"10.5.0.7/16"}').warnings).toEqual([
      'Network 10.5.0.7/16 has host bits set, 10.5.0.0/16 is used',
    ]);
  });

  it('numbers the subnets', () => {
    const config = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
    expect(subnetCount(config)).toBe(255);
    expect(formatPrefix(subnetAt(config, 0))).toBe('10.5.1.0/24');
    expect(formatPrefix(subnetAt(config, 254))).toBe('10.5.255.0/24');
    expect(isLeasable(config, parsePrefix('10.5.0.0/24'))).toBe(false);
    expect(isLeasable(config, parsePrefix('10.5.7.0/25'))).toBe(false);
    expect(isLeasable(config, parsePrefix('10.5.7.0/24'))).toBe(true);
  });
});
