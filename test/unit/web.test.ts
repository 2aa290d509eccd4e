/** Who is let in to the page, and what is refused before it listens. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request, type IncomingHttpHeaders } from 'node:http';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readToken, Token, TokenCheck } from '../../src/admin/access.js';
import { formatListenAddress, isLoopback, parseListenAddress } from '../../src/admin/listen-place.js';
import { silentLog } from '../../src/lib/log.js';
import { Scope } from '../../src/lib/scope.js';
import { runTool } from '../../src/tool/tool.js';
import { OtherHosts } from '../../src/web/other-hosts.js';
import { openPage } from '../../src/web/page-document.js';
import { Refreshed } from '../../src/web/refreshed.js';
import { Sessions } from '../../src/web/sessions.js';
import { openWebServer, type WebServerOptions } from '../../src/web/web-server.js';
import { noPorts, sampleStatus } from '../support/samples.js';

const secret = 'a-secret-of-32-characters-or-so!';
let scope: Scope;
let directory = '';

beforeEach(() => {
  scope = new Scope();
  directory = mkdtempSync(join(tmpdir(), `tartan-web-${process.pid}-`));
  scope.defer('directory', () => rmSync(directory, { recursive: true, force: true }));
});
afterEach(() => scope.close());

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

type Target = { readonly port: number } | { readonly socketPath: string };
interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly form?: string;
}

function ask(target: Target, path: string, { form, ...asked }: Asked = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const headers = { ...(form && { 'Content-Type': 'application/x-www-form-urlencoded' }), ...asked.headers };
    const method = form === undefined ? 'GET' : 'POST';
    const sent = request({ host: '127.0.0.1', ...target, path, agent: false, method, ...asked, headers }, response => {
      let body = '';
      response.on('data', part => (body += String(part)));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    sent.on('error', reject);
    sent.end(form);
  });
}

async function open(more: Partial<WebServerOptions> = {}): Promise<Target> {
  const options: WebServerOptions = {
    where: { ip: '127.0.0.1', port: 0 },
    token: undefined,
    tls: undefined,
    sources: {
      status: new Refreshed(async () => sampleStatus, 1000, String),
      events: new Refreshed(async () => [], 1000, String),
      leases: new Refreshed(async () => ({ items: [], kept: [], rejected: [] }), 1000, String),
    },
    others: new OtherHosts([]),
    log: silentLog,
    ...more,
  };
  const server = await scope.own('page', openWebServer(options));
  return 'socketPath' in options.where ? options.where : { port: Number(new URL(server.place).port) };
}

describe('the page', () => {
  test('is one document that may run its own style and script and nothing else, and load only its data', async () => {
    const { status, headers, body } = await ask(await open(), '/');
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('text/html; charset=utf-8');
    const policy = String(headers['content-security-policy']);
    expect(policy).toMatch(
      /^default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; connect-src 'self'; /,
    );
    expect(policy).toMatch(/form-action 'none'; base-uri 'none'; frame-ancestors 'none'$/);
    expect(policy).not.toContain('unsafe');
    expect(body).not.toMatch(/\b(src|href)\s*=\s*["']?(https?:)?\/\//);
    expect(body).not.toMatch(/<style><\/style>|<script><\/script>| style=| on[a-z]+=["']/);
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'cross-origin-resource-policy': 'same-origin',
    });
  });

  test('never makes markup of a text', () => {
    const script = openPage('page').html;
    expect(script).toContain('replaceChildren');
    expect(script).not.toMatch(
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function/,
    );
  });

  test('gives the data of this host and answers nothing else', async () => {
    const target = await open();
    expect(JSON.parse((await ask(target, '/data/host')).body)).toMatchObject({ failure: null, view: { good: true } });
    expect(JSON.parse((await ask(target, '/data/leases')).body)).toMatchObject({ value: { items: [] } });
    for (const path of ['/status', '/data', '/data/../etc/passwd', '/page.js', '//', '/login', '/data/other?n=0'])
      expect((await ask(target, path)).status, path).toBe(404);
    for (const method of ['PUT', 'DELETE', 'OPTIONS', 'PATCH', 'POST'])
      expect((await ask(target, '/data/host', { method })).status, method).toBe(405);
    expect((await ask(target, '/data/host', { headers: { 'Content-Length': '1' } })).status).toBe(413);
  });

  test('is refused under a foreign name', async () => {
    const target = await open();
    for (const host of ['evil.example', 'evil.example:8286', '127.0.0.1.evil.example', 'localhost.evil.example'])
      for (const path of ['/', '/data/host'])
        expect((await ask(target, path, { headers: { Host: host } })).status, host).toBe(421);
    for (const host of ['127.0.0.1:1', '[::1]:1', 'localhost:1', hostname(), 'LOCALHOST'])
      expect((await ask(target, '/', { headers: { Host: host } })).status, host).toBe(200);
  });

  test('on a socket is for this user alone, and a second one does not take its place', async () => {
    const socketPath = join(directory, 'web.sock');
    const target = await open({ where: { socketPath } });
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    expect((await ask(target, '/data/host')).status).toBe(200);
    await expect(open({ where: { socketPath } })).rejects.toThrow(`--socket ${socketPath} is in use`);
    expect((await ask(target, '/data/host')).status).toBe(200);
    await scope.close();
    expect(existsSync(socketPath)).toBe(false);
    scope = new Scope();
  });

  test('a file in the place of the socket is not touched', async () => {
    const socketPath = join(directory, 'file');
    writeFileSync(socketPath, 'mine');
    await expect(open({ where: { socketPath } })).rejects.toThrow('is in use');
    expect(readFileSync(socketPath, 'utf8')).toBe('mine');
    rmSync(directory, { recursive: true });
  });
});

describe('with a token', () => {
  const logIn = (target: Target, token: string, headers = {}): Promise<Reply> =>
    ask(target, '/login', { form: new URLSearchParams({ token }).toString(), headers });

  test('a stranger gets the login page and no data; the token is never taken from an address', async () => {
    const target = await open({ token: new Token(secret) });
    const login = await ask(target, '/');
    expect(login).toMatchObject({ status: 401 });
    expect(login.body).toContain('name="token"');
    expect(login.headers['content-security-policy']).not.toContain('script-src');
    for (const path of ['/data/host', '/data/leases', '/data/matrix', `/data/host?token=${secret}`])
      expect(await ask(target, path)).toMatchObject({ status: 401, body: expect.not.stringContaining('10.5.') });
  });

  test('Authorization: Bearer lets in', async () => {
    const target = await open({ token: new Token(secret) });
    const bearer = (text: string): Asked => ({ headers: { Authorization: text } });
    expect((await ask(target, '/data/host', bearer(`Bearer ${secret}`))).status).toBe(200);
    for (const text of [`Bearer ${secret}x`, `Bearer ${secret.slice(1)}`, `Basic ${secret}`, secret, 'Bearer', ''])
      expect((await ask(target, '/data/host', bearer(text))).status, text).toBe(401);
  });

  test('the form opens a session in a cookie that scripts and other sites do not see', async () => {
    const target = await open({ token: new Token(secret) });
    expect((await logIn(target, 'wrong')).headers['set-cookie']).toBeUndefined();
    const { status, headers } = await logIn(target, `${secret}\n`);
    expect(status).toBe(303);
    expect(headers.location).toBe('/');
    const [cookie = ''] = headers['set-cookie'] ?? [];
    expect(cookie).toMatch(/^tartan=[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/);
    expect(cookie).not.toContain(secret);
    const [pair = ''] = cookie.split(';');
    expect((await ask(target, '/data/host', { headers: { Cookie: `a=b; ${pair}` } })).status).toBe(200);
    expect((await ask(target, '/', { headers: { Cookie: pair } })).body).toContain('<main id="main">');
    expect((await ask(target, '/data/host', { headers: { Cookie: `${pair}x` } })).status).toBe(401);
    expect((await ask(target, '/data/host', { headers: { Cookie: 'tartan=' } })).status).toBe(401);
  });

  test('no other site logs a browser in, and a long form is refused', async () => {
    const target = await open({ token: new Token(secret) });
    expect((await logIn(target, secret, { 'Sec-Fetch-Site': 'cross-site' })).status).toBe(403);
    expect((await logIn(target, secret, { Host: 'evil.example' })).status).toBe(421);
    expect((await logIn(target, 'x'.repeat(5000))).status).toBe(413);
  });

  test('wrong tokens are limited, also for who finds the right one then; sessions go on', async () => {
    const target = await open({ token: new Token(secret) });
    const [cookie = ''] = (await logIn(target, secret)).headers['set-cookie'] ?? [];
    for (let tries = 0; tries < 10; tries++) expect((await logIn(target, `wrong ${tries}`)).status).toBe(401);
    expect(await logIn(target, secret)).toMatchObject({ status: 429, headers: { 'retry-after': '60' } });
    expect((await ask(target, '/data/host', { headers: { Authorization: `Bearer ${secret}` } })).status).toBe(429);
    expect((await ask(target, '/data/host', { headers: { Cookie: cookie.split(';')[0] ?? '' } })).status).toBe(200);
  });
});

test('the limits of wrong tokens end with their period, and bound all addresses together', () => {
  let nowMs = 0;
  const check = new TokenCheck(new Token(secret), { ofOne: 2, ofAll: 5, periodMs: 1000 }, () => nowMs);
  const tries = (remote: string): string[] => [1, 2, 3].map(() => check.try('wrong', remote));
  expect(tries('192.0.2.1')).toEqual(['wrong', 'wrong', 'too-many']);
  expect(check.try(secret, '192.0.2.1')).toBe('too-many');
  expect(check.try(secret, '192.0.2.2')).toBe('right');
  expect([...tries('192.0.2.3'), ...tries('192.0.2.4')].filter(guess => guess === 'wrong')).toHaveLength(3);
  expect(check.try(secret, '192.0.2.5')).toBe('too-many');
  nowMs = 1000;
  expect(check.try(secret, '192.0.2.1')).toBe('right');
});

test('sessions end, and the oldest makes room', () => {
  let nowMs = 0;
  const sessions = new Sessions(true, () => nowMs);
  const opened = Array.from({ length: 65 }, () => sessions.open().split(';')[0] ?? '');
  expect(opened[0]).toMatch(/^__Host-tartan=/);
  expect(new Set(opened).size).toBe(65);
  expect(opened.map(pair => sessions.has(pair)).indexOf(true)).toBe(1);
  expect(sessions.open()).toMatch(/; Secure$/);
  nowMs = 12 * 3_600_000;
  expect(sessions.has(opened.at(-1))).toBe(false);
});

describe('a token file', () => {
  const write = (text: string, mode: number): string => {
    const path = join(directory, 'token');
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };

  test('is one word; who may read it is told', () => {
    expect(readToken(write(`${secret}\n`, 0o600), '--token-file').notes).toEqual([]);
    expect(readToken(write(secret, 0o640), '--token-file').notes).toEqual([]);
    const open = readToken(write(secret, 0o644), '--token-file');
    expect(open.token.matches(secret)).toBe(true);
    expect(open.notes).toEqual([expect.stringMatching(/^--token-file: every user .* \(mode 644\); chmod 600 /)]);
  });

  test.each(['', 'short', `${secret} ${secret}`, `${secret}\n${secret}`, 'ä'.repeat(20), 'x'.repeat(1025)])(
    "'%s' is refused without being shown",
    text => {
      const path = write(text, 0o600);
      const message = `--token-file: ${path} has no token, expected one word of 16 to 1024 characters; make one with:`;
      expect(() => readToken(path, '--token-file')).toThrow(message);
    },
  );

  test('that is absent is named with the way to make one', () => {
    expect(() => readToken('/nonexistent/token', '--token-file')).toThrow(
      '--token-file: /nonexistent/token cannot be read (there is no such file); make one with: (umask 077; openssl',
    );
  });
});

test.each([
  ['127.0.0.1:8286', '127.0.0.1', 8286],
  ['localhost:0', '127.0.0.1', 0],
  ['[::1]:1', '::1', 1],
  ['0.0.0.0:65535', '0.0.0.0', 65_535],
])('%s is an address to listen on', (text, ip, port) => {
  expect(parseListenAddress(text, '--listen')).toEqual({ ip, port });
});

test.each([
  '',
  '8286',
  ':8286',
  'host:1',
  '127.1:80',
  '127.0.0.1',
  '::1:80',
  '[127.0.0.1]:1',
  '127.0.0.1:65536',
  'a\n:1',
])("'%s' is none", text => expect(() => parseListenAddress(text, '--listen')).toThrow('--listen: '));

test('only what no other host reaches is loopback', () => {
  expect(['127.0.0.1', '127.8.9.9', '::1'].map(isLoopback)).toEqual([true, true, true]);
  expect(['0.0.0.0', '192.0.2.1', '::', 'fe80::1', '128.0.0.1'].map(isLoopback)).toEqual(Array(5).fill(false));
  expect(formatListenAddress({ ip: '::1', port: 2 })).toBe('[::1]:2');
});

describe('tartan web refuses', () => {
  async function refusal(...words: readonly string[]): Promise<string> {
    let text = '';
    const io = { env: {}, stdout: () => {}, stderr: (more: string) => void (text += more), stdin: async () => '' };
    const status = await runTool(['node', 'tartan', 'web', ...words], { ...io, isTty: false, ports: noPorts });
    return `${status} ${text}`;
  }

  test('an address that other hosts reach without token and TLS, naming what is missing', async () => {
    const token = join(directory, 'token');
    writeFileSync(token, secret, { mode: 0o600 });
    for (const address of ['0.0.0.0:8286', '192.0.2.1:8286', '[::]:8286']) {
      const bare = await refusal('--listen', address);
      expect(bare).toContain(
        `64 error: --listen: other hosts reach ${address}, expected --token-file and --tls-cert with`,
      );
      expect(bare).toContain('such as 127.0.0.1:8286');
      expect(await refusal('--listen', address, '--token-file', token)).toContain(
        'expected --tls-cert with --tls-key as',
      );
      expect(await refusal('--listen', address, '--tls-cert', 'a', '--tls-key', 'b')).toContain(
        'expected --token-file as',
      );
    }
  });

  test('halves, contradictions and files that are none', async () => {
    expect(await refusal('--tls-cert', 'a')).toMatch(/^64 error: --tls-cert and --tls-key belong together/);
    expect(await refusal('--listen', '127.0.0.1:1', '--socket', '/run/x')).toMatch(/^64 error: --listen and --socket/);
    expect(await refusal('--socket', '/x', '--tls-cert', 'a', '--tls-key', 'b')).toMatch(
      /^64 error: --tls-cert has no/,
    );
    expect(await refusal('--tls-cert', '/nonexistent', '--tls-key', '/nonexistent')).toMatch(
      /^1 error: --tls-cert: \/nonexistent cannot be read/,
    );
    const file = join(directory, 'a.json');
    writeFileSync(file, '{}');
    expect(await refusal('--status', file)).toMatch(/^1 error: .*a\.json is no Status \(apiVersion differs\)/);
    const cert = join(directory, 'cert.pem');
    writeFileSync(cert, 'no pem');
    expect(await refusal('--tls-cert', cert, '--tls-key', cert)).toMatch(/^1 error: --tls-cert .* not usable together/);
  });
});
