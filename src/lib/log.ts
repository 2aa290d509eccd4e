/**
 * Logging: `event` is a stable dotted name for machines, and the message is a sentence for people. JSON lines are pino's;
 * log-output.ts has the other forms.
 */
import { pino, type DestinationStream } from 'pino';

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
export type RecordLevel = Exclude<LogLevel, 'silent'>;

/** The levels of records, the least first. */
export const recordLevels: readonly RecordLevel[] = ['debug', 'info', 'warn', 'error'];

/** One call of a Log. */
export interface LogRecord {
  /** Milliseconds since 1970 by the wall clock. */
  readonly timeMs: number;
  readonly level: RecordLevel;
  readonly event: string;
  readonly message: string;
  readonly fields: LogFields;
}

export interface Log {
  debug(event: string, message: string, fields?: LogFields): void;
  info(event: string, message: string, fields?: LogFields): void;
  warn(event: string, message: string, fields?: LogFields): void;
  error(event: string, message: string, fields?: LogFields): void;
}

export function openLog(level: LogLevel, destination: DestinationStream): Log {
  const logger = pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: label => ({ level: label }) } },
    destination,
  );
  return {
    debug: (event, message, fields) => logger.debug({ event, ...fields }, message),
    info: (event, message, fields) => logger.info({ event, ...fields }, message),
    warn: (event, message, fields) => logger.warn({ event, ...fields }, message),
    error: (event, message, fields) => logger.error({ event, ...fields }, message),
  };
}

/** Returns a log that hands over each record of `least` and above. */
export function openRecordLog(least: LogLevel, take: (record: LogRecord) => void): Log {
  const from = least === 'silent' ? Infinity : recordLevels.indexOf(least);
  return logOf(level => {
    if (recordLevels.indexOf(level) < from) return () => {};
    return (event, message, fields = {}) => take({ timeMs: Date.now(), level, event, message, fields });
  });
}

/** Returns a log whose records go to each of these. */
export function joinLogs(logs: readonly Log[]): Log {
  return logOf(level => (event, message, fields) => {
    for (const log of logs) log[level](event, message, fields);
  });
}

function logOf(method: (level: RecordLevel) => Log['info']): Log {
  return { debug: method('debug'), info: method('info'), warn: method('warn'), error: method('error') };
}

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Thins out the log lines of a wait that may last for days: the first one is due, later ones at growing distances. */
export class LogThrottle {
  #count = 0;
  #next = 1;

  /** Returns true on the 1st, 2nd, 4th, 8th ... call since the last `reset`. */
  due(): boolean {
    if (++this.#count < this.#next) return false;
    this.#next *= 2;
    return true;
  }

  reset(): void {
    this.#count = 0;
    this.#next = 1;
  }
}
