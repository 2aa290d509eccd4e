/** What every contender keeps to: the addresses of the lab above the underlay, and what it says of itself. */
import { network, type Lab, type Side } from './lab.js';

export interface Overlay {
  /** Of the largest packet in it. */
  readonly mtu: number;
  /** Of each host's containers. */
  readonly subnets: Readonly<Record<Side, string>>;
  /** Where a host itself is reached. */
  readonly hosts: Readonly<Record<Side, string>>;
  /** The processes that carry packets on host a. */
  readonly pids: readonly number[];
}

/** Why a contender is not measured where it cannot be. */
export class Absent extends Error {}

export interface Contender {
  readonly name: string;
  /** @throws Absent */
  readonly open: (lab: Lab) => Promise<Overlay>;
}

/** The name of the contender. */
export const kernelEngine = 'tartan-kernel';

export const underlayMtu = 1500;
export const subnets = { a: '10.5.1.0/24', b: '10.5.2.0/24', c: '10.5.3.0/24' } as const;
export const tunnel = { a: '10.5.1.0', b: '10.5.2.0', c: '10.5.3.0' } as const;
export const port = 8285;
/** IPv4 and UDP headers in front of the inner packet. */
export const udpMtu = underlayMtu - 28;
/** IPv4, UDP and VXLAN-GPE headers. */
export const kernelMtu = underlayMtu - 36;

/** A TUN link as the host adapter of tartan makes it. */
export async function configureTun(lab: Lab, side: Side, device: string, mtu = udpMtu): Promise<void> {
  await lab.ip(side, 'address', 'add', `${tunnel[side]}/32`, 'dev', device);
  await lab.ip(side, 'link', 'set', device, 'up', 'mtu', String(mtu));
  await lab.ip(side, 'route', 'add', network, 'dev', device);
}
