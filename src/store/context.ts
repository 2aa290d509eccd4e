/** What every part of the lease logic works with. */
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import type { Keys } from './keys.js';
import type { Kv } from './kv.js';
import type { Quarantine } from './quarantine.js';

export interface StoreContext {
  readonly kv: Kv;
  readonly keys: Keys;
  readonly log: Log;
  readonly clock: Clock;
  /** How often everything is read again, whatever the watch says. */
  readonly sweepMs: number;
  readonly quarantine: Quarantine;
  /** Hand out subnets of nodes that left without a goodbye, however lately, when no other is free. */
  readonly reuseQuarantined: boolean;
}
