/**
 * The Datapath of both engines. The user-space engine has every call; beside it the kernel engine carries all packets
 * between two hosts that can (kernel-path.ts), as long as the configuration asks for it. What the kernel engine does not
 * take goes by user space, which answers senders too; so nothing is lost where it cannot run.
 */
import { release } from 'node:os';
import { bootClock, type Clock } from '../../lib/clock.js';
import { messageOf, TartanError } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { Scope } from '../../lib/scope.js';
import type { KernelOffer } from '../../model/features.js';
import { kernelPort, type TunnelPeer } from '../../model/plan.js';
import type { Datapath, DatapathConfig, DatapathStats, Generation, PeerMeasurement, Stranger } from '../datapath.js';
import { openDatapath, type DatapathOptions, type TunDatapath } from '../tun/tun-engine.js';
import { DeviceEvents } from './device-events.js';
import { hasKernelLink, prepareTun, removeKernelDevices } from './kernel-devices.js';
import { KernelPath } from './kernel-path.js';
import { readPairs, removePairs } from './pairs-file.js';
import { whyTooOld } from './too-old.js';

/** As long as nobody measures: each measurement is a look, when the last one is not younger than that. See KernelPath.isBusy. */
const lookMs = { busy: 1_200, quiet: 12_000 } as const;
const youngMs = { busy: 900, quiet: 9_000 } as const;
/** The kernel tells of changes of links and filters at once, and not of all settings. */
const checkMs = 9_000;
const retryMs = 30_000;

/** @throws TartanError as openDatapath */
export async function openEngines(options: DatapathOptions): Promise<Datapath> {
  return new KernelEngine(await openDatapath(options), options);
}

/** The numbers of the peers as the user-space engine gave them last, and the same to look up. */
interface Numbers {
  readonly list: readonly (readonly [identity: string, number: number])[];
  readonly byIdentity: ReadonlyMap<string, number>;
}

class KernelEngine implements Datapath {
  readonly #tun: TunDatapath;
  readonly #runDir: string;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #scope = new Scope();
  readonly #listeners: (() => void)[] = [];
  /** What an earlier daemon received by the kernel, until the first start. */
  #earlierOffer: KernelOffer | undefined;
  #config: DatapathConfig | undefined;
  #path: KernelPath | undefined;
  /** Why there is no path, although one is asked for. */
  #unavailable: string | undefined;
  #retryMs = 0;
  #peers: readonly TunnelPeer[] | undefined;
  #numbers: Numbers = { list: [], byIdentity: new Map() };
  #deadlineMs: number;
  #isFenced = false;
  #measured: readonly PeerMeasurement[] = [];
  #lookedMs = -Infinity;
  #isOffered = false;
  #isBusy = false;
  #isCheckDue = false;
  #checkedMs = -Infinity;
  #timer: NodeJS.Timeout | undefined;
  #events: DeviceEvents | undefined;

  constructor(tun: TunDatapath, { runDir, log, clock = bootClock }: DatapathOptions) {
    this.#tun = tun;
    this.#runDir = runDir;
    this.#log = log;
    this.#clock = clock;
    this.#deadlineMs = tun.forwardUntilMs;
    const vni = hasKernelLink() ? readPairs(runDir)?.vni : undefined;
    if (vni !== undefined) this.#earlierOffer = { port: kernelPort, vni };
    this.#prepare();
    // The link may be a new one.
    tun.onChange(() => {
      this.#prepare();
      this.#checkPath();
    });
    this.#scope.defer('user space', () => tun.close());
    this.#scope.defer('kernel path', () => this.#path?.close());
    this.#scope.defer('timer', () => clearTimeout(this.#timer));
    this.#lookLater();
  }

  get device(): string {
    return this.#tun.device;
  }

  get adopted(): boolean {
    return this.#tun.adopted;
  }

  get pid(): number | undefined {
    return this.#tun.pid;
  }

  get answersProbes(): boolean {
    return this.#tun.answersProbes;
  }

  get problems(): readonly string[] {
    return this.#tun.problems;
  }

  get forwardUntilMs(): number {
    return this.#tun.forwardUntilMs;
  }

  get kernelOffer(): KernelOffer | undefined {
    if (!this.#config) return this.#earlierOffer;
    const isOn = this.#path && this.#path.problem === undefined;
    return isOn ? { port: kernelPort, vni: this.#config.vni } : undefined;
  }

  async start(config: DatapathConfig): Promise<void> {
    await this.#tun.start(config);
    this.#config = config;
    this.#apply(config);
  }

  async stop(): Promise<void> {
    this.#config = undefined;
    this.#earlierOffer = undefined;
    this.#peers = undefined;
    this.#remove();
    await this.#tun.stop();
  }

  publish(peers: readonly TunnelPeer[]): Generation {
    try {
      return this.#tun.publish(peers);
    } catch (error) {
      // What user space refuses is told to nobody.
      if (error instanceof RangeError) peers = this.#peers ?? [];
      throw error;
    } finally {
      this.#peers = peers;
      this.#publishPairs();
    }
  }

  forwardUntil(bootMs: number): void {
    this.#deadlineMs = bootMs;
    this.#tun.forwardUntil(bootMs);
    this.#path?.setDeadline(bootMs);
  }

  fence(lost: boolean): void {
    this.#isFenced = lost;
    this.#tun.fence(lost);
    this.#path?.setFence(lost);
    // The programs of an earlier daemon do not know of it.
    if (lost && !this.#path) this.#remove();
  }

  check(): void {
    this.#tun.check();
    // Changes of its devices are told by events of their own.
    if (this.#clock.now() - this.#checkedMs >= checkMs) this.#checkPath();
    this.#tellOffer();
  }

  stats(): DatapathStats {
    const stats = this.#tun.stats();
    const path = this.#path;
    if (!path) return { ...stats, kernel: this.#kernelStats() };
    const counters: Record<string, number> = { ...stats.counters };
    for (const [name, count] of Object.entries(path.counters())) counters[name] = (counters[name] ?? 0) + count;
    return { ...stats, counters, kernel: this.#kernelStats() };
  }

  measure(): readonly PeerMeasurement[] {
    this.#measured = this.#tun.measure();
    const ageMs = this.#clock.now() - this.#lookedMs;
    if (ageMs >= (this.#isBusy ? youngMs.busy : youngMs.quiet)) this.#look();
    return this.#path?.merge(this.#measured) ?? this.#measured;
  }

  strangers(): readonly Stranger[] {
    return this.#tun.strangers();
  }

  onChange(listener: () => void): void {
    this.#tun.onChange(listener);
    this.#listeners.push(listener);
  }

  close(): Promise<void> {
    return this.#scope.close();
  }

  #prepare(): void {
    try {
      prepareTun(this.device);
    } catch (error) {
      // `attachFilter` says so again where a filter is asked for.
      this.#log.debug('kernel-path.unprepared', messageOf(error));
    }
  }

  #kernelStats(): DatapathStats['kernel'] {
    if (!this.#config || this.#config.engine === 'user') return { state: 'off', peers: 0 };
    const reason = this.#unavailable ?? this.#path?.problem;
    if (reason !== undefined) return { state: 'unavailable', reason, peers: 0 };
    return { state: 'on', peers: this.#path?.peers ?? 0 };
  }

  /** Brings the path to what the configuration asks for. */
  #apply(config: DatapathConfig): void {
    if (config.engine === 'user') this.#remove();
    else if (this.#path?.fits(config)) this.#path.setConfig(config);
    else this.#turnOn(config);
    this.#tellOffer();
  }

  #turnOn(config: DatapathConfig): void {
    this.#path?.close();
    this.#path = undefined;
    this.#retryMs = this.#clock.now() + retryMs;
    try {
      const tooOld = config.engine === 'auto' ? whyTooOld(release()) : undefined;
      if (tooOld !== undefined) throw new TartanError('DATAPATH_FAILED', tooOld);
      this.#path = this.#openPath(config);
      this.#unavailable = undefined;
    } catch (error) {
      this.#doWithout(config, messageOf(error));
    }
    this.#publishPairs();
  }

  #doWithout({ engine }: DatapathConfig, reason: string): void {
    if (this.#unavailable === undefined)
      // Nobody has asked for more than what the host can.
      this.#log[engine === 'kernel' ? 'warn' : 'info'](
        'kernel-path.unavailable',
        `packets go by user space: ${reason}`,
      );
    // The programs of an earlier daemon would go on with its peers, and drop everything after its deadline.
    this.#removeDevices();
    this.#unavailable = reason;
  }

  #openPath(config: DatapathConfig): KernelPath {
    const { device } = this;
    const setPersistent = (on: boolean): boolean => this.#tun.setPersistent(on);
    const [runDir, clock, log] = [this.#runDir, this.#clock, this.#log];
    const path = new KernelPath({ runDir, device, config, clock, log, setPersistent });
    path.setDeadline(this.#deadlineMs);
    path.setFence(this.#isFenced);
    this.#watchDevices();
    return path;
  }

  #removeDevices(): void {
    try {
      removeKernelDevices(this.device, on => this.#tun.setPersistent(on));
      removePairs(this.#runDir);
    } catch (error) {
      this.#log.warn('kernel-path.left', `a device of the kernel engine is left: ${messageOf(error)}`);
    }
  }

  #remove(): void {
    this.#removeDevices();
    this.#path?.close();
    this.#path = undefined;
    this.#unavailable = undefined;
    this.#tellOffer();
  }

  #publishPairs(): void {
    const numbers = this.#tun.peerNumbers();
    if (numbers !== this.#numbers.list) this.#numbers = { list: numbers, byIdentity: new Map(numbers) };
    if (this.#path && this.#peers) this.#path.publish(this.#peers, this.#numbers.byIdentity);
    if (!this.#isBusy && this.#path?.isBusy) this.#lookLater();
    this.#tellOffer();
  }

  #lookLater(): void {
    clearTimeout(this.#timer);
    this.#isBusy = this.#path?.isBusy === true;
    this.#timer = setTimeout(() => this.#tick(), this.#isBusy ? lookMs.busy : lookMs.quiet).unref();
  }

  #tick(): void {
    const nowMs = this.#clock.now();
    if (this.#unavailable !== undefined && this.#config && nowMs >= this.#retryMs) this.#apply(this.#config);
    this.#measured = this.#tun.measure();
    this.#look();
  }

  /** At what was measured, and at the devices when it is time. */
  #look(): void {
    const nowMs = this.#clock.now();
    this.#lookedMs = nowMs;
    const path = this.#path;
    if (path) {
      if (path.problem !== undefined || nowMs - this.#checkedMs >= checkMs) this.#checkPath();
      path.look(this.#measured);
      this.#tellOffer();
    }
    this.#lookLater();
  }

  #checkPath(): void {
    this.#checkedMs = this.#clock.now();
    this.#path?.check();
    if (!this.#isBusy && this.#path?.isBusy) this.#lookLater();
  }

  /** What is offered to peers stands in our lease. */
  #tellOffer(): void {
    const isOffered = this.kernelOffer !== undefined;
    if (isOffered === this.#isOffered) return;
    this.#isOffered = isOffered;
    for (const listener of this.#listeners) listener();
  }

  #watchDevices(): void {
    if (this.#events) return;
    const events = new DeviceEvents(downIndex => {
      if (downIndex !== undefined) this.#path?.linkDown(downIndex);
      this.#checkSoon();
    });
    this.#events = events;
    this.#scope.defer('device events', () => events.close());
  }

  #checkSoon(): void {
    if (this.#isCheckDue) return;
    this.#isCheckDue = true;
    setImmediate(() => {
      this.#isCheckDue = false;
      this.#checkPath();
    });
  }
}
