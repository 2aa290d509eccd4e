/**
 * Makes the host and the data plane equal to the plan. Events only ring, and what a ring starts reads the current lease
 * and peers, so retry, resync and first start are the same call. The data plane gets its table at once, whatever the
 * host is doing. The host has passes: after a change of its part of the plan, after a change that the kernel told, and
 * at each sweep.
 */
import { backoffMs } from '../lib/retry.js';
import { messageOf } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { Wake } from '../lib/wake.js';
import type { Backend, PlanNeeds } from '../backend/backend.js';
import type { Datapath } from '../datapath/datapath.js';
import type { Diversion, HostNetwork } from '../host/host.js';
import type { Lease } from '../model/lease.js';
import { formatIpv4, formatPrefix, prefixesOverlap, samePrefix } from '../model/ip.js';
import type { HostPlan, Plan, TunnelPeer } from '../model/plan.js';
import { PublishLog } from './publish-log.js';

export interface Desired {
  readonly backend: Backend;
  readonly self: Lease;
  readonly peers: readonly Lease[];
  readonly needs: Required<PlanNeeds>;
}

export interface ReconcilerPorts {
  readonly host: HostNetwork;
  readonly datapath: Datapath;
  readonly log: Log;
}

/**
 * Each resync is a pass; one that reads all of the host is a sweep. A host that tells of every change is swept once a
 * minute, in case a message was wrong. Elsewhere one whose reading takes long is swept rarely: so many times what the last
 * sweep took, and a minute at most.
 */
const sweep = { factor: 100, mostMs: 60_000 } as const;
/** Passes are so many times rarer where the kernel tells of every change, which it does not of all settings. */
const heardFactor = 6;
/** Of a change in a sentence; the fields have all of it. */
const longestChange = 100;
/** How many hidden peers a problem names. */
const namedMax = 3;
/** The rest after a pass that was no sweep, as a multiple of the time that it took: events may be many. */
const rest = { factor: 4, mostMs: 500 } as const;

export class Reconciler {
  /** The number of failed passes over the host since the last good one. */
  failures = 0;
  /** Since the start of the daemon; those that changed the host are also in `changed`. */
  readonly passes = { total: 0, failed: 0, changed: 0, totalMs: 0, lastMs: null as number | null };
  /** Foreign objects that conflict with the plan, or why the last pass failed. */
  #hostProblems: readonly string[] = [];
  #diversions: readonly Diversion[] = [];
  #publishProblem: string | undefined;
  readonly #wake = new Wake();
  /** Ends the rest after a pass: the plan of the host changed. */
  readonly #urgent = new Wake();
  readonly #throttle = new LogThrottle();
  readonly #publishThrottle = new LogThrottle();
  readonly #publishedLog: PublishLog;
  readonly #ports: ReconcilerPorts;
  readonly #network: string;
  readonly #desired: () => Desired | undefined;
  #running = false;
  #isDue = false;
  /** The last pass changed the host. */
  #changed = false;
  /** What the last plan was made from, and that plan. */
  #made: { readonly from: Desired; readonly plan: Plan } | undefined;
  #publishedTunnel: Plan['tunnel'];
  /** The plan of the last pass over the host, as text. */
  #appliedHost = '';

  /**
   * @param network the name of the network on this host
   * @param desired returns the current lease and peers; undefined while there is no plan
   */
  constructor(ports: ReconcilerPorts, network: string, desired: () => Desired | undefined) {
    this.#ports = ports;
    this.#network = network;
    this.#desired = desired;
    this.#publishedLog = new PublishLog(ports.log);
    ports.host.onChange(() => {
      ports.datapath.check();
      this.#wake.ring();
    });
    ports.datapath.onChange(() => this.#wake.ring());
  }

  /** The peers that the data plane was given last. */
  get tunnel(): Plan['tunnel'] {
    return this.#publishedTunnel;
  }

  get problems(): readonly string[] {
    const host = this.#hostProblems.map(text => `${text}${this.#hiddenBy(text)}`);
    return [...(this.#publishProblem === undefined ? [] : [this.#publishProblem]), ...host];
  }

  /** Names the peers whose packets a conflict takes away. */
  #hiddenBy(conflict: string): string {
    const range = this.#diversions.find(({ text }) => text === conflict)?.range;
    const peers = range ? (this.#desired()?.peers ?? []) : [];
    const hidden = peers.filter(({ subnet }) => range && prefixesOverlap(subnet, range));
    if (hidden.length === 0) return '';
    const names = hidden
      .slice(0, namedMax)
      .map(({ subnet, publicIp }) => `${formatPrefix(subnet)} of ${formatIpv4(publicIp)}`);
    const more = hidden.length > namedMax ? ` and ${hidden.length - namedMax} more` : '';
    return `, hides ${names.join(', ')}${more}`;
  }

  /** The lease, the peers or the backend may have changed. Many rings in one turn of the event loop are one. */
  ring(): void {
    if (!this.#running || this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (!this.#running) return;
      this.#publish();
      const plan = this.#plan();
      if (plan && textOf(plan.host) !== this.#appliedHost) this.ringHost();
    });
  }

  /** The host gets a pass soon, also when its part of the plan is the same. */
  ringHost(): void {
    this.#wake.ring();
    this.#urgent.ring();
  }

  /** Runs until the signal is aborted. @param onPass called after each good pass over the host */
  async run(resyncMs: number, signal: AbortSignal, onPass: () => Promise<void> | void): Promise<void> {
    this.#running = true;
    try {
      for (let attempt = 0, sweepTookMs = 0, heardTookMs = 0, sweptAtMs = -Infinity; ;) {
        const beganMs = performance.now();
        // The timer of the resync may be early by a part of a millisecond.
        const isSweep = attempt > 0 || beganMs - sweptAtMs >= Math.max(resyncMs - 1, this.#sweepRestMs(sweepTookMs));
        attempt = (await this.#attempt(!isSweep, attempt, onPass, signal)) ? 0 : attempt + 1;
        this.failures = attempt;
        const tookMs = performance.now() - beganMs;
        this.#countPass(tookMs);
        if (isSweep) {
          sweptAtMs = beganMs;
          sweepTookMs = tookMs;
          heardTookMs = 0;
        } else heardTookMs = tookMs;
        if (attempt > 0) await this.#wake.wait(backoffMs(attempt, { firstMs: 250, capMs: resyncMs }), signal);
        else {
          // A pass that changed something may be followed at once by one that sees what came of it.
          if (!this.#changed) await this.#urgent.wait(Math.min(rest.mostMs, rest.factor * heardTookMs), signal);
          const isHeard = this.#ports.host.hearsAll && !this.#changed;
          await this.#wake.wait(isHeard ? resyncMs * heardFactor : resyncMs, signal);
        }
      }
    } finally {
      this.#running = false;
      this.#publishedLog.close();
    }
  }

  /** Milliseconds between sweeps, as far as the host has a say. */
  #sweepRestMs(lastTookMs: number): number {
    if (this.#changed) return 0;
    return this.#ports.host.hearsAll ? sweep.mostMs : Math.min(sweep.mostMs, lastTookMs * sweep.factor);
  }

  #countPass(tookMs: number): void {
    const { passes } = this;
    passes.total++;
    passes.totalMs += tookMs;
    passes.lastMs = tookMs;
    if (this.failures > 0) passes.failed++;
    if (this.#changed) passes.changed++;
  }

  /** The table, then the host. @returns whether both are as planned */
  async #attempt(
    heardOnly: boolean,
    failures: number,
    onPass: () => Promise<void> | void,
    signal: AbortSignal,
  ): Promise<boolean> {
    this.#publish();
    try {
      const isPlanned = await this.#pass(heardOnly, signal);
      this.#throttle.reset();
      if (this.#publishProblem !== undefined) return false;
      if (isPlanned) await onPass();
      return true;
    } catch (error) {
      signal.throwIfAborted();
      this.#onFailure(error, failures + 1);
      return false;
    }
  }

  /** The plan is made again only when something that it is made from is another one. */
  #plan(): Plan | undefined {
    const desired = this.#desired();
    if (!desired) return undefined;
    const from = this.#made?.from;
    const isSame =
      from?.backend === desired.backend &&
      from.self === desired.self &&
      from.peers === desired.peers &&
      from.needs.forwarding === desired.needs.forwarding &&
      from.needs.kernel === desired.needs.kernel;
    if (!this.#made || !isSame)
      this.#made = {
        from: desired,
        plan: desired.backend.plan(desired.self, desired.peers, desired.needs),
      };
    return this.#made.plan;
  }

  #publish(): void {
    const { datapath, log } = this.#ports;
    try {
      const plan = this.#plan();
      if (!plan?.tunnel) return;
      if (isSameTunnel(plan.tunnel, this.#publishedTunnel)) {
        // Another list of the same peers: the next look at it is a short one.
        this.#publishedTunnel = plan.tunnel;
        return;
      }
      datapath.publish(plan.tunnel);
      this.#publishedTunnel = plan.tunnel;
      this.#publishProblem = undefined;
      this.#publishThrottle.reset();
      this.#publishedLog.add(plan.tunnel.length);
    } catch (error) {
      this.#publishProblem = messageOf(error);
      if (this.#publishThrottle.due()) log.error('plan.failed', messageOf(error));
    }
  }

  async #pass(heardOnly: boolean, signal: AbortSignal): Promise<boolean> {
    this.#changed = false;
    const plan = this.#plan();
    if (!plan) return false;
    const { host, log } = this.#ports;
    const wanted = textOf(plan.host);
    const cause = wanted !== this.#appliedHost ? 'the plan is another one' : causeOf(heardOnly);
    this.#appliedHost = wanted;
    const { changes, conflicts, diversions = [] } = await host.apply(this.#network, plan.host, { signal, heardOnly });
    this.#changed = changes.length > 0;
    this.#diversions = diversions;
    this.#setConflicts(conflicts);
    const peers = plan.tunnel?.length;
    if (this.#changed) log.info('plan.applied', appliedText(changes, cause), { peers, changes });
    return true;
  }

  /** Logs each conflict once, for as long as it lasts. */
  #setConflicts(conflicts: readonly string[]): void {
    const known = new Set(this.#hostProblems);
    for (const conflict of conflicts)
      if (!known.has(conflict)) this.#ports.log.warn('host.conflict', `${conflict}${this.#hiddenBy(conflict)}`);
    this.#hostProblems = conflicts;
  }

  #onFailure(error: unknown, attempt: number): void {
    this.#hostProblems = [messageOf(error)];
    if (this.#throttle.due()) this.#ports.log.error('plan.failed', messageOf(error), { attempt });
  }
}

function causeOf(heardOnly: boolean): string {
  return heardOnly ? 'the kernel told of a change' : 'a look at the whole host found it different';
}

/** @param cause of the pass */
function appliedText(changes: readonly string[], cause: string): string {
  const more = changes.length > 1 ? ` and ${changes.length - 1} more` : '';
  return `the host is as planned after ${cutText(changes[0] ?? '')}${more}: ${cause}`;
}

function cutText(text: string): string {
  return text.length > longestChange ? `${text.slice(0, longestChange)}...` : text;
}

function isSameTunnel(a: readonly TunnelPeer[], b: Plan['tunnel']): boolean {
  if (a === b) return true;
  if (a.length !== b?.length) return false;
  return a.every((peer, i) => {
    const other = b[i];
    if (peer === other) return true;
    return (
      other?.identity === peer.identity &&
      other.endpoint === peer.endpoint &&
      other.port === peer.port &&
      other.features === peer.features &&
      (other.kernel === undefined) === (peer.kernel === undefined) &&
      peer.prefixes.length === other.prefixes.length &&
      peer.prefixes.every((prefix, at) => samePrefix(prefix, other.prefixes[at] ?? prefix))
    );
  });
}

/** Most plans of a host do not name peers, so this text is short. */
function textOf(plan: HostPlan): string {
  return JSON.stringify(plan);
}
