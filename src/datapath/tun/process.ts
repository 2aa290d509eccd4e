/**
 * One living data process: its table, its doorbells and the connection whose end is its death. `spawnProcess` and
 * `adoptProcess` make one and own nothing when they throw; TUN and UDP descriptors belong to the caller.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { Readable } from 'node:stream';
import { TartanError, errnoOf, messageOf } from '../../lib/errors.js';
import { native, type NativeHello, type NativeTable, type NativeWatch } from '../../lib/native.js';
import { closeAll } from './descriptors.js';
import { killDataProcess } from './find-process.js';
import { createTable, nextSocketPath, promoteSocket, removeNextSocket, socketPath } from './table.js';

/** An earlier daemon's process answers in well under a millisecond; one that does not is taken for stuck and ended. */
const answerLimitMs = 2000;
const startLimitMs = 5000;
const drainLimitMs = 2000;

/** The connection to a data process, from which its death is seen whether it is our child or not. */
class ProcessConnection {
  readonly pid: number;
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #watch: NativeWatch;

  constructor(pid: number, fd: number) {
    this.pid = pid;
    this.#fd = fd;
    let end = (): void => {};
    this.ended = new Promise(resolve => (end = resolve));
    this.#watch = native().watch(fd, 64, error => {
      if (error !== undefined && error !== 'ENOBUFS' && error !== 'EMSGSIZE') end();
    });
    // An idle daemon must be able to exit.
    this.#watch.unref();
  }

  async endedWithin(ms: number): Promise<boolean> {
    const limit = new AbortController();
    const late = delay(ms, false, { signal: limit.signal }).catch(() => false);
    const ended = await Promise.race([this.ended.then(() => true), late]);
    limit.abort();
    return ended;
  }

  /** @throws TartanError DATAPATH_FAILED when it lives on */
  async kill(): Promise<void> {
    killDataProcess(this.pid);
    if (await this.endedWithin(drainLimitMs)) return;
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

/** What a data process says of its own making. */
type BuildInfo = Pick<NativeHello, 'build' | 'version'>;

export class DataProcess {
  readonly table: NativeTable;
  readonly #make: BuildInfo;
  readonly #connection: ProcessConnection;
  readonly #wakeFds: readonly number[];

  constructor(connection: ProcessConnection, make: BuildInfo, table: NativeTable, wakeFds: readonly number[]) {
    this.#connection = connection;
    this.#make = make;
    this.table = table;
    this.#wakeFds = wakeFds;
  }

  get pid(): number {
    return this.#connection.pid;
  }

  /** It speaks our layout: routes can be given to it. Any other can be fenced and drained only. */
  get isReadable(): boolean {
    return this.#make.version === native().layoutVersion;
  }

  /** Why it is not what was installed, which may be newer or older. */
  get difference(): string | undefined {
    const ours = native().build;
    return this.#make.build === ours ? undefined : `it is of build ${this.#make.build}, and this is ${ours}`;
  }

  /** Resolves at its death. */
  get ended(): Promise<void> {
    return this.#connection.ended;
  }

  /** Has every thread look at the words of the table. */
  ring(): void {
    for (const fd of this.#wakeFds) native().ring(fd);
  }

  /**
   * Lets it finish what it has read and end; by force when it does not. Still to be released afterwards.
   * @throws TartanError DATAPATH_FAILED when it lives on
   */
  async stop(): Promise<void> {
    this.table.setDrain(true);
    this.ring();
    if (!(await this.#connection.endedWithin(drainLimitMs))) await this.#connection.kill();
  }

  /** Lets go of it; it lives on if it does. */
  release(): void {
    this.#connection.close();
    this.table.close();
    closeAll(this.#wakeFds);
  }
}

export interface Adopted {
  /** undefined when its memories could not be used: it was ended, its descriptors are still good. */
  readonly process: DataProcess | undefined;
  readonly tunFds: readonly number[];
  readonly udpFds: readonly number[];
}

/**
 * The one that forwards or, where a daemon was killed between the two, the one that was to take over from it.
 * @returns undefined when no data process answers
 * @throws TartanError DATAPATH_FAILED when one answers that can neither be used nor ended
 */
export async function adoptProcess(runDir: string): Promise<Adopted | undefined> {
  const first = ask(socketPath(runDir));
  if (first) return adopted(first);
  const next = ask(nextSocketPath(runDir));
  if (next) promoteSocket(runDir);
  return next && adopted(next);
}

function ask(path: string): NativeHello | undefined {
  try {
    return native().adopt(path, answerLimitMs);
  } catch (error) {
    if (errnoOf(error) !== undefined) return undefined;
    throw error;
  }
}

async function adopted(hello: NativeHello): Promise<Adopted> {
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

export interface Launch {
  readonly executable: string;
  readonly runDir: string;
  readonly tunFds: readonly number[];
  readonly udpFds: readonly number[];
  readonly user: number;
  readonly group: number;
}

/**
 * Starts one that answers at `nextSocketPath`; it reads nothing before its MTU is set.
 * @param prepare writes identity, routes and words into the new table before anybody reads it
 * @throws TartanError DATAPATH_FAILED
 */
export async function spawnProcess(launch: Launch, prepare: (table: NativeTable) => void): Promise<DataProcess> {
  const table = createTable(launch.runDir);
  const wakeFds: number[] = [];
  try {
    prepare(table);
    for (let i = 0; i < threadsOf(launch.tunFds.length); i++) wakeFds.push(native().eventFd());
    const child = spawnChild(launch, table, wakeFds);
    const hello = await started(child, launch);
    closeAll([hello.routesFd, hello.countersFd, hello.listenFd, ...hello.tunFds, ...hello.udpFds, ...hello.wakeFds]);
    return new DataProcess(new ProcessConnection(hello.pid, hello.connectionFd), hello, table, wakeFds);
  } catch (error) {
    table.close();
    closeAll(wakeFds);
    throw error;
  }
}

/** Two for each lane and, when there is more than one queue, one for the last (layout.h). */
function threadsOf(queues: number): number {
  return queues === 1 ? 2 : 2 * (queues - 1) + 1;
}

/** `spawn` gives the child the descriptors of the stdio array under their index; argv names these (layout.h). */
function spawnChild(launch: Launch, table: NativeTable, wakeFds: readonly number[]): ChildProcess {
  removeNextSocket(launch.runDir);
  const listenFd = native().listenSeqpacket(nextSocketPath(launch.runDir));
  const stdio: Exclude<StdioOptions, string> = ['ignore', 'ignore', 'ignore'];
  const place = (item: number | 'pipe'): string => String(stdio.push(item) - 1);
  const files = [place('pipe'), place(table.routesReadOnlyFd), place(table.countersFd), place(listenFd)];
  const people = [launch.user, launch.group, process.getuid?.() ?? 0].map(String);
  const queues = [...launch.tunFds.map(place), '-1', ...launch.udpFds.map(place), '-1', ...wakeFds.map(place)];
  const args = [...files, ...people, ...queues];
  try {
    return spawn(launch.executable, args, { stdio, detached: true, env: {}, cwd: '/' });
  } finally {
    // Held by the child alone, so that its death closes it and a connect fails at once.
    native().closeFd(listenFd);
  }
}

/** Waits until the child stands, and asks it for the connection. */
async function started(child: ChildProcess, launch: Launch): Promise<NativeHello> {
  try {
    const complaint = await readStartupError(child);
    if (complaint !== '') throw new Error(complaint);
    child.unref();
    return native().adopt(nextSocketPath(launch.runDir), startLimitMs);
  } catch (error) {
    child.kill('SIGKILL');
    throw new TartanError('DATAPATH_FAILED', `${launch.executable} did not start: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** What the child wrote before it closed its end: nothing when all is well. */
async function readStartupError(child: ChildProcess): Promise<string> {
  const status = child.stdio?.[3];
  // Without descriptors left there are no streams, only the event.
  if (!(status instanceof Readable)) return new Promise((_, reject) => child.once('error', reject));
  let limit: NodeJS.Timeout | undefined;
  try {
    return await new Promise<string>((resolve, reject) => {
      let text = '';
      limit = setTimeout(() => reject(new Error(`it was not ready after ${startLimitMs} ms`)), startLimitMs);
      child.once('error', reject);
      status.setEncoding('utf8');
      status.on('data', (part: string) => (text = (text + part).slice(0, 1000)));
      status.once('error', reject);
      status.once('close', () => resolve(text.trim()));
    });
  } finally {
    clearTimeout(limit);
    status.destroy();
  }
}
