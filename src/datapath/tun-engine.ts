/**
 * The Datapath over a TUN link and one tartan-datapath process. It keeps the TUN and UDP descriptors, so a data
 * process that dies is replaced without losing what waits in the kernel, and it remembers routes and words, so the
 * next one starts where the last one stood. Whatever replaces a process runs in turn: never do two read one socket.
 *
 *   adopted or launched -> running -> died -> (back-off) -> launched -> running ...
 *                             |-> table damaged or link deleted: stopped -> launched
 */
import { mkdirSync, realpathSync } from 'node:fs';
import { backoffMs } from '../lib/backoff.js';
import { bootClock, type Clock } from '../lib/clock.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { builtFile } from '../lib/native.js';
import type { TunnelRoute } from '../model/plan.js';
import type { Datapath, DatapathConfig, DatapathStats, Generation } from './datapath.js';
import { Ends, openTunnel, type TunnelOptions } from './descriptors.js';
import { defaultLanes } from './lanes.js';
import { adoptProcess, spawnProcess, type DataProcess } from './process.js';
import { Publication } from './publication.js';
import { identityOf, packRoutes, removeFiles, sameIdentity } from './table.js';
import { Totals } from './totals.js';

const checkMs = 1000;
const publishRetryMs = 5;
/** Processes that die younger than this, one after another, are started again with growing pauses. */
const youngMs = 1000;
const respawnLimits = { firstMs: 100, capMs: 5000 };

/** The account without rights that a data process becomes: nobody. */
const nobody = 65534;

export interface DatapathOptions {
  /** Holds `routes`, `counters` and `datapath.sock`. */
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
  const tunFds = adopted?.tunFds ?? [await openTunnel(settled)];
  return new TunEngine(settled, new Ends(settled, tunFds, adopted?.udpFds ?? []), adopted?.process);
}

class TunEngine implements Datapath {
  readonly device: string;
  readonly #options: DatapathOptions & TunnelOptions;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #ends: Ends;
  readonly #publication = new Publication();
  readonly #totals = new Totals();
  readonly #listeners: (() => void)[] = [];
  readonly #closing = new AbortController();
  readonly #checking: NodeJS.Timeout;
  #retrying: NodeJS.Timeout | undefined;

  #config: DatapathConfig | undefined;
  #process: DataProcess | undefined;
  /** The same process while it ends because it was told to. */
  #stopping: DataProcess | undefined;
  #adopted = false;
  /** When the running process was launched; an adopted one is old. */
  #startedMs = -Infinity;
  /** Deaths and failed starts in a row, a long life between two of them ends the row. */
  #failures = 0;
  #respawns = 0;
  #turn: Promise<unknown> = Promise.resolve();
  /** The next start of a data process that nobody asked for, with the pause before it. */
  #revival: Promise<void> | undefined;

  constructor(options: DatapathOptions & TunnelOptions, ends: Ends, adopted: DataProcess | undefined) {
    this.device = options.device;
    this.#options = options;
    this.#log = options.log;
    this.#clock = options.clock ?? bootClock;
    this.#ends = ends;
    if (adopted) this.#takeOver(adopted);
    this.#checking = setInterval(() => this.#check(), checkMs).unref();
  }

  get adopted(): boolean {
    return this.#adopted;
  }

  async start(config: DatapathConfig): Promise<void> {
    this.#config = config;
    // Starting at once after quick deaths would be a loop without a pause.
    await this.#revival;
    await this.#inTurn(async () => {
      const running = this.#process;
      if (running && this.#fits(running, config)) {
        running.table.setMtu(config.mtu);
        running.ring();
        return;
      }
      if (running) await this.#stop(running, 'it has another configuration');
      await this.#launch(config);
    });
  }

  publish(routes: readonly TunnelRoute[]): Generation {
    const generation = this.#publication.replace(packRoutes(routes));
    this.#flush();
    return generation;
  }

  forwardUntil(bootMs: number): void {
    this.#publication.setForwardUntil(bootMs);
    this.#writeWords();
  }

  fence(lost: boolean): void {
    this.#publication.setFence(lost);
    this.#writeWords();
  }

  stats(): DatapathStats {
    const now = this.#process?.table.counters();
    return {
      engine: 'tun',
      pid: this.#process?.pid,
      threads: now?.threads ?? 0,
      generationPublished: this.#publication.generation,
      generationAdopted: now ? this.#publication.adopted(now.adopted) : 0,
      counters: this.#totals.plus(now),
      respawns: this.#respawns,
      features: now?.features ?? [],
      warnings: [...this.#ends.warnings, this.#process?.warning].filter(text => text !== undefined),
    };
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearInterval(this.#checking);
    clearTimeout(this.#retrying);
    await this.#turn;
    this.#process?.release();
    this.#process = undefined;
    this.#ends.close();
  }

  async remove(): Promise<void> {
    try {
      await this.#inTurn(async () => {
        this.#config = undefined;
        if (this.#process) await this.#stop(this.#process, 'the data plane is being removed');
        removeFiles(this.#options.runDir);
      });
    } finally {
      await this.close();
    }
  }

  /** One change of processes at a time; a failed one does not stop the next. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const result = this.#turn.then(() => {
      this.#closing.signal.throwIfAborted();
      return work();
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  #fits(running: DataProcess, config: DatapathConfig): boolean {
    const identity = running.table.identity();
    return identity !== undefined && sameIdentity(identity, identityOf(config)) && this.#ends.fit(config);
  }

  /** What cannot be believed is not adopted: `start` finds that it does not fit and replaces it. */
  #takeOver(found: DataProcess): void {
    this.#adopted = this.#publication.resume(found.table);
    this.#attach(found);
    const text = this.#adopted ? `adopted data process ${found.pid}` : `data process ${found.pid} has damaged files`;
    this.#log.info(this.#adopted ? 'datapath.adopted' : 'datapath.damaged', text, { pid: found.pid });
  }

  #attach(running: DataProcess): void {
    this.#process = running;
    void running.ended.then(() => this.#died(running));
  }

  async #launch(config: DatapathConfig): Promise<void> {
    await this.#ends.prepare(config);
    const { executable = builtFile('tartan-datapath'), runDir, user = nobody, group = nobody } = this.#options;
    const { tunFds, udpFds } = this.#ends;
    const started = await spawnProcess({ executable, runDir, tunFds, udpFds, user, group }, table => {
      table.setIdentity(identityOf(config));
      this.#publication.writeAll(table);
    });
    this.#adopted = false;
    this.#startedMs = this.#clock.now();
    this.#attach(started);
    // What was said while it started.
    this.#writeWords();
    this.#flush();
    this.#log.info('datapath.started', `started data process ${started.pid}`, { pid: started.pid });
  }

  #writeWords(): void {
    if (!this.#process) return;
    this.#publication.writeWords(this.#process.table);
    this.#process.ring();
  }

  #flush(): void {
    const running = this.#process;
    if (!running || running === this.#stopping || !this.#publication.waiting || this.#closing.signal.aborted) return;
    if (!this.#publication.writeRoutes(running.table) && !this.#retrying) {
      this.#retrying = setTimeout(() => {
        this.#retrying = undefined;
        this.#flush();
      }, publishRetryMs);
    }
    running.ring();
  }

  /** @throws TartanError DATAPATH_FAILED when it lives on; then nothing may be started beside it */
  async #stop(running: DataProcess, why: string): Promise<void> {
    this.#log.info('datapath.stopping', `stopping data process ${running.pid}: ${why}`, { pid: running.pid });
    this.#stopping = running;
    try {
      await running.stop();
      this.#letGo(running);
    } finally {
      this.#stopping = undefined;
    }
  }

  #letGo(gone: DataProcess): void {
    this.#process = undefined;
    this.#totals.add(gone.table.counters());
    gone.release();
  }

  /** Nobody told it to end: the next one comes at once, or later when this one did not live. */
  #died(gone: DataProcess): void {
    if (this.#process !== gone || this.#stopping === gone || this.#closing.signal.aborted) return;
    const young = this.#clock.now() - this.#startedMs < youngMs;
    this.#failures = young ? this.#failures + 1 : 1;
    this.#log.warn('datapath.died', `data process ${gone.pid} died`, { pid: gone.pid, failures: this.#failures });
    this.#letGo(gone);
    this.#revive(() => Promise.resolve());
  }

  /** Tries until a data process runs; `first` makes room for it. `start` waits for the try under way. */
  #revive(first: () => Promise<void>): void {
    if (!this.#config || this.#closing.signal.aborted) return;
    const attempt = this.#respawn(first);
    this.#revival = attempt;
    void attempt
      .then(
        () => undefined,
        (error: unknown) => error,
      )
      .then(error => {
        this.#revival = undefined;
        if (this.#closing.signal.aborted) return;
        if (error !== undefined) {
          this.#failures++;
          this.#log.error('datapath.respawn-failed', messageOf(error), { failures: this.#failures });
          this.#revive(first);
        }
        for (const listener of this.#listeners) listener();
      });
  }

  async #respawn(first: () => Promise<void>): Promise<void> {
    if (this.#failures > 1) {
      const pauseMs = backoffMs(this.#failures - 1, respawnLimits, () => 1);
      await this.#clock.sleep(pauseMs, this.#closing.signal);
    }
    await this.#inTurn(async () => {
      await first();
      if (this.#process || !this.#config) return;
      await this.#launch(this.#config);
      this.#respawns++;
    });
  }

  /** What nobody reports: a link deleted under us, and a table that somebody wrote over. */
  #check(): void {
    const running = this.#process;
    if (!running || !this.#config || this.#revival || this.#stopping) return;
    const lost = !this.#ends.linkAlive;
    if (!lost && running.table.identity()) return;
    this.#failures = 0;
    const why = lost ? `the link ${this.device} was deleted` : 'its route table is damaged';
    this.#revive(async () => {
      if (this.#process === running) await this.#stop(running, why);
    });
  }
}
