/** The program as it is installed: `tartan web` with TLS and a token, asked over real sockets. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request, type RequestOptions } from 'node:https';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ended, start, toolProgram, until, type Running } from '../support/tools.js';

const directory = mkdtempSync(join(tmpdir(), `tartan-web-${process.pid}-`));
const file = (name: string): string => join(directory, name);
const secret = 'a-secret-of-32-characters-or-so!';
let web: Running;
let port = 0;
let ca = '';

const certificate = `
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=web -days 2 \
  -addext subjectAltName=IP:127.0.0.1,DNS:web.example`;

beforeAll(async () => {
  execFileSync('bash', ['-ec', certificate], { cwd: directory, stdio: 'pipe' });
  writeFileSync(file('token'), `${secret}\n`, { mode: 0o600 });
  ca = readFileSync(file('cert.pem'), 'utf8');
  const tls = ['--tls-cert', file('cert.pem'), '--tls-key', file('key.pem'), '--token-file', file('token')];
  const quiet = ['--run-dir', file('run'), '--state-dir', file('state'), '--etcd-endpoints', 'http://127.0.0.1:9'];
  web = start([process.execPath, toolProgram, 'web', '--listen', '127.0.0.1:0', ...tls, ...quiet]);
  let text = '';
  web.stdout.on('data', part => (text += String(part)));
  port = await until('the page', () => Number(/https:\/\/127\.0\.0\.1:(\d+)\//.exec(text)?.[1]) || undefined, 10_000);
});

afterAll(async () => {
  web.kill('SIGKILL');
  rmSync(directory, { recursive: true });
});

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

function ask(path: string, more: RequestOptions = {}, form?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, ca, agent: false, ...more }, response => {
      let body = '';
      response.on('data', part => (body += String(part)));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    sent.on('error', reject);
    sent.end(form);
  });
}

test('TLS, token and a cookie that never leaves without TLS', async () => {
  expect((await ask('/data/host')).status).toBe(401);
  expect((await ask('/data/host', { headers: { Authorization: `Bearer ${secret}` } })).status).toBe(200);
  const { status, headers } = await ask(
    '/login',
    { method: 'POST' },
    new URLSearchParams({ token: secret }).toString(),
  );
  expect(status).toBe(303);
  const [cookie = ''] = headers['set-cookie'] ?? [];
  expect(cookie).toMatch(/^__Host-tartan=[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure$/);
  const page = await ask('/', { headers: { Cookie: cookie.split(';')[0] } });
  expect(page.body).toContain('data/host');
});

test('a name of the certificate is one of this host, another is not', async () => {
  // The client would compare the name with the certificate first.
  const as = (Host: string): RequestOptions => ({ headers: { Host }, checkServerIdentity: () => undefined });
  expect((await ask('/', as(`web.example:${port}`))).status).toBe(401);
  expect((await ask('/', as('evil.example'))).status).toBe(421);
});

test('a daemon and an etcd that are away are said with their reasons', async () => {
  const headers = { Authorization: `Bearer ${secret}` };
  const host = JSON.parse((await ask('/data/host', { headers })).body);
  expect(host).toMatchObject({ view: null, failure: `there is no socket ${file('run')}/tartand.sock`, others: false });
  const leases = JSON.parse((await ask('/data/leases', { headers })).body);
  expect(leases.failure).toMatch(/etcd|no answer yet/);
});

test('plain HTTP, old TLS and who says nothing get nothing and hold nobody up', async () => {
  const plain = connect(port, '127.0.0.1');
  let answer = '';
  plain.on('data', part => (answer += String(part)));
  plain.on('error', () => {});
  plain.write('GET /data/host HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until('the end of plain HTTP', () => plain.closed);
  expect(answer).not.toContain('200');
  const old = connectTls({ port, host: '127.0.0.1', ca, minVersion: 'TLSv1', maxVersion: 'TLSv1.1' });
  const refusal = await new Promise<string>(resolve => {
    old.on('secureConnect', () => resolve('accepted'));
    old.on('error', error => resolve(error.message));
  });
  expect(refusal).not.toBe('accepted');
  const silent = Array.from({ length: 80 }, () => connect(port, '127.0.0.1').on('error', () => {}));
  expect((await ask('/data/host', { headers: { Authorization: `Bearer ${secret}` } })).status).toBe(200);
  for (const socket of silent) socket.destroy();
});

test('ends with 0 when it is told to', async () => {
  web.kill('SIGTERM');
  expect(await ended(web)).toBe(0);
});
