/**
 * The saved state: what a host needs to start without an answer of the store. It has the network, the own lease, the
 * last peers, and the time of the last KeepAlive. This module has its form in the state file and the rules for its use.
 * What a later version adds to that form is ignored.
 */
import * as z from 'zod';
import { messageOf } from '../lib/errors.js';
import { quarantineTtls } from '../model/allocation.js';
import { formatIpv4, formatPrefix, parseIpv4, prefixCovers, type Ipv4, type Prefix } from '../model/ip.js';
import { formatLeaseKey, formatLeaseValue, parseLeaseValue, readLeaseKey, type Lease } from '../model/lease.js';
import { formatNetworkConfig, parseNetworkConfig, type NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';

export interface SavedState {
  readonly network: NetworkConfig;
  /** Its boot id names the boot of which `renewedAtMs` is a time. */
  readonly lease: Lease;
  /** The source of the outer packets. */
  readonly address: Ipv4;
  readonly ttlSeconds: number;
  /** The time of the last good KeepAlive, in CLOCK_BOOTTIME ms and by the wall clock. */
  readonly renewedAtMs: number;
  readonly renewedAtWallMs: number;
  readonly peers: readonly Lease[];
  /** The hold-downs of those peers that the store did not have any more. */
  readonly holdDowns?: readonly HoldDown[];
}

export interface HoldDown {
  readonly subnet: Prefix;
  /** CLOCK_BOOTTIME ms. */
  readonly untilMs: number;
}

const maxPeers = 65_536;

/** How long after the last KeepAlive a subnet may be used unconfirmed: one TTL less than the quarantine. */
export function unconfirmedLimitMs(ttlSeconds: number): number {
  return (quarantineTtls - 1) * ttlSeconds * 1000;
}

/** Makes a schema of one of our parsers. */
export function parsed<T>(parse: (text: string) => T) {
  return z.string().transform((text, context): T => {
    try {
      return parse(text);
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error) });
      return z.NEVER;
    }
  });
}

const finite = z.number();
const savedLease = z.tuple([z.string(), z.string()], z.unknown()).transform(([name, value], context): Lease => {
  try {
    const subnet = readLeaseKey(name);
    const bytes = Buffer.from(value).toString('latin1');
    // The revisions of an earlier epoch may mean nothing: any revision of the store replaces them.
    if (subnet) return { ...parseLeaseValue(bytes), subnet, createRevision: 0n, revision: 0n, leaseId: '' };
  } catch {
    // The entry is refused below.
  }
  context.addIssue({ code: 'custom', message: 'not a lease' });
  return z.NEVER;
});

const holdDown = z.tuple([z.string(), finite], z.unknown()).transform(([name, untilMs], context): HoldDown => {
  const subnet = readLeaseKey(name);
  if (subnet) return { subnet, untilMs };
  context.addIssue({ code: 'custom', message: 'not a subnet' });
  return z.NEVER;
});

export const savedStateSchema = z
  .object({
    network: parsed(parseNetworkConfig),
    lease: savedLease,
    leaseId: z.string().regex(/^\d{1,20}$/),
    address: parsed(parseIpv4),
    ttlSeconds: finite.int().positive(),
    renewedAtMs: finite.nonnegative(),
    renewedAtWallMs: finite,
    peers: z.array(savedLease).max(maxPeers),
    heldDown: z.array(holdDown).max(maxPeers).optional(),
  })
  .transform(({ lease, leaseId, heldDown: holdDowns, ...rest }): SavedState => {
    return { ...rest, ...(holdDowns && { holdDowns }), lease: { ...lease, leaseId } };
  });

export function formatSavedState(saved: SavedState): z.input<typeof savedStateSchema> {
  const { network, lease, address, ttlSeconds, renewedAtMs, renewedAtWallMs, peers, holdDowns = [] } = saved;
  return {
    network: formatNetworkConfig(network),
    lease: formatLease(lease),
    leaseId: lease.leaseId,
    address: formatIpv4(address),
    ttlSeconds,
    renewedAtMs,
    renewedAtWallMs,
    peers: peers.slice(0, maxPeers).map(peer => formatLease({ ...peer, bootId: undefined })),
    // This member is left out when it is empty: earlier versions refuse members that they do not know.
    ...(holdDowns.length > 0 && {
      heldDown: holdDowns
        .slice(0, maxPeers)
        .map(({ subnet, untilMs }): [string, number] => [formatLeaseKey(subnet), untilMs]),
    }),
  };
}

function formatLease(lease: Lease): [name: string, value: string] {
  return [formatLeaseKey(lease.subnet), formatLeaseValue(lease)];
}

export interface HostNow {
  readonly node: Node;
  readonly nowMs: number;
  readonly wallNowMs: number;
  /** Until when an adopted data process may forward; the daemon before moved this deadline. */
  readonly forwardUntilMs: number;
}

/** Returns when the lease was last certainly ours, by the clock of this boot; for another boot the limit is used up. */
export function renewedHereMs(
  { lease, ttlSeconds, renewedAtMs }: SavedState,
  here: { readonly node: Node; readonly ttlSeconds: number; readonly nowMs: number },
): number {
  const comparable = lease.bootId === here.node.bootId && ttlSeconds === here.ttlSeconds;
  return comparable ? renewedAtMs : here.nowMs - unconfirmedLimitMs(here.ttlSeconds);
}

/** Returns the hold-downs by the clock of this boot; those of another boot mean nothing. */
export function holdDownsHere(
  { lease, holdDowns = [] }: Pick<SavedState, 'lease' | 'holdDowns'>,
  node: Pick<Node, 'bootId'>,
): readonly HoldDown[] {
  return lease.bootId === node.bootId ? holdDowns : [];
}

/** @returns why this host must not use the saved state now; undefined when it may */
export function refuseSavedState(saved: SavedState, here: HostNow): string | undefined {
  const { lease, network, address } = saved;
  const { node } = here;
  if (lease.publicIp !== node.publicIp || address !== node.interface.address) {
    const [then, now] = [`${formatIpv4(lease.publicIp)} at ${formatIpv4(address)}`, formatIpv4(node.publicIp)];
    return `was written for the address ${then}, this host has ${now} at ${formatIpv4(node.interface.address)}`;
  }
  const inside = prefixCovers(network.network, lease.subnet) && lease.subnet.length > network.network.length;
  if (!inside) return `has ${formatPrefix(lease.subnet)}, no subnet of its network ${formatPrefix(network.network)}`;
  return lease.leaseId === '0' ? undefined : refuseAge(saved, here);
}

/**
 * Returns why the saved state is too old. The quarantine protects the subnet for a time after the last KeepAlive.
 * Within one boot that time is measured. Across boots only the wall clock can tell how long the host was off. The wall
 * clock never grants anything: it only adds a reason to refuse, also when it is obviously wrong. If it is wrong
 * unnoticed, the peers, which know the owner, still drop the packets.
 */
function refuseAge({ lease, ttlSeconds, renewedAtMs, renewedAtWallMs }: SavedState, here: HostNow): string | undefined {
  const limitMs = unconfirmedLimitMs(ttlSeconds);
  const until = `its subnet is kept for ${limitMs / 1000} s`;
  if (lease.bootId === here.node.bootId) {
    if (here.nowMs < Math.max(renewedAtMs + limitMs, here.forwardUntilMs)) return undefined;
    return `was last confirmed ${Math.round((here.nowMs - renewedAtMs) / 1000)} s ago, ${until}`;
  }
  const offMs = here.wallNowMs - renewedAtWallMs;
  if (offMs > limitMs) return `was last confirmed ${Math.round(offMs / 1000)} s ago by the wall clock, ${until}`;
  if (offMs < -ttlSeconds * 1000) return 'was written later than the wall clock says it is: its age cannot be told';
  return undefined;
}
