/** The port to a backend: a pure function from the own lease and the leases of the peers to a Plan. */
import type { BackendInfo, Lease } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { EngineChoice, Plan } from '../model/plan.js';

export interface BackendContext {
  readonly network: NetworkConfig;
  readonly node: Node;
  readonly ipMasquerade: 'off' | 'on' | 'not-fully-random';
  readonly forwardRules: boolean;
  readonly docker?: {
    /** Docker makes networks on the lease, and masquerades them. */
    readonly pools: boolean;
  };
  /** Of the flag; that of the network document is in `network`. */
  readonly engine: EngineChoice;
}

/** What the plan depends on beside the leases. */
export interface PlanNeeds {
  /** The whole host must forward, because Docker needs that and does not enable it. */
  readonly forwarding?: boolean;
  /** Whether our kernel engine only receives, or may send too. */
  readonly kernel?: KernelUse;
}

export type KernelUse = 'off' | 'receives' | 'sends';

export interface Backend {
  readonly type: string;
  /** Bytes of the largest inner packet; Docker and the link use this MTU. */
  readonly mtu: number;
  /** Returns what the lease tells the peers about this backend. */
  announce(): BackendInfo;
  /** Returns the plan. The function is pure, and the order of `peers` does not matter. */
  plan(self: Lease, peers: readonly Lease[], needs?: PlanNeeds): Plan;
}
