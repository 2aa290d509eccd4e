/** The parts of the etcd adapter that need no etcd. */
import { getLogger } from '@grpc/grpc-js/build/src/logging.js';
import { describe, expect, it } from 'vitest';
import { openRecordLog, silentLog } from '../../src/lib/log.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import { hearLibrary } from '../../src/store/etcd/library-log.js';
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

  it.each([
    [
      'GRPCUnavailableError: 14 UNAVAILABLE: No connection established. Last error: Error: connect ECONNREFUSED ' +
        '192.0.2.1:2379. Resolution note: ',
      'nothing listens there',
    ],
    ['connect EHOSTUNREACH 192.0.2.1:2379', 'no host answers at this address'],
    ['14 UNAVAILABLE: Name resolution failed for target dns:etcd.example:2379', 'its name cannot be resolved'],
    ['getaddrinfo ENOTFOUND etcd.example', 'its name cannot be resolved'],
    ['4 DEADLINE_EXCEEDED: Deadline exceeded after 2.501s,LB pick: 0.001s,remote_addr=x', 'no answer in time'],
    ['14 UNAVAILABLE: Connection dropped', 'it broke the connection off'],
    ['14 UNAVAILABLE: read ECONNRESET', 'it broke the connection off'],
    ['13 INTERNAL: Received RST_STREAM with code 2 (Internal server error)', 'it broke the request off'],
    ['12 UNIMPLEMENTED: unknown service etcdserverpb.KV', 'what listens there is no etcd of version 3'],
    ['14 UNAVAILABLE: Received HTTP status code 502', "what listens there does not speak etcd's protocol"],
    ['14 UNAVAILABLE: etcdserver: no leader', 'its cluster has no leader'],
    [
      '14 UNAVAILABLE: etcdserver: request timed out, possibly due to previous leader failure',
      'it answers, but its cluster does not agree in time: no quorum, or a slow disk',
    ],
    ['14 UNAVAILABLE: etcdserver: leader changed', 'its cluster has just changed its leader'],
    ['14 UNAVAILABLE: etcdserver: server stopped', 'it is being stopped'],
    ['EtcdPermissionDeniedError: etcdserver: permission denied', 'permission denied'],
    [
      'EtcdAuthenticationFailedError: etcdserver: authentication failed, invalid user ID',
      'the user name or the password is wrong',
    ],
    ['3 INVALID_ARGUMENT: etcdserver: user name is empty', 'it wants a login and got none'],
    [
      '9 FAILED_PRECONDITION: etcdserver: authentication is not enabled',
      'it has authentication switched off and takes no login',
    ],
    ['Error: unable to verify the first certificate', 'its certificate is signed by an unknown CA'],
    ['certificate has expired', 'its certificate has expired'],
    [
      "Hostname/IP does not match certificate's altnames: IP: 192.0.2.1 is not in the cert's list",
      'its certificate is for other names',
    ],
    [
      'C0:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../deps/x.c:355:',
      'it does not speak TLS there',
    ],
    [
      'C0:error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:x.c',
      'it wants a client certificate',
    ],
    // Not known: without names of classes and codes.
    ['GRPCUnavailableError: 14 UNAVAILABLE: etcdserver: mvcc: the moon is full. Resolution note: ', 'the moon is full'],
    ['no answer within 2.5 s', 'no answer within 2.5 s'],
  ])('%s is said as: %s', (raw, words) => {
    expect(plainMessage(new Error(raw))).toBe(words);
  });

  it('no words of the client come through', () => {
    const raw = ['14 UNAVAILABLE: x', 'GRPCInternalError: 13 INTERNAL: x', 'EtcdError: 2 UNKNOWN: x', 'Error: x'];
    expect(raw.map(text => plainMessage(new Error(text)))).toEqual(['x', 'x', 'x', 'x']);
  });

  it('what the client would print by itself goes to the log', () => {
    const said: string[] = [];
    hearLibrary(openRecordLog('info', ({ level, message }) => void said.push(`${level} ${message}`)));
    const logger = getLogger();
    logger.error?.(
      'Connection to ipv4:x at y rejected by server because of excess pings. Increasing ping interval to 20000 ms',
    );
    logger.error?.('Failed to createSecureContext with error x');
    expect(said).toEqual(['warn the etcd client says: Failed to createSecureContext with error x']);
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
