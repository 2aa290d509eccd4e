/** Hosts whose Status was saved by `tartan status -o json`. A file that is written anew is read again. */
import { readFile, stat } from 'node:fs/promises';
import { statusSchema, type Status } from '../agent/status.js';
import { messageOf, TartanError } from '../lib/errors.js';
import type { DatedStatus, HostDocument } from './other-hosts.js';

/** 5,000 peers take a few megabytes. */
const maxBytes = 32 * 1024 * 1024;

export class SavedDocument implements HostDocument {
  readonly source: string;
  #readVersion = '';

  constructor(path: string) {
    this.source = path;
  }

  async readIfChanged(): Promise<DatedStatus | undefined> {
    const { version } = await this.#examine();
    if (version === this.#readVersion) return undefined;
    const reading = await this.read();
    this.#readVersion = version;
    return reading;
  }

  /** @throws TartanError CONFIG_INVALID */
  async read(): Promise<DatedStatus> {
    const { madeMs } = await this.#examine();
    return { status: parseStatusDocument(await readFile(this.source, 'utf8'), this.source), madeMs };
  }

  async #examine(): Promise<{ readonly version: string; readonly madeMs: number }> {
    const info = await stat(this.source).catch((cause: unknown) => {
      throw new TartanError('CONFIG_INVALID', `${this.source} cannot be read (${messageOf(cause)}), ${expected}`, {
        cause,
      });
    });
    if (!info.isFile() || info.size > maxBytes)
      throw new TartanError('CONFIG_INVALID', `${this.source} is no file of at most ${maxBytes} bytes, ${expected}`);
    return { version: `${info.ino} ${info.size} ${info.mtimeMs}`, madeMs: info.mtimeMs };
  }
}

const expected = 'expected one that tartan status -o json wrote';

/** @throws TartanError CONFIG_INVALID naming the member that differs */
export function parseStatusDocument(text: string, source: string): Status {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new TartanError('CONFIG_INVALID', `${source} is not JSON, ${expected}`, { cause });
  }
  const parsed = statusSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.') || 'document';
  throw new TartanError('CONFIG_INVALID', `${source} is no Status (${where} differs), ${expected}`);
}
