/** What the daemon says: the log on its output, and the events, which are kept in memory and in the state directory. */
import { EventFile, readEventFiles } from '../admin/event-file.js';
import { Events } from '../admin/events.js';
import { exitCodeOf, isTartanError, messageOf } from '../lib/errors.js';
import { factValue } from '../lib/fact.js';
import { joinLogs, openRecordLog, type Log, type LogLevel } from '../lib/log.js';
import {
  chooseLogFormat,
  isErrorInLog,
  openLogOutput,
  openLogWriter,
  type WantedLogFormat,
} from '../lib/log-output.js';
import type { LogWriter } from '../lib/log-writer.js';

/** How long the last words before an exit wait for a reader that stalls. */
const lastWordsMs = 1000;

export class DaemonLog {
  readonly log: Log;
  readonly events = new Events();
  readonly #output: LogWriter;
  readonly #isErrorInLog: boolean;
  #file: EventFile | undefined;

  /** @throws TartanError CONFIG_INVALID where there is no journal and one is wanted */
  constructor(level: LogLevel, wanted: WantedLogFormat, env: NodeJS.ProcessEnv) {
    const format = chooseLogFormat(wanted, env);
    const { log, writer } = openLogOutput(format, level);
    this.#output = writer;
    this.#isErrorInLog = isErrorInLog(format, env);
    this.log = joinLogs([log, openRecordLog('info', record => this.events.add(record))]);
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
    process.on('warning', warning => this.log.info('node.warning', messageOf(warning)));
    process.on('uncaughtException', error => process.exit(this.sayFailure(error)));
  }

  /**
   * Says it once: on standard error too only where that is another place than the log's.
   * @returns the exit status
   */
  sayFailure(error: unknown): number {
    const code = isTartanError(error) ? error.code : 'INVARIANT';
    const stack = code === 'INVARIANT' && error instanceof Error ? error.stack : undefined;
    this.log.error('daemon.failed', messageOf(error), { code, stack });
    this.flush();
    if (!this.#isErrorInLog) sayOnStandardError(error);
    return exitCodeOf(error);
  }

  flush(): void {
    this.#output.flush(lastWordsMs);
    this.#file?.flushNow();
  }
}

/** Says what ended the daemon before it had a log. @returns the exit status */
export function sayEarlyFailure(error: unknown, env: NodeJS.ProcessEnv): number {
  if (chooseLogFormat('auto', env) === 'journal') return new DaemonLog('info', 'auto', env).sayFailure(error);
  sayOnStandardError(error);
  return exitCodeOf(error);
}

function sayOnStandardError(error: unknown): void {
  const detail = isTartanError(error) || !(error instanceof Error) ? messageOf(error) : (error.stack ?? error.message);
  const errors = openLogWriter(2);
  errors.write(`tartand: ${detail}\n`);
  errors.flush(lastWordsMs);
}
