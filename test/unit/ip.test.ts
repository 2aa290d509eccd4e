import { describe, expect, it } from 'vitest';
import {
  addressBytes,
  addressFromBytes,
  addressWords,
  comparePrefixes,
  formatAddress,
  formatIpv4,
  formatPrefix,
  isLinkLocal,
  isUnicastHost,
  nthPrefix,
  parseAddress,
  parseAnyPrefix,
  parseIpv4,
  parsePrefix,
  placesBehind,
  prefixAround,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  prefixKey,
  prefixLast,
} from '../../src/model/ip.js';

describe('addresses', () => {
  it.each(['0.0.0.0', '10.5.1.0', '192.0.2.255', '255.255.255.255'])('%s survives a round trip', text => {
    expect(formatIpv4(parseIpv4(text))).toBe(text);
  });

  it.each([
    '',
    '10.5.1',
    '10.5.1.0.0',
    '010.5.1.0',
    '10.5.1.256',
    '0x0a.5.1.0',
    ' 10.5.1.0',
    '10.5.1.0\n',
    '１0.5.1.0',
    '10.5.1.-1',
    '::ffff:10.5.1.0',
  ])('%j is refused', text => {
    expect(() => parseIpv4(text)).toThrow(/is not an IPv4 address/);
  });

  it('shows bounded text without control characters in its error', () => {
    expect(() => parseIpv4(`\u001b[31m${'x'.repeat(500)}`)).toThrow(/^'\?\[31mx{52}\.\.\.' is not/);
  });

  it.each([
    ['192.0.2.1', true],
    ['10.0.0.1', true],
    ['0.1.2.3', false],
    ['127.0.0.1', false],
    ['169.254.169.254', false],
    ['224.0.0.1', false],
    ['255.255.255.255', false],
  ])('%s can be a host on an underlay: %s', (text, expected) => {
    expect(isUnicastHost(parseIpv4(text))).toBe(expected);
  });
});

describe('prefixes', () => {
  it.each(['0.0.0.0/0', '10.5.0.0/16', '10.5.1.128/25', '192.0.2.1/32'])('%s survives a round trip', text => {
    expect(formatPrefix(parsePrefix(text))).toBe(text);
  });

  it.each([
    '10.5.0.0',
    '10.5.0.0/33',
    '10.5.0.0/08',
    '10.5.0.0/',
    '10.5.0.0/16/2',
    '10.5.0.0/-1',
    '10.5.0.0/1e1',
    'fd00::/8',
  ])('%j is refused', text => {
    expect(() => parsePrefix(text)).toThrow(/is not an IPv4 prefix/);
  });

  it('names the prefix that was meant when host bits are set', () => {
    expect(() => parsePrefix('10.5.1.7/24')).toThrow('did you mean 10.5.1.0/24?');
  });

  it('handles the ends of the address space', () => {
    expect(formatIpv4(prefixLast(parsePrefix('0.0.0.0/0')))).toBe('255.255.255.255');
    expect(formatPrefix(prefixAround(parseIpv4('255.255.255.255'), 31))).toBe('255.255.255.254/31');
  });

  it.each([
    ['10.5.0.0/16', '10.5.1.0/24', true, true],
    ['10.5.1.0/24', '10.5.0.0/16', false, true],
    ['10.5.1.0/24', '10.5.2.0/24', false, false],
    ['10.5.1.0/24', '10.5.1.0/24', true, true],
    ['0.0.0.0/0', '255.0.0.0/8', true, true],
  ])('%s and %s: covers %s, overlaps %s', (a, b, covers, overlaps) => {
    expect(prefixCovers(parsePrefix(a), parsePrefix(b))).toBe(covers);
    expect(prefixesOverlap(parsePrefix(a), parsePrefix(b))).toBe(overlaps);
    expect(prefixesOverlap(parsePrefix(b), parsePrefix(a))).toBe(overlaps);
  });
});

describe('either family', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0005::', 'fd00:5::'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::ffff:10.5.1.0', '::ffff:10.5.1.0'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ])('%s is written as %s', (text, canonical) => {
    expect(formatAddress(parseAddress(text))).toBe(canonical);
    expect(parseAddress(canonical)).toBe(parseAddress(text));
  });

  it.each([
    '',
    ':',
    ':::',
    '1::2::3',
    'fe80::1%eth0',
    '12345::',
    '::256.0.0.1',
    '1:2:3:4:5:6:7:8:9',
    '[::1]',
    '::1/64',
  ])('%j is refused', text => {
    expect(() => parseAddress(text)).toThrow(/is not an IP address such as/);
  });

  it.each(['fd00::/129', 'fd00::', 'fd00::/064', 'fd00::/-1', 'fe80::1%eth0/64'])('the prefix %j is refused', text => {
    expect(() => parseAnyPrefix(text)).toThrow(/is not a(n IPv6)? prefix such as/);
  });

  it('names the prefix that was meant when host bits are set', () => {
    expect(() => parseAnyPrefix('fd00:5::7/64')).toThrow('did you mean fd00:5::/64?');
  });

  it.each([
    ['10.5.0.0/16', '10.5.0.0/24', '10.5.255.0/24', 255],
    ['0.0.0.0/0', '0.0.0.0/1', '128.0.0.0/1', 1],
    ['fd00::/16', 'fd00::/32', 'fd00:ffff::/32', 65_535],
    ['::/0', '::/1', '8000::/1', 1],
  ])('the last part of %s, counted from %s, is %s, %i places behind', (outer, firstText, lastText, places) => {
    const first = parseAnyPrefix(firstText);
    const last = prefixLast(parseAnyPrefix(outer));
    expect(placesBehind(first, last)).toBe(places);
    expect(formatPrefix(nthPrefix(first, places))).toBe(lastText);
    expect(prefixContains(nthPrefix(first, places), last)).toBe(true);
    expect(formatPrefix(nthPrefix(nthPrefix(first, 1), -1))).toBe(firstText);
  });

  it.each(['255.255.255.0/24', 'ffff::/16', '::/0'])('nothing is behind %s', text => {
    expect(() => nthPrefix(parseAnyPrefix(text), 1)).toThrow(/is not an address/);
  });

  it.each(['0.0.0.0/24', '::/16'])('nothing is before %s', text => {
    expect(() => nthPrefix(parseAnyPrefix(text), -1)).toThrow(RangeError);
  });

  it('keeps the families apart', () => {
    const [four, six] = [parseAnyPrefix('0.0.0.0/0'), parseAnyPrefix('::/0')];
    expect(prefixesOverlap(four, six)).toBe(false);
    expect(prefixContains(six, parseAddress('10.5.1.1'))).toBe(false);
    expect(prefixKey(four)).not.toBe(prefixKey(six));
    const texts = ['fd00::/8', '10.5.1.0/24', '::/0', '10.5.0.0/16', '10.5.1.0/25'];
    expect(texts.map(parseAnyPrefix).sort(comparePrefixes).map(formatPrefix)).toEqual([
      '10.5.0.0/16',
      '10.5.1.0/24',
      '10.5.1.0/25',
      '::/0',
      'fd00::/8',
    ]);
  });

  it('has one key for one prefix', () => {
    const texts = [
      '10.5.1.0/24',
      '10.5.1.0/25',
      '10.5.2.0/24',
      'fd00::/8',
      'fd00::/9',
      'fd01::/16',
      '::/0',
      '0.0.0.0/0',
    ];
    expect(new Set([...texts, ...texts].map(text => prefixKey(parseAnyPrefix(text)))).size).toBe(texts.length);
  });

  it('has the bytes of the network and the words of the shared memory', () => {
    expect([...addressBytes(parseAddress('192.0.2.1'))]).toEqual([192, 0, 2, 1]);
    expect(addressFromBytes([192, 0, 2, 1])).toBe(parseAddress('192.0.2.1'));
    expect(addressFromBytes([192, 0, 2])).toBeUndefined();
    expect(Buffer.from(addressBytes(parseAddress('fd00:5::1:2'))).toString('hex')).toBe(
      'fd000005000000000000000000010002',
    );
    expect(addressWords(parseAddress('192.0.2.1'))).toEqual([0xc0000201, 0, 0, 0]);
    expect(addressWords(parseAddress('fd00:5::1:2'))).toEqual([0xfd000005, 0, 0, 0x00010002]);
  });

  it.each([
    ['169.254.1.1', true],
    ['192.0.2.1', false],
    ['fe80::1', true],
    ['febf::1', true],
    ['fec0::1', false],
  ])('%s is link-local: %s', (text, expected) => {
    expect(isLinkLocal(parseAddress(text))).toBe(expected);
  });
});
