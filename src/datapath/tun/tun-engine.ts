/**
 * The Datapath over a TUN link and one data process (tartan-datapath). The engine owns the TUN and UDP descriptors and
 * the published state. The next data process continues where the last one stopped, and packets that arrive in between
 * wait in the kernel. The supervisor launches, watches and replaces the process (lib/supervisor.ts).
 *
 * The reasons for a handover are another configuration or build (`start`), another layout as soon as there are peers
 * (`publish`), and a deleted link or a damaged table (`check`).
 */
import { existsSync, realpathSync } from 'node:fs';
import { bootClock, HeldTime, type Clock } from '../../lib/clock.js';
import { TartanError, messageOf } from '../../lib/errors.js';
import { makeDirectories } from '../../lib/file.js';
import type { Log } from '../../lib/log.js';
import type { NativeCounters, NativeTable } from '../../lib/native.js';
import { defaultHang, Supervisor, type HangLimits } from '../../lib/supervisor.js';
import { formatIpv4, formatPrefix, ipv4FromNumber } from '../../model/ip.js';
import type { TunnelPeer } from '../../model/plan.js';
import type {
  Datapath,
  DatapathConfig,
  DatapathStats,
  Generation,
  PeerMeasurement,
  Stranger,
  WarningKind,
} from '../datapath.js';
import { defaultLanes, DescriptorSet, openTunnel, type TunnelOptions } from './descriptors.js';
import { killUnreachable } from './find-process.js';
import { DataProcessKind, type HandoverOptions } from './handover.js';
import { Measurements } from './measurements.js';
import { adoptProcess, type DataProcess } from './process.js';
import { PublishedState } from './published-state.js';
import { SpoofWarning } from './spoof-warning.js';
import { nextSocketPath, removeNextSocket, removeSockets, setMtus } from './table.js';

/** While a thread owes an answer, or an older table is in use. Else whoever checks each two seconds spares us the timer. */
const checkMs = { waiting: 1_000, quiet: 2_200 } as const;
/** One thread after the other is asked whether it reads the control words, so often. */
const askMs = 1_900;
/** After a look at the whole table: at most 0.1 % of a processor. */
const verifyRest = { factor: 1_000, mostMs: 4_000 } as const;
const writeRetryMs = 5;

export interface DatapathOptions extends HandoverOptions {
  readonly device: string;
  readonly clock?: Clock;
  /** How long the data process may be silent, or use an older table. */
  readonly hang?: HangLimits;
  /** See TunnelOptions; the number of processors decides when this is absent. */
  readonly lanes?: number;
}

/** What the kernel engine needs beside the port. */
export interface TunDatapath extends Datapath {
  /**
   * Whether the link stays when no process has it open any more (TUNSETPERSIST).
   * @returns false while the link is being made again
   */
  setPersistent(on: boolean): boolean;
  /** The number of each published peer that has one, by identity. */
  peerNumbers(): readonly (readonly [identity: string, number: number])[];
}

/**
 * Adopts the data process of an earlier daemon, or makes the link.
 * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
 */
export async function openDatapath(options: DatapathOptions): Promise<TunDatapath> {
  makeDirectories(options.runDir, 0o755);
  // The kernel shows the real path in /proc/<pid>/maps.
  const runDir = realpathSync(options.runDir);
  const resolved = { ...options, runDir, lanes: options.lanes ?? defaultLanes() };
  const adopted = await adoptProcess(runDir, options.log);
  // The socket is left by a daemon that was killed during a handover; so is the process behind it.
  if (existsSync(nextSocketPath(runDir))) await killUnreachable(runDir, options.log, adopted?.process?.pid);
  removeNextSocket(runDir);
  const descriptors = adopted ?? { tunFds: [await openTunnel(resolved)], udpFds: [] };
  return new TunEngine(resolved, new DescriptorSet(resolved, descriptors, !adopted), adopted?.process);
}

class TunEngine implements TunDatapath {
  readonly device: string;
  readonly #runDir: string;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #hang: HangLimits;
  readonly #descriptors: DescriptorSet;
  readonly #published = new PublishedState();
  readonly #kind: DataProcessKind;
  readonly #supervisor: Supervisor<DataProcess>;
  readonly #spoofs: SpoofWarning;
  readonly #measurements = new Measurements();
  #askedMs = -Infinity;
  #checkTimer: NodeJS.Timeout | undefined;
  #writeTimer: NodeJS.Timeout | undefined;
  /** Of the generation that the threads use, which is not the newest. */
  readonly #lag = new HeldTime<Generation>();

  /** The process that was found at the open, when its table could be read. */
  #adopted: DataProcess | undefined;
  /** Why a running process of another build has not been replaced. */
  #handoverProblem = 'it goes on until there are routes to give to another one';
  #peers: readonly TunnelPeer[] = [];
  /** What was said of the peers for which no number is free; undefined when there are none. */
  #refusal: string | undefined;
  #verifyAfterMs = -Infinity;
  /** Why the running process has not got the newest table. */
  #writeProblem: string | undefined;

  constructor(options: DatapathOptions & TunnelOptions, descriptors: DescriptorSet, found: DataProcess | undefined) {
    this.device = options.device;
    this.#runDir = options.runDir;
    this.#log = options.log;
    this.#descriptors = descriptors;
    this.#kind = new DataProcessKind(options, descriptors, this.#published, () => {
      this.#writeProblem = undefined;
      const features = this.#supervisor.running?.table.counters()?.features;
      if (features) this.#descriptors.fitQueue(features);
      this.#writeTable();
    });
    this.#clock = options.clock ?? bootClock;
    this.#hang = options.hang ?? defaultHang;
    this.#supervisor = new Supervisor(this.#kind, { clock: this.#clock, log: options.log, hang: this.#hang });
    if (found) this.#adopt(found);
    this.#spoofs = new SpoofWarning(this.#kind.totals.plus(found?.table.counters()));
    this.#checkLater();
  }

  get adopted(): boolean {
    return this.#adopted !== undefined && this.#adopted === this.#supervisor.running;
  }

  get pid(): number | undefined {
    return this.#supervisor.running?.pid;
  }

  get answersProbes(): boolean {
    // Whatever another build does, its lease is not written by this one.
    return this.#supervisor.running?.buildDifference === undefined;
  }

  get kernelOffer(): undefined {
    return undefined;
  }

  get forwardUntilMs(): number {
    return this.#published.forwardUntil;
  }

  get problems(): readonly string[] {
    const { problem, running } = this.#supervisor;
    const lag =
      running && this.#lag.ms >= this.#hang.tellMs
        ? `data process ${running.pid} has used table ${this.#adoptedGeneration} for ${Math.round(this.#lag.ms / 1000)} s, and the newest is table ${this.#published.generation}: packets go by the older one`
        : undefined;
    return [problem, lag, ...this.#kind.problems].filter(text => text !== undefined);
  }

  async start(config: DatapathConfig): Promise<void> {
    this.#kind.config = config;
    await this.#supervisor.change(() => this.#applyConfig());
  }

  async stop(): Promise<void> {
    this.#kind.config = undefined;
    await this.#supervisor.stop('no tunnel is planned', () => {
      this.#descriptors.close();
      removeSockets(this.#runDir);
    });
  }

  publish(peers: readonly TunnelPeer[]): Generation {
    const generation = this.#replacePeers(peers);
    const { running } = this.#supervisor;
    if (running?.hasOurLayout === false) this.#supervisor.replace(running, running.buildDifference);
    else this.#writeTable();
    if (this.#writeProblem !== undefined) throw new TartanError('DATAPATH_FAILED', this.#writeProblem);
    return generation;
  }

  /** No doorbell: a thread reads the deadline before it passes anything on. */
  forwardUntil(bootMs: number): void {
    this.#published.setForwardUntil(bootMs);
    this.#writeControlWords();
  }

  fence(lost: boolean): void {
    this.#published.setFence(lost);
    this.#writeControlWords();
    this.#supervisor.running?.ring();
  }

  check(): void {
    if (this.#supervisor.isClosing) return;
    this.#supervisor.check();
    this.#checkLag();
    this.#askWhenDue();
    this.#checkLater();
    const { running, isRespawning, isStopping } = this.#supervisor;
    if (!running || !this.#kind.isWanted() || isRespawning || isStopping) return;
    const { linkExists } = this.#descriptors;
    if (linkExists && !this.#isDamaged(running)) return this.#retryTable();
    const why = linkExists ? 'its route table is damaged' : `the link ${this.device} was deleted`;
    this.#supervisor.replace(running, why, true);
  }

  stats(): DatapathStats {
    const { running } = this.#supervisor;
    const current = running?.table.counters();
    const difference = running?.buildDifference;
    const counters = { ...this.#kind.totals.plus(current), ...this.#descriptors.drops };
    const other = `data process ${running?.pid}: ${difference}; ${this.#handoverProblem}`;
    const warnings = [
      ...kindOf('kernel', [...this.#descriptors.warnings, ...(current ? refusalsOf(current) : [])]),
      ...kindOf('account', this.#kind.warnings),
      ...kindOf(
        'room',
        [this.#refusal, this.#writeProblem].filter(text => text !== undefined),
      ),
      ...kindOf('spoofed', this.#spoofs.texts(counters, this.#clock.now())),
      ...kindOf('build', difference === undefined ? [] : [other]),
    ];
    return {
      engine: 'tun',
      pid: running?.pid,
      threads: current?.threads ?? 0,
      generationPublished: this.#published.generation,
      generationAdopted: this.#adoptedGeneration,
      counters,
      respawns: this.#supervisor.respawns,
      handovers: this.#supervisor.handovers,
      features: current?.features ?? [],
      warnings: warnings.map(([, text]) => text),
      warningKinds: warnings.map(([kind]) => kind),
      kernel: { state: 'off', peers: 0 },
    };
  }

  measure(): readonly PeerMeasurement[] {
    const { running } = this.#supervisor;
    return running ? this.#measurements.read(running.table, this.#published.numbers(), this.#clock.now()) : [];
  }

  setPersistent(on: boolean): boolean {
    return this.#descriptors.setPersistent(on);
  }

  peerNumbers(): readonly (readonly [identity: string, number: number])[] {
    return this.#published.numbers();
  }

  strangers(): readonly Stranger[] {
    const found = this.#supervisor.running?.table.strangers() ?? [];
    return found.map(one => ({ ...one, address: ipv4FromNumber(one.address) })).sort((a, b) => b.lastMs - a.lastMs);
  }

  onChange(listener: () => void): void {
    this.#supervisor.onChange(listener);
  }

  async close(): Promise<void> {
    if (this.#supervisor.isClosing) return;
    clearTimeout(this.#checkTimer);
    clearTimeout(this.#writeTimer);
    await this.#supervisor.close();
    this.#descriptors.close();
  }

  /** Takes the process as the running one. One whose table cannot be used runs on; `start` or `publish` replaces it. */
  #adopt(found: DataProcess): void {
    const { pid, hasOurLayout, buildDifference } = found;
    if (!hasOurLayout) this.#published.readControlWords(found.table);
    else if (this.#published.resume(found.table)) this.#adopted = found;
    this.#supervisor.adopt(found);
    this.#kind.enterScope(found);
    if (this.#adopted) this.#log.info('datapath.adopted', `adopted data process ${pid}`, { pid });
    else if (hasOurLayout) this.#log.warn('datapath.damaged', `the table of data process ${pid} is damaged`, { pid });
    else
      this.#log.info('datapath.foreign', `data process ${pid}: ${buildDifference}; ${this.#handoverProblem}`, { pid });
  }

  async #applyConfig(): Promise<void> {
    const { running } = this.#supervisor;
    const { config } = this.#kind;
    // A stop has overtaken the start.
    if (!config) return;
    // The engine cannot read the routes of another layout: that process runs on until `publish` brings routes.
    if (running?.hasOurLayout === false && !this.#published.hasPeers) return;
    if (!running || !this.#kind.matches(running, config))
      return this.#supervisor.launch('it has another configuration');
    setMtus(running.table, config);
    running.ring();
    if (running.buildDifference === undefined) return;
    try {
      await this.#supervisor.launch(running.buildDifference);
    } catch (error) {
      this.#handoverProblem = `${messageOf(error)}; it goes on, start tartand again to try again`;
      this.#log.error('datapath.handover-failed', `data process ${running.pid}: ${this.#handoverProblem}`);
    }
  }

  /** The table of the running process, when it is of our layout and no other process is getting ready beside it. */
  get #settledTable(): NativeTable | undefined {
    const { running, isLaunching } = this.#supervisor;
    return isLaunching || !running?.hasOurLayout ? undefined : running.table;
  }

  /** The lowest generation that a thread of the process uses; 0 when that is not known. */
  get #adoptedGeneration(): Generation {
    const { running } = this.#supervisor;
    const reported = running?.table.adopted();
    return running && reported !== undefined ? this.#published.adopted(running.table, reported) : 0;
  }

  /** Reads all of a table: seven megabytes of 65,536 peers. */
  #isDamaged({ hasOurLayout, table }: DataProcess): boolean {
    const beganMs = performance.now();
    if (!hasOurLayout || beganMs < this.#verifyAfterMs) return false;
    const isDamaged = !table.identity();
    const endMs = performance.now();
    this.#verifyAfterMs = endMs + Math.min(verifyRest.mostMs, verifyRest.factor * (endMs - beganMs));
    return isDamaged;
  }

  #checkLag(): void {
    const { running } = this.#supervisor;
    const adopted = this.#adoptedGeneration;
    const lags = running?.hasOurLayout === true && adopted < this.#published.generation;
    this.#lag.look(lags ? adopted : undefined, this.#clock.now());
    // A thread may have missed the doorbell, and sleeps for ten seconds.
    if (lags) running.ring();
  }

  #checkLater(): void {
    clearTimeout(this.#checkTimer);
    const isWaiting = this.#supervisor.isSilent || this.#lag.isSeen;
    this.#checkTimer = setTimeout(() => this.check(), isWaiting ? checkMs.waiting : checkMs.quiet).unref();
  }

  /** After the look at the answers, which need a moment. */
  #askWhenDue(): void {
    const nowMs = this.#clock.now();
    if (nowMs - this.#askedMs < askMs) return;
    this.#askedMs = nowMs;
    this.#supervisor.running?.askNext(askMs);
  }

  #writeControlWords(): void {
    const { running } = this.#supervisor;
    if (running) this.#published.writeControlWords(running.table);
  }

  #replacePeers(peers: readonly TunnelPeer[]): Generation {
    const generation = this.#published.replace(peers, this.#settledTable);
    this.#peers = peers;
    const refusal = refusalOf(this.#published.refused, peers.length);
    if (refusal !== undefined && refusal !== this.#refusal) this.#log.warn('datapath.peers-refused', refusal);
    this.#refusal = refusal;
    return generation;
  }

  /** Repeats what a full memory or a lack of numbers has stopped. */
  #retryTable(): void {
    if (this.#published.canNumberRefused(this.#settledTable)) this.#replacePeers(this.#peers);
    this.#writeTable();
  }

  /** Writes the newest table, again after a short time while a thread still reads the slot. */
  #writeTable(): void {
    const { running, isStopping, isClosing } = this.#supervisor;
    if (!running?.hasOurLayout || isStopping || isClosing) return;
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

function kindOf(kind: WarningKind, texts: readonly string[]): readonly (readonly [WarningKind, string])[] {
  return texts.map(text => [kind, text]);
}

const refusals: Readonly<Record<string, string>> = {
  udp_df:
    'the kernel refuses DF for outer packets (IP_MTU_DISCOVER): where the path is too narrow they are fragmented or lost, and no sender is told',
  sparse_tos: 'the kernel refuses the TOS of sparse and dense flows (IP_TOS): peers serve them as bulk flows',
};

function refusalsOf({ refused, features }: NativeCounters): readonly string[] {
  const pathMtu = features.includes('path_mtu')
    ? []
    : ['the path MTU cannot be asked for: where the path is too narrow packets are lost, and no sender is told'];
  return [...refused.map(name => refusals[name] ?? name), ...pathMtu];
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
