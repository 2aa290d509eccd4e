/** One HTTP request over a unix socket, bounded in time and memory. The connection is not kept. */
import { request } from 'node:http';

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
  return new Promise((resolve, reject) => {
    const headers = { Host: 'localhost', ...(body && { 'Content-Type': 'application/json' }) };
    const method = body ? 'POST' : 'GET';
    const options = { socketPath, path, method, headers, agent: false, signal: AbortSignal.timeout(timeoutMs) };
    const sent = request(options, response => {
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
    sent.end(body && JSON.stringify(body));
  });
}
