/**
 * The quarantine of subnets whose nodes left without a release. The age of a tombstone is measured by the store's clock
 * alone: the clocks of hosts cannot be compared, and no host needs to watch when a lease ends. A tombstone has an etcd
 * lease of its own, four quarantines long. The owner renews it together with the etcd lease of the key, on one stream.
 * The part of the lease that has run down is the time since the owner's last KeepAlive. An outage or a new leader of
 * etcd only makes that time look shorter. Within one quarantine only the owner may take the subnet. After it the subnet
 * is given away if no other is free, the oldest first. After four quarantines the tombstone is gone, and any node may
 * take the subnet. A tombstone without an etcd lease (that of a reservation, or of a version without such leases)
 * belongs to its owner for ever.
 *
 * An etcd that was suspended, or a leader that was deposed while suspended, resumes with leases that look old because
 * no owner could renew them. So a tombstone must be found old twice, with time in between for a living owner to renew
 * it.
 */
import type { Clock } from '../lib/clock.js';
import { TartanError } from '../lib/errors.js';
import { oldestFirst, quarantineTtls, type AgedTombstone, type Tombstone } from '../model/allocation.js';
import { formatPrefix } from '../model/ip.js';
import { subnetCount, type NetworkConfig } from '../model/network.js';
import type { Kv, TimeToLive } from './kv.js';

/** The length of a tombstone's etcd lease in quarantines. */
const quarantinesKept = 4;
/** A living owner tries to renew at least this often, also after a long outage of etcd. */
const longestSettleMs = 15_000;

/** Returns the TTL of a tombstone. For the longest TTL of a subnet it is below etcd's limit of 9e9 s. */
export function tombstoneSeconds(ttlSeconds: number): number {
  return ttlSeconds * quarantineTtls * quarantinesKept;
}

interface TombstoneAge {
  readonly ageSeconds: number;
  /** The time of our clock at which the tombstone was first found old; undefined while it is younger. */
  readonly oldSinceMs: number | undefined;
  /** Before this time of our clock the store has nothing new to tell. */
  readonly askAtMs: number;
}

export class Quarantine {
  readonly #kv: Kv;
  readonly #clock: Clock;
  #ages: ReadonlyMap<string, TombstoneAge> = new Map();

  constructor(kv: Kv, clock: Clock) {
    this.#kv = kv;
    this.#clock = clock;
  }

  /** Reads only the tombstones that may have become old, because a host that waits for a free subnet calls it often. */
  async judge(tombstones: readonly Tombstone[], signal: AbortSignal): Promise<readonly AgedTombstone[]> {
    const known = this.#ages;
    const nowMs = this.#clock.now();
    const due = tombstones.filter(({ leaseId }) => (known.get(leaseId)?.askAtMs ?? 0) <= nowMs);
    const times = await readTimesToLive(this.#kv, due, signal);
    const ages = new Map<string, TombstoneAge>();
    const judged = tombstones.map(tombstone => {
      const { leaseId } = tombstone;
      const time = times.get(leaseId);
      const before = known.get(leaseId);
      const age = time ? ageOf(time, before, nowMs) : before;
      if (age) ages.set(leaseId, age);
      const over = time !== undefined && age?.oldSinceMs !== undefined && age.askAtMs <= nowMs;
      return { ...tombstone, ageSeconds: age?.ageSeconds, over };
    });
    this.#ages = ages;
    return judged;
  }
}

function ageOf(
  { ttlSeconds, grantedSeconds }: TimeToLive,
  before: TombstoneAge | undefined,
  nowMs: number,
): TombstoneAge {
  const ageSeconds = Math.max(0, grantedSeconds - ttlSeconds);
  const missingSeconds = grantedSeconds / quarantinesKept - ageSeconds;
  if (missingSeconds > 0) return { ageSeconds, oldSinceMs: undefined, askAtMs: nowMs + missingSeconds * 1000 };
  const oldSinceMs = before?.oldSinceMs ?? nowMs;
  const settleMs = Math.min(longestSettleMs, (grantedSeconds * 1000) / (quarantinesKept * quarantineTtls));
  return { ageSeconds, oldSinceMs, askAtMs: Math.max(nowMs, oldSinceMs + settleMs) };
}

const mostRequestsInFlight = 16;

/** Reads the remaining times of many etcd leases, by lease id; a lease that is gone is left out. */
export async function readTimesToLive(
  kv: Kv,
  owners: readonly { readonly leaseId: string }[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, TimeToLive>> {
  const pending = [...new Set(owners.map(({ leaseId }) => leaseId))].filter(id => id !== '0');
  const times = new Map<string, TimeToLive>();
  const readPending = async (): Promise<void> => {
    for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
      const time = await kv.timeToLive(id, { signal });
      if (time) times.set(id, time);
    }
  };
  await Promise.all(Array.from({ length: mostRequestsInFlight }, readPending));
  return times;
}

const mostNamed = 3;

/**
 * Returns the error of a node that finds no free subnet. It tells what fills the network and what an operator can do.
 * @param kept the tombstones of other nodes on subnets without a lease
 */
export function noFreeSubnet(network: NetworkConfig, leased: number, kept: readonly AgedTombstone[]): TartanError {
  const reserved = kept.filter(tombstone => tombstone.reserved).length;
  const oldest = kept.filter(tombstone => !tombstone.reserved).sort(oldestFirst);
  const named = oldest.slice(0, mostNamed).map(describe);
  const next =
    oldest.length === 0
      ? 'Enlarge the network or release leases'
      : `Kept longest: ${named.join(', ')}${oldest.length > mostNamed ? ', ...' : ''}. ` +
        `The oldest is given away ${quarantineTtls} lease times after its last sign of life. Sooner: enlarge the network, ` +
        `or where that node is surely gone, tartan lease release --force SUBNET or the flag --reuse-quarantined`;
  return new TartanError(
    'NO_FREE_SUBNET',
    `no free /${network.subnetLength} in ${formatPrefix(network.network)}: of ${subnetCount(network)} subnets ` +
      `${leased} are leased, ${reserved} reserved for nodes to come and ${oldest.length} kept for nodes that left ` +
      `without a goodbye. ${next}`,
  );
}

function describe({ subnet, nodeId, ageSeconds }: AgedTombstone): string {
  const age = ageSeconds === undefined ? 'for good' : `unheard of for ${ageSeconds} s`;
  return `${formatPrefix(subnet)} of node ${nodeId.replace(/[^\x20-\x7e]/g, '?')} (${age})`;
}
