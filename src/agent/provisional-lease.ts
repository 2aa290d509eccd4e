/**
 * The lease of the state file, for a start while the store is silent. It is UNKNOWN: safe to use while the quarantine
 * protects the subnet and the peers bind inner sources to owners. Once the store gives the real lease it is a mere
 * front of it; when that is of another subnet, this one is LOST.
 */
import { TartanError } from '../lib/errors.js';
import { Listeners } from '../lib/listeners.js';
import { formatPrefix, samePrefix } from '../model/ipv4.js';
import type { Lease } from '../model/lease.js';
import type { OwnLease, LeaseChange, LeaseStatus } from '../store/store.js';

export class ProvisionalLease implements OwnLease {
  readonly #lease: Lease;
  readonly #renewedAtMs: number;
  readonly #listeners = new Listeners();
  readonly #lost = new AbortController();
  readonly #answer: Promise<OwnLease>;
  #answered: (real: OwnLease) => void = () => {};
  #real: OwnLease | undefined;

  /** @param renewedAtMs CLOCK_BOOTTIME ms of this boot at which the lease was surely still ours */
  constructor(lease: Lease, renewedAtMs: number) {
    this.#lease = lease;
    this.#renewedAtMs = renewedAtMs;
    this.#answer = new Promise((resolve, reject) => {
      this.#answered = resolve;
      this.lost.addEventListener('abort', () => reject(this.lost.reason), { once: true });
    });
    // Only who asks for something waits for it.
    this.#answer.catch(() => {});
  }

  /** The store has answered. */
  get settled(): boolean {
    return this.#real !== undefined;
  }

  get lease(): Lease {
    return this.#real?.lease ?? this.#lease;
  }

  get status(): LeaseStatus {
    if (this.#lost.signal.aborted) return 'lost';
    return this.#real?.status ?? 'unknown';
  }

  get deadlineMs(): number {
    return this.#real?.deadlineMs ?? (this.#lease.leaseId === '0' ? Infinity : this.#renewedAtMs);
  }

  get renewedAtMs(): number {
    return this.#real?.renewedAtMs ?? this.#renewedAtMs;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async settle(real: OwnLease): Promise<void> {
    const { subnet } = real.lease;
    if (!samePrefix(subnet, this.#lease.subnet)) {
      await real.close();
      const [mine, given] = [formatPrefix(this.#lease.subnet), formatPrefix(subnet)];
      this.lose(
        new TartanError('LEASE_LOST', `subnet ${mine} is not ours any more: etcd gave ${given}, for the next start`),
      );
      return;
    }
    this.#real = real;
    this.#answered(real);
    real.onChange(() => this.#listeners.ring());
    const onLost = (): void => this.lose(real.lost.reason);
    if (real.lost.aborted) onLost();
    else real.lost.addEventListener('abort', onLost, { once: true });
    this.#listeners.ring();
  }

  lose(reason: unknown): void {
    this.#lost.abort(reason);
    this.#listeners.ring();
  }

  async update(change: LeaseChange): Promise<void> {
    await (await this.#answer).update(change);
  }

  async release(): Promise<void> {
    await (await this.#answer).release();
  }

  async close(): Promise<void> {
    await this.#real?.close();
  }
}
