/**
 * The events on disk: JSON lines in `events.jsonl` of the state directory, and in `events.1.jsonl` what stood there before.
 * Lines are written by a thread of libuv, so that a slow disk holds nothing up. A disk that takes nothing is
 * told once, and the lines wait for it in bounded memory.
 */
import { closeSync, constants, openSync, writeSync, type Stats } from 'node:fs';
import { open, rename, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, messageOf } from '../lib/errors.js';
import { readTextFile } from '../lib/file.js';
import { known, unknown, type Fact } from '../lib/fact.js';
import type { Log } from '../lib/log.js';
import { parseEvent, type KeptEvent } from './events.js';

export interface EventFileLimits {
  /** Of each of the two files. */
  readonly fileBytes: number;
  readonly waitingBytes: number;
  /** A line is written at once; those that follow it are gathered for so long. */
  readonly gatherMs: number;
  readonly retryMs: number;
}

const defaultLimits: EventFileLimits = {
  fileBytes: 128 * 1024,
  waitingBytes: 64 * 1024,
  gatherMs: 1_000,
  retryMs: 30_000,
};

const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
const openFlags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;

export function eventFilePath(stateDir: string): string {
  return join(stateDir, 'events.jsonl');
}

function olderPath(stateDir: string): string {
  return join(stateDir, 'events.1.jsonl');
}

/** Returns the events of both files, the oldest first; lines that are none are left out. */
export function readEventFiles(stateDir: string): Fact<readonly KeptEvent[]> {
  const events = new Map<number, KeptEvent>();
  for (const path of [olderPath(stateDir), eventFilePath(stateDir)]) {
    const text = readTextFile(path);
    if (!text.known) return unknown(text.why);
    // A line whose write failed half-way was written again.
    for (const line of text.value?.split('\n') ?? []) {
      const event = parseEvent(line);
      if (event) events.set(event.id, event);
    }
  }
  return known([...events.values()]);
}

export class EventFile {
  readonly #stateDir: string;
  readonly #log: Log;
  readonly #limits: EventFileLimits;
  #waiting: string[] = [];
  #waitingBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #failed = false;
  /** When the last write began. */
  #beganMs = -Infinity;

  /** @param stateDir this process must be the only one that writes there */
  constructor(stateDir: string, log: Log, limits: EventFileLimits = defaultLimits) {
    this.#stateDir = stateDir;
    this.#log = log;
    this.#limits = limits;
  }

  add(event: KeptEvent): void {
    this.#enqueue([`${JSON.stringify(event)}\n`]);
    const restMs = this.#beganMs + this.#limits.gatherMs - performance.now();
    this.#writeIn(this.#failed ? this.#limits.retryMs : Math.max(0, restMs));
  }

  /** Writes what waits, for at most `limitMs`. */
  async flush(limitMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>(resolve => void (timer = setTimeout(resolve, limitMs)));
    await Promise.race([limit, this.#write().then(() => this.#write())]);
    clearTimeout(timer);
  }

  /** The last words before an exit. The caller waits for the disk. */
  flushNow(): void {
    const lines = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (lines.length === 0) return;
    try {
      const fd = openSync(eventFilePath(this.#stateDir), openFlags, 0o600);
      // A line of a write that was under way may end here.
      writeSync(fd, `\n${lines.join('')}`);
      closeSync(fd);
    } catch {
      // The log has them.
    }
  }

  /** The oldest lines make room. */
  #enqueue(lines: readonly string[]): void {
    for (const line of lines) {
      this.#waiting.push(line);
      this.#waitingBytes += Buffer.byteLength(line);
    }
    while (this.#waitingBytes > this.#limits.waitingBytes)
      this.#waitingBytes -= Buffer.byteLength(this.#waiting.shift() ?? '');
  }

  #writeIn(ms: number): void {
    this.#timer ??= setTimeout(() => void this.#write(), ms).unref();
  }

  /** Never rejects. One write at a time. */
  async #write(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#writing;
    if (this.#waiting.length === 0) return;
    const lines = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#beganMs = performance.now();
    this.#writing = this.#append(lines.join('')).then(
      () => this.#onWritten(),
      (error: unknown) => this.#onFailure(lines, error),
    );
    await this.#writing;
  }

  #onWritten(): void {
    if (!this.#failed) return;
    this.#failed = false;
    this.#log.info('events.kept', `events are kept in ${this.#stateDir} again: the disk takes them`);
  }

  #onFailure(lines: readonly string[], error: unknown): void {
    const newer = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#enqueue([...lines, ...newer]);
    const isFirst = !this.#failed;
    this.#failed = true;
    if (isFirst) this.#log.warn('events.not-kept', notKeptText(eventFilePath(this.#stateDir), error));
    this.#writeIn(this.#limits.retryMs);
  }

  async #append(text: string): Promise<void> {
    const path = eventFilePath(this.#stateDir);
    const info = await statOf(path);
    if (info?.isFile() && info.size + Buffer.byteLength(text) > this.#limits.fileBytes)
      await rename(path, olderPath(this.#stateDir));
    const file = await open(path, openFlags, 0o600);
    try {
      await file.writeFile(`${(await endsWithinLine(file)) ? '\n' : ''}${text}`);
    } finally {
      await file.close();
    }
  }
}

/** After a power cut, or a full disk. */
async function endsWithinLine(file: FileHandle): Promise<boolean> {
  const { size } = await file.stat();
  if (size === 0) return false;
  const last = Buffer.alloc(1);
  await file.read(last, 0, 1, size - 1);
  return last.toString('latin1') !== '\n';
}

async function statOf(path: string): Promise<Stats | undefined> {
  return stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
}

function notKeptText(path: string, error: unknown): string {
  const advice =
    errnoOf(error) === 'ENOSPC'
      ? 'make room on its disk'
      : 'make its directory writable, or name another by --state-dir';
  return `events are kept in memory only: ${path} cannot be written (${messageOf(error)}); ${advice}`;
}
