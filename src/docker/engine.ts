/**
 * The HTTP API of a Docker engine over its unix socket, unversioned paths. Everything is read, nothing is changed but
 * by `createEngineNetwork`. No engine, no right to ask and no answer in time are readings, not errors.
 */
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import { askSocket } from '../lib/socket-http.js';
import { bridgeAddress, formatIpv4, formatPrefix, type Prefix } from '../model/ipv4.js';
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
    const version = await ask(socketPath, '/version');
    const [info, networks, containers] = await Promise.all(
      ['/info', '/networks', '/containers/json'].map(path => ask(socketPath, path)),
    );
    return { kind: 'answers', state: parseEngineState({ version, info, networks, containers }) };
  } catch (error) {
    return unreadable(socketPath, error);
  }
}

/** @throws TartanError HOST_REFUSED with the engine's own words */
export async function createEngineNetwork(socketPath: string, wanted: NetworkRequest): Promise<void> {
  const { name, subnet, options, labels } = wanted;
  const gateway = formatIpv4(bridgeAddress(subnet));
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
    await ask(socketPath, '/networks/create', body);
  } catch (cause) {
    throw new TartanError('HOST_REFUSED', `Docker did not make network ${name}: ${messageOf(cause)}`, { cause });
  }
}

/** @param body what is posted; without one it is a question */
async function ask(socketPath: string, path: string, body?: object): Promise<unknown> {
  const { status, text } = await askSocket({ socketPath, path, body, timeoutMs, maxBytes });
  if (status >= 200 && status < 300) return text === '' ? {} : JSON.parse(text);
  throw new Error(engineMessage(text) ?? `the answer was HTTP ${status}`);
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
