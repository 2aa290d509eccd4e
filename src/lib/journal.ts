/**
 * The native protocol of systemd-journald: an entry is one datagram of fields (systemd's "Native Journal Protocol",
 * systemd.journal-fields(7)). `journalctl -o json` shows every field of a record by its name in capitals.
 */
import type { LogFields, LogRecord, RecordLevel } from './log.js';
import { native } from './native.js';

export const journalSocketPath = '/run/systemd/journal/socket';

/** Of syslog(3). */
const priorities: Readonly<Record<RecordLevel, number>> = { error: 3, warn: 4, info: 6, debug: 7 };
/** A datagram of unix(7) must fit the send buffer (net.core.wmem_default), which is 208 KiB. */
const mostBytes = 64 * 1024;
const longestMessage = 16 * 1024;
const longestField = 8 * 1024;
/** Names of the entry itself, which a field of a record must not replace. */
const taken = new Set(['MESSAGE', 'PRIORITY', 'SYSLOG_IDENTIFIER', 'EVENT', 'OMITTED_FIELDS']);

/** What is too long is shortened; fields that have no room are counted in OMITTED_FIELDS. */
export function encodeJournalEntry({ level, event, message, fields }: LogRecord): Buffer {
  const parts = [
    encodeField('MESSAGE', message.slice(0, longestMessage)),
    encodeField('PRIORITY', String(priorities[level])),
    encodeField('SYSLOG_IDENTIFIER', 'tartand'),
    encodeField('EVENT', event),
  ];
  let bytes = parts.reduce((sum, part) => sum + part.length, 0);
  let omitted = 0;
  for (const [name, value] of Object.entries(fields)) {
    const text = textOf(value);
    if (text === undefined) continue;
    const part = encodeField(fieldName(name), text.slice(0, longestField));
    if (bytes + part.length > mostBytes) omitted++;
    else {
      parts.push(part);
      bytes += part.length;
    }
  }
  if (omitted > 0) parts.push(encodeField('OMITTED_FIELDS', String(omitted)));
  return Buffer.concat(parts);
}

/** A value with a line feed has its length before it, in 64 bits, little endian. */
function encodeField(name: string, value: string): Buffer {
  if (!value.includes('\n')) return Buffer.from(`${name}=${value}\n`);
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from('\n')]);
}

/** The journal takes capitals, digits and underscores, a capital first, 64 at most: `ttlSeconds` is TTL_SECONDS. */
function fieldName(name: string): string {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toUpperCase()
    .replace(/[^A-Z0-9]+/g, '_')
    .replace(/^[_0-9]+/, '');
  return (words === '' || taken.has(words) ? `FIELD_${words}` : words).slice(0, 64);
}

function textOf(value: LogFields[string]): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'bigint') return String(value);
  return JSON.stringify(value) as string | undefined;
}

/** Sends entries, and never waits longer than it may. A journal that was started anew has a new socket. */
export class JournalSocket {
  readonly #path: string;
  #fd: number | undefined;

  constructor(path: string = journalSocketPath) {
    this.#path = path;
  }

  /** A WriteSome (LogWriter). @throws Error in Node's shape when no journal is there */
  send(entry: Buffer, waitMs: number): number {
    if (this.#fd !== undefined)
      try {
        return native().writeNow(this.#fd, entry, waitMs);
      } catch {
        this.#close();
      }
    this.#fd = native().connectDatagram(this.#path);
    try {
      return native().writeNow(this.#fd, entry, waitMs);
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  #close(): void {
    if (this.#fd !== undefined) native().closeFd(this.#fd);
    this.#fd = undefined;
  }
}
