import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openHealthServer } from '../../src/admin/health-server.js';
import { closeServer, createLimitedServer, plainText, type HttpResponse } from '../../src/admin/limited-http.js';
import { statusSocketPath } from '../../src/admin/socket-path.js';
import { findGroupId, openStatusServer } from '../../src/admin/status-server.js';
import type { Status } from '../../src/agent/status.js';
import { readStatus } from '../../src/tool/status-client.js';
import { TartanError } from '../../src/lib/errors.js';
import { silentLog } from '../../src/lib/log.js';
import { Scope } from '../../src/lib/scope.js';
import { sampleStatus as status } from '../support/samples.js';

let scope: Scope;
let runDir = '';

beforeEach(() => {
  scope = new Scope();
  runDir = mkdtempSync(join(tmpdir(), `tartan-admin-${process.pid}-`));
  scope.defer('directory', () => rmSync(runDir, { recursive: true, force: true }));
});
afterEach(() => scope.close());

async function open(answer: () => Status = () => status, groupFile = '/nonexistent'): Promise<string> {
  await scope.own('server', openStatusServer({ runDir, status: answer, log: silentLog, groupFile }));
  return statusSocketPath(runDir);
}

interface Reply {
  readonly status: number;
  readonly body: string;
}

function ask(target: { socketPath: string } | { port: number }, path: string, more: object = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', ...target, path, agent: false, ...more }, response => {
      let body = '';
      response.on('data', part => (body += String(part)));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** Resolves with all that was received once the other side ended the connection. */
function untilClosed(socket: Socket): Promise<string> {
  return new Promise(resolve => {
    let text = '';
    socket.on('data', part => (text += part.toString('latin1')));
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}

function dial(path: string): Socket {
  const socket = connect(path);
  socket.on('error', () => {});
  scope.defer('socket', () => void socket.destroy());
  return socket;
}

async function failure(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => 'no error',
    (thrown: unknown) => thrown,
  );
  return error instanceof TartanError ? `${error.code} ${error.message}` : String(error);
}

describe('the status socket', () => {
  it('answers GET /status with the document of this moment', async () => {
    let peers = status.peers;
    const socketPath = await open(() => ({ ...status, peers }));
    expect(JSON.parse((await ask({ socketPath }, '/status')).body)).toEqual(status);
    peers = [];
    expect(JSON.parse((await ask({ socketPath }, '/status')).body)).toMatchObject({ peers: [] });
  });

  it('is for root alone where the group does not exist, whatever the umask', async () => {
    const umask = process.umask(0);
    scope.defer('umask', () => void process.umask(umask));
    expect(statSync(await open()).mode & 0o777).toBe(0o600);
    expect(process.umask()).toBe(0);
  });

  it('is for the group tartan where it exists', async () => {
    const groupFile = join(runDir, 'group');
    const group = process.getgid?.() ?? 0;
    writeFileSync(groupFile, `root:x:0:\ntartans:x:7:\ntartan:x:${group}:alice\n`);
    const info = statSync(await open(undefined, groupFile));
    expect(info.mode & 0o777).toBe(0o660);
    expect(info.gid).toBe(group);
  });

  it('reads the group file strictly', () => {
    const groupFile = join(runDir, 'group');
    for (const text of ['', 'tartan', 'tartan:x::', 'tartan:x:12a:', 'xtartan:x:12:']) {
      writeFileSync(groupFile, text);
      expect(findGroupId(groupFile)).toBeUndefined();
    }
    expect(findGroupId(join(runDir, 'absent'))).toBeUndefined();
  });

  it.each(['file', 'socket', 'dangling link'])('replaces a stale %s and leaves nothing behind', async kind => {
    const path = statusSocketPath(runDir);
    if (kind === 'file') writeFileSync(path, 'old');
    if (kind === 'dangling link') symlinkSync(join(runDir, 'nowhere'), path);
    if (kind === 'socket') {
      const old = createServer().listen(path);
      scope.defer('old', () => void old.close());
    }
    const server = await openStatusServer({ runDir, status: () => status, log: silentLog });
    expect((await ask({ socketPath: path }, '/status')).status).toBe(200);
    await server.close();
    expect(readdirSync(runDir)).toEqual([]);
  });

  it('answers nothing else', async () => {
    const socketPath = await open();
    expect(await ask({ socketPath }, '/')).toMatchObject({ status: 404 });
    expect(await ask({ socketPath }, '/status/..')).toMatchObject({ status: 404 });
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
      expect(await ask({ socketPath }, '/status', { method })).toMatchObject({ status: 405 });
    expect((await ask({ socketPath }, '/status', { headers: { 'Content-Length': 5 } })).status).toBe(413);
  });

  it('is 500, and lives, when the document cannot be made', async () => {
    let broken = true;
    const socketPath = await open(() => {
      if (broken) throw new Error('inner');
      return status;
    });
    const reply = await ask({ socketPath }, '/status');
    expect(reply.status).toBe(500);
    expect(reply.body).not.toContain('inner');
    broken = false;
    expect((await ask({ socketPath }, '/status')).status).toBe(200);
  });

  it('refuses garbage and long headers and goes on', async () => {
    const path = await open();
    for (const text of ['\0\xff\xfe garbage\r\n\r\n', `GET /status HTTP/1.1\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`]) {
      const socket = dial(path);
      const answer = untilClosed(socket);
      socket.write(text, 'latin1');
      expect(await answer).not.toContain('200 OK');
    }
    expect((await ask({ socketPath: path }, '/status')).status).toBe(200);
  });

  it('cuts who says nothing, who stops in the middle and who sends a byte at a time', async () => {
    const path = await open();
    const silent = dial(path);
    const half = dial(path);
    half.write('GET /status HT');
    const slow = dial(path);
    slow.write('GET /status HTTP/1.1\r\n');
    const drip = setInterval(() => slow.write('a'), 200);
    scope.defer('drip', () => clearInterval(drip));
    const ends = await Promise.all([silent, half, slow].map(untilClosed));
    expect(ends.join()).not.toContain('200 OK');
  });

  it.each([16, 200])('fault C14: %i clients that ask and never read keep no other from its answer', async count => {
    const peers = Array.from({ length: 5000 }, () => status.peers.slice(0, 1)).flat();
    const path = await open(() => ({ ...status, peers }));
    const deaf = Array.from({ length: count }, () => dial(path).pause());
    await Promise.all(deaf.map(socket => new Promise<void>(done => void socket.once('connect', () => done()))));
    for (const socket of deaf) socket.write('GET /status HTTP/1.1\r\nHost: x\r\n\r\n');
    const readings = [];
    for (let call = 0; call < 4; call++) readings.push((await readStatus(runDir)).kind);
    expect(readings).toEqual(['status', 'status', 'status', 'status']);
    await Promise.all(deaf.map(socket => untilClosed(socket.resume())));
  });

  it('fault C14: a client that asks a hundred times at once is answered once', async () => {
    let made = 0;
    const path = await open(() => (made++, status));
    const deaf = Array.from({ length: 50 }, () => dial(path).pause());
    await Promise.all(deaf.map(socket => new Promise<void>(done => void socket.once('connect', () => done()))));
    for (const socket of deaf) socket.write('GET /status HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(100));
    expect((await readStatus(runDir)).kind).toBe('status');
    await Promise.all(deaf.map(socket => untilClosed(socket.resume())));
    expect(made).toBeLessThanOrEqual(51);
  });

  it('fault C14: clients beyond the limit drop those that have been there longest', async () => {
    const path = await open();
    const sockets = Array.from({ length: 300 }, () => dial(path));
    const closed: number[] = [];
    const ends = sockets.map(async (socket, index) => {
      await untilClosed(socket);
      closed.push(index);
    });
    expect((await ask({ socketPath: path }, '/status')).status).toBe(200);
    await Promise.all(ends);
    expect(closed.slice(0, 40).every(index => index < 45)).toBe(true);
  });

  it('closes with connections open', async () => {
    const server = await openStatusServer({ runDir, status: () => status, log: silentLog });
    const socket = dial(statusSocketPath(runDir));
    const closed = untilClosed(socket);
    await new Promise<void>(resolve => void socket.on('connect', () => resolve()));
    await server.close();
    await closed;
    expect(existsSync(statusSocketPath(runDir))).toBe(false);
  });

  it('says why it cannot be made', async () => {
    const absent = join(runDir, 'absent');
    expect(await failure(openStatusServer({ runDir: absent, status: () => status, log: silentLog }))).toMatch(
      /^CONFIG_INVALID .*absent.*see --run-dir/,
    );
    const long = `/${'x'.repeat(120)}`;
    expect(await failure(openStatusServer({ runDir: long, status: () => status, log: silentLog }))).toMatch(
      /^USAGE --run-dir .* too long/,
    );
  });
});

describe('the limited server', () => {
  it('cuts a reader that is slow but never idle', async () => {
    const answer = (): HttpResponse => plainText(200, 'x'.repeat(30_000_000));
    const limits = {
      connections: 4,
      answers: 4,
      stalledMs: 60_000,
      headerBytes: 1024,
      idleMs: 60_000,
      connectionMs: 1_000,
    };
    const server = createLimitedServer('the test', answer, silentLog, { limits });
    scope.defer('server', () => closeServer(server));
    const path = join(runDir, 'limited.sock');
    await new Promise<void>(resolve => void server.listen(path, resolve));
    const reader = dial(path);
    reader.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    let bytes = 0;
    reader.on('data', part => {
      bytes += part.length;
      reader.pause();
      setTimeout(() => reader.resume(), 5).unref();
    });
    await new Promise<void>(resolve => void reader.on('close', () => resolve()));
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(30_000_000);
  });
});

describe('asking for the status', () => {
  it('gets the document', async () => {
    await open();
    expect(await readStatus(runDir)).toEqual({ kind: 'status', status });
  });

  it.each([
    ['no socket', () => {}, /there is no socket/],
    ['a file that is no socket', (path: string) => writeFileSync(path, ''), /nobody listens/],
  ])('%s', async (_, prepare, reason) => {
    prepare(statusSocketPath(runDir));
    const reading = await readStatus(runDir);
    expect(reading).toMatchObject({ kind: 'unreachable', reason: expect.stringMatching(reason) });
  });

  it.each([
    ['silence', '', /within 2000 ms/],
    ['not HTTP', 'hello\r\n\r\n', /tartand\.sock/],
    ['HTTP 500', 'HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n', /HTTP 500/],
    ['no JSON', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{', /tartand\.sock/],
    ['another document', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}', /not this tartand/],
    ['a cut answer', 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}', /tartand\.sock/],
  ])('%s is unreachable', async (name, reply, reason) => {
    const server = createServer(socket => {
      socket.on('error', () => {});
      scope.defer('accepted', () => void socket.destroy());
      if (reply !== '') socket.write(reply);
      if (name === 'a cut answer') socket.end();
    });
    await new Promise<void>(resolve => void server.listen(statusSocketPath(runDir), resolve));
    scope.defer('server', () => void server.close());
    const reading = await readStatus(runDir);
    expect(reading).toMatchObject({ kind: 'unreachable', reason: expect.stringMatching(reason) });
  });

  it('says who may ask when it may not', async () => {
    // Root may always connect: the directory test is of the message only where the test is not root.
    await open();
    chmodSync(statusSocketPath(runDir), 0);
    const reading = await readStatus(runDir);
    if (process.getuid?.() === 0) expect(reading.kind).toBe('status');
    else expect(reading).toMatchObject({ reason: expect.stringContaining('group tartan') });
  });
});

describe('health over TCP', () => {
  async function health(forwarding: () => boolean, metrics?: () => Promise<string>): Promise<number> {
    const server = await scope.own(
      'health',
      openHealthServer({ ip: '127.0.0.1', port: 0, forwarding, log: silentLog, ...(metrics && { metrics }) }),
    );
    return server.port;
  }

  it('is alive always and ready when it is', async () => {
    let ready = false;
    const port = await health(() => ready);
    expect(await ask({ port }, '/healthz')).toEqual({ status: 200, body: 'tartand is running\n' });
    expect(await ask({ port }, '/readyz')).toEqual({ status: 503, body: 'tartand is not ready yet\n' });
    ready = true;
    expect(await ask({ port }, '/readyz')).toEqual({ status: 200, body: 'tartand is ready\n' });
    expect((await ask({ port }, '/readyz?verbose=1')).status).toBe(200);
    expect((await ask({ port }, '/status')).status).toBe(404);
    expect((await ask({ port }, '/readyz', { method: 'POST' })).status).toBe(405);
  });

  it('has metrics where they were asked for, made once for many who ask at a time', async () => {
    expect(await ask({ port: await health(() => true) }, '/metrics')).toMatchObject({ status: 404 });
    let made = 0;
    const port = await health(
      () => true,
      async () => {
        if (made === 0) await new Promise(resolve => setTimeout(resolve, 10));
        if (++made === 2) throw new Error('inner');
        return `tartan_made ${made}\n`;
      },
    );
    const replies = await Promise.all(Array.from({ length: 20 }, () => ask({ port }, '/metrics')));
    expect(replies).toEqual(replies.map(() => ({ status: 200, body: 'tartan_made 1\n' })));
    const later = await vi.waitFor(async () => {
      const reply = await ask({ port }, '/metrics');
      expect(reply.status).toBe(500);
      return reply;
    }, 5000);
    expect(later.body).not.toContain('inner');
    expect(await ask({ port }, '/metrics')).toEqual({ status: 200, body: 'tartan_made 3\n' });
    expect((await ask({ port }, '/metrics', { headers: { Host: 'rebound.example' } })).status).toBe(421);
  });

  it('answers to addresses and own names only', async () => {
    const port = await health(() => true);
    const by = async (Host: string): Promise<number> => (await ask({ port }, '/healthz', { headers: { Host } })).status;
    for (const host of ['127.0.0.1:8471', '192.0.2.1', '[::1]:80', 'localhost:1', hostname()])
      expect(await by(host)).toBe(200);
    for (const host of ['rebound.example', 'rebound.example:8471', '127.0.0.1.example'])
      expect(await by(host)).toBe(421);
  });

  it('says why it cannot listen', async () => {
    const port = await health(() => true);
    const options = { forwarding: () => true, log: silentLog };
    expect(await failure(openHealthServer({ ip: '127.0.0.1', port, ...options }))).toMatch(
      /^CONFIG_INVALID the health listener cannot start on 127\.0\.0\.1:\d+ .*EADDRINUSE.*--healthz-port/,
    );
    expect(await failure(openHealthServer({ ip: '203.0.113.1', port: 0, ...options }))).toMatch(/^CONFIG_INVALID /);
  });
});
