/**
 * The data process that runs and how another one takes its place: the next one is started parked beside it, the running
 * one is drained and ends, and only then does the next one read. What waits meanwhile waits in the kernel. The caller
 * sees to it that one change is made at a time.
 */
import type { Clock } from '../../lib/clock.js';
import type { Log } from '../../lib/log.js';
import { builtFile } from '../../lib/native.js';
import type { DatapathConfig } from '../datapath.js';
import type { Descriptors, DescriptorSet } from './descriptors.js';
import { spawnProcess, type DataProcess } from './process.js';
import type { PublishedState } from './published-state.js';
import { identityOf, promoteSocket, removeNextSocket, sameIdentity } from './table.js';
import { Totals } from './totals.js';

/** The account without rights that a data process becomes: nobody. */
const nobody = 65534;

export interface HandoverOptions {
  readonly runDir: string;
  readonly executable?: string;
  /** Whom the data process becomes. */
  readonly user?: number;
  readonly group?: number;
  readonly clock: Clock;
  readonly log: Log;
}

export class Handover {
  readonly totals = new Totals();
  /** CLOCK_BOOTTIME milliseconds of the last launch; a process that was found is old. */
  startedMs = -Infinity;
  readonly #options: HandoverOptions;
  readonly #descriptors: DescriptorSet;
  readonly #published: PublishedState;
  readonly #onDeath: (ended: DataProcess) => void;
  #running: DataProcess | undefined;
  /** The same process while it ends because it was told to. */
  #stopping: DataProcess | undefined;

  /** @param onDeath called, after it was let go, for a process that nobody told to end */
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

  /** It was told to end: nothing more is to be told to it. */
  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  fits(config: DatapathConfig): boolean {
    const identity = this.#running?.table.identity();
    return identity !== undefined && sameIdentity(identity, identityOf(config)) && this.#descriptors.fit(config);
  }

  setRunning(process: DataProcess): void {
    this.#running = process;
    void process.ended.then(() => {
      if (this.#running !== process || this.#stopping === process) return;
      this.#discard(process);
      this.#onDeath(process);
    });
  }

  /**
   * What fails before the end of the running one leaves it as it was.
   * @throws TartanError DATAPATH_FAILED, DUPLICATE_NODE, PERMISSION
   */
  async launch(config: DatapathConfig, why: string | undefined): Promise<void> {
    const descriptors = await this.#descriptors.prepare(config);
    const next = await this.#startPaused(config, descriptors, why).catch((error: unknown) => {
      removeNextSocket(this.#options.runDir);
      this.#descriptors.drop(descriptors);
      throw error;
    });
    this.#published.writeWords(next.table);
    next.table.setMtu(config.mtu);
    next.ring();
    this.#descriptors.take(descriptors);
    this.startedMs = this.#options.clock.now();
    this.setRunning(next);
    promoteSocket(this.#options.runDir);
    this.#options.log.info('datapath.started', `started data process ${next.pid}`, { pid: next.pid });
  }

  /** The next one, parked, and nobody beside it: while its MTU is 0 it reads nothing. */
  async #startPaused(config: DatapathConfig, descriptors: Descriptors, why: string | undefined): Promise<DataProcess> {
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
   * Ends the running one, if there is one.
   * @throws TartanError DATAPATH_FAILED when it lives on; then nothing may be started beside it
   */
  async stop(why = 'it is replaced'): Promise<void> {
    const running = this.#running;
    if (!running) return;
    const { pid } = running;
    this.#options.log.info('datapath.stopping', `stopping data process ${pid}: ${why}`, { pid });
    this.#stopping = running;
    try {
      await running.stop();
      this.#discard(running);
    } finally {
      this.#stopping = undefined;
    }
  }

  /** It lives on. */
  release(): void {
    this.#running?.release();
    this.#running = undefined;
  }

  #discard(ended: DataProcess): void {
    this.#running = undefined;
    this.totals.add(ended.table.counters());
    ended.release();
  }
}
