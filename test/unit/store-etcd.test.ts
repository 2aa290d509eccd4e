/** The parts of the etcd adapter that need no etcd. */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { permissionError } from '../../src/store/etcd/errors.js';
import { plainMessage, errorKindOf } from '../../src/store/etcd/errors.js';
import { authFixFor } from '../../src/store/etcd/etcd-kv.js';
import { Keys, occupiedBy, printable } from '../../src/store/keys.js';
import { formatPrefix } from '../../src/model/ip.js';

describe('keys', () => {
  it.each([
    ['/coreos.com/network', '/coreos.com/network'],
    ['/coreos.com/network/', '/coreos.com/network'],
    ['/coreos.com//network', '/coreos.com/network'],
    ['coreos.com/./x/../network', 'coreos.com/network'],
    ['/', ''],
  ])("join '%s' as Go's path.Join", (given, start) => {
    const keys = new Keys(given);
    expect(String(keys.config)).toBe(`${start}/config`);
    expect([keys.subnets, keys.tombstones].map(range => [String(range.start), String(range.end)])).toEqual([
      [`${start}/subnets/`, `${start}/subnets0`],
      [`${start}/held/`, `${start}/held0`],
    ]);
  });

  it('shows bytes that cannot be printed', () => {
    expect(printable('10.5.2.0-24\x00\xff\\')).toBe('10.5.2.0-24\\x00\\xff\\x5c');
  });

  it.each([
    ['10.5.2.0-24', '10.5.2.0/24'],
    ['10.5.2.7-24', '10.5.2.0/24'],
    ['10.5.2.0-0024', '10.5.2.0/24'],
    ['10.8.13.0-24&fd42:42:0:2c::-64', '10.8.13.0/24'],
    ['0.0.0.0-0&fd43:42:0:1c::-64', undefined],
    ['10.5.2.0', undefined],
    ['foo', undefined],
  ])('%s stands on %s', (name, expected) => {
    const prefix = occupiedBy(name);
    expect(prefix && formatPrefix(prefix)).toBe(expected);
  });
});

describe('options', () => {
  const base = { prefix: '/p', username: 'u', password: 'hunter2' };

  it('refuse a password in clear to another host', async () => {
    expect(() => openEtcd({ ...base, endpoints: ['http://192.0.2.1:2379'] }, silentLog)).toThrow(/--insecure-etcd/);
    const allowed = [
      { ...base, endpoints: ['http://192.0.2.1:2379'], insecureEtcd: true },
      { ...base, endpoints: ['http://127.0.0.1:2379', 'http://localhost:2379', 'http://[::1]:2379'] },
      { ...base, endpoints: ['https://192.0.2.1:2379'] },
      { prefix: '/p', endpoints: ['http://192.0.2.1:2379'] },
    ];
    for (const options of allowed) await openEtcd(options, silentLog).close();
  });

  it('refuse what is no endpoint, without showing it: it may hold a login', () => {
    for (const endpoint of ['http://u:hunter2@192.0.2.1:2379', 'ftp://x:1', 'x'])
      expect(() => openEtcd({ ...base, endpoints: [endpoint] }, silentLog)).toThrow(/^(?!.*hunter2).*endpoint/);
    expect(() => openEtcd({ ...base, endpoints: [] }, silentLog)).toThrow(/no etcd endpoint/);
  });

  it('never put the password into a message', () => {
    const error = permissionError({ ...base, endpoints: [] }, 'read of /p/held/', new Error('permission denied'));
    expect(error.message).toContain("user 'u'");
    expect(error.message).not.toContain('hunter2');
  });
});

describe('errors of etcd', () => {
  it.each([
    ['14 UNAVAILABLE: No connection established', 'transport'],
    ['etcdserver: no leader', 'transport'],
    ['etcdserver: invalid auth token', 'token'],
    ['etcdserver: permission denied', 'denied'],
    ['etcdserver: authentication failed, invalid user ID or password', 'denied'],
    ['etcdserver: user name is empty', 'login-needed'],
    ['etcdserver: authentication is not enabled', 'login-unknown'],
    ['etcdserver: requested lease not found', 'lease-gone'],
    ['etcdserver: lease already exists', 'lease-exists'],
    ['etcdserver: mvcc: required revision has been compacted', 'compacted'],
    ['8 RESOURCE_EXHAUSTED: Received message larger than max (4500000 vs 4194304)', 'too-large'],
    ['8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded', 'no-space'],
  ])('%s: %s', (text, trouble) => {
    expect(errorKindOf(new Error(text))).toBe(trouble);
  });

  it('are shown without class names', () => {
    expect(plainMessage(new Error('GRPCUnavailableError: 14 UNAVAILABLE: refused'))).toBe('UNAVAILABLE: refused');
  });

  it.each([
    ['3.4.23', '3.4.44'],
    ['3.4.44', undefined],
    ['3.5.9', '3.5.30'],
    ['3.6.11', undefined],
    ['3.7.0', undefined],
    ['', undefined],
  ])('release %s: fixed in %s', (version, fixed) => {
    expect(authFixFor(version)).toBe(fixed);
  });
});
