/** One `tartand` as a child process: its JSON log as events to wait for, and its end. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ended, hasEnded, startService } from './tools.js';

export type LogEvent = Readonly<Record<string, unknown>>;

const lookEveryMs = 20;

export class Daemon {
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #events: LogEvent[] = [];
  #read: number;
  #tail = '';
  #stderr = '';

  /** @param logFile what it says is added here, and read from here */
  constructor(command: readonly string[], logFile: string, environment: Readonly<Record<string, string>> = {}) {
    closeSync(openSync(logFile, 'a'));
    this.#logFile = logFile;
    this.#read = statSync(logFile).size;
    this.#child = startService(command, logFile, environment);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return !hasEnded(this.#child);
  }

  events(name: string): readonly LogEvent[] {
    this.#listen();
    return this.#events.filter(({ event }) => event === name);
  }

  /** The first event of that name, past or future, whose fields equal those of `match`. */
  async waitForEvent(name: string, match: LogEvent = {}, timeoutMs = 20_000): Promise<LogEvent> {
    for (const end = performance.now() + timeoutMs; ; await delay(lookEveryMs)) {
      const { running } = this;
      const found = this.events(name).find(event =>
        Object.entries(match).every(([key, value]) => event[key] === value),
      );
      if (found) return found;
      const why = running ? `not within ${timeoutMs} ms` : `the daemon ended (${await ended(this.#child)})`;
      if (!running || performance.now() > end)
        throw new Error(`${why}: event ${name} ${JSON.stringify(match)}; the last it said:\n${this.lastWords()}`);
    }
  }

  lastWords(): string {
    this.#listen();
    const lines = this.#events.slice(-15).map(event => JSON.stringify(event));
    return [...lines, this.#stderr.slice(-2000)].join('\n');
  }

  signal(name: NodeJS.Signals): void {
    if (this.running) this.#child.kill(name);
  }

  /** Exit status, or the signal that ended it. */
  end(): Promise<number | string> {
    return ended(this.#child);
  }

  /** Reads what came since the last time. */
  #listen(): void {
    const bytes = Buffer.alloc(statSync(this.#logFile).size - this.#read);
    if (bytes.length === 0) return;
    const log = openSync(this.#logFile, 'r');
    this.#read += readSync(log, bytes, 0, bytes.length, this.#read);
    closeSync(log);
    const lines = (this.#tail + bytes.toString('utf8')).split('\n');
    this.#tail = lines.pop() ?? '';
    for (const line of lines) this.#hear(line);
  }

  #hear(line: string): void {
    const event = parseLine(line);
    if (event) this.#events.push(event);
    else this.#stderr += `${line}\n`;
  }
}

/** undefined for a line that is not of the log: standard error. */
function parseLine(line: string): LogEvent | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}
