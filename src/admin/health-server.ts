/**
 * Health over TCP for probes: `/healthz` is 200 while the daemon answers at all, `/readyz` is 200 while this host
 * carries traffic and 503 otherwise. The server discloses nothing else, but for `/metrics` where that was asked for. It
 * refuses requests for a foreign host name, which a browser sends under DNS rebinding.
 */
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import { refuseHost } from './access.js';
import {
  boundPort,
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
  /** The text of a scrape; absent: there is no `/metrics`. */
  readonly metrics?: () => Promise<string>;
  readonly log: Log;
}

export interface HealthServer extends Closable {
  /** The port that the server listens on. */
  readonly port: number;
}

/** @throws TartanError PERMISSION or CONFIG_INVALID when the address cannot be listened on */
export async function openHealthServer(options: HealthServerOptions): Promise<HealthServer> {
  const { ip, port, log } = options;
  const metrics = options.metrics && keepBriefly(options.metrics);
  const answer = (request: HttpRequest): HttpResponse | Promise<HttpResponse> =>
    healthResponse(request, options.forwarding, metrics);
  const server = createLimitedServer('the health listener', answer, log);
  await listen(server, { host: ip, port }).catch((cause: unknown) => {
    throw listenError(ip, port, cause);
  });
  server.on('error', error => log.error('admin.health-failed', `the health listener failed: ${messageOf(error)}`));
  return { port: boundPort(server, port), close: () => closeServer(server) };
}

/** The version of the text format of Prometheus. */
const metricsType = 'text/plain; version=0.0.4; charset=utf-8';

function healthResponse(
  request: HttpRequest,
  forwarding: () => boolean,
  metrics: HealthServerOptions['metrics'],
): HttpResponse | Promise<HttpResponse> {
  const refusal = refuseHost(request);
  if (refusal) return refusal;
  switch (request.path) {
    case '/healthz':
      return plainText(200, 'tartand is running');
    case '/readyz':
      return forwarding() ? plainText(200, 'tartand is ready') : plainText(503, 'tartand is not ready yet');
    case '/metrics':
      if (metrics) return metrics().then(body => ({ status: 200, type: metricsType, body }));
      return plainText(404, 'metrics are off, see --metrics');
    default:
      return plainText(404, `the paths here are /healthz${metrics ? ', /metrics' : ''} and /readyz`);
  }
}

/** So that clients, however many, take one percent of a processor at most, unless the making takes very long. */
const keep = { factor: 100, mostMs: 2_000 } as const;

function keepBriefly(make: () => Promise<string>): () => Promise<string> {
  let kept: Promise<string> | undefined;
  return () => {
    if (kept) return kept;
    const begunMs = performance.now();
    const forget = (): void => void (kept = undefined);
    kept = make();
    const keepOn = (): void =>
      void setTimeout(forget, Math.min(keep.mostMs, keep.factor * (performance.now() - begunMs))).unref();
    kept.then(keepOn, forget);
    return kept;
  };
}

function listenError(ip: string, port: number, cause: unknown): TartanError {
  return new TartanError(
    errnoOf(cause) === 'EACCES' ? 'PERMISSION' : 'CONFIG_INVALID',
    `the health listener cannot start on ${ip}:${port} (${messageOf(cause)}); ` +
      'expected a free port on an address of this host, see --healthz-ip and --healthz-port',
    { cause },
  );
}
