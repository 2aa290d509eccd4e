import { describe, expect, it } from 'vitest';
import {
  formatIpv4,
  formatPrefix,
  isUnicastHost,
  parseIpv4,
  parsePrefix,
  prefixAround,
  prefixCovers,
  prefixesOverlap,
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
