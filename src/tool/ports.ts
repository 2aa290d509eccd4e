/**
 * The ports through which the tool's commands reach the outside, so that they run on fakes in tests. `tartan.ts`
 * connects the real ones. A port reports failure by a TartanError; its code decides the exit status.
 */
import type { EventList } from '../admin/events.js';
import type { Echo } from './echo.js';
import type { Status } from '../agent/status.js';
import type { EngineReading, NetworkRequest } from '../docker/engine.js';
import type { DockerFacts } from '../docker/verify/facts.js';
import type { Fact } from '../lib/fact.js';
import type { Tombstone } from '../model/allocation.js';
import type { DoctorFacts } from '../doctor/facts.js';
import type { Prefix } from '../model/ip.js';
import type { RejectedEntry } from '../model/lease.js';
import type { TimedLease } from '../store/operator.js';
import type { SettingsPlaces } from './settings.js';
import type { WayFacts, WayRequest } from './trace-facts.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import type { ReleasedSubnet } from '../store/release.js';
import type { Withdrawal } from '../store/withdraw-features.js';
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
  /** Returns undefined when the key does not exist. */
  getNetworkText(): Promise<string | undefined>;
  putNetworkText(text: string): Promise<void>;
  reserve(request: ReserveRequest): Promise<ReserveResult>;
  release(subnet: Prefix, force: boolean): Promise<ReleaseResult>;
  /** Releases every subnet of a node. */
  releaseNode(nodeId: string): Promise<readonly ReleasedSubnet[]>;
  /** Withdraws the features of every lease of a node. */
  withdrawFeatures(nodeId: string): Promise<readonly Withdrawal[]>;
  close(): Promise<void>;
}

export type StatusReading =
  { readonly kind: 'status'; readonly status: Status } | { readonly kind: 'unreachable'; readonly reason: string };

export type EventsReading =
  | {
      readonly kind: 'events';
      readonly list: EventList;
      /** Why the daemon could not be asked: the events are those of the state directory. */
      readonly unasked: string | undefined;
    }
  | { readonly kind: 'unreachable'; readonly reason: string };

export interface CleanupRequest {
  readonly runDir: string;
  readonly stateDir: string;
  /** Only the rules that flannel left behind, and nothing of ours. */
  readonly flannel: boolean;
}

/** Names the places where the facts about Docker are read. */
export interface FactsRequest {
  readonly socketPath: string;
  /** undefined: the file that dockerd reads. */
  readonly daemonJson: string | undefined;
  readonly envFile: string;
  /** The interface that carries the tunnel. */
  readonly underlay: string | undefined;
  /** A program or an engine that takes longer leaves its fact unknown; each has a limit of its own if absent. */
  readonly limitMs?: number;
}

/** The engine of this host, and the facts that its networks depend on. */
export interface DockerPorts {
  /** Never fails: a fact that cannot be read says why. */
  readFacts(place: FactsRequest): Promise<DockerFacts>;
  readEngine(socketPath: string): Promise<EngineReading>;
  /** @throws TartanError HOST_REFUSED with the engine's message */
  createNetwork(socketPath: string, wanted: NetworkRequest): Promise<void>;
}

export interface CleanupResult {
  /** One line each. */
  readonly removed: readonly string[];
  /** What others changed and therefore stays, one line each. */
  readonly left: readonly string[];
}

/** Where `tartan doctor` looks, and what is known before. */
export interface DoctorRequest {
  readonly runDir: string;
  readonly stateDir: string;
  readonly subnetFile: string;
  /** Undefined while the daemon cannot be asked. */
  readonly status: Status | undefined;
  /** Certificates that this host shows to etcd, or trusts. */
  readonly certificates: readonly string[];
}

export interface DoctorPorts {
  /** Never fails and takes two seconds at most: a fact that cannot be had in time says why. */
  readFacts(request: DoctorRequest): Promise<Pick<DoctorFacts, 'own' | 'host' | 'underlay'>>;
  /** Puts right what is ours alone. @returns one line for each change, or failure */
  fix(facts: DoctorFacts): Promise<readonly string[]>;
}

/** What `tartan bugreport` reads and writes. */
export interface EvidencePort {
  readFile(path: string): Fact<string | undefined>;
  /** @returns what the program wrote @throws an Error with its last words, or ENOENT when there is no such program */
  run(program: string, args: readonly string[]): Promise<string>;
  /** Makes a file of mode 0600. @throws Error in Node's shape (EEXIST) */
  writeNew(path: string, bytes: Buffer): void;
}

/** What a command that goes on needs of the terminal that it runs on. */
export interface TerminalPort {
  size(): { readonly rows: number; readonly columns: number };
  /** From now on an interrupt (SIGINT, SIGTERM) aborts the signal instead of ending the program, until the release. */
  onInterrupt(): { readonly signal: AbortSignal; readonly release: () => void };
}

export interface ToolPorts extends SettingsPlaces {
  openStore(options: EtcdOptions): Promise<ToolStore>;
  /** Asks the daemon whose run directory this is. */
  readStatus(runDir: string): Promise<StatusReading>;
  /** Reads the events with a higher id. */
  readEvents(runDir: string, stateDir: string, afterId: number): Promise<EventsReading>;
  /** Removes everything of ours from the host. */
  cleanup(request: CleanupRequest): Promise<CleanupResult>;
  /**
   * Stops the data plane of this host, and keeps a daemon from starting until the work is done.
   * @throws TartanError DUPLICATE_NODE while a daemon runs, PERMISSION, DATAPATH_FAILED
   */
  withoutForwarding<T>(runDir: string, work: () => Promise<T>): Promise<T>;
  /**
   * Keeps a daemon of this host from starting until the work is done; the data plane goes on, by user space alone.
   * @throws TartanError DUPLICATE_NODE while a daemon runs, CONFIG_INVALID where the run directory cannot be locked
   */
  withoutDaemon<T>(runDir: string, work: () => Promise<T>): Promise<T>;
  /** @throws ToolError */
  openEcho(): Promise<Echo>;
  /** Reads what this host would do with one packet; a fact that cannot be read says why. */
  readWay(request: WayRequest): Promise<WayFacts>;
  readonly docker: DockerPorts;
  readonly terminal: TerminalPort;
  readonly doctor: DoctorPorts;
  readonly evidence: EvidencePort;
}

export interface ToolIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Reads the whole of standard input. */
  readonly stdin: () => Promise<string>;
  /** Standard output is a terminal. */
  readonly isTty: boolean;
  readonly ports: ToolPorts;
}
