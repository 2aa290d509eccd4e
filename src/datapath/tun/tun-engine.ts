/**
 * The Datapath over a TUN link and one tartan-datapath process. It keeps the TUN and UDP descriptors, so a data
 * process that dies is replaced without losing what waits in the kernel, and it remembers routes and words, so the
 * next one starts where the last one stood. Whatever replaces a process runs in turn.
 *
 *   adopted or launched -> running -> died -> (back-off) -> launched -> running ...
 *                             |-> handed over: next one parked -> this one drained -> next one let go -> running ...
 *
 * Handed over to another one is: another build or layout, another configuration, a deleted link, a damaged table.
 */
import { existsSync, mkdirSync, realpathSync } from 'node:fs';
import { backoffMs } from '../../lib/retry.js';
import { bootClock, type Clock } from '../../lib/clock.js';
import { messageOf } from '../../lib/errors.js';
import { Listeners } from '../../lib/listeners.js';
import type { Log } from '../../lib/log.js';
import { Serial } from '../../lib/serial.js';
import type { TunnelRoute } from '../../model/plan.js';
import type { Datapath, DatapathConfig, DatapathStats, Generation } from '../datapath.js';
import { DescriptorSet, openTunnel, type TunnelOptions } from './descriptors.js';
import { defaultLanes } from './lanes.js';
import { killUnreachable } from './find-process.js';
import { adoptProcess, type DataProcess } from './process.js';
import { PublishedState } from './published-state.js';
import { Handover } from './handover.js';
import { nextSocketPath, packRoutes, removeNextSocket } from './table.js';

const checkMs = 1000;
const publishRetryMs = 5;
/** Processes that die younger than this, one after another, are started again with growing pauses. */
const youngMs = 1000;
const respawnLimits = { firstMs: 100, capMs: 5000 };

export interface DatapathOptions {
  /** Holds `datapath.sock`. */
  readonly runDir: string;
  readonly device: string;
  readonly executable?: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** Whom the data process becomes. */
  readonly user?: number;
  readonly group?: number;
  /** See TunnelOptions; by the number of processors unless given. */
  readonly lanes?: number;
}

/**
 * Adopts the data process of an earlier daemon, or makes the link.
 * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
 */
export async function openDatapath(options: DatapathOptions): Promise<Datapath> {
  mkdirSync(options.runDir, { recursive: true, mode: 0o755 });
  // As the kernel names it in /proc/<pid>/maps.
  const runDir = realpathSync(options.runDir);
  const settled = { ...options, runDir, lanes: options.lanes ?? defaultLanes() };
  const adopted = await adoptProcess(runDir);
  // Of a hand-over that a killed daemon did not end.
  if (existsSync(nextSocketPath(runDir))) await killUnreachable(runDir, options.log, adopted?.process?.pid);
  removeNextSocket(runDir);
  const held = adopted ?? { tunFds: [await openTunnel(settled)], udpFds: [] };
  return new TunEngine(settled, new DescriptorSet(settled, held), adopted?.process);
}

/** One that another one takes over from, because nobody reports what is wrong with it. */
interface Replaced {
  readonly process: DataProcess;
  readonly why: string | undefined;
}

class TunEngine implements Datapath {
  readonly device: string;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #descriptors: DescriptorSet;
  readonly #published = new PublishedState();
  readonly #handover: Handover;
  readonly #listeners = new Listeners();
  readonly #closing = new AbortController();
  readonly #checking: NodeJS.Timeout;
  #retrying: NodeJS.Timeout | undefined;

  #config: DatapathConfig | undefined;
  /** The process that was found, if its table could be continued. */
  #adopted: DataProcess | undefined;
  /** Deaths and failed starts in a row, a long life between two of them ends the row. */
  #failures = 0;
  #respawns = 0;
  /** Why the running process, which is not what was installed, could not be replaced. */
  #handOverProblem = 'it goes on until there are routes to give to another one';
  /** One change of processes at a time. */
  readonly #processChanges = new Serial();
  /** The next start of a data process that nobody asked for, with the pause before it. */
  #respawning: Promise<void> | undefined;

  constructor(options: DatapathOptions & TunnelOptions, descriptors: DescriptorSet, adopted: DataProcess | undefined) {
    this.device = options.device;
    this.#log = options.log;
    this.#clock = options.clock ?? bootClock;
    this.#descriptors = descriptors;
    const settled = { ...options, clock: this.#clock };
    this.#handover = new Handover(settled, descriptors, this.#published, gone => this.#onDeath(gone));
    if (adopted) this.#takeOver(adopted);
    this.#checking = setInterval(() => this.check(), checkMs).unref();
  }

  get adopted(): boolean {
    return this.#adopted !== undefined && this.#adopted === this.#handover.running;
  }

  get forwardUntilMs(): number {
    return this.#published.forwardUntil;
  }

  async start(config: DatapathConfig): Promise<void> {
    this.#config = config;
    // Starting at once after quick deaths would be a loop without a pause.
    await this.#respawning;
    await this.#changeProcess(() => this.#fulfil(config));
  }

  publish(routes: readonly TunnelRoute[]): Generation {
    const generation = this.#published.replace(packRoutes(routes));
    const { running } = this.#handover;
    if (running?.isReadable === false) this.#respawn({ process: running, why: running.difference });
    else this.#flush();
    return generation;
  }

  forwardUntil(bootMs: number): void {
    this.#published.setForwardUntil(bootMs);
    this.#writeWords();
  }

  fence(lost: boolean): void {
    this.#published.setFence(lost);
    this.#writeWords();
  }

  check(): void {
    const { running } = this.#handover;
    if (!running || !this.#config || this.#respawning || this.#handover.isStopping) return;
    const lost = !this.#descriptors.linkAlive;
    if (!lost && (!running.isReadable || running.table.identity())) return;
    this.#failures = 0;
    const why = lost ? `the link ${this.device} was deleted` : 'its route table is damaged';
    this.#respawn({ process: running, why });
  }

  stats(): DatapathStats {
    const { running } = this.#handover;
    const now = running?.table.counters();
    const difference = running?.difference;
    return {
      engine: 'tun',
      pid: running?.pid,
      threads: now?.threads ?? 0,
      generationPublished: this.#published.generation,
      generationAdopted: running && now ? this.#published.adopted(running.table, now.adopted) : 0,
      counters: this.#handover.totals.plus(now),
      respawns: this.#respawns,
      features: now?.features ?? [],
      warnings: [
        ...this.#descriptors.warnings,
        ...(difference === undefined ? [] : [`data process ${running?.pid}: ${difference}; ${this.#handOverProblem}`]),
      ],
    };
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearInterval(this.#checking);
    clearTimeout(this.#retrying);
    await this.#processChanges.drained();
    this.#handover.release();
    this.#descriptors.close();
  }

  /** Runs one change of processes after the others, unless the engine is closing by then. */
  #changeProcess(change: () => Promise<void>): Promise<void> {
    return this.#processChanges.run(() => {
      this.#closing.signal.throwIfAborted();
      return change();
    });
  }

  async #fulfil(config: DatapathConfig): Promise<void> {
    const { running } = this.#handover;
    // It carries by routes that only it knows: the first ones told go to the one after it.
    if (running?.isReadable === false && !this.#published.known) return;
    if (!running || !this.#handover.fits(config)) return this.#launch(config, 'it has another configuration');
    running.table.setMtu(config.mtu);
    running.ring();
    if (running.difference === undefined) return;
    try {
      await this.#launch(config, running.difference);
    } catch (error) {
      this.#handOverProblem = `${messageOf(error)}; it goes on, start tartand again to try again`;
      this.#log.error('datapath.handover-failed', `data process ${running.pid}: ${this.#handOverProblem}`);
    }
  }

  async #launch(config: DatapathConfig, why: string | undefined): Promise<void> {
    await this.#handover.launch(config, why);
    // What was told while it started.
    this.#writeWords();
    this.#flush();
  }

  /** What cannot be believed is not adopted: `start` finds that it does not fit and replaces it. */
  #takeOver(found: DataProcess): void {
    const { pid, isReadable } = found;
    if (!isReadable) this.#published.resumeWords(found.table);
    else if (this.#published.resume(found.table)) this.#adopted = found;
    this.#handover.setRunning(found);
    if (this.#adopted) this.#log.info('datapath.adopted', `adopted data process ${pid}`, { pid });
    else if (isReadable) this.#log.warn('datapath.damaged', `the table of data process ${pid} is damaged`, { pid });
    else this.#log.info('datapath.foreign', `data process ${pid} is of another layout: ${found.difference}`, { pid });
  }

  #writeWords(): void {
    const { running } = this.#handover;
    if (!running) return;
    this.#published.writeWords(running.table);
    running.ring();
  }

  #flush(): void {
    const { running } = this.#handover;
    if (!running?.isReadable || this.#handover.isStopping || this.#closing.signal.aborted) return;
    if (!this.#published.isBehind(running.table)) return;
    if (!this.#published.writeRoutes(running.table) && !this.#retrying) {
      this.#retrying = setTimeout(() => {
        this.#retrying = undefined;
        this.#flush();
      }, publishRetryMs);
    }
    running.ring();
  }

  /** Nobody told it to end: the next one comes at once, or later when this one did not live. */
  #onDeath(gone: DataProcess): void {
    if (this.#closing.signal.aborted) return;
    const young = this.#clock.now() - this.#handover.startedMs < youngMs;
    this.#failures = young ? this.#failures + 1 : 1;
    this.#log.warn('datapath.died', `data process ${gone.pid} died`, { pid: gone.pid, failures: this.#failures });
    this.#respawn(undefined);
  }

  /**
   * Tries until another data process runs, in the place of a dead one or of one that is to go. `start` waits for the
   * try under way.
   */
  #respawn(replaced: Replaced | undefined): void {
    if (!this.#config || this.#respawning || this.#closing.signal.aborted) return;
    const attempt = this.#respawnOnce(replaced);
    this.#respawning = attempt;
    void attempt
      .then(
        () => undefined,
        (error: unknown) => error,
      )
      .then(error => {
        this.#respawning = undefined;
        if (this.#closing.signal.aborted) return;
        if (error !== undefined) {
          this.#failures++;
          this.#log.error('datapath.respawn-failed', messageOf(error), { failures: this.#failures });
          this.#respawn(this.#handover.running && replaced);
        }
        this.#listeners.ring();
      });
  }

  async #respawnOnce(replaced: Replaced | undefined): Promise<void> {
    if (this.#failures > 1) {
      const pauseMs = backoffMs(this.#failures - 1, respawnLimits, () => 1);
      await this.#clock.sleep(pauseMs, this.#closing.signal);
    }
    await this.#changeProcess(async () => {
      // Another turn may have done it already.
      const { running } = this.#handover;
      if (!this.#config || (running && running !== replaced?.process)) return;
      await this.#launch(this.#config, replaced?.why);
      this.#respawns++;
    });
  }
}
