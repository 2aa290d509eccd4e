/**
 * The status of this host for `tartan web` elsewhere: `GET /status` and `GET /events` as on the local socket, and nothing
 * that says where credentials are. Off unless the operator gives it an address; nothing can be written through it.
 */
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import { readToken, refuseBearer, refuseHost, TokenCheck } from './access.js';
import {
  boundPort,
  closeServer,
  createLimitedServer,
  listen,
  type HttpRequest,
  type HttpResponse,
} from './limited-http.js';
import { formatListenAddress, readTlsIdentity, type ListenAddress } from './listen-place.js';
import { openStatusAnswers, type StatusAnswers } from './status-server.js';

export interface StatusListenPlace {
  readonly address: ListenAddress;
  /** Absent: everybody who reaches the address may read, so it must be loopback. */
  readonly tokenFile?: string;
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
}

export interface StatusListenerOptions extends StatusListenPlace, Omit<StatusAnswers, 'settings'> {
  readonly log: Log;
}

export interface StatusListener extends Closable {
  /** The port that it listens on. */
  readonly port: number;
}

const sources = { certFile: '--status-tls-cert', keyFile: '--status-tls-key' };

/**
 * Token and certificate are read now: new ones count from the next start.
 * @throws TartanError CONFIG_INVALID or PERMISSION when a file cannot be used, or the address not listened on
 */
export async function openStatusListener(options: StatusListenerOptions): Promise<StatusListener> {
  const { address, tokenFile, status, eventsAfter, log } = options;
  const token = tokenFile === undefined ? undefined : readToken(tokenFile, '--status-token-file');
  const tls = options.tls && readTlsIdentity(options.tls.certFile, options.tls.keyFile, sources);
  for (const note of [...(token?.notes ?? []), ...(tls?.notes ?? [])]) log.warn('options.note', note);
  const check = token && new TokenCheck(token.token);
  const answers = openStatusAnswers({ status, ...(eventsAfter && { eventsAfter }) });
  const answer = (request: HttpRequest): HttpResponse =>
    refuseHost(request, tls?.hasName) ?? (check && refuseBearer(request, check)) ?? answers(request);
  const server = createLimitedServer('the status listener', answer, log, { tls });
  await listen(server, { host: address.ip, port: address.port }).catch((cause: unknown) => {
    throw new TartanError(
      errnoOf(cause) === 'EACCES' ? 'PERMISSION' : 'CONFIG_INVALID',
      `--status-listen ${formatListenAddress(address)} cannot be listened on (${messageOf(cause)}), ` +
        'expected a free port on an address of this host',
      { cause },
    );
  });
  server.on('error', error => log.error('admin.listener-failed', `the status listener failed: ${messageOf(error)}`));
  return { port: boundPort(server, address.port), close: () => closeServer(server) };
}
