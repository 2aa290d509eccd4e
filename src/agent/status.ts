/**
 * The document with which the daemon describes itself: `tartan status -o json`, readiness and health show it. The
 * schema parses what the tool receives, also from an older daemon, and its output type is what the daemon must produce.
 */
import { z } from 'zod';

export const apiVersion = 'tartan/v1';

/** What Docker should have, and what tartand does itself. */
const docker = z.object({
  /** Address and length of the bridge: `10.5.1.1/24`. */
  bip: z.string(),
  mtu: z.number(),
  masquerade: z.boolean(),
  forward: z.boolean(),
  config: z.enum(['env', 'daemon-json']),
  envFile: z.string(),
  daemonJsonFile: z.string(),
});

const peer = z.object({
  subnet: z.string(),
  publicIp: z.string(),
  nodeId: z.string().nullable(),
  /**
   * `forgotten`: the store went back to a time without the key, and the peer is kept until its own lease would end;
   * `held-down`: the key vanished from etcd without a release, and the peer is routed a while longer; `remembered`: etcd
   * has not confirmed the peer yet. An older daemon leaves this member and the next one out.
   */
  state: z.enum(['live', 'held-down', 'forgotten', 'remembered']).default('live'),
  /** How long a peer that is held down stays routed. */
  secondsLeft: z.number().nullable().default(null),
});

const datapath = z.object({
  engine: z.string(),
  pid: z.number().nullable(),
  threads: z.number(),
  generationPublished: z.number(),
  generationAdopted: z.number(),
  respawns: z.number(),
  /** An older daemon leaves this member out. */
  features: z.array(z.string()).readonly().default([]),
  warnings: z.array(z.string()).readonly(),
  counters: z.record(z.string(), z.number()).readonly(),
});

export const statusSchema = z
  .object({
    apiVersion: z.literal(apiVersion),
    kind: z.literal('Status'),
    version: z.string(),
    /** How far the daemon is; `ready` once Docker may start. */
    phase: z.enum(['starting', 'waiting-for-network', 'waiting-for-lease', 'configuring', 'ready', 'lost', 'stopping']),
    ready: z.boolean(),
    /** What the daemon waits for or suffers from, one line each; empty when all is well. */
    problems: z.array(z.string()).readonly(),
    /** Whether all is well, and why not. An older daemon leaves this member out. */
    health: z
      .object({ state: z.enum(['ok', 'impaired']), reasons: z.array(z.string()).readonly() })
      .readonly()
      .optional(),
    node: z.object({ id: z.string(), bootId: z.string(), publicIp: z.string().nullable() }).readonly(),
    /** Seconds until etcd drops the lease if it gets no KeepAlive; a reservation has no deadline. */
    lease: z
      .object({
        subnet: z.string(),
        state: z.enum(['held', 'unknown', 'gone', 'lost']),
        deadlineSeconds: z.number().nullable(),
      })
      .readonly()
      .nullable(),
    network: z.string().nullable(),
    backend: z.object({ type: z.string(), port: z.number().nullable() }).readonly().nullable(),
    interface: z.object({ name: z.string(), address: z.string(), mtu: z.number() }).readonly().nullable(),
    /** The settings for Docker; null before there is a lease. An older daemon leaves this member out. */
    docker: docker.readonly().nullable().default(null),
    peers: z.array(peer.readonly()).readonly(),
    /** Lease entries that were refused, each with its reason. */
    rejected: z.array(z.object({ key: z.string(), reason: z.string() }).readonly()).readonly(),
    datapath: datapath.readonly().nullable(),
  })
  .readonly();

export type Status = z.infer<typeof statusSchema>;
export type Phase = Status['phase'];
export type StatusDocker = NonNullable<Status['docker']>;
export type StatusPeer = Status['peers'][number];
export type StatusDatapath = NonNullable<Status['datapath']>;
