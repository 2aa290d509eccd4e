/**
 * The Datapath over a TUN link and one data process (tartan-datapath). The engine owns the TUN and UDP descriptors and
 * the published state. The next data process continues where the last one stopped, and packets that arrive in between
 * wait in the kernel. One change of processes is made at a time:
 *
 *   state     event                                                                  next state
 *   none      the process of an earlier daemon is adopted, or `start` launches one   running
 *   running   handover to another process (handover.ts)                              running
 *   running   death                                                                  dead
 *   dead      respawn, after a back-off when processes die young                     running
 *
 * The reasons for a handover are another configuration or build (`start`), another layout as soon as there are peers
 * (`publish`), and a deleted link or a damaged table (`check`).
 */
import { existsSync, mkdirSync, realpathSync } from 'node:fs';
import { bootClock, type Clock } from '../../lib/clock.js';
import { TartanError, messageOf } from '../../lib/errors.js';
import { Listeners } from '../../lib/listeners.js';
import type { Log } from '../../lib/log.js';
import { backoffMs } from '../../lib/retry.js';
import { Serial } from '../../lib/serial.js';
import { formatIpv4, formatPrefix } from '../../model/ip.js';
import type { TunnelPeer } from '../../model/plan.js';
import type { Datapath, DatapathConfig, DatapathStats, Generation } from '../datapath.js';
import { defaultLanes, DescriptorSet, openTunnel, type TunnelOptions } from './descriptors.js';
import { killUnreachable } from './find-process.js';
import { Handover, type HandoverOptions } from './handover.js';
import { adoptProcess, type DataProcess } from './process.js';
import { PublishedState } from './published-state.js';
import { nextSocketPath, removeNextSocket, removeSockets } from './table.js';

const checkMs = 1000;
const writeRetryMs = 5;
/** A process that lives shorter than this died young; several of them in a row are respawned with growing delays. */
const youngMs = 1000;
const respawnLimits = { firstMs: 100, capMs: 5000 };

export interface DatapathOptions extends Omit<HandoverOptions, 'clock'> {
  readonly device: string;
  readonly clock?: Clock;
  /** See TunnelOptions; the number of processors decides when this is absent. */
  readonly lanes?: number;
}

/**
 * Adopts the data process of an earlier daemon, or makes the link.
 * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
 */
export async function openDatapath(options: DatapathOptions): Promise<Datapath> {
  mkdirSync(options.runDir, { recursive: true, mode: 0o755 });
  // The kernel shows the real path in /proc/<pid>/maps.
  const runDir = realpathSync(options.runDir);
  const resolved = { ...options, runDir, lanes: options.lanes ?? defaultLanes() };
  const adopted = await adoptProcess(runDir, options.log);
  // The socket is left by a daemon that was killed during a handover; so is the process behind it.
  if (existsSync(nextSocketPath(runDir))) await killUnreachable(runDir, options.log, adopted?.process?.pid);
  removeNextSocket(runDir);
  const descriptors = adopted ?? { tunFds: [await openTunnel(resolved)], udpFds: [] };
  return new TunEngine(resolved, new DescriptorSet(resolved, descriptors), adopted?.process);
}

/** A running process that another one must replace. */
interface Replaced {
  readonly process: DataProcess;
  readonly why: string | undefined;
}

class TunEngine implements Datapath {
  readonly device: string;
  readonly #runDir: string;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #descriptors: DescriptorSet;
  readonly #published = new PublishedState();
  readonly #handover: Handover;
  readonly #listeners = new Listeners();
  readonly #closing = new AbortController();
  readonly #checkTimer: NodeJS.Timeout;
  readonly #processChanges = new Serial();
  #writeTimer: NodeJS.Timeout | undefined;

  #config: DatapathConfig | undefined;
  /** The process that was found at the open, when its table could be read. */
  #adopted: DataProcess | undefined;
  /** Deaths and failed respawns in a row; a process that did not die young ends the row. */
  #failures = 0;
  #respawns = 0;
  /** The respawn attempt under way, with the back-off before it. */
  #respawning: Promise<void> | undefined;
  /** Why a running process of another build has not been replaced. */
  #handoverProblem = 'it goes on until there are routes to give to another one';
  #peers: readonly TunnelPeer[] = [];
  /** What was said of the peers for which no number is free; undefined when there are none. */
  #refusal: string | undefined;
  /** Why the running process has not got the newest table. */
  #writeProblem: string | undefined;

  constructor(options: DatapathOptions & TunnelOptions, descriptors: DescriptorSet, found: DataProcess | undefined) {
    this.device = options.device;
    this.#runDir = options.runDir;
    this.#log = options.log;
    this.#clock = options.clock ?? bootClock;
    this.#descriptors = descriptors;
    const resolved = { ...options, clock: this.#clock };
    this.#handover = new Handover(resolved, descriptors, this.#published, ended => this.#onDeath(ended));
    if (found) this.#adopt(found);
    this.#checkTimer = setInterval(() => this.check(), checkMs).unref();
  }

  get adopted(): boolean {
    return this.#adopted !== undefined && this.#adopted === this.#handover.running;
  }

  get forwardUntilMs(): number {
    return this.#published.forwardUntil;
  }

  async start(config: DatapathConfig): Promise<void> {
    this.#config = config;
    // A start that did not wait here would skip the back-off after young deaths.
    await this.#respawning;
    await this.#changeProcess(() => this.#applyConfig(config));
  }

  async stop(): Promise<void> {
    this.#config = undefined;
    await this.#respawning;
    await this.#changeProcess(async () => {
      await this.#handover.stop('no tunnel is planned');
      this.#descriptors.close();
      removeSockets(this.#runDir);
    });
  }

  publish(peers: readonly TunnelPeer[]): Generation {
    const generation = this.#replacePeers(peers);
    const { running } = this.#handover;
    if (running?.hasOurLayout === false) void this.#respawn({ process: running, why: running.buildDifference });
    else this.#writeTable();
    if (this.#writeProblem !== undefined) throw new TartanError('DATAPATH_FAILED', this.#writeProblem);
    return generation;
  }

  forwardUntil(bootMs: number): void {
    this.#published.setForwardUntil(bootMs);
    this.#writeControlWords();
  }

  fence(lost: boolean): void {
    this.#published.setFence(lost);
    this.#writeControlWords();
  }

  check(): void {
    const { running } = this.#handover;
    if (!running || !this.#config || this.#respawning || this.#handover.isStopping) return;
    const { linkExists } = this.#descriptors;
    const isDamaged = running.hasOurLayout && !running.table.identity();
    if (linkExists && !isDamaged) return this.#retryTable();
    this.#failures = 0;
    const why = linkExists ? 'its route table is damaged' : `the link ${this.device} was deleted`;
    void this.#respawn({ process: running, why });
  }

  stats(): DatapathStats {
    const { running } = this.#handover;
    const current = running?.table.counters();
    const difference = running?.buildDifference;
    return {
      engine: 'tun',
      pid: running?.pid,
      threads: current?.threads ?? 0,
      generationPublished: this.#published.generation,
      generationAdopted: running && current ? this.#published.adopted(running.table, current.adopted) : 0,
      counters: this.#handover.totals.plus(current),
      respawns: this.#respawns,
      features: current?.features ?? [],
      warnings: [
        ...this.#descriptors.warnings,
        ...[this.#refusal, this.#writeProblem].filter(text => text !== undefined),
        ...(difference === undefined ? [] : [`data process ${running?.pid}: ${difference}; ${this.#handoverProblem}`]),
      ],
    };
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearInterval(this.#checkTimer);
    clearTimeout(this.#writeTimer);
    await this.#processChanges.drained();
    this.#handover.release();
    this.#descriptors.close();
  }

  /** Takes the process as the running one. One whose table cannot be used runs on; `start` or `publish` replaces it. */
  #adopt(found: DataProcess): void {
    const { pid, hasOurLayout, buildDifference } = found;
    if (!hasOurLayout) this.#published.readControlWords(found.table);
    else if (this.#published.resume(found.table)) this.#adopted = found;
    this.#handover.setRunning(found);
    if (this.#adopted) this.#log.info('datapath.adopted', `adopted data process ${pid}`, { pid });
    else if (hasOurLayout) this.#log.warn('datapath.damaged', `the table of data process ${pid} is damaged`, { pid });
    else
      this.#log.info('datapath.foreign', `data process ${pid}: ${buildDifference}; ${this.#handoverProblem}`, { pid });
  }

  /** Runs one change of processes after the others, unless the engine is closing by then. */
  #changeProcess(change: () => Promise<void>): Promise<void> {
    return this.#processChanges.run(() => {
      this.#closing.signal.throwIfAborted();
      return change();
    });
  }

  async #applyConfig(config: DatapathConfig): Promise<void> {
    const { running } = this.#handover;
    // The engine cannot read the routes of another layout: that process runs on until `publish` brings routes.
    if (running?.hasOurLayout === false && !this.#published.hasPeers) return;
    if (!running || !this.#handover.matches(config)) return this.#launch(config, 'it has another configuration');
    running.table.setMtu(config.mtu);
    running.ring();
    if (running.buildDifference === undefined) return;
    try {
      await this.#launch(config, running.buildDifference);
    } catch (error) {
      this.#handoverProblem = `${messageOf(error)}; it goes on, start tartand again to try again`;
      this.#log.error('datapath.handover-failed', `data process ${running.pid}: ${this.#handoverProblem}`);
    }
  }

  /** Launches a process, by a handover when another one runs. */
  async #launch(config: DatapathConfig, why: string | undefined): Promise<void> {
    await this.#handover.launch(config, why);
    this.#writeProblem = undefined;
    // These may have changed during the launch.
    this.#writeControlWords();
    this.#writeTable();
  }

  /** The handover calls this for a process that ended although nobody stopped it. */
  #onDeath(ended: DataProcess): void {
    this.#writeProblem = undefined;
    if (this.#closing.signal.aborted) return;
    const isYoung = this.#clock.now() - this.#handover.startedMs < youngMs;
    this.#failures = isYoung ? this.#failures + 1 : 1;
    this.#log.warn('datapath.died', `data process ${ended.pid} died`, { pid: ended.pid, failures: this.#failures });
    void this.#respawn(undefined);
  }

  /** Attempts to launch a process until one runs, in the place of a dead one (undefined) or of one to be replaced. */
  async #respawn(replaced: Replaced | undefined): Promise<void> {
    if (!this.#config || this.#respawning || this.#closing.signal.aborted) return;
    this.#respawning = this.#attemptRespawn(replaced);
    const error: unknown = await this.#respawning.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    this.#respawning = undefined;
    if (this.#closing.signal.aborted) return;
    if (error !== undefined) {
      this.#failures++;
      this.#log.error('datapath.respawn-failed', messageOf(error), { failures: this.#failures });
      void this.#respawn(this.#handover.running && replaced);
    }
    this.#listeners.ring();
  }

  async #attemptRespawn(replaced: Replaced | undefined): Promise<void> {
    if (this.#failures > 1) {
      const delayMs = backoffMs(this.#failures - 1, respawnLimits, () => 1);
      await this.#clock.sleep(delayMs, this.#closing.signal);
    }
    await this.#changeProcess(async () => {
      // An earlier change may have launched a process meanwhile.
      const { running } = this.#handover;
      if (!this.#config || (running && running !== replaced?.process)) return;
      await this.#launch(this.#config, replaced?.why);
      this.#respawns++;
    });
  }

  #writeControlWords(): void {
    const { running } = this.#handover;
    if (!running) return;
    this.#published.writeControlWords(running.table);
    running.ring();
  }

  #replacePeers(peers: readonly TunnelPeer[]): Generation {
    const generation = this.#published.replace(peers, this.#handover.settledTable);
    this.#peers = peers;
    const refusal = refusalOf(this.#published.refused, peers.length);
    if (refusal !== undefined && refusal !== this.#refusal) this.#log.warn('datapath.peers-refused', refusal);
    this.#refusal = refusal;
    return generation;
  }

  /** Repeats what a full memory or a lack of numbers has stopped. */
  #retryTable(): void {
    if (this.#published.canNumberRefused(this.#handover.settledTable)) this.#replacePeers(this.#peers);
    this.#writeTable();
  }

  /** Writes the newest table, again after a short time while a thread still reads the slot. */
  #writeTable(): void {
    const { running } = this.#handover;
    if (!running?.hasOurLayout || this.#handover.isStopping || this.#closing.signal.aborted) return;
    if (!this.#published.isBehind(running.table)) return;
    if (!this.#attemptWrite(running) && !this.#writeTimer) {
      this.#writeTimer = setTimeout(() => {
        this.#writeTimer = undefined;
        this.#writeTable();
      }, writeRetryMs);
    }
    running.ring();
  }

  /** @returns whether there is no use in writing again soon */
  #attemptWrite(running: DataProcess): boolean {
    try {
      const isWritten = this.#published.writeRows(running.table);
      if (isWritten) this.#writeProblem = undefined;
      return isWritten;
    } catch (error) {
      if (this.#writeProblem === undefined) this.#log.error('datapath.publish-failed', messageOf(error));
      this.#writeProblem = messageOf(error);
      return true;
    }
  }
}

/** How many refused peers a warning names. */
const namedMax = 3;

function refusalOf(refused: readonly TunnelPeer[], count: number): string | undefined {
  if (refused.length === 0) return undefined;
  const names = refused.slice(0, namedMax).map(({ prefixes, endpoint }) => {
    return `${prefixes.map(formatPrefix).join(' ')} via ${formatIpv4(endpoint)}`;
  });
  const more = refused.length > namedMax ? ', ...' : '';
  return `no number is free for ${refused.length} of ${count} peers, so nothing is sent to them: ${names.join(', ')}${more}`;
}
