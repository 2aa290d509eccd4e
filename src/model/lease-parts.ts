/**
 * Divides the lease among Docker's networks: docker0 has the first part, and with --docker-pools the rest becomes pools,
 * out of which Docker cuts the networks that it makes by itself. Pure.
 */
import { TartanError } from '../lib/errors.js';
import { formatPrefix, nthPrefix, type Prefix } from './ip.js';

/** One of Docker's default address pools. */
export interface AddressPool {
  readonly base: Prefix;
  /** The prefix length of each network. */
  readonly size: number;
}

export interface LeaseParts {
  /** docker0's; the bridge has its first address. */
  readonly bridge: Prefix;
  readonly pools: readonly AddressPool[];
}

export interface PartOptions {
  /** The prefix length of docker0's part; 0 for the whole lease, or for half of it beside pools. */
  readonly subnetLength: number;
  readonly pools: boolean;
}

/** A /28 holds 13 containers; networks are no smaller, and of a larger lease they get more rather than be more than 32. */
const longestNetwork = 28;
const networkBits = 5;

/** Returns no pools where the lease is too small for them. */
export function divideLease(lease: Prefix, { subnetLength, pools }: PartOptions): LeaseParts {
  const bridge = { base: lease.base, length: subnetLength || lease.length + (pools ? 1 : 0) };
  const free = pools ? freeParts(bridge, lease) : [];
  const size = Math.min(longestNetwork, (free.at(-1)?.length ?? 0) + networkBits);
  return { bridge, pools: free.filter(({ length }) => length <= size).map(base => ({ base, size })) };
}

/** @throws TartanError CONFIG_INVALID for a part that is not smaller than the lease, and for pools without room */
export function checkParts(lease: Prefix, options: PartOptions): LeaseParts {
  const { subnetLength, pools } = options;
  const leased = `the leased ${formatPrefix(lease)}`;
  if (subnetLength !== 0 && (subnetLength <= lease.length || subnetLength > 30))
    throw new TartanError(
      'CONFIG_INVALID',
      `--docker-subnet-len ${subnetLength} is no part of ${leased}: give 0 for the whole, ` +
        `or a length from ${lease.length + 1} to 30`,
    );
  const parts = divideLease(lease, options);
  if (!pools || parts.pools.length > 0) return parts;
  throw new TartanError(
    'CONFIG_INVALID',
    `--docker-pools: ${leased} has no room for a network of /${longestNetwork} beside docker0: start tartand without it, ` +
      `or give hosts subnets of /${longestNetwork - 1} or larger (SubnetLen in the network document)`,
  );
}

/** Returns the largest parts of the lease outside of docker0's, which is at its beginning; the lowest first. */
export function freeParts(bridge: Prefix, lease: Prefix): readonly Prefix[] {
  const lengths = Array.from({ length: Math.max(0, bridge.length - lease.length) }, (_, at) => bridge.length - at);
  return lengths.map(length => nthPrefix({ base: lease.base, length }, 1));
}
