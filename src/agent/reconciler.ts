/**
 * Makes the host and the data plane equal to the plan, in passes. Events only ring. Each pass reads the current lease
 * and peers, so retry, resync and first start are the same call.
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
  /** The whole host must forward. */
  readonly forwarding: boolean;
}

export interface ReconcilerPorts {
  readonly host: HostNetwork;
  readonly datapath: Datapath;
  readonly log: Log;
}

export class Reconciler {
  /** The number of failed passes since the last good one. */
  failures = 0;
  /** Foreign objects that conflict with the plan, or why the last pass failed. */
  problems: readonly string[] = [];
  readonly #wake = new Wake();
  readonly #throttle = new LogThrottle();
  readonly #ports: ReconcilerPorts;
  readonly #network: string;
  readonly #desired: () => Desired | undefined;
  #publishedTunnel: string | undefined = '';
  #publishedPeers = -1;

  /**
   * @param network the name of the network on this host
   * @param desired returns the current lease and peers; undefined while there is no plan
   */
  constructor(ports: ReconcilerPorts, network: string, desired: () => Desired | undefined) {
    this.#ports = ports;
    this.#network = network;
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

  /** Runs until the signal is aborted. @param onPass called after each good pass */
  async run(resyncMs: number, signal: AbortSignal, onPass: () => Promise<void> | void): Promise<void> {
    for (let attempt = 0; ;) {
      try {
        if (await this.#pass(signal)) await onPass();
        attempt = 0;
        this.#throttle.reset();
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
    // Both are attempted: a host that refuses a rule must not keep a peer's route from the data plane.
    const [applied] = await Promise.allSettled([host.apply(this.#network, plan.host, { signal })]);
    const tunnel = plan.tunnel && JSON.stringify(plan.tunnel);
    if (plan.tunnel && tunnel !== this.#publishedTunnel) datapath.publish(plan.tunnel);
    const changed = tunnel !== this.#publishedTunnel || desired.peers.length !== this.#publishedPeers;
    this.#publishedTunnel = tunnel;
    this.#publishedPeers = desired.peers.length;
    if (applied.status === 'rejected') throw applied.reason;
    this.#setConflicts(applied.value.conflicts);
    if (changed || applied.value.changes.length > 0) {
      log.info('plan.applied', `the host is as planned, ${desired.peers.length} peers`, {
        peers: desired.peers.length,
        changes: applied.value.changes,
      });
    }
    return true;
  }

  /** Logs each conflict once, for as long as it lasts. */
  #setConflicts(conflicts: readonly string[]): void {
    const known = new Set(this.problems);
    for (const conflict of conflicts) if (!known.has(conflict)) this.#ports.log.warn('host.conflict', conflict);
    this.problems = conflicts;
  }

  #onFailure(error: unknown, attempt: number): void {
    this.problems = [messageOf(error)];
    if (this.#throttle.due()) this.#ports.log.error('plan.failed', messageOf(error), { attempt });
  }
}
