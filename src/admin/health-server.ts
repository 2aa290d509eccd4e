/**
 * Health over TCP for probes: `/healthz` is 200 while the daemon answers at all, `/readyz` is 200 while this host
 * carries traffic and 503 otherwise. The server discloses nothing else. It refuses requests for a foreign host name, which a browser sends
 * under DNS rebinding.
 */
import { hostname } from 'node:os';
import { isIP } from 'node:net';
import type { Server } from 'node:http';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import {
  closeServer,
  createLimitedServer,
  listen,
  plainText,
  type HttpRequest,
  type HttpResponse,
} from './limited-http.js';

export interface HealthServerOptions {
  readonly ip: string;
  readonly port: number;
  readonly forwarding: () => boolean;
  readonly log: Log;
}

export interface HealthServer extends Closable {
  /** The port that the server listens on. */
  readonly port: number;
}

/** @throws TartanError PERMISSION or CONFIG_INVALID when the address cannot be listened on */
export async function openHealthServer({ ip, port, forwarding, log }: HealthServerOptions): Promise<HealthServer> {
  const server = createLimitedServer('the health listener', request => healthResponse(request, forwarding), log);
  await listen(server, { host: ip, port }).catch((cause: unknown) => {
    throw listenError(ip, port, cause);
  });
  server.on('error', error => log.error('admin.health-failed', `the health listener failed: ${messageOf(error)}`));
  return { port: boundPort(server, port), close: () => closeServer(server) };
}

function healthResponse({ path, host }: HttpRequest, forwarding: () => boolean): HttpResponse {
  if (!isLocalHost(host)) return plainText(421, 'ask by address');
  switch (path) {
    case '/healthz':
      return plainText(200, 'tartand is running');
    case '/readyz':
      return forwarding() ? plainText(200, 'tartand is ready') : plainText(503, 'tartand is not ready yet');
    default:
      return plainText(404, 'the paths here are /healthz and /readyz');
  }
}

/** Accepts an address, a name of this host, or no name. A name that foreign DNS resolves to this host is refused. */
function isLocalHost(host: string | undefined): boolean {
  if (host === undefined || host === '') return true;
  const name = host
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
  return isIP(name) !== 0 || name === 'localhost' || name === hostname().toLowerCase();
}

function boundPort(server: Server, requested: number): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : requested;
}

function listenError(ip: string, port: number, cause: unknown): TartanError {
  return new TartanError(
    errnoOf(cause) === 'EACCES' ? 'PERMISSION' : 'CONFIG_INVALID',
    `the health listener cannot start on ${ip}:${port} (${messageOf(cause)}); ` +
      'expected a free port on an address of this host, see --healthz-ip and --healthz-port',
    { cause },
  );
}
