/** One question of HTTP over a unix socket: no connection is kept, and neither time nor memory is without an end. */
import { request } from 'node:http';

export interface SocketQuestion {
  readonly socketPath: string;
  readonly path: string;
  /** GET without one, POST with one. */
  readonly body?: object | undefined;
  readonly timeoutMs: number;
  /** Of the answer. */
  readonly maxBytes: number;
}

export interface SocketAnswer {
  readonly status: number;
  readonly text: string;
}

/** @throws Error in Node's shape, AbortError or TimeoutError when nothing came in time */
export function askSocket({ socketPath, path, body, timeoutMs, maxBytes }: SocketQuestion): Promise<SocketAnswer> {
  return new Promise((resolve, reject) => {
    const headers = { Host: 'localhost', ...(body && { 'Content-Type': 'application/json' }) };
    const method = body ? 'POST' : 'GET';
    const options = { socketPath, path, method, headers, agent: false, signal: AbortSignal.timeout(timeoutMs) };
    const asked = request(options, response => {
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
    asked.on('error', reject);
    asked.end(body && JSON.stringify(body));
  });
}
