/**
 * A small HTTP server that answers GET from memory and that nobody can hold up: few connections, small headers, no
 * bodies, one request a connection, an idle limit and a limit on the whole. Garbage is answered 400 and closed; what
 * a client does never throws into the daemon.
 */
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';

export interface Answer {
  readonly status: number;
  readonly type: 'application/json' | 'text/plain; charset=utf-8';
  readonly body: string;
}

export interface Question {
  readonly path: string;
  /** The Host header. */
  readonly host: string | undefined;
}

export interface HttpLimits {
  readonly connections: number;
  readonly headerBytes: number;
  readonly idleMs: number;
  /** Of a connection: a reader that takes a byte at a time is never idle. */
  readonly wholeMs: number;
}

const usualLimits: HttpLimits = { connections: 16, headerBytes: 8 * 1024, idleMs: 1000, wholeMs: 5000 };

/** Listening is the caller's: on a socket file or on a port. */
export function createLimitedServer(
  name: string,
  answer: (question: Question) => Answer,
  log: Log,
  limits: HttpLimits = usualLimits,
): Server {
  const { idleMs } = limits;
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: idleMs,
      requestTimeout: idleMs,
      connectionsCheckingInterval: idleMs / 4,
    },
    (request, response) => respond(request, response, answerTo(request, name, answer, log)),
  );
  server.maxConnections = limits.connections;
  server.maxHeadersCount = 64;
  // The whole of what a socket may be silent, before, within and after a request.
  server.timeout = idleMs;
  server.on('connection', socket => limitLifetime(socket, limits.wholeMs));
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    else socket.destroy();
  });
  return server;
}

export function plainText(status: number, text: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}

/** Stops listening and cuts every connection. */
export function closeServer(server: Server): Promise<void> {
  return new Promise(resolve => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function limitLifetime(socket: Socket, wholeMs: number): void {
  const timer = setTimeout(() => socket.destroy(), wholeMs);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
  socket.on('error', () => socket.destroy());
}

function answerTo(request: IncomingMessage, name: string, answer: (question: Question) => Answer, log: Log): Answer {
  if (request.method !== 'GET') return plainText(405, 'only GET is answered');
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (hasBody) return plainText(413, 'a request has no body here');
  try {
    const [path = '/'] = (request.url ?? '/').split('?');
    return answer({ path, host: request.headers.host });
  } catch (error) {
    log.error('admin.answer-failed', `${name} could not answer: ${messageOf(error)}`);
    return plainText(500, 'the answer could not be made, see the log');
  }
}

function respond(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  // A body that is not wanted is not read either: the connection ends with the answer.
  request.on('error', () => {});
  response.on('error', () => {});
  response.writeHead(status, STATUS_CODES[status], {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    Connection: 'close',
    ...(status === 405 ? { Allow: 'GET' } : {}),
  });
  response.end(body);
}
