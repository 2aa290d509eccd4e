/** The forms of the log: the bytes of the journal's protocol, lines for a terminal, and which of them is chosen. */
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeJournalEntry } from '../../src/lib/journal.js';
import type { LogRecord } from '../../src/lib/log.js';
import { chooseLogFormat, formatLogLine, isOfJournal } from '../../src/lib/log-output.js';

const record = (more: Partial<LogRecord> = {}): LogRecord => ({
  timeMs: Date.UTC(2026, 0, 31, 8),
  level: 'warn',
  event: 'lease.altered',
  message: 'our lease was changed',
  fields: {},
  ...more,
});

/** Reads an entry as journald does. */
function decode(bytes: Buffer): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\n', at);
    const line = bytes.toString('utf8', at, end);
    const [name = '', ...rest] = line.split('=');
    at = end + 1;
    if (rest.length > 0) fields[name] = rest.join('=');
    else {
      const length = Number(bytes.readBigUInt64LE(at));
      fields[line] = bytes.toString('utf8', at + 8, at + 8 + length);
      at += 8 + length + 1;
    }
  }
  return fields;
}

describe('an entry of the journal', () => {
  it('has its fields in capitals, byte for byte', () => {
    const fields = { subnet: '10.5.1.0/24', ttlSeconds: 60, revision: 7n, no: undefined, subnets: ['a', 'b'] };
    expect(encodeJournalEntry(record({ fields })).toString('latin1')).toBe(
      'MESSAGE=our lease was changed\nPRIORITY=4\nSYSLOG_IDENTIFIER=tartand\nEVENT=lease.altered\n' +
        'SUBNET=10.5.1.0/24\nTTL_SECONDS=60\nREVISION=7\nSUBNETS=["a","b"]\n',
    );
  });

  it('gives a value with a line feed its length', () => {
    const entry = encodeJournalEntry(record({ message: 'a\nb=ü' }));
    expect(entry.subarray(0, 24).toString('latin1')).toBe('MESSAGE\n\x06\0\0\0\0\0\0\0a\nb=\xc3\xbc\nP');
    expect(decode(entry)).toMatchObject({ MESSAGE: 'a\nb=ü', PRIORITY: '4' });
  });

  it.each([
    ['debug', '7'],
    ['info', '6'],
    ['warn', '4'],
    ['error', '3'],
  ] as const)('%s has priority %s', (level, priority) => {
    expect(decode(encodeJournalEntry(record({ level })))['PRIORITY']).toBe(priority);
  });

  it('takes no field for one of its own, or for one of the journal', () => {
    const fields = { message: 'x', event: 'y', _pid: 1, '9': 'z', 'a.b-c': 'w', '': 'v', priority: 0 };
    expect(decode(encodeJournalEntry(record({ fields })))).toEqual({
      MESSAGE: 'our lease was changed',
      PRIORITY: '4',
      SYSLOG_IDENTIFIER: 'tartand',
      EVENT: 'lease.altered',
      FIELD_MESSAGE: 'x',
      FIELD_EVENT: 'y',
      FIELD_PRIORITY: '0',
      PID: '1',
      FIELD_: 'v',
      A_B_C: 'w',
    });
  });

  it('is shortened to what a datagram takes', () => {
    const fields = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`field${i}`, 'x'.repeat(1e5)]));
    const entry = encodeJournalEntry(record({ message: 'ü'.repeat(1e6), fields }));
    expect(entry.length).toBeLessThan(66_000);
    const decoded = decode(entry);
    expect(decoded['MESSAGE']).toBe('ü'.repeat(16 * 1024));
    expect(Number(decoded['OMITTED_FIELDS'])).toBe(
      40 - Object.keys(decoded).filter(name => name.startsWith('FIELD')).length,
    );
  });
});

describe('a line for people', () => {
  it('has time, level and sentence, and no control characters of others', () => {
    const line = formatLogLine(record({ message: 'lease of \u001B[31mx\nis ignored' }));
    expect(line).toMatch(/^\d\d:00:00 warn  lease of  \[31mx is ignored\n$/);
  });

  it('has the place of a fault of ours', () => {
    const line = formatLogLine(record({ level: 'error', fields: { stack: 'Error: x\n    at f (a.js:1)' } }));
    expect(line).toMatch(/ error our lease was changed\n {2}Error: x\n {6}at f \(a\.js:1\)\n$/);
  });
});

describe('the form is chosen', () => {
  let directory = '';
  let [fd, journal] = [-1, ''];
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), `tartan-log-${process.pid}-`));
    fd = openSync(join(directory, 'stream'), 'w');
    journal = join(directory, 'socket');
    writeFileSync(journal, '');
  });
  afterAll(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  it('by JOURNAL_STREAM, which names device and inode of the stream', () => {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    expect(isOfJournal(fd, { JOURNAL_STREAM: `${dev}:${ino}` })).toBe(true);
    for (const stream of [`${dev}:${ino + 1n}`, '', 'x', undefined])
      expect(isOfJournal(fd, { JOURNAL_STREAM: stream })).toBe(false);
    expect(isOfJournal(987_654, { JOURNAL_STREAM: `${dev}:${ino}` })).toBe(false);
    const output = fstatSync(1, { bigint: true });
    const env = { JOURNAL_STREAM: `${output.dev}:${output.ino}` };
    expect(chooseLogFormat('auto', env, journal)).toBe('journal');
    expect(chooseLogFormat('auto', env, `${journal}-absent`)).not.toBe('journal');
    expect(chooseLogFormat('auto', {}, journal)).toBe(process.stdout.isTTY ? 'text' : 'json');
  });

  it('as asked, else with the reason', () => {
    expect(['json', 'text', 'journal'].map(name => chooseLogFormat(name as 'json', {}, journal))).toEqual([
      'json',
      'text',
      'journal',
    ]);
    expect(() => chooseLogFormat('journal', {}, `${journal}-absent`)).toThrow(
      /--log-format journal: there is no journal .*-absent is missing.*use json or text/,
    );
  });
});
