/**
 * Makes the host and the data plane equal to the plan, again and again. Events only ring; each pass reads the current
 * lease and peers, so retry, resync and first start are the same call.
 */
import { backoffMs } from '../lib/retry.js';
import { messageOf } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { Wake } from '../lib/wake.js';
import type { Backend } from '../backend/backend.js';
import type { Datapath } from '../datapath/datapath.js';
import type { HostNetwork } from '../host/host.js';
import type { Lease } from '../model/lease.js';

export interface Desired {
  readonly backend: Backend;
  readonly self: Lease;
  readonly peers: readonly Lease[];
  /** The whole host is to forward. */
  readonly forwarding: boolean;
}

export interface ReconcilerPorts {
  readonly host: HostNetwork;
  readonly datapath: Datapath;
  readonly log: Log;
}

export class Reconciler {
  /** Failed passes since the last good one. */
  failures = 0;
  /** What of somebody else stands in the way, and why the last pass failed. */
  problems: readonly string[] = [];
  readonly #wake = new Wake();
  readonly #trouble = new LogThrottle();
  readonly #ports: ReconcilerPorts;
  readonly #desired: () => Desired | undefined;
  #published = '';
  #peers = -1;

  /** @param desired current lease and peers; undefined while there is nothing to make */
  constructor(ports: ReconcilerPorts, desired: () => Desired | undefined) {
    this.#ports = ports;
    this.#desired = desired;
    ports.host.onChange(() => {
      ports.datapath.check();
      this.ring();
    });
    ports.datapath.onChange(() => this.ring());
  }

  ring(): void {
    this.#wake.ring();
  }

  /** Runs until aborted. @param onPass called after each good pass */
  async run(resyncMs: number, signal: AbortSignal, onPass: () => Promise<void> | void): Promise<void> {
    for (let attempt = 0; ;) {
      try {
        if (await this.#pass(signal)) await onPass();
        attempt = 0;
        this.#trouble.reset();
      } catch (error) {
        signal.throwIfAborted();
        this.#onFailure(error, ++attempt);
      }
      this.failures = attempt;
      await this.#wake.wait(attempt === 0 ? resyncMs : backoffMs(attempt, { firstMs: 250, capMs: resyncMs }), signal);
    }
  }

  async #pass(signal: AbortSignal): Promise<boolean> {
    const desired = this.#desired();
    if (!desired) return false;
    const { host, datapath, log } = this.#ports;
    const plan = desired.backend.plan(desired.self, desired.peers, desired.forwarding);
    // Both are tried: a host that refuses a rule must not keep a peer's route from the data plane.
    const [applied] = await Promise.allSettled([host.apply(plan.host, { signal })]);
    const text = JSON.stringify(plan.tunnel);
    if (text !== this.#published) datapath.publish(plan.tunnel);
    const changed = text !== this.#published || desired.peers.length !== this.#peers;
    this.#published = text;
    this.#peers = desired.peers.length;
    if (applied.status === 'rejected') throw applied.reason;
    this.#noteConflicts(applied.value.conflicts);
    if (changed || applied.value.changes.length > 0) {
      log.info('plan.applied', `the host is as planned, ${desired.peers.length} peers`, {
        peers: desired.peers.length,
        changes: applied.value.changes,
      });
    }
    return true;
  }

  /** Each is said once, for as long as it stands. */
  #noteConflicts(conflicts: readonly string[]): void {
    const standing = new Set(this.problems);
    for (const conflict of conflicts) if (!standing.has(conflict)) this.#ports.log.warn('host.conflict', conflict);
    this.problems = conflicts;
  }

  #onFailure(error: unknown, attempt: number): void {
    this.problems = [messageOf(error)];
    if (this.#trouble.due()) this.#ports.log.error('plan.failed', messageOf(error), { attempt });
  }
}
