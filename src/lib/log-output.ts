/**
 * Where a log goes, and in which form: JSON lines for scripts, sentences for a terminal, the journal's own protocol under
 * the journal. No reader is waited for (LogWriter).
 */
import { existsSync, fstatSync } from 'node:fs';
import { TartanError } from './errors.js';
import { encodeJournalEntry, JournalSocket, journalSocketPath } from './journal.js';
import { openLog, openRecordLog, type Log, type LogLevel, type LogRecord } from './log.js';
import { LogWriter } from './log-writer.js';
import { native } from './native.js';

export const logFormats = ['auto', 'json', 'text', 'journal'] as const;
export type WantedLogFormat = (typeof logFormats)[number];
export type LogFormat = Exclude<WantedLogFormat, 'auto'>;

const standardOutput = 1;
const standardError = 2;

/**
 * @returns for `auto`: `journal` where standard output is the journal's, `text` on a terminal, else `json`
 * @throws TartanError CONFIG_INVALID where there is no journal and one is wanted
 */
export function chooseLogFormat(
  wanted: WantedLogFormat,
  env: NodeJS.ProcessEnv,
  journal: string = journalSocketPath,
): LogFormat {
  const hasJournal = existsSync(journal);
  if (wanted === 'journal' && !hasJournal)
    throw new TartanError(
      'CONFIG_INVALID',
      `--log-format journal: there is no journal (${journal} is missing); start systemd-journald, or use json or text`,
    );
  if (wanted !== 'auto') return wanted;
  if (hasJournal && isOfJournal(standardOutput, env)) return 'journal';
  return process.stdout.isTTY ? 'text' : 'json';
}

/** Tells whether what is written to standard error arrives at the same place as the log. */
export function isErrorInLog(format: LogFormat, env: NodeJS.ProcessEnv): boolean {
  if (format === 'journal' && isOfJournal(standardError, env)) return true;
  return format !== 'journal' && identityOf(standardOutput) === identityOf(standardError);
}

/** JOURNAL_STREAM has device and inode of what systemd connected to the journal (systemd.exec(5)). */
export function isOfJournal(fd: number, env: NodeJS.ProcessEnv): boolean {
  const stream = env['JOURNAL_STREAM'];
  return stream !== undefined && stream !== '' && stream === identityOf(fd);
}

function identityOf(fd: number): string | undefined {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** @param journal its socket */
export function openLogOutput(
  format: LogFormat,
  level: LogLevel,
  fd: number = standardOutput,
  journal: string = journalSocketPath,
): { readonly log: Log; readonly writer: LogWriter } {
  if (format === 'json') {
    const writer = openLogWriter(fd);
    return { log: openLog(level, writer), writer };
  }
  const encode = format === 'text' ? formatLogLine : encodeJournalEntry;
  const socket = new JournalSocket(journal);
  const dropped = (lines: number): string | Buffer =>
    encode({ timeMs: Date.now(), level: 'warn', event: 'log.dropped', message: droppedText(lines), fields: { lines } });
  const writer =
    format === 'text'
      ? new LogWriter(writeTo(fd), { dropped })
      : new LogWriter((bytes, waitMs) => socket.send(bytes, waitMs), { dropped });
  return { log: openRecordLog(level, record => writer.write(encode(record))), writer };
}

/** Returns a writer of lines of JSON, or of plain text. */
export function openLogWriter(fd: number): LogWriter {
  const dropped = (lines: number): string => {
    const [time, msg] = [new Date().toISOString(), droppedText(lines)];
    return `${JSON.stringify({ level: 'warn', time, event: 'log.dropped', lines, msg })}\n`;
  };
  return new LogWriter(writeTo(fd), { dropped });
}

function writeTo(fd: number): (bytes: Buffer, waitMs: number) => number {
  return (bytes, waitMs) => native().writeNow(fd, bytes, waitMs);
}

function droppedText(lines: number): string {
  return `${lines} log lines were dropped: the reader of the log did not read them in time`;
}

/**
 * Returns `08:00:00 warn  sentence`, with the time in the zone of this process. What is said of peers may come from them:
 * control characters do not reach the terminal.
 */
export function formatLogLine({ timeMs, level, message, fields }: LogRecord): string {
  const time = new Date(timeMs);
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map(part => String(part).padStart(2, '0'));
  const stack = typeof fields['stack'] === 'string' ? fields['stack'].split('\n').map(line => `\n  ${bare(line)}`) : [];
  return `${clock.join(':')} ${level.padEnd(5)} ${bare(message)}${stack.join('')}\n`;
}

function bare(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ');
}
