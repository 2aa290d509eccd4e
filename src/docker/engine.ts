/**
 * Speaks the HTTP API of a Docker engine over its unix socket, by unversioned paths, and parses its answers. Only
 * `createEngineNetwork` changes something. A missing engine, a missing permission and a late answer are readings and
 * not errors. Members that this program does not read may be anything; a network without an IPv4 subnet has no subnets.
 */
import * as z from 'zod';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import { askSocket } from '../lib/socket-http.js';
import { bridgeAddress, formatIpv4, formatPrefix, parsePrefix, readIpv4, type Ipv4, type Prefix } from '../model/ip.js';
import type { AddressPool } from '../model/lease-parts.js';

export type EngineReading =
  | { readonly kind: 'answers'; readonly state: EngineState }
  /** `silent`: nobody listens; `denied`: this user may not ask; `odd`: the answer is not one of Docker. */
  | { readonly kind: 'silent' | 'denied' | 'odd'; readonly reason: string };

export interface NetworkRequest {
  readonly name: string;
  readonly subnet: Prefix;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

const timeoutMs = 10_000;
/** The engine answers with some 30 MB for ten thousand containers. */
const maxBytes = 128 * 1024 * 1024;

export async function readEngine(socketPath: string, limitMs = timeoutMs): Promise<EngineReading> {
  try {
    // The version is asked first: an engine that is not there is asked once.
    const version = await ask(socketPath, '/version', { limitMs });
    const [info, networks, containers] = await Promise.all(
      ['/info', '/networks', '/containers/json'].map(path => ask(socketPath, path, { limitMs })),
    );
    return { kind: 'answers', state: parseEngineState({ version, info, networks, containers }) };
  } catch (error) {
    return readingOf(socketPath, error, limitMs);
  }
}

/** @throws TartanError HOST_REFUSED with the engine's message */
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
    await ask(socketPath, '/networks/create', { body });
  } catch (cause) {
    throw new TartanError('HOST_REFUSED', `Docker did not make network ${name}: ${messageOf(cause)}`, { cause });
  }
}

/** @param o.body what is posted; a request without one is a GET */
async function ask(
  socketPath: string,
  path: string,
  o: { readonly body?: object; readonly limitMs?: number } = {},
): Promise<unknown> {
  const request = { socketPath, path, body: o.body, timeoutMs: o.limitMs ?? timeoutMs, maxBytes };
  const { status, text } = await askSocket(request);
  if (status >= 200 && status < 300) return text === '' ? {} : JSON.parse(text);
  throw new Error(engineMessage(text) ?? `the answer was HTTP ${status}`);
}

/** Reads the message of a refusal, `{"message":"..."}`. */
function engineMessage(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || !('message' in value)) return undefined;
    return typeof value.message === 'string' ? value.message.trim().slice(0, 500) : undefined;
  } catch {
    return undefined;
  }
}

function readingOf(path: string, error: unknown, limitMs: number): EngineReading {
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError'))
    return { kind: 'odd', reason: `nothing answered on ${path} within ${limitMs / 1000} s` };
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

export interface DockerNetwork {
  readonly name: string;
  readonly driver: string;
  readonly subnets: readonly Prefix[];
  readonly options: Readonly<Record<string, string>>;
}

/** A container that runs. */
export interface DockerContainer {
  readonly name: string;
  readonly addresses: readonly { readonly network: string; readonly address: Ipv4 }[];
}

export interface EngineState {
  readonly version: string;
  readonly liveRestore: boolean;
  /** Docker filters by tables of nftables. */
  readonly nftables: boolean;
  /** The default address pools; none where Docker has its own. */
  readonly pools: readonly AddressPool[];
  readonly networks: readonly DockerNetwork[];
  readonly containers: readonly DockerContainer[];
}

/** The answers of /version, /info, /networks and /containers/json. */
export interface EngineAnswers {
  readonly version: unknown;
  readonly info: unknown;
  readonly networks: unknown;
  readonly containers: unknown;
}

const stringMap = z.record(z.string(), z.string()).nullish();
const versionSchema = z.object({ Version: z.string() });
const infoSchema = z.object({
  LiveRestoreEnabled: z.boolean().nullish(),
  DefaultAddressPools: z.array(z.object({ Base: z.string(), Size: z.number() })).nullish(),
  FirewallBackend: z.object({ Driver: z.string().nullish() }).nullish(),
});
const networksSchema = z.array(
  z.object({
    Name: z.string(),
    Driver: z.string(),
    IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().nullish() })).nullish() }).nullish(),
    Options: stringMap,
  }),
);
const containersSchema = z.array(
  z.object({
    Id: z.string(),
    Names: z.array(z.string()).nullish(),
    NetworkSettings: z
      .object({ Networks: z.record(z.string(), z.object({ IPAddress: z.string().nullish() }).nullish()).nullish() })
      .nullish(),
  }),
);

/** @throws ZodError when the answers are not those of a Docker engine */
export function parseEngineState(answers: EngineAnswers): EngineState {
  const { LiveRestoreEnabled, FirewallBackend, DefaultAddressPools } = infoSchema.parse(answers.info);
  return {
    version: versionSchema.parse(answers.version).Version,
    liveRestore: LiveRestoreEnabled === true,
    nftables: (FirewallBackend?.Driver ?? '').startsWith('nftables'),
    pools: (DefaultAddressPools ?? []).flatMap(({ Base, Size }) => {
      const base = readSubnet(Base);
      return base ? [{ base, size: Size }] : [];
    }),
    networks: networksSchema.parse(answers.networks).map(networkOf),
    containers: containersSchema.parse(answers.containers).map(containerOf),
  };
}

function networkOf(one: z.infer<typeof networksSchema>[number]): DockerNetwork {
  const subnets = (one.IPAM?.Config ?? []).flatMap(({ Subnet }) => readSubnet(Subnet ?? '') ?? []);
  return {
    name: one.Name,
    driver: one.Driver,
    subnets,
    options: one.Options ?? {},
  };
}

function containerOf(one: z.infer<typeof containersSchema>[number]): DockerContainer {
  const addresses = Object.entries(one.NetworkSettings?.Networks ?? {}).flatMap(([network, end]) => {
    const address = readIpv4(end?.IPAddress ?? '');
    return address === undefined ? [] : [{ network, address }];
  });
  return { name: one.Names?.[0]?.replace(/^\//, '') ?? one.Id.slice(0, 12), addresses };
}

function readSubnet(text: string): Prefix | undefined {
  try {
    return parsePrefix(text);
  } catch {
    return undefined;
  }
}

/** Returns `[28, 2]` for `28.2.2+dfsg1`, undefined for a version that is not of this form. */
export function engineRelease(version: string): readonly [major: number, minor: number] | undefined {
  const match = /^(\d{1,4})\.(\d{1,4})(?:\D|$)/.exec(version);
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

/** Returns the major release of the engine; that of one which can all where it cannot be told. */
export function engineMajor(engine: EngineReading): number {
  return engine.kind === 'answers' ? (engineRelease(engine.state.version)?.[0] ?? Infinity) : Infinity;
}

/** @param version as the engine reports it */
export function isAtLeast(version: string, major: number, minor = 0): boolean {
  const [actualMajor, actualMinor] = engineRelease(version) ?? [0, 0];
  return actualMajor > major || (actualMajor === major && actualMinor >= minor);
}
