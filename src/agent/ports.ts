/** What an agent works with and what it is told: the ports to the world, and one host's settings. */
import type { Backend, BackendContext } from '../backend/backend.js';
import type { Datapath } from '../datapath/datapath.js';
import type { DockerFiles } from '../docker/docker.js';
import type { HostNetwork, Underlay } from '../host/host.js';
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import type { LeaseStore } from '../store/store.js';
import type { LocalNode } from './local-node.js';
import type { StateFile } from './state-file.js';

export interface AgentPorts {
  readonly store: LeaseStore;
  readonly host: HostNetwork;
  readonly underlay: Underlay;
  readonly node: LocalNode;
  readonly datapath: Datapath;
  readonly docker: DockerFiles;
  readonly state: StateFile;
  readonly clock: Clock;
  /** Milliseconds of the wall clock, for the age of a state file of another boot and for nothing else. */
  readonly wallNow: () => number;
  readonly log: Log;
  /** sd_notify(3). */
  readonly notify: (state: string) => void;
}

/** Never changes. */
export interface AgentOptions {
  readonly ttlSeconds: number;
  readonly resyncMs: number;
  /** How long a peer that vanished without a goodbye stays routed. */
  readonly peerHoldMs: number;
  /** What a lost subnet leads to, once its traffic is stopped. */
  readonly onLost: 'exit' | 'degraded';
  readonly ipMasquerade: BackendContext['ipMasquerade'];
  readonly forwardRules: boolean;
  /** Where Docker's settings are written, for those who ask. */
  readonly dockerEnvFile: string;
  readonly docker: {
    /** Length of docker0's part of the lease; 0 for the whole. */
    readonly subnetLength: number;
    readonly config: 'env' | 'daemon-json';
    readonly daemonJsonFile: string;
  };
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
  /** @throws TartanError CONFIG_INVALID for a backend this version does not run */
  readonly chooseBackend: (context: BackendContext) => Backend;
}
