/**
 * Health over TCP for probes: `/healthz` is 200 while the daemon answers at all, `/readyz` is 200 while it is ready and
 * 503 otherwise. It says nothing else, and answers no request that a browser was tricked into (DNS rebinding).
 */
import { hostname } from 'node:os';
import { isIP } from 'node:net';
import type { Server } from 'node:http';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import { closeServer, createLimitedServer, plainText, type Answer, type Question } from './limited-http.js';

export interface HealthServerOptions {
  readonly ip: string;
  readonly port: number;
  readonly ready: () => boolean;
  readonly log: Log;
}

export interface HealthServer extends Closable {
  /** The port that is listened on. */
  readonly port: number;
}

/** @throws TartanError PERMISSION or CONFIG_INVALID when the address cannot be listened on */
export async function openHealthServer({ ip, port, ready, log }: HealthServerOptions): Promise<HealthServer> {
  const server = createLimitedServer('the health listener', question => answer(question, ready), log);
  await new Promise<void>((resolve, reject) => {
    server.once('error', cause => reject(refusal(ip, port, cause)));
    server.listen({ host: ip, port }, resolve);
  });
  server.removeAllListeners('error');
  server.on('error', error => log.error('admin.health-failed', `the health listener failed: ${messageOf(error)}`));
  return { port: boundPort(server, port), close: () => closeServer(server) };
}

function answer({ path, host }: Question, ready: () => boolean): Answer {
  if (!isOurName(host)) return plainText(421, 'ask by address');
  switch (path) {
    case '/healthz':
      return plainText(200, 'tartand is running');
    case '/readyz':
      return ready() ? plainText(200, 'tartand is ready') : plainText(503, 'tartand is not ready yet');
    default:
      return plainText(404, 'the paths here are /healthz and /readyz');
  }
}

/** An address, this host, or nothing: a name that somebody else's DNS points here is neither. */
function isOurName(host: string | undefined): boolean {
  if (host === undefined || host === '') return true;
  const name = host
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
  return isIP(name) !== 0 || name === 'localhost' || name === hostname().toLowerCase();
}

function boundPort(server: Server, asked: number): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : asked;
}

function refusal(ip: string, port: number, cause: unknown): TartanError {
  return new TartanError(
    errnoOf(cause) === 'EACCES' ? 'PERMISSION' : 'CONFIG_INVALID',
    `the health listener cannot start on ${ip}:${port} (${messageOf(cause)}); ` +
      'expected a free port on an address of this host, see --healthz-ip and --healthz-port',
    { cause },
  );
}
