/** What the daemon says: the log on its output, and the events, which are kept in memory and in the state directory. */
import { EventFile, readEventFiles } from '../admin/event-file.js';
import { Events } from '../admin/events.js';
import { exitCodeOf, isTartanError, messageOf } from '../lib/errors.js';
import { factValue } from '../lib/fact.js';
import { joinLogs, openLog, openLogWriter, openRecordLog, type Log, type LogLevel } from '../lib/log.js';
import type { LogWriter } from '../lib/log-writer.js';

/** How long the last words before an exit wait for a reader that stalls. */
const lastWordsMs = 1000;

export class DaemonLog {
  readonly log: Log;
  readonly events = new Events();
  readonly #output: LogWriter;
  #file: EventFile | undefined;

  constructor(level: LogLevel) {
    this.#output = openLogWriter(1);
    this.log = joinLogs([openLog(level, this.#output), openRecordLog('info', record => this.events.add(record))]);
  }

  /**
   * Keeps the events in this directory from now on, after those that are there.
   * @param stateDir of which this process has the lock
   * @returns a function that writes what waits
   */
  keepEvents(stateDir: string): () => Promise<void> {
    const file = new EventFile(stateDir, this.log);
    this.events.continueFrom(factValue(readEventFiles(stateDir)) ?? [], event => file.add(event));
    this.#file = file;
    return () => file.flush(lastWordsMs);
  }

  /** Node itself would write to standard error, and wait for its reader. */
  hearNode(): void {
    process.removeAllListeners('warning');
    process.on('warning', warning => this.log.warn('node.warning', messageOf(warning)));
    process.on('uncaughtException', error => process.exit(this.sayFailure(error)));
  }

  /** @returns the exit status */
  sayFailure(error: unknown): number {
    this.log.error('daemon.failed', messageOf(error), { code: isTartanError(error) ? error.code : 'INVARIANT' });
    this.flush();
    return sayOnStandardError(error);
  }

  flush(): void {
    this.#output.flush(lastWordsMs);
    this.#file?.flushNow();
  }
}

/** @returns the exit status */
export function sayOnStandardError(error: unknown): number {
  const detail = isTartanError(error) || !(error instanceof Error) ? messageOf(error) : (error.stack ?? error.message);
  const errors = openLogWriter(2);
  errors.write(`tartand: ${detail}\n`);
  errors.flush(lastWordsMs);
  return exitCodeOf(error);
}
