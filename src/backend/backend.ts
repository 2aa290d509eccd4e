/** The port to a backend: a pure function from the own lease and the leases of the peers to a Plan. */
import type { BackendInfo, Lease } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { Plan } from '../model/plan.js';

export interface BackendContext {
  readonly network: NetworkConfig;
  readonly node: Node;
  readonly ipMasquerade: 'off' | 'on' | 'not-fully-random';
  readonly forwardRules: boolean;
}

export interface Backend {
  readonly type: string;
  /** Bytes of the largest inner packet; Docker and the link use this MTU. */
  readonly mtu: number;
  /** Returns what the lease tells the peers about this backend. */
  announce(): BackendInfo;
  /**
   * Returns the plan. The function is pure, and the order of `peers` does not matter.
   * @param forwarding whether the whole host must forward, because Docker needs that and does not enable it
   */
  plan(self: Lease, peers: readonly Lease[], forwarding?: boolean): Plan;
}
