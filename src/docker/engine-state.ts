/**
 * What a Docker engine says of itself, parsed from the answers of its API. Members that this program does not read may
 * be anything; a network without an IPv4 subnet is a network without subnets here.
 */
import { z } from 'zod';
import { parsePrefix, readIpv4, type Ipv4, type Prefix } from '../model/ipv4.js';

export interface DockerNetwork {
  readonly name: string;
  readonly driver: string;
  readonly subnets: readonly Prefix[];
  readonly options: Readonly<Record<string, string>>;
}

/** One that runs. */
export interface DockerContainer {
  readonly name: string;
  readonly addresses: readonly { readonly network: string; readonly address: Ipv4 }[];
}

export interface EngineState {
  readonly version: string;
  readonly liveRestore: boolean;
  /** Docker's filter rules are in tables of nftables. */
  readonly nftables: boolean;
  readonly networks: readonly DockerNetwork[];
  readonly containers: readonly DockerContainer[];
}

/** Answers of /version, /info, /networks and /containers/json. */
export interface EngineAnswers {
  readonly version: unknown;
  readonly info: unknown;
  readonly networks: unknown;
  readonly containers: unknown;
}

const texts = z.record(z.string(), z.string()).nullish();
const versionSchema = z.object({ Version: z.string() });
const infoSchema = z.object({
  LiveRestoreEnabled: z.boolean().nullish(),
  FirewallBackend: z.object({ Driver: z.string().nullish() }).nullish(),
});
const networksSchema = z.array(
  z.object({
    Name: z.string(),
    Driver: z.string(),
    IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().nullish() })).nullish() }).nullish(),
    Options: texts,
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

/** @throws ZodError when what answers is no Docker engine */
export function parseEngineState(answers: EngineAnswers): EngineState {
  const { LiveRestoreEnabled, FirewallBackend } = infoSchema.parse(answers.info);
  return {
    version: versionSchema.parse(answers.version).Version,
    liveRestore: LiveRestoreEnabled === true,
    nftables: (FirewallBackend?.Driver ?? '').startsWith('nftables'),
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

/** `[28, 2]` of `28.2.2+dfsg1`; undefined for a version that is not of this form. */
export function engineRelease(version: string): readonly [major: number, minor: number] | undefined {
  const match = /^(\d{1,4})\.(\d{1,4})(?:\D|$)/.exec(version);
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

/** @param version as the engine says it */
export function isAtLeast(version: string, major: number, minor = 0): boolean {
  const [ours, minorOurs] = engineRelease(version) ?? [0, 0];
  return ours > major || (ours === major && minorOurs >= minor);
}
