/**
 * An HTTP server that answers GET requests from memory and that no client can block: few connections, few answers at a
 * time, small headers, no request bodies, one request per connection, a limit on idle time and a limit on the life of a
 * connection. Where there are too many the slowest client is dropped, never the newest. Malformed input is answered with
 * 400 and the connection is closed; nothing that a client sends makes the daemon throw.
 */
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ListenOptions, Socket } from 'node:net';
import { AnswerQueue } from './answer-queue.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';

export interface HttpRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  /** The Host header. */
  readonly host: string | undefined;
}

export interface HttpResponse {
  readonly status: number;
  /** The Content-Type. */
  readonly type: string;
  readonly body: string | Buffer;
}

export type HttpHandler = (request: HttpRequest) => HttpResponse | Promise<HttpResponse>;

export interface HttpLimits {
  readonly connections: number;
  /** Answers that are written at one time: what the kernel buffers of them is memory of ours. */
  readonly answers: number;
  /** A client that has read nothing for so long makes room for one that waits. */
  readonly stalledMs: number;
  readonly headerBytes: number;
  readonly idleMs: number;
  /** The life of a connection: a client that reads one byte at a time is never idle. */
  readonly connectionMs: number;
}

const defaultLimits: HttpLimits = {
  connections: 256,
  answers: 32,
  stalledMs: 100,
  headerBytes: 8 * 1024,
  idleMs: 1000,
  connectionMs: 5000,
};

/** Creates the server; the caller listens, on a socket file or on a port. */
export function createLimitedServer(
  name: string,
  handler: HttpHandler,
  log: Log,
  limits: HttpLimits = defaultLimits,
): Server {
  const { idleMs } = limits;
  const queue = new AnswerQueue(limits);
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: idleMs,
      requestTimeout: idleMs,
      connectionsCheckingInterval: idleMs / 4,
    },
    (request, response) => {
      // The server does not read a request body: it closes the connection after the response.
      request.on('error', () => {});
      response.on('error', () => {});
      queue.add(request.socket, onPart => {
        void handle(request, name, handler, log).then(answer => respond(response, answer, onPart));
      });
    },
  );
  server.maxHeadersCount = 64;
  // What a client asks after that on one connection is answered with 503 and costs nothing more.
  server.maxRequestsPerSocket = 1;
  // This limits the idle time of a socket before, within and after a request.
  server.timeout = idleMs;
  const oldestFirst = new Set<Socket>();
  server.on('connection', socket => {
    limitLifetime(socket, limits.connectionMs);
    oldestFirst.add(socket);
    socket.once('close', () => oldestFirst.delete(socket));
    const [oldest] = oldestFirst;
    if (oldestFirst.size > limits.connections) oldest?.destroy();
  });
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    else socket.destroy();
  });
  return server;
}

/**
 * Resolves when the server listens; rejects with an error in Node's shape. A socket file is bound before this returns.
 */
export function listen(server: Server, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

/** Stops listening and ends every connection. */
export function closeServer(server: Server): Promise<void> {
  return new Promise(resolve => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

export function plainText(status: number, text: string): HttpResponse {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}

function limitLifetime(socket: Socket, connectionMs: number): void {
  const timer = setTimeout(() => socket.destroy(), connectionMs);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
  socket.on('error', () => socket.destroy());
}

async function handle(request: IncomingMessage, name: string, handler: HttpHandler, log: Log): Promise<HttpResponse> {
  if (request.method !== 'GET') return plainText(405, 'only GET is answered');
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (hasBody) return plainText(413, 'a request has no body here');
  try {
    const [path = '/', query] = (request.url ?? '/').split('?');
    return await handler({ path, query: new URLSearchParams(query), host: request.headers.host });
  } catch (error) {
    log.error('admin.answer-failed', `${name} could not answer: ${messageOf(error)}`);
    return plainText(500, 'the answer could not be made, see the log');
  }
}

const partBytes = 64 * 1024;

/** @param onPart called whenever the kernel has taken a part of the answer */
function respond(response: ServerResponse, { status, type, body }: HttpResponse, onPart: () => void): void {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  response.writeHead(status, STATUS_CODES[status], {
    'Content-Type': type,
    'Content-Length': bytes.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    Connection: 'close',
    ...(status === 405 ? { Allow: 'GET' } : {}),
  });
  const writeFrom = (at: number): void => {
    onPart();
    const next = at + partBytes;
    if (next >= bytes.length) response.end(bytes.subarray(at));
    else response.write(bytes.subarray(at, next), error => !error && writeFrom(next));
  };
  writeFrom(0);
}
