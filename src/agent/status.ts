/** What the daemon says of itself: the document behind `tartan status -o json`, readiness and health. */
import type { DockerShare } from '../docker/docker.js';
import type { LeaseStatus } from '../store/store.js';

export const apiVersion = 'tartan/v1';

/** Where a starting daemon is; `ready` once Docker may start. */
export type Phase =
  'starting' | 'waiting-for-network' | 'waiting-for-lease' | 'configuring' | 'ready' | 'lost' | 'stopping';

export interface Status {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'Status';
  readonly version: string;
  readonly phase: Phase;
  readonly ready: boolean;
  /** What it waits for or suffers from, one line each; empty when all is well. */
  readonly problems: readonly string[];
  readonly node: { readonly id: string; readonly bootId: string; readonly publicIp: string | null };
  /** Seconds left until etcd drops the lease if it hears nothing from us; a reservation has no deadline. */
  readonly lease: {
    readonly subnet: string;
    readonly state: LeaseStatus;
    readonly deadlineSeconds: number | null;
  } | null;
  readonly network: string | null;
  readonly backend: { readonly type: string; readonly port: number | null } | null;
  readonly interface: { readonly name: string; readonly address: string; readonly mtu: number } | null;
  readonly docker: StatusDocker | null;
  readonly peers: readonly StatusPeer[];
  /** Lease entries that were refused, with the reason. */
  readonly rejected: readonly { readonly key: string; readonly reason: string }[];
  readonly datapath: StatusDatapath | null;
}

/** What Docker is to have, and who does what it then leaves; null before there is a lease. */
export interface StatusDocker extends DockerShare {
  /** Address and length of the bridge: `10.5.1.1/24`. */
  readonly bip: string;
}

export interface StatusPeer {
  readonly subnet: string;
  readonly publicIp: string;
  readonly nodeId: string | null;
  /** `held-down`: vanished from etcd without a goodbye, and routed a while longer; `remembered`: not confirmed yet. */
  readonly state: 'live' | 'held-down' | 'remembered';
  /** How long one held down is routed yet. */
  readonly secondsLeft: number | null;
}

export interface StatusDatapath {
  readonly engine: string;
  readonly pid: number | null;
  readonly threads: number;
  readonly generationPublished: number;
  readonly generationAdopted: number;
  readonly respawns: number;
  readonly features: readonly string[];
  readonly warnings: readonly string[];
  readonly counters: Readonly<Record<string, number>>;
}
