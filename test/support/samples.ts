/** Values and readings that several unit tests start from. */
import type { PeerWatched, Status } from '../../src/agent/status.js';
import type { Environment } from '../../src/cli/flag-syntax.js';
import type { ToolPorts } from '../../src/tool/ports.js';
import { parseDaemonOptions, type DaemonOptions } from '../../src/daemon/options.js';
import type { PeerMeasurement } from '../../src/datapath/datapath.js';
import { TartanError } from '../../src/lib/errors.js';

/** Of a peer of which nothing is known. */
export const blankMeasurement: Omit<PeerMeasurement, 'identity'> = {
  heardMs: undefined,
  sentMs: undefined,
  sent: { packets: 0, bytes: 0 },
  received: { packets: 0, bytes: 0 },
  asked: 0,
  answered: 0,
  askedMs: undefined,
  answeredMs: undefined,
  roundTripUs: undefined,
  loss: undefined,
  pathMtuOut: undefined,
  pathMtuIn: undefined,
  addressSeen: undefined,
  engine: 'user',
};

export const sampleStatus: Status = {
  apiVersion: 'tartan/v1',
  kind: 'Status',
  version: '0.1.0',
  phase: 'ready',
  ready: true,
  problems: [],
  placedProblems: [],
  node: { id: 'node-a', bootId: 'boot-1', publicIp: '192.0.2.1' },
  lease: { subnet: '10.5.1.0/24', state: 'held', deadlineSeconds: 86_390 },
  network: '10.5.0.0/16',
  backend: { type: 'udp', port: 8285 },
  interface: { name: 'eth0', address: '192.0.2.1', mtu: 1500 },
  docker: {
    bip: '10.5.1.1/24',
    pools: [],
    mtu: 1472,
    masquerade: true,
    forward: true,
    config: 'env',
    envFile: '/run/tartan/docker.env',
    daemonJsonFile: '/etc/docker/daemon.json',
    conflicts: [],
  },
  peers: [
    {
      subnet: '10.5.2.0/24',
      publicIp: '192.0.2.2',
      nodeId: 'node-b',
      state: 'live',
      secondsLeft: null,
      hostName: null,
      backend: 'udp',
      watched: null,
    },
  ],
  rejected: [],
  datapath: null,
  summary: null,
  store: null,
  passes: null,
  daemon: null,
};

/** A peer of which nothing is known yet. */
export const unmeasured: PeerWatched = {
  state: 'unknown',
  stateSeconds: null,
  reason: null,
  nextStep: null,
  heardSeconds: null,
  roundTripMs: null,
  loss: null,
  pathMtu: { out: null, in: null },
  addressSeen: null,
  engine: 'user',
  engineReason: null,
  sent: { packets: 0, bytes: 0 },
  received: { packets: 0, bytes: 0 },
  sentBitsPerSecond: null,
  receivedBitsPerSecond: null,
};

export function parseRun(words: readonly string[], env: Environment = {}): DaemonOptions {
  const invocation = parseDaemonOptions(words, env);
  if (invocation.kind !== 'run') throw new Error(`expected options, got ${invocation.kind}`);
  return invocation.options;
}

/** The error of a refusal as `CODE message`. */
export function refusalOf(words: readonly string[], env: Environment = {}): string {
  try {
    parseDaemonOptions(words, env);
  } catch (error) {
    if (error instanceof TartanError) return `${error.code} ${error.message}`;
    throw error;
  }
  return 'accepted';
}

export const unexpected = async (): Promise<never> => {
  throw new Error('this command has no business there');
};

/** The part of a tool's store that changes leases, for commands that do not. */
export const noChanges = {
  reserve: unexpected,
  release: unexpected,
  releaseNode: unexpected,
  withdrawFeatures: unexpected,
} as const;

/** A host that says nothing of its settings. */
export const noSettings = { readSettings: async () => undefined, readEnvironmentFile: () => undefined };

/** For command lines that must not reach anything. */
export const noPorts: ToolPorts = {
  openStore: unexpected,
  readStatus: unexpected,
  ...noSettings,
  readEvents: unexpected,
  cleanup: unexpected,
  withoutForwarding: unexpected,
  withoutDaemon: unexpected,
  openEcho: unexpected,
  readWay: unexpected,
  terminal: {
    size: () => ({ rows: 24, columns: 80 }),
    onInterrupt: () => ({ signal: new AbortController().signal, release: () => {} }),
  },
  evidence: { readFile: () => ({ known: true, value: undefined }), run: unexpected, writeNew: () => {} },
  doctor: { readFacts: unexpected, fix: async () => [] },
  docker: { readFacts: unexpected, readEngine: unexpected, createNetwork: unexpected },
};
