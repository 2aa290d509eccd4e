/** The dependencies and settings that every part of the lease logic shares. */
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import type { Keys } from './keys.js';
import type { History } from './history.js';
import type { Kv } from './kv.js';
import type { Problems } from './problems.js';
import type { Quarantine } from './quarantine.js';
import type { WatchLife } from './signs.js';

export interface StoreContext {
  readonly kv: Kv;
  readonly keys: Keys;
  readonly log: Log;
  readonly clock: Clock;
  /** The interval at which each range is listed again, in addition to its watch. */
  readonly sweepMs: number;
  /** The interval at which a linearizable read proves that the store answers. */
  readonly proofMs: number;
  readonly quarantine: Quarantine;
  /** Gives away a subnet in quarantine, of any age, when no other subnet is free. */
  readonly reuseQuarantined: boolean;
  readonly history: History;
  readonly problems: Problems;
  readonly watchLife: WatchLife;
}

/** The context of a single read or write. */
export type KvContext = Pick<StoreContext, 'kv' | 'keys'>;
