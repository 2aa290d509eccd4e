/**
 * The data process as a child of the supervisor, and how another one takes its place without two of them reading at the
 * same time:
 *
 *   1. spawn     the next process, on descriptors for it; the running one keeps its own. It is paused: while its MTU is
 *                0 it reads nothing
 *   2. drain     the running process finishes what it has read, and ends
 *   3. commit    the descriptors; the next process gets its MTU and reads
 *
 * Packets that arrive between 2 and 3 wait in the kernel. A failure before the end of 2 leaves the running process as
 * it was.
 */
import { bootClock } from '../../lib/clock.js';
import { messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { builtFile, type NativeCounters } from '../../lib/native.js';
import type { ChildKind } from '../../lib/supervisor.js';
import type { DatapathConfig } from '../datapath.js';
import { chooseAccount, type Account } from './account.js';
import type { DescriptorSet, PreparedDescriptors } from './descriptors.js';
import { spawnProcess, type DataProcess } from './process.js';
import type { PublishedState } from './published-state.js';
import { enterScope } from './systemd-scope.js';
import { identityOf, promoteSocket, removeNextSocket, sameIdentity, setMtus } from './table.js';

export interface HandoverOptions {
  /** The directory of `datapath.sock`. */
  readonly runDir: string;
  readonly executable?: string;
  /** What the data process becomes; chosen by default. */
  readonly account?: Account;
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

/** What was made for the next process. */
interface Prepared {
  readonly config: DatapathConfig;
  readonly descriptors: PreparedDescriptors;
}

/** A death by a system call that was refused. */
interface Denial {
  readonly problem: string;
  readonly atMs: number;
}

/** It may come again with the next packet of its kind, so it is told for a while. */
const denialMs = 600_000;

export class DataProcessKind implements ChildKind<DataProcess> {
  readonly name = 'data process';
  readonly event = 'datapath';
  readonly totals = new Totals();
  /** What the next process forwards; undefined when none is wanted. */
  config: DatapathConfig | undefined;
  readonly #options: HandoverOptions;
  readonly #descriptors: DescriptorSet;
  readonly #published: PublishedState;
  readonly #onChange: () => void;
  #prepared: Prepared | undefined;
  #account: Account | undefined;
  #denial: Denial | undefined;

  /** @param onChange called after a process has ended, and after another one has begun */
  constructor(options: HandoverOptions, descriptors: DescriptorSet, published: PublishedState, onChange: () => void) {
    this.#options = options;
    this.#descriptors = descriptors;
    this.#published = published;
    this.#onChange = onChange;
    this.#account = options.account;
  }

  /** What the machine does not give to the data process. */
  get warnings(): readonly string[] {
    return [this.#account?.warning].filter(text => text !== undefined);
  }

  get problems(): readonly string[] {
    const { problem, atMs } = this.#denial ?? { problem: '', atMs: -Infinity };
    return bootClock.now() - atMs < denialMs ? [problem] : [];
  }

  isWanted(): boolean {
    return this.config !== undefined;
  }

  /** Whether the process and the descriptors are those of this configuration, apart from the MTU. */
  matches(running: DataProcess, config: DatapathConfig): boolean {
    const identity = running.table.identity();
    return identity !== undefined && sameIdentity(identity, identityOf(config)) && this.#descriptors.matches(config);
  }

  /** @throws TartanError DATAPATH_FAILED, DUPLICATE_NODE, PERMISSION */
  async spawn(): Promise<DataProcess> {
    const { config } = this;
    if (!config) throw new Error('no data process is wanted');
    const { executable = builtFile('tartan-datapath'), runDir } = this.#options;
    const { user, group } = (this.#account ??= await chooseAccount());
    this.#prepared = { config, descriptors: await this.#descriptors.prepare(config) };
    const { tunFds, udpFds } = this.#prepared.descriptors;
    try {
      return await spawnProcess({ executable, runDir, tunFds, udpFds, user, group }, table => {
        table.setIdentity({ ...identityOf(config), mtu: 0 });
        this.#published.writeAll(table);
      });
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  commit(next: DataProcess): void {
    if (!this.#prepared) return;
    const { config, descriptors } = this.#prepared;
    this.#prepared = undefined;
    this.#published.writeControlWords(next.table);
    setMtus(next.table, config);
    next.ring();
    this.#descriptors.commit(descriptors);
    promoteSocket(this.#options.runDir);
    this.#onChange();
  }

  discard(): void {
    removeNextSocket(this.#options.runDir);
    if (this.#prepared) this.#descriptors.discard(this.#prepared.descriptors);
    this.#prepared = undefined;
  }

  /** Without systemd, or where it refuses, the process carries packets in our control group. */
  enterScope({ pid }: DataProcess): void {
    enterScope(pid).catch((error: unknown) => {
      this.#options.log.warn(
        'datapath.scope-refused',
        `data process ${pid} has no scope of its own: ${messageOf(error)}`,
        { pid },
      );
    });
  }

  silentSinceMs(running: DataProcess): number | undefined {
    return running.silentSinceMs();
  }

  causeOf(died: DataProcess): string | undefined {
    const { cause, deniedCall, pid } = died;
    if (deniedCall !== undefined || cause === 'killed by SIGSYS') {
      const how =
        deniedCall === undefined
          ? 'was killed by SIGSYS: it made a system call that a filter of this machine or container refuses'
          : `made system call ${deniedCall}, which a filter refuses, and was killed by SIGSYS`;
      const problem = `data process ${pid} ${how}; allow it in the filter, or report this with the versions of kernel and libc`;
      this.#denial = { problem, atMs: bootClock.now() };
    }
    return cause;
  }

  onEnded(ended: DataProcess): void {
    this.totals.add(ended.table.counters());
    this.#onChange();
  }
}
