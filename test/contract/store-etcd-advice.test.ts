/** Each way in which an etcd can refuse or misunderstand a client, with the step that its message names. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { silentLog } from '../../src/lib/log.js';
import { adviceFor } from '../../src/store/etcd/advice.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import type { EtcdOptions } from '../../src/store/etcd/options.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { EtcdServer } from '../support/etcd.js';
import { nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const { signal } = new AbortController();
const directory = mkdtempSync(join(tmpdir(), `tartan-advice-${process.pid}-`));
const file = (name: string): string => join(directory, name);
let plain: EtcdServer;
let tls: EtcdServer;

/** An authority, a certificate of the server by it that serves as a client's too, and a stranger's. */
const certificates = `
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=ca -days 2
openssl req $key -keyout etcd.key -out etcd.csr -subj /CN=etcd
echo subjectAltName=IP:127.0.0.1 >names
openssl x509 -req -in etcd.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out etcd.pem -days 2 -extfile names
openssl x509 -in ca.pem -outform der -out ca.der
openssl req -x509 $key -keyout other.key -out other.pem -subj /CN=other -days 2
`;

beforeAll(async () => {
  execFileSync('bash', ['-ec', certificates], { cwd: directory, stdio: 'pipe' });
  const args = ['--cert-file', file('etcd.pem'), '--key-file', file('etcd.key')];
  plain = await EtcdServer.start({ args: ['--enable-v2', '--quota-backend-bytes', '1000000'] });
  tls = await EtcdServer.start({
    scheme: 'https',
    args: [...args, '--client-cert-auth', '--trusted-ca-file', file('ca.pem')],
  });
});
afterAll(async () => {
  await plain.stop();
  await tls.stop();
  rmSync(directory, { recursive: true });
});

async function messageWith(options: Partial<EtcdOptions> & Pick<EtcdOptions, 'endpoints'>): Promise<string> {
  return (async () => {
    const kv = openEtcd({ prefix, ...options }, silentLog);
    const store = openLeaseStore(kv, { prefix, log: silentLog, clock: bootClock });
    return store.network({ signal }).finally(() => store.close());
  })().then(
    () => 'it did not fail',
    (error: Error) => error.message,
  );
}

const [ca, certFile, keyFile] = ['ca.pem', 'etcd.pem', 'etcd.key'].map(file) as [string, string, string];

describe('a client of etcd is told its step', () => {
  const client = { caFile: ca, certFile, keyFile };
  it.each<[string, (port: number) => Partial<EtcdOptions> & Pick<EtcdOptions, 'endpoints'>, RegExp]>([
    [
      'http to an https etcd',
      port => ({ endpoints: [`http://127.0.0.1:${port}`] }),
      /etcd does not answer at http:.*it speaks TLS there: use https:\/\//,
    ],
    [
      'no client certificate',
      port => ({ endpoints: [`https://127.0.0.1:${port}`], caFile: ca }),
      /asks for a client certificate: give --etcd-certfile and --etcd-keyfile$/,
    ],
    [
      'a client certificate of a stranger',
      port => ({
        endpoints: [`https://127.0.0.1:${port}`],
        caFile: ca,
        certFile: file('other.pem'),
        keyFile: file('other.key'),
      }),
      /refuses the client certificate .*other\.pem.*--trusted-ca-file/,
    ],
    [
      'a CA that did not sign',
      port => ({ endpoints: [`https://127.0.0.1:${port}`], ...client, caFile: file('other.pem') }),
      /not signed by the CA in --etcd-cafile .*other\.pem/,
    ],
    [
      'another name than in the certificate',
      port => ({ endpoints: [`https://localhost:${port}`], ...client }),
      /certificate is for other names/,
    ],
    [
      'the CA in DER',
      port => ({ endpoints: [`https://127.0.0.1:${port}`], ...client, caFile: file('ca.der') }),
      /--etcd-cafile .*ca\.der cannot be used \(it is in DER: convert it with openssl x509 -inform der/,
    ],
    [
      'the key of another certificate',
      port => ({ endpoints: [`https://127.0.0.1:${port}`], ...client, keyFile: file('other.key') }),
      /--etcd-keyfile .*other\.key is the key of another certificate than --etcd-certfile .*etcd\.pem/,
    ],
    ['what fits', port => ({ endpoints: [`https://127.0.0.1:${port}`], ...client }), /there is no network document/],
  ])('fault B13: %s', async (_, optionsFor, message) => {
    expect(await messageWith(optionsFor(tls.port))).toMatch(message);
  });

  it('fault B13: https to an http etcd', async () => {
    const endpoints = [plain.endpoint.replace('http:', 'https:')];
    expect(await messageWith({ endpoints })).toMatch(/does not speak TLS there: use http:\/\//);
  });

  it('fault B13: https to an http etcd whose reset comes before its answer', async () => {
    const [http, https] = [plain.endpoint, `https://127.0.0.1:${tls.port}`];
    const endpoint = http.replace('http:', 'https:');
    expect(await adviceFor({ endpoints: [endpoint], prefix }, endpoint, 'read ECONNRESET')).toMatch(/use http:\/\//);
    expect(await adviceFor({ endpoints: [https], prefix }, https, 'read ECONNRESET')).toMatch(/^check that it runs/);
  });

  it('fault B13: a document in the v2 store only', async () => {
    const endpoints = [plain.endpoint];
    expect(await messageWith({ endpoints })).toMatch(
      /no network document at \/coreos\.com\/network\/config.*etcdctl put/,
    );
    const body = new URLSearchParams({ value: '{"Network":"10.5.0.0/16"}' });
    await fetch(`${plain.endpoint}/v2/keys${prefix}/config`, { method: 'PUT', body });
    expect(await messageWith({ endpoints })).toMatch(/v2 store of etcd only.*ETCDCTL_API=2 etcdctl get .*config \|/);
  });

  it('fault C18, fault B13: the alarm NOSPACE', async () => {
    const kv = openEtcd({ endpoints: [plain.endpoint], prefix }, silentLog);
    const store = openLeaseStore(kv, { prefix, log: silentLog, clock: bootClock });
    const end = new AbortController();
    const lease = await store.acquire(requestOf(nodeOf(1)), { signal: end.signal });
    let message = '';
    await until('full', async () => {
      message = await put(kv, '/fill', Buffer.alloc(300_000)).then(
        () => '',
        (error: Error) => error.message,
      );
      return message !== '';
    });
    expect(message).toMatch(/^etcd is out of space.*etcdctl defrag, then etcdctl alarm disarm$/);
    // A running host says so too, once it must write: its key is gone and cannot be made again.
    await kv.revokeLease(lease.lease.leaseId, { signal });
    await until('told', () => store.problems.some(problem => problem.startsWith('etcd is out of space')), 8_000);
    end.abort();
    await store.close();
  });
});
