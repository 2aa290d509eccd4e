/**
 * What the operator's tool needs from the world, so that its commands run on fakes in tests. `tartan.ts` wires the
 * real ones. A port reports failure by a TartanError; its code decides the exit status.
 */
import type { Echo } from './echo.js';
import type { Status } from '../agent/status.js';
import type { EngineReading, NetworkRequest } from '../docker/engine.js';
import type { DockerFacts } from '../docker/verify/facts.js';
import type { Tombstone } from '../model/allocation.js';
import type { Prefix } from '../model/ipv4.js';
import type { RejectedEntry } from '../model/lease.js';
import type { TimedLease } from '../store/operator.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import type { ReleasedSubnet } from '../store/release.js';
import type { ReserveRequest, ReserveResult } from '../store/reservation.js';
import type { ReleaseResult } from '../store/reservation.js';

export interface LeaseListing {
  readonly leases: readonly TimedLease[];
  readonly kept: readonly Tombstone[];
  readonly rejected: readonly RejectedEntry[];
}

/** An open connection to the cluster's etcd. Failures are STORE_UNAVAILABLE or PERMISSION. */
export interface ToolStore {
  listLeases(): Promise<LeaseListing>;
  /** undefined when the key does not exist */
  getNetworkText(): Promise<string | undefined>;
  putNetworkText(text: string): Promise<void>;
  reserve(request: ReserveRequest): Promise<ReserveResult>;
  release(subnet: Prefix, force: boolean): Promise<ReleaseResult>;
  /** Everything a node has. */
  releaseNode(nodeId: string): Promise<readonly ReleasedSubnet[]>;
  close(): Promise<void>;
}

export type StatusReading =
  { readonly kind: 'status'; readonly status: Status } | { readonly kind: 'unreachable'; readonly reason: string };

export interface CleanupRequest {
  readonly runDir: string;
  readonly stateDir: string;
}

/** Where to look for Docker and for what it was told. */
export interface FactsRequest {
  readonly socketPath: string;
  /** undefined: where dockerd reads it. */
  readonly daemonJson: string | undefined;
  readonly envFile: string;
  /** The interface that carries the tunnel. */
  readonly underlay: string | undefined;
}

/** The engine of this host, and what its networks depend on. */
export interface DockerPorts {
  /** Never fails: what cannot be had says why. */
  readFacts(place: FactsRequest): Promise<DockerFacts>;
  readEngine(socketPath: string): Promise<EngineReading>;
  /** @throws TartanError HOST_REFUSED with the engine's own words */
  createNetwork(socketPath: string, wanted: NetworkRequest): Promise<void>;
}

export interface CleanupResult {
  /** A line each. */
  readonly removed: readonly string[];
  /** What others changed and therefore stays, a line each. */
  readonly left: readonly string[];
}

export interface ToolPorts {
  openStore(options: EtcdOptions): Promise<ToolStore>;
  /** Asks the daemon whose run directory this is. */
  readStatus(runDir: string): Promise<StatusReading>;
  /** Removes everything of ours from the host. */
  cleanup(request: CleanupRequest): Promise<CleanupResult>;
  /**
   * Stops the data plane of this host, and keeps a daemon from starting until the work is done.
   * @throws TartanError DUPLICATE_NODE while a daemon runs, PERMISSION, DATAPATH_FAILED
   */
  withoutForwarding<T>(runDir: string, work: () => Promise<T>): Promise<T>;
  /** @throws TartanError PERMISSION */
  openEcho(): Promise<Echo>;
  readonly docker: DockerPorts;
}

export interface ToolIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** The whole of standard input. */
  readonly stdin: () => Promise<string>;
  /** Standard output is a terminal. */
  readonly isTty: boolean;
  readonly ports: ToolPorts;
}
