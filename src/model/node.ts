/** This host as its peers must see it. */
import type { Ipv4 } from './ipv4.js';

export interface Node {
  /** Identity of the host, kept in the state directory: not its address and not its name. */
  readonly id: string;
  /** One start of one network stack: two live hosts with one identity differ here. */
  readonly bootId: string;
  /** The address peers send to; published in the lease. */
  readonly publicIp: Ipv4;
  readonly interface: NodeInterface;
}

/** What of a node hangs on its underlay. */
export type UnderlayAddress = Pick<Node, 'publicIp' | 'interface'>;

export interface NodeInterface {
  readonly name: string;
  /** The address on this host that the outer packets leave from; differs from `publicIp` behind NAT. */
  readonly address: Ipv4;
  readonly mtu: number;
}

/** What a node id may be: it is a value in etcd and part of error messages. */
export const nodeIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
