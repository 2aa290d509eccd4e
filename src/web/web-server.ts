/**
 * `tartan web`: one page and its data, read-only. Whoever is let in reads; the one POST is the login. Nothing that a
 * browser sends reaches a command, a file or etcd.
 */
import { chmodSync, existsSync, lstatSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { readBearer, refuseHost, TokenCheck, tooManyTries, type Token } from '../admin/access.js';
import {
  boundPort,
  closeServer,
  createLimitedServer,
  listen,
  plainText,
  type HttpRequest,
  type HttpResponse,
} from '../admin/limited-http.js';
import { formatListenAddress, type ListenAddress, type TlsIdentity } from '../admin/listen-place.js';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import type { OtherHosts } from './other-hosts.js';
import { openPage, type PageDocument } from './page-document.js';
import { pageDataOf, type PageSources } from './page-data.js';
import { Sessions } from './sessions.js';

export interface WebServerOptions {
  readonly where: ListenAddress | { readonly socketPath: string };
  /** undefined: everybody who reaches the listener may read. */
  readonly token: Token | undefined;
  readonly tls: TlsIdentity | undefined;
  readonly sources: PageSources;
  readonly others: OtherHosts;
  readonly log: Log;
}

export interface WebServer extends Closable {
  /** For people: an URL or the path of the socket. */
  readonly place: string;
}

/** A page waits for hosts and etcd longer than a probe does for its answer. */
const limits = { connections: 64, answers: 16, stalledMs: 5_000, idleMs: 15_000, connectionMs: 60_000 };

/** @throws TartanError CONFIG_INVALID or PERMISSION when it cannot be listened there */
export async function openWebServer(options: WebServerOptions): Promise<WebServer> {
  const { where, tls, log } = options;
  const web = new Web(options);
  const server = createLimitedServer('the web page', request => web.answer(request), log, {
    limits,
    tls,
    postPath: '/login',
  });
  const close = async (): Promise<void> => {
    if ('socketPath' in where) rmSync(where.socketPath, { force: true });
    await closeServer(server);
  };
  if ('socketPath' in where) {
    await listenOnSocket(server, where.socketPath);
    return { place: where.socketPath, close };
  }
  await listen(server, { host: where.ip, port: where.port }).catch((cause: unknown) => {
    throw listenError(`--listen ${formatListenAddress(where)}`, cause);
  });
  const address = formatListenAddress({ ip: where.ip, port: boundPort(server, where.port) });
  return { place: `${tls ? 'https' : 'http'}://${address}/`, close };
}

class Web {
  readonly #options: WebServerOptions;
  readonly #page = openPage('page');
  readonly #login = openPage('login');
  readonly #check: TokenCheck | undefined;
  readonly #sessions: Sessions;

  constructor(options: WebServerOptions) {
    this.#options = options;
    this.#check = options.token && new TokenCheck(options.token);
    this.#sessions = new Sessions(options.tls !== undefined);
  }

  async answer(request: HttpRequest): Promise<HttpResponse> {
    const refusal = refuseHost(request, this.#options.tls?.hasName);
    if (refusal) return refusal;
    if (request.body !== undefined) return this.#logIn(request, request.body);
    if (!['/', '/data/host', '/data/leases', '/data/matrix', '/data/other'].includes(request.path))
      return plainText(404, 'there is no such page, the one here is /');
    const stranger = this.#refuseStranger(request);
    if (stranger) return stranger;
    if (request.path === '/') return pageResponse(200, this.#page);
    const data = await pageDataOf(request.path, request.query, this.#options.sources, this.#options.others);
    if (data === undefined) return plainText(404, 'there is no such host');
    return { status: 200, type: 'application/json', body: data, headers: ownOnly };
  }

  #refuseStranger(request: HttpRequest): HttpResponse | undefined {
    if (!this.#check || this.#sessions.has(request.headers.cookie)) return undefined;
    const bearer = readBearer(request);
    const guess = bearer === undefined ? 'wrong' : this.#check.try(bearer, request.remote);
    if (guess === 'right') return undefined;
    if (guess === 'too-many') return tooManyTries();
    return request.path === '/' && bearer === undefined
      ? pageResponse(401, this.#login)
      : plainText(401, 'log in at /, or send the token: Authorization: Bearer TOKEN');
  }

  /** The form of the login page (application/x-www-form-urlencoded). */
  #logIn(request: HttpRequest, body: string): HttpResponse {
    const site = request.headers['sec-fetch-site'];
    if (site !== undefined && site !== 'same-origin' && site !== 'none')
      return plainText(403, 'log in on the page itself');
    const token = new URLSearchParams(body).get('token') ?? '';
    const guess = this.#check?.try(token.trim(), request.remote) ?? 'right';
    if (guess === 'too-many') return tooManyTries();
    if (guess === 'wrong') return pageResponse(401, this.#login);
    const cookie = { 'Set-Cookie': this.#sessions.open() };
    return { ...plainText(303, 'logged in'), headers: { Location: '/', ...cookie } };
  }
}

const ownOnly = { 'Cross-Origin-Resource-Policy': 'same-origin' };

function pageResponse(status: number, { html, policy }: PageDocument): HttpResponse {
  const headers = {
    ...ownOnly,
    'Content-Security-Policy': policy,
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
  };
  return { status, type: 'text/html; charset=utf-8', body: html, headers };
}

/** The mode of the socket file decides who may connect: this user alone. */
async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (existsSync(path)) {
    if (!lstatSync(path).isSocket() || (await somebodyListens(path)))
      throw new TartanError('CONFIG_INVALID', `--socket ${path} is in use, expected a path that is free`);
    rmSync(path);
  }
  const umask = process.umask(0o177);
  // bind(2) takes the mode of the socket file from the umask, and listen() binds before it returns.
  const listening = listen(server, { path });
  process.umask(umask);
  await listening.catch((cause: unknown) => {
    throw listenError(`--socket ${path}`, cause);
  });
  chmodSync(path, 0o600);
}

function somebodyListens(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path);
    const end = (listens: boolean): void => {
      socket.destroy();
      resolve(listens);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}

function listenError(place: string, cause: unknown): TartanError {
  return new TartanError(
    errnoOf(cause) === 'EACCES' ? 'PERMISSION' : 'CONFIG_INVALID',
    `the web page cannot be offered with ${place} (${messageOf(cause)}), expected a free port or path of this host`,
    { cause },
  );
}
