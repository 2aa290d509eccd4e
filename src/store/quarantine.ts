/**
 * How old a tombstone is, told by the store's clock alone: clocks of hosts cannot be compared, and nobody need be
 * looking when a lease ends. The entry `held/<subnet>` hangs on an etcd lease of its own, four quarantines long, which
 * its owner renews together with that of the subnet, on one stream. What has run down of it is the time since the
 * owner's last sign of life; an outage or a new leader of etcd only makes it look younger. While that is less than a
 * quarantine only the owner may come back. After it the subnet is given away when nothing else is free, the oldest
 * first; after four it is forgotten, as if nobody had had it. An entry without a lease (a reservation's, or written
 * before tombstones had leases) stays its owner's for ever.
 *
 * An etcd that slept, or a leader that was deposed asleep, wakes with leases that look old because nobody could renew
 * them. So a tombstone must be found old twice, with time between for a living owner to be heard.
 */
import { quarantineTtls, type AgedTombstone, type Tombstone } from '../model/allocation.js';
import type { Clock } from '../lib/clock.js';
import type { Kv, TimeToLive } from './kv.js';
import { readTimesLeft } from './time-left.js';

const quarantinesKept = 4;
/** A living owner tries to renew at least this often, however long etcd was away. */
const longestSettleMs = 15_000;

/** The length of the lease behind a tombstone. The longest TTL that we take fits into what etcd takes, 9e9 s. */
export function tombstoneSeconds(ttlSeconds: number): number {
  return ttlSeconds * quarantineTtls * quarantinesKept;
}

interface TombstoneAge {
  readonly ageSeconds: number;
  /** Since when on our clock it has been found old; undefined while it is young. */
  readonly oldSinceMs: number | undefined;
  /** Nothing new can be learnt before. */
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

  /** Asks the store only about those that may have become old: a host that waits for room asks again and again. */
  async judge(tombstones: readonly Tombstone[], signal: AbortSignal): Promise<readonly AgedTombstone[]> {
    const known = this.#ages;
    const nowMs = this.#clock.now();
    const due = tombstones.filter(({ leaseId }) => (known.get(leaseId)?.askAtMs ?? 0) <= nowMs);
    const leaseIds = due.map(({ leaseId }) => leaseId);
    const times = await readTimesLeft(this.#kv, leaseIds, signal);
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
