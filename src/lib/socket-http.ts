/** One HTTP request over a unix socket or to an URL, bounded in time and memory. The connection is not kept. */
import type { ClientRequest } from 'node:http';
import { nodeHttp, nodeHttps } from './node-http.js';

export interface SocketRequest {
  readonly socketPath: string;
  readonly path: string;
  /** The method is POST with a body and GET without. */
  readonly body?: object | undefined;
  readonly timeoutMs: number;
  /** The limit for the body of the response. */
  readonly maxBytes: number;
}

export interface SocketResponse {
  readonly status: number;
  readonly text: string;
}

/** @throws Error in Node's shape; AbortError or TimeoutError when no response arrived in time */
export function askSocket({ socketPath, path, body, timeoutMs, maxBytes }: SocketRequest): Promise<SocketResponse> {
  const headers = { Host: 'localhost', ...(body && { 'Content-Type': 'application/json' }) };
  const method = body ? 'POST' : 'GET';
  const options = { socketPath, path, method, headers, agent: false, signal: AbortSignal.timeout(timeoutMs) };
  return receive(nodeHttp().request(options), maxBytes, body && JSON.stringify(body));
}

export interface UrlRequest extends Pick<SocketRequest, 'timeoutMs' | 'maxBytes'> {
  /** http or https. */
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** The authority that the server is verified with (PEM); undefined: the system's. */
  readonly ca: string | undefined;
}

/** Sends GET. @throws as askSocket */
export function askUrl({ url, headers, ca, timeoutMs, maxBytes }: UrlRequest): Promise<SocketResponse> {
  const options = { headers, agent: false, signal: AbortSignal.timeout(timeoutMs) };
  const sent =
    url.protocol === 'https:'
      ? nodeHttps().request(url, { ...options, ...(ca && { ca }) })
      : nodeHttp().request(url, options);
  return receive(sent, maxBytes);
}

function receive(sent: ClientRequest, maxBytes: number, body?: string): Promise<SocketResponse> {
  return new Promise((resolve, reject) => {
    sent.on('response', response => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        parts.push(part);
        bytes += part.length;
        if (bytes > maxBytes) response.destroy(new Error(`the answer is longer than ${maxBytes} bytes`));
      });
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
