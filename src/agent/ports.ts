/** The ports of the agent, and its options. */
import type { Backend, BackendContext } from '../backend/backend.js';
import type { Datapath } from '../datapath/datapath.js';
import type { DockerFiles } from '../docker/docker.js';
import type { HostNetwork, Underlay } from '../host/host.js';
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import type { Ipv4 } from '../model/ip.js';
import type { LeaseStore } from '../store/store.js';
import type { LocalNode } from './local-node.js';
import type { StateFile } from './state-file.js';

/** ICMP about the peers: what refuses our datagrams, and answers to echo requests. */
export interface PeerIcmp {
  /** Sends an echo request. @returns whether it was sent */
  ask(to: Ipv4): boolean;
  close(): void;
}

export interface PeerIcmpListener {
  /** An ICMP error quotes a datagram of ours to this address and UDP port. */
  refused(to: Ipv4, port: number, refusal: { readonly from: Ipv4; readonly type: number; readonly code: number }): void;
  answered(from: Ipv4): void;
}

/** Never throws: where ICMP is not permitted there is no evidence by it. */
export type OpenPeerIcmp = (listener: PeerIcmpListener) => PeerIcmp;

export interface AgentPorts {
  readonly openIcmp: OpenPeerIcmp;
  readonly store: LeaseStore;
  readonly host: HostNetwork;
  readonly underlay: Underlay;
  readonly node: LocalNode;
  readonly datapath: Datapath;
  readonly docker: DockerFiles;
  readonly state: StateFile;
  readonly clock: Clock;
  /** Returns milliseconds of the wall clock. The age of a saved state of another boot, and a clock that was set, are judged by it. */
  readonly wallNow: () => number;
  readonly log: Log;
  /** sd_notify(3). */
  readonly notify: (state: string) => void;
}

/** The settings of one host. They never change while the agent runs. */
export interface AgentOptions {
  /** The name of the network on this host. */
  readonly networkName: string;
  readonly ttlSeconds: number;
  readonly resyncMs: number;
  /** The hold-down: how long a peer that vanished without a goodbye stays routed. */
  readonly peerHoldMs: number;
  /** What the agent does after a lost lease, once the traffic of the subnet is stopped. */
  readonly onLost: 'exit' | 'degraded';
  readonly ipMasquerade: BackendContext['ipMasquerade'];
  readonly forwardRules: boolean;
  /** See flannel's subnet.env; the Status document names it. */
  readonly subnetFile: string;
  /** The file with Docker's settings; the Status document names it. */
  readonly dockerEnvFile: string;
  readonly docker: {
    /** The prefix length of docker0's part of the lease; 0 for the whole lease. */
    readonly subnetLength: number;
    /** Docker's own networks are parts of the lease. */
    readonly pools: boolean;
    readonly config: 'env' | 'daemon-json';
    readonly daemonJsonFile: string;
  };
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
  readonly engine: BackendContext['engine'];
  /** @throws TartanError CONFIG_INVALID for a backend this version does not run */
  readonly chooseBackend: (context: BackendContext) => Backend;
}
