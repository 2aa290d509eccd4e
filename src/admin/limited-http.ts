/**
 * An HTTP server that answers GET requests and that no client can block: few connections, few answers at a time, small
 * headers, no request bodies but a small one where a path takes it, one request per connection, a limit on idle time and
 * a limit on the life of a connection. Where there are too many the slowest client is dropped, never the newest. Malformed input is answered with
 * 400 and the connection is closed; nothing that a client sends makes the daemon throw.
 */
import type { IncomingHttpHeaders, IncomingMessage, Server, ServerResponse } from 'node:http';
import type { ListenOptions, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { AnswerQueue } from './answer-queue.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { nodeHttp, nodeHttps } from '../lib/node-http.js';

export interface HttpRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  /** The Host header. */
  readonly host: string | undefined;
  readonly headers: IncomingHttpHeaders;
  /** The address of the client; '' on a socket file. */
  readonly remote: string;
  /** Of a POST; undefined for a GET. */
  readonly body: string | undefined;
}

export interface HttpResponse {
  readonly status: number;
  /** The Content-Type. */
  readonly type: string;
  readonly body: string | Buffer;
  /** Beside those that every answer has. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** setInterval fires at once when its period is longer. */
const longestTimerMs = 2 ** 31 - 1;

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

export interface ServerParts {
  readonly limits?: Partial<HttpLimits>;
  /** PEM; absent: plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  /** The path that takes a POST. */
  readonly postPath?: string;
}

/** Creates the server; the caller listens, on a socket file or on a port. */
export function createLimitedServer(name: string, handler: HttpHandler, log: Log, parts: ServerParts = {}): Server {
  const limits = { ...defaultLimits, ...parts.limits };
  const { tls, postPath } = parts;
  const { idleMs } = limits;
  const queue = new AnswerQueue(limits);
  // Node's own limits would look at all connections on a timer, also while there are none.
  const options = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: 0,
    requestTimeout: 0,
    connectionsCheckingInterval: longestTimerMs,
  };
  const unread = new WeakMap<Socket, NodeJS.Timeout>();
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    // The server does not read a request body, but for a POST: it closes the connection after the response.
    request.on('error', () => {});
    response.on('error', () => {});
    const answer = (refusal?: HttpResponse, body?: string): void => {
      clearTimeout(unread.get(request.socket));
      unread.delete(request.socket);
      queue.add(request.socket, onPart => {
        const made = refusal ? Promise.resolve(refusal) : handle(request, body, name, handler, log);
        void made.then(answered => respond(response, answered, onPart));
      });
    };
    const refusal = refuse(request, postPath);
    if (refusal || request.method === 'GET') answer(refusal);
    else void readBody(request).then(body => (body === undefined ? answer(bodyTooLong) : answer(undefined, body)));
  };
  const server: Server = tls
    ? nodeHttps().createServer({ ...options, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: idleMs }, onRequest)
    : nodeHttp().createServer(options, onRequest);
  limitServer(server, limits);
  // The whole request must have come by then: a client that sends one byte at a time is never idle.
  server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    // What came while this process had no processor is read first.
    const timer = setTimeout(() => setImmediate(() => unread.has(socket) && refuseMalformed(socket)), idleMs);
    unread.set(socket, timer.unref());
    socket.once('close', () => clearTimeout(timer));
  });
  return server;
}

function limitServer(server: Server, limits: HttpLimits): void {
  server.maxHeadersCount = 64;
  // What a client asks after that on one connection is answered with 503 and costs nothing more.
  server.maxRequestsPerSocket = 1;
  // This limits the idle time of a socket before, within and after a request.
  server.timeout = limits.idleMs;
  const oldestFirst = new Set<Socket>();
  server.on('connection', socket => {
    limitLifetime(socket, limits.connectionMs);
    oldestFirst.add(socket);
    socket.once('close', () => oldestFirst.delete(socket));
    const [oldest] = oldestFirst;
    if (oldestFirst.size > limits.connections) oldest?.destroy();
  });
  server.on('clientError', (_error, socket) => refuseMalformed(socket));
}

function refuseMalformed(socket: Duplex): void {
  if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  else socket.destroy();
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

/** Returns the port that a server listens on, which the kernel chose where 0 was requested. */
export function boundPort(server: Server, requested: number): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : requested;
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

function refuse({ method, headers, url }: IncomingMessage, postPath: string | undefined): HttpResponse | undefined {
  if (method === 'POST' && postPath !== undefined && url === postPath) return undefined;
  if (method !== 'GET') return plainText(405, 'only GET is answered');
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
  return hasBody ? plainText(413, 'a request has no body here') : undefined;
}

const longestBody = 4096;
const bodyTooLong = plainText(413, `the body has more than ${longestBody} bytes`);

/** @returns undefined for a body that is too long; never where the client ends it too early */
function readBody(request: IncomingMessage): Promise<string | undefined> {
  return new Promise(resolve => {
    const parts: Buffer[] = [];
    let bytes = 0;
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= longestBody) parts.push(part);
      else resolve(undefined);
    });
    request.on('end', () => resolve(Buffer.concat(parts).toString('utf8')));
  });
}

async function handle(
  request: IncomingMessage,
  body: string | undefined,
  name: string,
  handler: HttpHandler,
  log: Log,
): Promise<HttpResponse> {
  try {
    const [path = '/', query] = (request.url ?? '/').split('?');
    const { headers, socket } = request;
    const asked = { path, query: new URLSearchParams(query), host: headers.host, headers };
    return await handler({ ...asked, remote: socket.remoteAddress ?? '', body });
  } catch (error) {
    log.error('admin.answer-failed', `${name} could not answer: ${messageOf(error)}`);
    return plainText(500, 'the answer could not be made, see the log');
  }
}

const partBytes = 64 * 1024;

/** @param onPart called whenever the kernel has taken a part of the answer */
function respond(response: ServerResponse, { status, type, body, headers }: HttpResponse, onPart: () => void): void {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  response.writeHead(status, nodeHttp().STATUS_CODES[status], {
    'Content-Type': type,
    'Content-Length': bytes.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    Connection: 'close',
    ...(status === 405 ? { Allow: 'GET' } : {}),
    ...headers,
  });
  const writeFrom = (at: number): void => {
    onPart();
    const next = at + partBytes;
    if (next >= bytes.length) response.end(bytes.subarray(at));
    else response.write(bytes.subarray(at, next), error => !error && writeFrom(next));
  };
  writeFrom(0);
}
