/** A backend is a pure function from our lease and our peers to a Plan. */
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
  readonly type: BackendInfo['type'];
  /** Bytes of the largest inner packet, for Docker and for the link. */
  readonly mtu: number;
  /** What peers must know. */
  announce(): BackendInfo;
  /**
   * Pure and independent of the order of `peers`.
   * @param forwarding whether the whole host is to forward, because Docker needs it and does not switch it on
   */
  plan(self: Lease, peers: readonly Lease[], forwarding?: boolean): Plan;
}
