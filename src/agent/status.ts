/**
 * The document with which the daemon describes itself: `tartan status -o json`, readiness and health show it. The
 * schema parses what the tool receives, also from an older daemon, and its output type is what the daemon must produce.
 */
import * as z from 'zod';

export const apiVersion = 'tartan/v1';

/** What Docker should have, and what tartand does itself. */
const docker = z.object({
  /** Address and length of the bridge: `10.5.1.1/24`. */
  bip: z.string(),
  /** Of which Docker cuts networks of this length. An older daemon leaves this member out. */
  pools: z
    .array(z.object({ base: z.string(), size: z.number() }).readonly())
    .readonly()
    .default([]),
  mtu: z.number(),
  masquerade: z.boolean(),
  forward: z.boolean(),
  config: z.enum(['env', 'daemon-json']),
  envFile: z.string(),
  daemonJsonFile: z.string(),
  /** Why Docker cannot use its settings. An older daemon leaves this member out. */
  conflicts: z.array(z.string()).readonly().default([]),
});

const traffic = z.object({ packets: z.number(), bytes: z.number() });

/** What was measured of a peer; what is not known is null. */
const watched = z.object({
  /**
   * `up`: it was heard or has answered lately; `silent`: it should have been heard; `unknown`: not heard or asked yet;
   * `unwatched`: a host that answers no question (flannel, an older tartan) and sends nothing.
   */
  state: z.enum(['up', 'silent', 'unknown', 'unwatched']),
  /** How long it has been in this state. */
  stateSeconds: z.number().nullable(),
  /** For a silent peer: the cause that fits the evidence, and what to do next. */
  reason: z.string().nullable(),
  nextStep: z.string().nullable(),
  /** Since a packet of it arrived. */
  heardSeconds: z.number().nullable(),
  /** Of the last questions; p99 from 100 answers on. */
  roundTripMs: z.object({ p50: z.number(), p99: z.number().nullable() }).readonly().nullable(),
  /** Part of the last questions that had no answer, 0 to 1. */
  loss: z.number().nullable(),
  /** Bytes of the longest inner packet that is known to pass, each way. */
  pathMtu: z.object({ out: z.number().nullable(), in: z.number().nullable() }).readonly(),
  /** Where its packets come from, when that is not the endpoint of its lease. */
  addressSeen: z.string().nullable(),
  /** Inner packets since the peer became one. */
  sent: traffic.readonly(),
  received: traffic.readonly(),
  /** Over the last seconds. */
  sentBitsPerSecond: z.number().nullable(),
  receivedBitsPerSecond: z.number().nullable(),
  /** By which engine packets go to it. An older daemon leaves this member and the next one out. */
  engine: z.enum(['user', 'kernel']).default('user'),
  /** Why not by the kernel; null where this host does not ask for that, or cannot. */
  engineReason: z.string().nullable().default(null),
});

/** The engine kernel beside the data process. */
const kernelEngine = z.object({
  /** What flag and network document ask for. */
  wanted: z.enum(['user', 'kernel', 'auto']),
  /** `on` also while it only receives. */
  state: z.enum(['off', 'on', 'unavailable']),
  /** Why it is off or not available. */
  reason: z.string().nullable(),
  /** Peers whose packets go by it. */
  peers: z.number(),
});

const store = z.object({
  /** Since etcd answered last. */
  answeredSeconds: z.number().nullable(),
  /** How long the watch of the leases has been alive. */
  watchSeconds: z.number().nullable(),
  /** Why etcd refuses this host, or its role a key; null when it does not. */
  refused: z.string().nullable(),
  endpoints: z
    .array(
      z
        .object({
          url: z.string(),
          state: z.enum(['answers', 'silent', 'refused', 'unknown']),
          /** What it said instead of an answer. */
          reason: z.string().nullable(),
        })
        .readonly(),
    )
    .readonly(),
});

/** Runs of the reconciler over the host since the start of the daemon. */
const passes = z.object({
  total: z.number(),
  failed: z.number(),
  /** Passes that found the host other than planned, and changed it. */
  changed: z.number(),
  /** What all of them took, and the last one. */
  totalMs: z.number(),
  lastMs: z.number().nullable(),
});

/** What a problem is about: who looks for its cause begins there. */
const problemPlaces = ['network', 'underlay', 'store', 'lease', 'data-plane', 'peers', 'host', 'docker'] as const;

const daemon = z.object({
  pid: z.number(),
  /** By how much the clock of the host was set since the daemon began; a clock that is slewed is not set. */
  clockSetSeconds: z.number(),
  stateDir: z.string(),
  subnetFile: z.string(),
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
  /** What its lease says; an older daemon leaves this member and the next ones out. */
  hostName: z.string().nullable().default(null),
  backend: z.string().nullable().default(null),
  watched: watched.readonly().nullable().default(null),
});

const datapath = z.object({
  engine: z.string(),
  pid: z.number().nullable(),
  threads: z.number(),
  generationPublished: z.number(),
  generationAdopted: z.number(),
  respawns: z.number(),
  /** Data processes that took the place of a running one. An older daemon leaves this member out. */
  handovers: z.number().optional(),
  /** An older daemon leaves this member out. */
  features: z.array(z.string()).readonly().default([]),
  warnings: z.array(z.string()).readonly(),
  /** The kind of each warning, in the same order. An older daemon leaves this member out. */
  warningKinds: z
    .array(z.enum(['kernel', 'account', 'room', 'spoofed', 'build', 'stranger']))
    .readonly()
    .optional(),
  counters: z.record(z.string(), z.number()).readonly(),
  /** An older daemon leaves this member out. */
  kernel: kernelEngine.readonly().nullable().default(null),
});

export const statusSchema = z
  .object({
    apiVersion: z.literal(apiVersion),
    kind: z.literal('Status'),
    version: z.string(),
    /** The truth in one line: `ready, 2 of 3 peers answer, etcd answered 4 s ago`. An older daemon leaves it out. */
    summary: z.string().nullable().default(null),
    /** How far the daemon is; `ready` once Docker may start. */
    phase: z.enum(['starting', 'waiting-for-network', 'waiting-for-lease', 'configuring', 'ready', 'lost', 'stopping']),
    ready: z.boolean(),
    /** What the daemon waits for or suffers from, one line each; empty when all is well. */
    problems: z.array(z.string()).readonly(),
    /** The same with the place of each. An older daemon leaves this member out. */
    placedProblems: z
      .array(z.object({ place: z.enum(problemPlaces), text: z.string() }).readonly())
      .readonly()
      .default([]),
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
        /** What the deadline is set to by each KeepAlive. An older daemon leaves this member and the next one out. */
        ttlSeconds: z.number().optional(),
        /** Renewals and repairs of the key that etcd did not do, since the start of the daemon. */
        renewFailures: z.number().optional(),
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
    /** An older daemon leaves these members out. */
    store: store.readonly().nullable().default(null),
    passes: passes.readonly().nullable().default(null),
    daemon: daemon.readonly().nullable().default(null),
  })
  .readonly();

export type Status = z.infer<typeof statusSchema>;
export type Phase = Status['phase'];
export type StatusDocker = NonNullable<Status['docker']>;
export type StatusPeer = Status['peers'][number];
export type PeerWatched = NonNullable<StatusPeer['watched']>;
export type StatusStore = NonNullable<Status['store']>;
export type KernelEngineStatus = NonNullable<NonNullable<Status['datapath']>['kernel']>;
export type StatusDatapath = NonNullable<Status['datapath']>;
export type PlacedProblem = Status['placedProblems'][number];
