/**
 * The HTTP API of a Docker engine over its unix socket, unversioned paths. Everything is read, nothing is changed but
 * by `createEngineNetwork`. No engine, no right to ask and no answer in time are readings, not errors.
 */
import { request } from 'node:http';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import { formatIpv4, formatPrefix, ipv4FromNumber, type Prefix } from '../model/ipv4.js';
import { parseEngineState, type EngineState } from './engine-state.js';

export type EngineReading =
  | { readonly kind: 'answers'; readonly state: EngineState }
  /** `silent`: nobody listens; `denied`: not for this user; `odd`: something else than an answer of Docker came. */
  | { readonly kind: 'silent' | 'denied' | 'odd'; readonly reason: string };

export interface NetworkRequest {
  readonly name: string;
  readonly subnet: Prefix;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

const timeoutMs = 10_000;
/** Ten thousand containers are some 30 MB. */
const maxBytes = 128 * 1024 * 1024;

export async function readEngine(socketPath: string): Promise<EngineReading> {
  try {
    // One after another: an engine that is not there is asked once.
    const version = await ask(socketPath, 'GET', '/version');
    const [info, networks, containers] = await Promise.all(
      ['/info', '/networks', '/containers/json'].map(path => ask(socketPath, 'GET', path)),
    );
    return { kind: 'answers', state: parseEngineState({ version, info, networks, containers }) };
  } catch (error) {
    return unreadable(socketPath, error);
  }
}

/** @throws TartanError HOST_REFUSED with the engine's own words */
export async function createEngineNetwork(socketPath: string, wanted: NetworkRequest): Promise<void> {
  const { name, subnet, options, labels } = wanted;
  const gateway = formatIpv4(ipv4FromNumber(subnet.base + 1));
  const body = {
    Name: name,
    // Before API 1.44 two networks could have one name.
    CheckDuplicate: true,
    Driver: 'bridge',
    IPAM: { Driver: 'default', Config: [{ Subnet: formatPrefix(subnet), Gateway: gateway }] },
    Options: options,
    Labels: labels,
  };
  try {
    await ask(socketPath, 'POST', '/networks/create', body);
  } catch (cause) {
    throw new TartanError('HOST_REFUSED', `Docker did not make network ${name}: ${messageOf(cause)}`, { cause });
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function ask(socketPath: string, method: 'GET' | 'POST', path: string, body?: object): Promise<unknown> {
  const { status, text } = await exchange(socketPath, method, path, body);
  if (status >= 200 && status < 300) return text === '' ? {} : JSON.parse(text);
  throw new Error(engineMessage(text) ?? `the answer was HTTP ${status}`);
}

function exchange(socketPath: string, method: string, path: string, body: object | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { Host: 'docker', ...(body && { 'Content-Type': 'application/json' }) };
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

/** `{"message":"..."}` is how an engine refuses. */
function engineMessage(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || !('message' in value)) return undefined;
    return typeof value.message === 'string' ? value.message.trim().slice(0, 500) : undefined;
  } catch {
    return undefined;
  }
}

function unreadable(path: string, error: unknown): EngineReading {
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError'))
    return { kind: 'odd', reason: `nothing answered on ${path} within ${timeoutMs / 1000} s` };
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return { kind: 'silent', reason: `there is no socket ${path}` };
    case 'ECONNREFUSED':
      return { kind: 'silent', reason: `nobody listens on ${path}` };
    case 'EACCES':
    case 'EPERM':
      return { kind: 'denied', reason: `${path} is for root and members of its group` };
    default:
      return { kind: 'odd', reason: `what answers on ${path} is no Docker engine (${firstLine(messageOf(error))})` };
  }
}

function firstLine(text: string): string {
  return text.split('\n').slice(0, 3).join(' ').slice(0, 200);
}
