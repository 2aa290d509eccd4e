/** Hosts that their operator opened with --status-listen, and `tartan web` that asks them: real TLS, real tokens. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventListOf } from '../../src/admin/events.js';
import { openStatusListener } from '../../src/admin/status-listener.js';
import { silentLog } from '../../src/lib/log.js';
import { Scope } from '../../src/lib/scope.js';
import { askUrl, type SocketResponse } from '../../src/lib/socket-http.js';
import { readHostList } from '../../src/web/host-list.js';
import { OtherHosts } from '../../src/web/other-hosts.js';
import { RemoteDocument } from '../../src/web/remote-document.js';
import { sampleStatus } from '../support/samples.js';

const scope = new Scope();
const directory = mkdtempSync(join(tmpdir(), `tartan-remote-${process.pid}-`));
const file = (name: string): string => join(directory, name);
const secret = 'a-secret-of-32-characters-or-so!';
let port = 0;

const certificate = `
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=a -days 2 \
  -addext subjectAltName=IP:127.0.0.1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -subj /CN=b -days 2`;

beforeAll(async () => {
  scope.defer('directory', () => rmSync(directory, { recursive: true }));
  execFileSync('bash', ['-ec', certificate], { cwd: directory, stdio: 'pipe' });
  writeFileSync(file('token'), secret, { mode: 0o600 });
  writeFileSync(file('wrong'), `${secret}x`, { mode: 0o600 });
  const listener = openStatusListener({
    address: { ip: '127.0.0.1', port: 0 },
    tokenFile: file('token'),
    tls: { certFile: file('cert.pem'), keyFile: file('key.pem') },
    status: () => sampleStatus,
    eventsAfter: () => eventListOf([]),
    log: silentLog,
  });
  ({ port } = await scope.own('listener', listener));
});
afterAll(() => scope.close());

function ask(path: string, headers: Readonly<Record<string, string>>): Promise<SocketResponse> {
  const ca = readFileSync(file('cert.pem'), 'utf8');
  return askUrl({ url: new URL(path, `https://127.0.0.1:${port}`), headers, ca, timeoutMs: 5000, maxBytes: 1 << 20 });
}

test('the listener gives status and events to who has the token, and no settings', async () => {
  const headers = { Authorization: `Bearer ${secret}` };
  expect(JSON.parse((await ask('/status', headers)).text)).toEqual(sampleStatus);
  expect(JSON.parse((await ask('/events', headers)).text)).toMatchObject({ kind: 'EventList' });
  expect(await ask('/settings', headers)).toMatchObject({ status: 404 });
  expect(await ask('/status', {})).toMatchObject({ status: 401, text: expect.not.stringContaining('10.5') });
  expect(await ask('/status', { Authorization: `Bearer ${secret.toUpperCase()}` })).toMatchObject({ status: 401 });
  expect(await ask(`/status?token=${secret}`, {})).toMatchObject({ status: 401 });
});

test('hosts of a list are asked; each that fails says why, and the others are shown', async () => {
  const url = `https://127.0.0.1:${port}`;
  const lines = [
    '# the cluster',
    `${url} ${file('token')} ${file('cert.pem')}   # first`,
    '',
    `${url} ${file('wrong')} ${file('cert.pem')}`,
    `${url} ${file('token')} ${file('other.pem')}`,
    'http://127.0.0.1:9',
  ];
  writeFileSync(file('hosts'), lines.join('\n'));
  const others = new OtherHosts(readHostList(file('hosts'), '--hosts').map(host => new RemoteDocument(host)));
  const rows = await others.readNow();
  expect(rows.map(({ row }) => row?.subnet)).toEqual(['10.5.1.0/24', undefined, undefined, undefined]);
  expect(rows.map(({ failure }) => failure)).toEqual([
    null,
    `${url} refuses the token: give that of its --status-token-file`,
    expect.stringMatching(/its certificate is not accepted .*see the CA file$/),
    'http://127.0.0.1:9 cannot be asked: nobody listens there, see tartand --status-listen',
  ]);
  expect(await others.view(0)).toMatchObject({ name: '192.0.2.1, 10.5.1.0/24' });
  expect(JSON.stringify(rows)).not.toContain(secret);
});

test.each([
  ['https://192.0.2.1:8287', 'needs https and a token file'],
  ['http://192.0.2.1:8287 TOKEN', 'needs https and a token file'],
  ['http://localhost.evil.example TOKEN', 'needs https and a token file'],
  ['192.0.2.1:8287 TOKEN', 'is no host to ask'],
  ['https://192.0.2.1:8287/path TOKEN', 'is no host to ask'],
  ['https://user:password@192.0.2.1 TOKEN', 'is no host to ask'],
  ['file:///etc/passwd TOKEN', 'is no host to ask'],
  ['https://192.0.2.1 /nonexistent', '/nonexistent cannot be read'],
  ['https://192.0.2.1 TOKEN /nonexistent', '/nonexistent cannot be read'],
  ['https://192.0.2.1 TOKEN CA more', 'is no host to ask'],
  ['# nobody', 'names no host'],
])('a list with the line %s is refused by its number', (line, reason) => {
  writeFileSync(file('bad'), `${line.replace('TOKEN', file('token')).replace('CA', file('cert.pem'))}\n`);
  const read = (): unknown => readHostList(file('bad'), '--hosts');
  expect(read).toThrow(reason);
  expect(read).toThrow(line.startsWith('#') ? '--hosts' : 'bad, line 1');
  expect(read).not.toThrow(secret);
  expect(read).not.toThrow('password');
});
