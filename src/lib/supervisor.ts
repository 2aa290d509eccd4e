/**
 * A supervisor of one long-lived child process. The child outlives this program and is adopted by the next one; a next
 * child takes its place without a moment in which both work:
 *
 *   state     event                                                              next state
 *   none      adopt, or launch                                                   running
 *   running   handover: the next child is spawned paused, this one is stopped,   running
 *             the next one is committed
 *   running   death                                                              dead
 *   running   no answer for `replaceMs`                                          killed, dead
 *   dead      respawn, after a back-off when children die young                  running
 *
 * Who owns the supervisor says what a child is (`ChildKind`) and when one must be replaced.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { HeldTime, type Clock } from './clock.js';
import { messageOf } from './errors.js';
import { Listeners } from './listeners.js';
import type { Log } from './log.js';
import { backoffMs } from './retry.js';
import { Serial } from './serial.js';

export interface Child {
  readonly pid: number;
  /** Resolves at its death. */
  readonly ended: Promise<void>;
  /** Lets it finish and end, by force when it does not. @throws when it does not end; then nothing may work beside it */
  stop(): Promise<void>;
  /** Ends it at once. */
  kill(): void;
  /** Closes our handles of it; a living child lives on. */
  release(): void;
}

export interface ChildKind<C extends Child> {
  /** `data process`, for log messages. */
  readonly name: string;
  /** `datapath`, the first part of log events. */
  readonly event: string;
  /** Whether a dead child is to be respawned. */
  isWanted(): boolean;
  /** Starts a child that waits for `commit`; undoes what it prepared when it throws. */
  spawn(): Promise<C>;
  /** Lets the next child work. It is the running one, and the former one has ended. */
  commit(next: C): void;
  /** Undoes what `spawn` prepared: the next child has ended, because it could not take the place of the former one. */
  discard(): void;
  /** Reads what an ended child left, before its handles are closed. */
  onEnded(ended: C): void;
  /** Why a child has died by itself; undefined when that is not known. */
  causeOf?(died: C): string | undefined;
  /** Moves a running child out of our control group. Nothing waits for it. */
  enterScope?(running: C): void;
  /** CLOCK_BOOTTIME milliseconds since when the child owes an answer; undefined when it owes none. */
  silentSinceMs?(child: C): number | undefined;
}

export interface DetachedOptions {
  readonly executable: string;
  readonly args: readonly string[];
  readonly stdio: StdioOptions;
  /** Numbers that the child runs as; absent: it becomes another user by itself, or stays ours. */
  readonly user?: number;
  readonly group?: number;
}

/**
 * Starts a program in a session of its own, with an empty environment. The caller listens to the child at once, because
 * a program that could not be started is told by an event.
 */
export function spawnDetached({ executable, args, stdio, user, group }: DetachedOptions): ChildProcess {
  const account = { ...(user !== undefined && { uid: user }), ...(group !== undefined && { gid: group }) };
  return spawn(executable, args, { stdio, detached: true, env: {}, cwd: '/', ...account });
}

export interface SupervisorOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly hang?: HangLimits;
}

/** A child that lives shorter than this died young; several of them in a row are respawned with growing delays. */
const youngMs = 1_000;
const respawnLimits = { firstMs: 100, capMs: 5_000 };
/** A child that does not answer is told after the first time and replaced after the second. */
export interface HangLimits {
  readonly tellMs: number;
  readonly replaceMs: number;
}

export const defaultHang: HangLimits = { tellMs: 3_000, replaceMs: 10_000 };

/** A running child that another one must replace. */
interface Replaced<C> {
  readonly child: C;
  readonly why: string | undefined;
}

export class Supervisor<C extends Child> {
  /** Children launched in the place of one that died or had to be replaced. */
  respawns = 0;
  /** Children that took the place of a running one. */
  handovers = 0;
  readonly #kind: ChildKind<C>;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #hang: HangLimits;
  readonly #listeners = new Listeners();
  readonly #closing = new AbortController();
  readonly #changes = new Serial();
  #running: C | undefined;
  /** The running child while it stops. */
  #stopping: C | undefined;
  #isLaunching = false;
  /** The child that was killed for its silence; the kernel may keep it for a while. */
  #killed: C | undefined;
  /** Of the question that the running child has not answered, by its time. */
  readonly #silence = new HeldTime<number>();
  /** CLOCK_BOOTTIME milliseconds of the last launch; an adopted child counts as old. */
  #startedMs = -Infinity;
  /** Deaths and failed respawns in a row; a child that did not die young ends the row. */
  #failures = 0;
  /** The respawn attempt under way, with the back-off before it. */
  #respawning: Promise<void> | undefined;

  constructor(kind: ChildKind<C>, { clock, log, hang = defaultHang }: SupervisorOptions) {
    this.#kind = kind;
    this.#clock = clock;
    this.#log = log;
    this.#hang = hang;
  }

  get running(): C | undefined {
    return this.#running;
  }

  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  /** Another child is getting ready, beside the running one if there is one. */
  get isLaunching(): boolean {
    return this.#isLaunching;
  }

  /** A respawn is under way: the running child, if there is one, is about to be replaced. */
  get isRespawning(): boolean {
    return this.#respawning !== undefined;
  }

  get isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  /** What an operator must know of a child that does not answer. */
  get problem(): string | undefined {
    const { ms } = this.#silence;
    return this.#running === undefined || ms < this.#hang.tellMs
      ? undefined
      : `${this.#kind.name} ${this.#running?.pid} has not answered for ${Math.round(ms / 1000)} s`;
  }

  /** Rings after each respawn, also a failed one. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Takes a child as the running one, and watches it until it ends. */
  adopt(child: C): void {
    this.#running = child;
    void child.ended.then(() => {
      if (this.#running !== child || this.#stopping === child) return;
      const cause = this.#kind.causeOf?.(child);
      this.#removeEnded(child);
      this.#onDeath(child, cause);
    });
  }

  /** Runs one change of children after the others; not while a respawn waits, which would skip its back-off. */
  async change(work: () => Promise<void>): Promise<void> {
    await this.#respawning;
    return this.#enqueue(work);
  }

  /** Launches a child, by a handover when another one runs. For the work of a `change` only. */
  async launch(why = 'it is replaced'): Promise<void> {
    this.#isLaunching = true;
    const isHandover = this.#running !== undefined;
    try {
      const next = await this.#spawn(why);
      this.#startedMs = this.#clock.now();
      this.adopt(next);
      this.#kind.commit(next);
      if (isHandover) this.handovers++;
      this.#kind.enterScope?.(next);
      this.#log.info(
        `${this.#kind.event}.started`,
        `started ${this.#kind.name} ${next.pid}: ${isHandover ? `of the one before, ${why}` : 'none ran'}`,
        {
          pid: next.pid,
        },
      );
    } finally {
      this.#isLaunching = false;
    }
  }

  /** Replaces a child that runs, attempt after attempt until one succeeds. */
  replace(child: C, why: string | undefined, isNew = false): void {
    if (isNew) this.#failures = 0;
    void this.#respawn({ child, why });
  }

  /** The running child owed an answer at the last look. */
  get isSilent(): boolean {
    return this.#silence.isSeen;
  }

  /** Looks for a child that does not answer. The owner calls it each second while it is silent, and each two seconds else. */
  check(): void {
    const { running } = this;
    const since = running && !this.isStopping ? this.#kind.silentSinceMs?.(running) : undefined;
    this.#silence.look(since, this.#clock.now(), since);
    if (!running || this.isStopping || running === this.#killed || this.#silence.ms < this.#hang.replaceMs) return;
    this.#killed = running;
    const { name, event } = this.#kind;
    this.#log.error(`${event}.hangs`, `${this.problem}: it is killed and replaced`, { pid: running.pid, name });
    running.kill();
  }

  /**
   * Ends the running child; none is respawned.
   * @param afterwards called before the next change
   */
  async stop(why: string, afterwards?: () => void): Promise<void> {
    await this.change(async () => {
      await this.#stop(why);
      afterwards?.();
    });
  }

  /** The running child lives on. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#changes.drained();
    this.#running?.release();
    this.#running = undefined;
  }

  #enqueue(work: () => Promise<void>): Promise<void> {
    return this.#changes.run(() => {
      this.#closing.signal.throwIfAborted();
      return work();
    });
  }

  /** Returns the next child, paused, after the running one has ended. */
  async #spawn(why: string): Promise<C> {
    const next = await this.#kind.spawn();
    try {
      await this.#stop(why);
      return next;
    } catch (error) {
      await next.stop().catch(() => {});
      next.release();
      this.#kind.discard();
      throw error;
    }
  }

  async #stop(why: string): Promise<void> {
    const running = this.#running;
    if (!running) return;
    const { pid } = running;
    this.#log.info(`${this.#kind.event}.stopping`, `stopping ${this.#kind.name} ${pid}: ${why}`, { pid });
    this.#stopping = running;
    try {
      await running.stop();
      this.#removeEnded(running);
    } finally {
      this.#stopping = undefined;
    }
  }

  #removeEnded(ended: C): void {
    this.#running = undefined;
    this.#silence.look(undefined, this.#clock.now());
    this.#kind.onEnded(ended);
    ended.release();
  }

  #onDeath({ pid }: C, cause: string | undefined): void {
    if (this.isClosing) return;
    const isYoung = this.#clock.now() - this.#startedMs < youngMs;
    this.#failures = isYoung ? this.#failures + 1 : 1;
    const fields = { pid, failures: this.#failures };
    this.#log.warn(
      `${this.#kind.event}.died`,
      `${this.#kind.name} ${pid} died${cause === undefined ? '' : `: ${cause}`}`,
      fields,
    );
    void this.#respawn(undefined);
  }

  /** Attempts to launch a child until one runs, in the place of a dead one (undefined) or of one to be replaced. */
  async #respawn(replaced: Replaced<C> | undefined): Promise<void> {
    if (!this.#kind.isWanted() || this.#respawning || this.isClosing) return;
    this.#respawning = this.#attempt(replaced);
    const error: unknown = await this.#respawning.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    this.#respawning = undefined;
    if (this.isClosing) return;
    if (error !== undefined) {
      this.#failures++;
      const fields = { failures: this.#failures };
      this.#log.error(`${this.#kind.event}.respawn-failed`, messageOf(error), fields);
      void this.#respawn(this.#running && replaced);
    }
    this.#listeners.ring();
  }

  async #attempt(replaced: Replaced<C> | undefined): Promise<void> {
    if (this.#failures > 1) {
      const delayMs = backoffMs(this.#failures - 1, respawnLimits, () => 1);
      await this.#clock.sleep(delayMs, this.#closing.signal);
    }
    await this.#enqueue(async () => {
      // An earlier change may have launched a child meanwhile.
      if (!this.#kind.isWanted() || (this.#running && this.#running !== replaced?.child)) return;
      await this.launch(replaced?.why);
      this.respawns++;
    });
  }
}
