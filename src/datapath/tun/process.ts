/**
 * A running data process: its table, one eventfd per thread, and the connection that ends when the process dies.
 * `spawnProcess` and `adoptProcess` return one, and own nothing when they throw. The caller owns the TUN and UDP
 * descriptors.
 */
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { Readable } from 'node:stream';
import { bootClock } from '../../lib/clock.js';
import { TartanError, errnoOf, messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native, type NativeHello, type NativeTable, type NativeWatch } from '../../lib/native.js';
import { spawnDetached, type Child } from '../../lib/supervisor.js';
import { closeAll, type Descriptors } from './descriptors.js';
import { killDataProcess } from './find-process.js';
import { createTable, nextSocketPath, promoteSocket, removeNextSocket, socketPath } from './table.js';

/** A working process sends its hello in well under a millisecond; one that does not is taken for stuck. */
const helloTimeoutMs = 2000;
const startTimeoutMs = 5000;
const drainTimeoutMs = 2000;

/** The connection to a data process. Its end shows the death of the process, whether that is our child or not. */
class ProcessConnection {
  readonly pid: number;
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #watch: NativeWatch;

  constructor(pid: number, fd: number) {
    this.pid = pid;
    this.#fd = fd;
    let onEnd = (): void => {};
    this.ended = new Promise(resolve => (onEnd = resolve));
    this.#watch = native().watch(fd, 64, error => {
      if (error !== undefined && error !== 'ENOBUFS' && error !== 'EMSGSIZE') onEnd();
    });
    // The open connection alone must not keep the daemon from exiting.
    this.#watch.unref();
  }

  async endedWithin(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const timeout = delay(ms, false, { signal: timer.signal }).catch(() => false);
    const ended = await Promise.race([this.ended.then(() => true), timeout]);
    timer.abort();
    return ended;
  }

  /** @throws TartanError DATAPATH_FAILED when the process does not end */
  async kill(): Promise<void> {
    killDataProcess(this.pid);
    if (await this.endedWithin(drainTimeoutMs)) return;
    throw new TartanError(
      'DATAPATH_FAILED',
      `data process ${this.pid} does not end: end it by hand with: kill -9 ${this.pid}`,
    );
  }

  close(): void {
    this.#watch.close();
    native().closeFd(this.#fd);
  }
}

/** Each thread is asked once in this time, also when no control word changes. */
const askEachMs = 10_000;

/** A question that a thread was asked. */
interface Question {
  readonly number: number;
  /** CLOCK_BOOTTIME milliseconds. */
  readonly askedMs: number;
}

/** The build and the layout of a data process, as its hello names them. */
type BuildInfo = Pick<NativeHello, 'build' | 'version'>;

/** How a child of ours has ended, as far as it is known by now. */
interface Exit {
  text: string | undefined;
  readonly known: Promise<void>;
}

/** How long the exit status may come after the end of the connection. */
const exitStatusMs = 100;

function exitOf(child: ChildProcess): Exit {
  const exit: Exit = {
    text: undefined,
    known: new Promise(resolve => {
      child.once('exit', (code, signal) => {
        exit.text = signal === null ? `it exited with status ${code}` : `killed by ${signal}`;
        resolve();
      });
    }),
  };
  return exit;
}

export class DataProcess implements Child {
  readonly table: NativeTable;
  /** Resolves when the process dies. */
  readonly ended: Promise<void>;
  readonly #buildInfo: BuildInfo;
  readonly #connection: ProcessConnection;
  readonly #wakeFds: readonly number[];
  readonly #exit: Exit | undefined;
  /** The oldest question to each thread that was open when it was asked. */
  readonly #questions: (Question | undefined)[] = [];
  #nextThread = 0;

  constructor(
    connection: ProcessConnection,
    buildInfo: BuildInfo,
    table: NativeTable,
    wakeFds: readonly number[],
    exit?: Exit,
  ) {
    this.#connection = connection;
    this.#buildInfo = buildInfo;
    this.table = table;
    this.#wakeFds = wakeFds;
    this.#exit = exit;
    this.ended = connection.ended.then(() => this.#exit && Promise.race([this.#exit.known, delay(exitStatusMs)]));
  }

  get pid(): number {
    return this.#connection.pid;
  }

  /** Whether its memories have the layout of this build. Of another layout only the control words can be used. */
  get hasOurLayout(): boolean {
    return this.#buildInfo.version === native().layoutVersion;
  }

  /** How its layout or its build differ from ours; undefined when they do not. */
  get buildDifference(): string | undefined {
    const { build, version } = this.#buildInfo;
    const { build: ourBuild, layoutVersion } = native();
    if (this.hasOurLayout) return build === ourBuild ? undefined : `it is of build ${build}, and this is ${ourBuild}`;
    const which = version > layoutVersion ? 'a newer' : 'an older';
    return `it is of ${which} layout ${version} and of build ${build}, and this is layout ${layoutVersion} of build ${ourBuild}`;
  }

  /** Why the process died by itself; only that of a child of ours has a status. */
  get cause(): string | undefined {
    const { deniedCall } = this;
    return deniedCall === undefined ? this.#exit?.text : `system call ${deniedCall} is not allowed to it (SIGSYS)`;
  }

  get deniedCall(): number | undefined {
    return this.table.counters()?.deniedCall;
  }

  /** Makes every thread read the control words. */
  ring(): void {
    this.#ask([...this.#wakeFds.keys()]);
  }

  /** Asks the threads in turn whether they still read the control words. @param everyMs how often the caller does so */
  askNext(everyMs: number): void {
    const count = this.#wakeFds.length;
    const due = Array.from(
      { length: Math.ceil((count * everyMs) / askEachMs) },
      (_, i) => (this.#nextThread + i) % count,
    );
    this.#nextThread = (this.#nextThread + due.length) % count;
    this.#ask(due);
  }

  /** CLOCK_BOOTTIME milliseconds of the oldest question that a thread has not answered. */
  silentSinceMs(): number | undefined {
    const answers = this.hasOurLayout ? this.table.answers() : undefined;
    const open = this.#questions.filter((question, thread) => !this.#isAnswered(question, answers?.[thread]));
    return open.reduce<number | undefined>(
      (oldest, question) => Math.min(oldest ?? Infinity, question?.askedMs ?? 0),
      undefined,
    );
  }

  #ask(threads: readonly number[]): void {
    if (this.hasOurLayout) {
      const question = { number: this.table.ask(), askedMs: bootClock.now() };
      const answers = this.table.answers();
      for (const thread of threads)
        if (this.#isAnswered(this.#questions[thread], answers?.[thread])) this.#questions[thread] = question;
    }
    for (const thread of threads) native().ring(this.#wakeFds[thread] ?? -1);
  }

  /** @param answer undefined: that thread does not exist */
  #isAnswered(question: Question | undefined, answer: number | undefined): boolean {
    if (!question || answer === undefined) return true;
    // Another build may not know questions.
    if (answer === 0 && this.buildDifference !== undefined) return true;
    // The number overflows to 0 after 2^32 questions.
    return ((answer - question.number) | 0) >= 0;
  }

  /**
   * Drains the process: it finishes what it has read, and ends. One that does not end in time is killed. The caller
   * releases it afterwards.
   * @throws TartanError DATAPATH_FAILED when it does not end
   */
  async stop(): Promise<void> {
    this.table.setDrain(true);
    this.ring();
    if (!(await this.#connection.endedWithin(drainTimeoutMs))) await this.#connection.kill();
  }

  kill(): void {
    killDataProcess(this.pid);
  }

  /** Closes our handles. A process that runs is not touched. */
  release(): void {
    this.#connection.close();
    this.table.close();
    closeAll(this.#wakeFds);
  }
}

export interface AdoptedProcess extends Descriptors {
  /** undefined when its memories could not be used: the process was killed, and its descriptors remain. */
  readonly process: DataProcess | undefined;
}

/**
 * Adopts the data process that forwards. When a daemon was killed during a handover, that may be the next process.
 * @returns undefined when no data process answers
 * @throws TartanError DATAPATH_FAILED when a process answers that can neither be used nor killed
 */
export async function adoptProcess(runDir: string, log: Log): Promise<AdoptedProcess | undefined> {
  const current = requestHello(socketPath(runDir), log);
  if (current) return adoptFrom(current);
  const next = requestHello(nextSocketPath(runDir), log);
  if (next) promoteSocket(runDir);
  return next && adoptFrom(next);
}

/** Errors of connect(2) that mean that nobody listens. */
const nobodyThere = ['ENOENT', 'ECONNREFUSED'];

function requestHello(path: string, log: Log): NativeHello | undefined {
  try {
    return native().adopt(path, helloTimeoutMs);
  } catch (error) {
    const name = errnoOf(error);
    if (name === undefined) throw error;
    if (!nobodyThere.includes(name)) log.warn('datapath.hello-refused', messageOf(error));
    return undefined;
  }
}

async function adoptFrom(hello: NativeHello): Promise<AdoptedProcess> {
  const { tunFds, udpFds } = hello;
  const connection = new ProcessConnection(hello.pid, hello.connectionFd);
  native().closeFd(hello.listenFd);
  try {
    const table = native().adoptTable(hello.routesFd, hello.countersFd, hello.version);
    return { process: new DataProcess(connection, hello, table, hello.wakeFds), tunFds, udpFds };
  } catch {
    closeAll([hello.routesFd, hello.countersFd, ...hello.wakeFds]);
  }
  try {
    await connection.kill();
  } catch (error) {
    closeAll([...tunFds, ...udpFds]);
    throw error;
  } finally {
    connection.close();
  }
  return { process: undefined, tunFds, udpFds };
}

export interface SpawnOptions extends Descriptors {
  readonly executable: string;
  readonly runDir: string;
  readonly user: number;
  readonly group: number;
}

/**
 * Spawns a data process that answers at `nextSocketPath`. It reads nothing before its MTU is set.
 * @param prepare writes identity, routes and control words into the new table, before any thread reads it
 * @throws TartanError DATAPATH_FAILED
 */
export async function spawnProcess(options: SpawnOptions, prepare: (table: NativeTable) => void): Promise<DataProcess> {
  const table = createTable(options.runDir);
  const wakeFds: number[] = [];
  try {
    prepare(table);
    for (let i = 0; i < threadsOf(options.tunFds.length); i++) wakeFds.push(native().eventFd());
    const child = spawnChild(options, table, wakeFds);
    const exit = exitOf(child);
    const hello = await receiveHello(child, options);
    closeAll([hello.routesFd, hello.countersFd, hello.listenFd, ...hello.tunFds, ...hello.udpFds, ...hello.wakeFds]);
    return new DataProcess(new ProcessConnection(hello.pid, hello.connectionFd), hello, table, wakeFds, exit);
  } catch (error) {
    table.close();
    closeAll(wakeFds);
    throw error;
  }
}

/** A lane has two threads. With more than one queue, the last one is for sparse flows and has one thread (layout.h). */
function threadsOf(queues: number): number {
  return queues === 1 ? 2 : 2 * (queues - 1) + 1;
}

/** `spawnDetached` passes the descriptors of the stdio array under their index, and argv names these indexes (layout.h). */
function spawnChild(options: SpawnOptions, table: NativeTable, wakeFds: readonly number[]): ChildProcess {
  removeNextSocket(options.runDir);
  const listenFd = native().listenSeqpacket(nextSocketPath(options.runDir));
  const stdio: Exclude<StdioOptions, string> = ['ignore', 'ignore', 'ignore'];
  const pass = (item: number | 'pipe'): string => String(stdio.push(item) - 1);
  const files = [pass('pipe'), pass(table.routesReadOnlyFd), pass(table.countersFd), pass(listenFd)];
  const ids = [options.user, options.group, process.getuid?.() ?? 0].map(String);
  const queues = [...options.tunFds.map(pass), '-1', ...options.udpFds.map(pass), '-1', ...wakeFds.map(pass)];
  const args = [...files, ...ids, ...queues];
  try {
    return spawnDetached({ executable: options.executable, args, stdio });
  } finally {
    // The child alone keeps this descriptor, so that its death closes the socket and a connect fails at once.
    native().closeFd(listenFd);
  }
}

/** Waits until the child has started, and requests its hello. */
async function receiveHello(child: ChildProcess, options: SpawnOptions): Promise<NativeHello> {
  try {
    const startupError = await readStartupError(child);
    if (startupError !== '') throw new Error(startupError);
    child.unref();
    return native().adopt(nextSocketPath(options.runDir), startTimeoutMs);
  } catch (error) {
    child.kill('SIGKILL');
    throw new TartanError('DATAPATH_FAILED', `${options.executable} did not start: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Returns what the child wrote before it closed the status pipe: the empty text when it started. */
async function readStartupError(child: ChildProcess): Promise<string> {
  const status = child.stdio?.[3];
  // When no descriptors are left, there are no streams and only the error event.
  if (!(status instanceof Readable)) return new Promise((_, reject) => child.once('error', reject));
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<string>((resolve, reject) => {
      let text = '';
      timer = setTimeout(() => reject(new Error(`it was not ready after ${startTimeoutMs} ms`)), startTimeoutMs);
      child.once('error', reject);
      status.setEncoding('utf8');
      status.on('data', (part: string) => (text = (text + part).slice(0, 1000)));
      status.once('error', reject);
      status.once('close', () => resolve(text.trim()));
    });
  } finally {
    clearTimeout(timer);
    status.destroy();
  }
}
