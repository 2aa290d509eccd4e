/**
 * The data process that runs, and how another one takes its place without two of them reading at the same time:
 *
 *   1. prepare   descriptors for the next process; the running one keeps its own
 *   2. spawn     the next process, paused: while its MTU is 0 it reads nothing
 *   3. drain     the running process finishes what it has read, and ends
 *   4. commit    the descriptors; the next process gets its MTU and reads
 *
 * Packets that arrive between 3 and 4 wait in the kernel. A failure before the end of 3 leaves the running process as
 * it was. The caller makes one change at a time.
 */
import type { Clock } from '../../lib/clock.js';
import type { Log } from '../../lib/log.js';
import { builtFile, type NativeCounters, type NativeTable } from '../../lib/native.js';
import type { DatapathConfig } from '../datapath.js';
import type { Descriptors, DescriptorSet } from './descriptors.js';
import { spawnProcess, type DataProcess } from './process.js';
import type { PublishedState } from './published-state.js';
import { identityOf, promoteSocket, removeNextSocket, sameIdentity } from './table.js';

/** The account without rights. */
const nobody = 65534;

export interface HandoverOptions {
  /** The directory of `datapath.sock`. */
  readonly runDir: string;
  readonly executable?: string;
  /** The user and the group that the data process becomes; nobody by default. */
  readonly user?: number;
  readonly group?: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** Sums counters over the lives of several data processes: the counters of an ended one stay, so no sum decreases. */
export class Totals {
  #ended: Readonly<Record<string, number>> = {};

  /** @param last undefined when it could not be read */
  add(last: NativeCounters | undefined): void {
    this.#ended = this.plus(last);
  }

  /** Returns the sum over all ended processes and the running one. */
  plus(running: NativeCounters | undefined): Readonly<Record<string, number>> {
    if (!running) return this.#ended;
    return Object.fromEntries(
      Object.entries(running.counters).map(([name, value]) => [name, value + (this.#ended[name] ?? 0)]),
    );
  }
}

export class Handover {
  readonly totals = new Totals();
  /** CLOCK_BOOTTIME milliseconds of the last launch; an adopted process counts as old. */
  startedMs = -Infinity;
  readonly #options: HandoverOptions;
  readonly #descriptors: DescriptorSet;
  readonly #published: PublishedState;
  readonly #onDeath: (ended: DataProcess) => void;
  #running: DataProcess | undefined;
  /** The running process while it drains. */
  #stopping: DataProcess | undefined;
  #launching = false;

  /** @param onDeath called for a process that ended although nobody stopped it, after its handles are closed */
  constructor(
    options: HandoverOptions,
    descriptors: DescriptorSet,
    published: PublishedState,
    onDeath: (ended: DataProcess) => void,
  ) {
    this.#options = options;
    this.#descriptors = descriptors;
    this.#published = published;
    this.#onDeath = onDeath;
  }

  get running(): DataProcess | undefined {
    return this.#running;
  }

  /** The running process drains: no routes are written to it. */
  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  /** The table of the running process, when it is of our layout and no other process is getting ready beside it. */
  get settledTable(): NativeTable | undefined {
    return this.#launching || !this.#running?.hasOurLayout ? undefined : this.#running.table;
  }

  /** Whether the running process and the descriptors are those of this configuration, apart from the MTU. */
  matches(config: DatapathConfig): boolean {
    const identity = this.#running?.table.identity();
    return identity !== undefined && sameIdentity(identity, identityOf(config)) && this.#descriptors.matches(config);
  }

  /** Takes a process as the running one, and watches it until it ends. */
  setRunning(process: DataProcess): void {
    this.#running = process;
    void process.ended.then(() => {
      if (this.#running !== process || this.#stopping === process) return;
      this.#removeEnded(process);
      this.#onDeath(process);
    });
  }

  /**
   * Starts a process in the place of the running one, or the first one.
   * @throws TartanError DATAPATH_FAILED, DUPLICATE_NODE, PERMISSION
   */
  async launch(config: DatapathConfig, why: string | undefined): Promise<void> {
    this.#launching = true;
    try {
      await this.#launch(config, why);
    } finally {
      this.#launching = false;
    }
  }

  async #launch(config: DatapathConfig, why: string | undefined): Promise<void> {
    const descriptors = await this.#descriptors.prepare(config);
    const next = await this.#spawnAndDrain(config, descriptors, why).catch((error: unknown) => {
      removeNextSocket(this.#options.runDir);
      this.#descriptors.discard(descriptors);
      throw error;
    });
    this.#published.writeControlWords(next.table);
    next.table.setMtu(config.mtu);
    next.ring();
    this.#descriptors.commit(descriptors);
    this.startedMs = this.#options.clock.now();
    this.setRunning(next);
    promoteSocket(this.#options.runDir);
    this.#options.log.info('datapath.started', `started data process ${next.pid}`, { pid: next.pid });
  }

  /** Returns the next process, paused, after the running one has ended. */
  async #spawnAndDrain(
    config: DatapathConfig,
    descriptors: Descriptors,
    why: string | undefined,
  ): Promise<DataProcess> {
    const { executable = builtFile('tartan-datapath'), runDir, user = nobody, group = nobody } = this.#options;
    const { tunFds, udpFds } = descriptors;
    const next = await spawnProcess({ executable, runDir, tunFds, udpFds, user, group }, table => {
      table.setIdentity({ ...identityOf(config), mtu: 0 });
      this.#published.writeAll(table);
    });
    try {
      await this.stop(why);
      return next;
    } catch (error) {
      await next.stop().catch(() => {});
      next.release();
      throw error;
    }
  }

  /**
   * Drains the running process, if any, until it has ended.
   * @throws TartanError DATAPATH_FAILED when the process does not end; then nothing may read beside it
   */
  async stop(why = 'it is replaced'): Promise<void> {
    const running = this.#running;
    if (!running) return;
    const { pid } = running;
    this.#options.log.info('datapath.stopping', `stopping data process ${pid}: ${why}`, { pid });
    this.#stopping = running;
    try {
      await running.stop();
      this.#removeEnded(running);
    } finally {
      this.#stopping = undefined;
    }
  }

  /** Closes the handles of the running process; the process runs on. */
  release(): void {
    this.#running?.release();
    this.#running = undefined;
  }

  #removeEnded(ended: DataProcess): void {
    this.#running = undefined;
    this.totals.add(ended.table.counters());
    ended.release();
  }
}
