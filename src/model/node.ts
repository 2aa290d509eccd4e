/** This host as its peers see it. */
import type { Ipv4 } from './ip.js';

export interface Node {
  /** The identity of the host, kept in the state directory. It is neither its address nor its name. */
  readonly id: string;
  /** Identifies one start of one network stack: two live hosts with the same id have different boot ids. */
  readonly bootId: string;
  /** Names the machine: a hash of what its vendor gave it. */
  readonly hardware?: string | undefined;
  /** What its people call it (hostname(7)); it identifies nothing. */
  readonly hostName?: string | undefined;
  /** The address that peers send to, which the lease publishes. */
  readonly publicIp: Ipv4;
  readonly interface: NodeInterface;
}

/** The members of a node that its underlay determines. */
export type UnderlayAddress = Pick<Node, 'publicIp' | 'interface'>;

export interface NodeInterface {
  readonly name: string;
  /** The source address of outer packets on this host; it differs from `publicIp` behind NAT. */
  readonly address: Ipv4;
  readonly mtu: number;
}

/** Returns the part of a boot id that the kernel gave: the network namespaces of one boot share it. */
export function kernelBootOf(bootId: string): string {
  return bootId.split('.')[0] ?? bootId;
}

const hostNameForm =
  /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/;

/** @returns undefined for what is no host name by RFC 1123 section 2.1 */
export function readHostName(value: unknown): string | undefined {
  return typeof value === 'string' && hostNameForm.test(value) ? value : undefined;
}

/** The form of a node id, which is a value in etcd and a part of error messages. */
export const nodeIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
