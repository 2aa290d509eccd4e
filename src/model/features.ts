/**
 * The member `features` of a lease: what its host can receive beyond bare IPv4 packets. What is absent it cannot, and so
 * it is with each value that this version does not understand, that value alone: nothing here refuses a lease.
 *
 *   "features": { "probe": 1, "inner6": 1, "kernel": { "port": 4790, "vni": 1 }, "backends": { "vxlan": { .. } } }
 */
import { jsonMembers, spliceMember } from './json.js';

/** Where a kernel engine receives: its UDP port, and its VXLAN network identifier of 24 bits. */
export interface KernelOffer {
  readonly port: number;
  readonly vni: number;
}

export interface Features {
  /** The version of the probe that it answers. */
  readonly probe?: 1;
  /** Bare IPv6 packets in the tunnel. */
  readonly inner6?: 1;
  readonly kernel?: KernelOffer;
  /** Its member `kernel` is of a form that this version does not understand. Never written. */
  readonly isKernelUnread?: true;
  /** What other backends of this host publish, by backend name. */
  readonly backends?: Readonly<Record<string, object>>;
}

export const noFeatures: Features = {};

/** What a host with this data plane announces. */
export function featuresOf(datapath: {
  readonly answersProbes: boolean;
  readonly kernelOffer: KernelOffer | undefined;
}): Features {
  const { answersProbes, kernelOffer: kernel } = datapath;
  return { ...(answersProbes && { probe: 1 }), ...(kernel && { kernel }) };
}

/** Returns why packets to a host of these features cannot go by our kernel engine; undefined where they can. */
export function whyNotKernel({ kernel, isKernelUnread }: Features, ours: KernelOffer): string | undefined {
  if (isKernelUnread) return 'its lease announces the kernel engine in a form that this version does not understand';
  if (!kernel) return 'its lease does not announce the kernel engine';
  if (kernel.port !== ours.port)
    return `it receives on UDP port ${kernel.port}, and our kernel link sends to port ${ours.port} only`;
  if (kernel.vni !== ours.vni)
    return `its VNI is ${kernel.vni} and ours ${ours.vni}: restart the host that has not the network document's Backend.VNI`;
  return undefined;
}

/** @param value the JSON value of the member, undefined where it is absent */
export function parseFeatures(value: unknown): Features {
  const members = jsonMembers(value);
  if (!members) return noFeatures;
  const kernel = readKernel(members.get('kernel'));
  const backends = readBackends(members.get('backends'));
  return {
    ...(members.get('probe') === 1 && { probe: 1 }),
    ...(members.get('inner6') === 1 && { inner6: 1 }),
    ...(kernel && { kernel }),
    ...(!kernel && members.has('kernel') && { isKernelUnread: true as const }),
    ...(backends && { backends }),
  };
}

/** Returns the JSON value of the member, undefined where nothing is in it. The order of its members is always the same. */
export function formatFeatures(features: Features): Features | undefined {
  const { isKernelUnread: _, ...sound } = parseFeatures(features);
  return Object.keys(sound).length > 0 ? sound : undefined;
}

/** Returns the text of a lease without the member. @param text one character for each byte (latin1) */
export function withoutFeatures(text: string): string {
  return spliceMember(text, 'features', undefined);
}

function readKernel(value: unknown): Features['kernel'] {
  const members = jsonMembers(value);
  const [port, vni] = [members?.get('port'), members?.get('vni')];
  return isNumber(port, 1, 0xffff) && isNumber(vni, 0, 0xffffff) ? { port, vni } : undefined;
}

function readBackends(value: unknown): Features['backends'] {
  const named = [...(jsonMembers(value) ?? [])].filter(
    (entry): entry is [string, object] => /^[a-z0-9-]{1,32}$/.test(entry[0]) && jsonMembers(entry[1]) !== undefined,
  );
  const sorted = named.sort(([a], [b]) => (a < b ? -1 : 1));
  return named.length > 0 ? Object.fromEntries(sorted) : undefined;
}

function isNumber(value: unknown, least: number, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
}
