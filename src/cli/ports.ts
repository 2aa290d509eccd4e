/**
 * What the operator's tool needs from the world, so that its commands run on fakes in tests. `tartan.ts` wires the
 * real ones. A port reports failure by a TartanError; its code decides the exit status.
 */
import type { Echo } from './echo.js';
import type { Status } from '../agent/status.js';
import type { RejectedEntry } from '../model/lease.js';
import type { TimedLease } from '../store/cluster.js';
import type { EtcdOptions } from '../store/etcd/options.js';

export interface LeaseListing {
  readonly leases: readonly TimedLease[];
  readonly rejected: readonly RejectedEntry[];
}

/** An open connection to the cluster's etcd. Failures are STORE_UNAVAILABLE or PERMISSION. */
export interface ToolStore {
  listLeases(): Promise<LeaseListing>;
  /** undefined when the key does not exist */
  getNetworkText(): Promise<string | undefined>;
  putNetworkText(text: string): Promise<void>;
  close(): Promise<void>;
}

export type StatusReading =
  { readonly kind: 'status'; readonly status: Status } | { readonly kind: 'unreachable'; readonly reason: string };

export interface CleanupRequest {
  readonly runDir: string;
  readonly stateDir: string;
}

export interface ToolPorts {
  openStore(options: EtcdOptions): Promise<ToolStore>;
  /** Asks the daemon whose run directory this is. */
  readStatus(runDir: string): Promise<StatusReading>;
  /** Removes everything of ours from the host. @returns what was removed, a line each */
  cleanup(request: CleanupRequest): Promise<readonly string[]>;
  /** @throws TartanError PERMISSION */
  openEcho(): Promise<Echo>;
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
