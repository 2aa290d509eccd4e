/** The overlay of the packet vectors, as the maps of the kernel engine have it, and packets for its programs. */
import { native } from '../../src/lib/native.js';
import type { NativeKernelPath, NativeKernelPeer, NativePairState } from '../../src/lib/native-kernel.js';
import { changed, innerPacket, type InnerPacket } from './inner-packet.js';
import type { Counters, Vector } from './vectors.js';

/** TC_ACT_ numbers: it goes on into the tun, it is dropped, it goes to another device. */
export const [next, dropped, redirected] = [-1, 2, 7];

export const ip4 = (a: number, b: number, c: number, d: number): number => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
const [own, firstPeer, secondPeer] = [ip4(192, 0, 2, 1), ip4(192, 0, 2, 2), ip4(192, 0, 2, 3)];

/** The tunnel key of what 192.0.2.2 sends to us. */
export const fromPeer = { remote: firstPeer, local: own, vni: 1 };

export function kernelPeer(remote: number, more: Partial<NativeKernelPeer> = {}): NativeKernelPeer {
  return { remote, local: own, state: 'kernel', mtu: 1508, identity: new Uint32Array([1, 0, 0, 0]), ...more };
}

/** Peers 0 and 1 are 10.5.2.0/24 and 10.5.3.0/24; `lo` is in the place of both devices. */
export function configureVectors(path: NativeKernelPath, flags = 0, state: NativePairState = 'kernel'): void {
  path.configure({
    network: ip4(10, 5, 0, 0),
    networkLength: 16,
    subnet: ip4(10, 5, 1, 0),
    subnetLength: 24,
    local: own,
    vni: 1,
    tunIndex: 1,
    linkIndex: 1,
    flags,
    lengths: [24],
  });
  path.setFence(false);
  path.setDeadline(2n ** 62n);
  path.setPeer(0, kernelPeer(firstPeer, { state }));
  path.setPeer(1, kernelPeer(secondPeer, { state, identity: new Uint32Array([2, 0, 0, 0]) }));
  path.setPrefix(ip4(10, 5, 2, 0), 24, 0);
  path.setPrefix(ip4(10, 5, 3, 0), 24, 1);
}

export function openVectors(): NativeKernelPath {
  const path = native().loadKernelPath();
  configureVectors(path);
  return path;
}

export function packet(source: string, destination: string, more: Partial<InnerPacket> = {}): Buffer {
  return innerPacket({ number: 1, bytes: 64, source, destination, port: 7, ...more });
}

export const towardsUs = packet('10.5.2.9', '10.5.1.9');
export const towardsPeer = packet('10.5.1.9', '10.5.2.9');

export interface Probe {
  readonly kind: number;
  readonly source?: string;
  readonly destination?: string;
  readonly bytes?: number;
  readonly sequence?: number;
  readonly opaque?: bigint;
  readonly arrived?: number;
}

/** A probe of the kernel path as UDP without a checksum, as it lies in the tunnel. */
export function probePacket(probe: Probe): Buffer {
  const { kind, source = '10.5.2.0', destination = '10.5.1.0', bytes = 24, arrived = 0 } = probe;
  const inner = packet(source, destination, { bytes: 28 + bytes, port: 8285 });
  inner.fill(0, 28);
  inner.writeUInt16BE(8285, 20);
  inner.writeUInt16BE(0, 26);
  inner.set([0xe0, 1, kind, 0], 28);
  inner.writeUInt32BE(probe.sequence ?? 7, 32);
  inner.writeBigUInt64BE(probe.opaque ?? 0x0123_4567_89ab_cdefn, 36);
  inner.set([4, 24, ...source.split('.').map(Number)], 44);
  inner.writeUInt16BE(arrived, 50);
  return changed(inner, 0, 0x45);
}

export const counted = (name: string): Counters => ({ [name]: 1 });

/**
 * What the programs count of a vector. The stack checks header checksums and source routes; there is no longest datagram
 * and no source port to expect; a probe is UDP inside the tunnel, so that a typed datagram is no IPv4 packet.
 */
export function expectedOf({ counter, hex }: Vector): Counters {
  if (counter === 'rx_oversize' && !hex.startsWith('4')) return counted('rx_bad_version');
  if (['rx_bad_csum', 'rx_oversize', 'rx_port'].includes(counter)) return counted('rx_ok');
  if (['rx_srcroute', 'rx_opts'].includes(counter)) return { rx_ok: 1, rx_opts: 1 };
  if (['rx_bad_type', 'rx_probe', 'rx_bad_probe'].includes(counter))
    return counted(hex.length < 40 ? 'rx_short' : 'rx_bad_version');
  return counted(counter);
}

/** The payload of a VXLAN-GPE datagram (draft-ietf-nvo3-vxlan-gpe): flags I and P, next protocol IPv4. */
export function tunnelled(inner: Buffer, vni = 1): Buffer {
  const header = Buffer.from([0x0c, 0, 0, 1, 0, 0, 0, 0]);
  header.writeUInt32BE(vni * 256, 4);
  return Buffer.concat([header, inner]);
}
