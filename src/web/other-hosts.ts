/** Documents of other hosts: of each only its row is kept, and the document is read again when somebody looks at the host. */
import type { Status } from '../agent/status.js';
import { messageOf } from '../lib/errors.js';
import { pageHostOf, type PageHost } from './page-host.js';
import { hostRowOf, type HostRow, type HostSource } from './matrix.js';
import { Refreshed, type Reading } from './refreshed.js';

/** A Status of another host, in a file or behind its status listener. */
export interface HostDocument {
  /** The path or the address. */
  readonly source: string;
  /** @returns undefined when it is the same as at the last reading */
  readIfChanged(): Promise<DatedStatus | undefined>;
  read(): Promise<DatedStatus>;
}

export interface DatedStatus {
  readonly status: Status;
  /** When the document was made, as Date.now(). */
  readonly madeMs: number;
}

interface Kept {
  row: HostRow | undefined;
  madeMs: number | undefined;
  failure: string | null;
}

/** Each document is read this often at most; many take turns, so that 500 hosts are 33 requests a second. */
const shortestPeriodMs = 2_000;
const periodMsOfEach = 30;
const readersAtOnce = 8;

export class OtherHosts {
  readonly #documents: readonly HostDocument[];
  readonly #kept: readonly Kept[];
  readonly #all: Refreshed<readonly HostSource[]>;

  constructor(documents: readonly HostDocument[]) {
    this.#documents = documents;
    this.#kept = documents.map(() => ({ row: undefined, madeMs: undefined, failure: null }));
    this.#all = new Refreshed(
      () => this.#readAll(),
      Math.max(shortestPeriodMs, periodMsOfEach * documents.length),
      messageOf,
    );
  }

  get count(): number {
    return this.#documents.length;
  }

  rows(): Promise<Reading<readonly HostSource[]>> {
    return this.#all.current();
  }

  /** Waits until each document was read. */
  async readNow(): Promise<readonly HostSource[]> {
    return (await this.#all.readNow()) ?? [];
  }

  /** @throws TartanError or Error in Node's shape when it cannot be read; undefined: there is no such host */
  async view(index: number): Promise<PageHost | undefined> {
    const document = this.#documents[index];
    return document && pageHostOf((await document.read()).status);
  }

  /** A few at a time, so that a silent host holds up only its reader. */
  async #readAll(): Promise<readonly HostSource[]> {
    const waiting = this.#documents.entries();
    const readers = Array.from({ length: readersAtOnce }, async () => {
      for (const [index, document] of waiting) await this.#readOne(index, document);
    });
    await Promise.all(readers);
    return this.#documents.map(({ source }, index) => {
      const { row, madeMs, failure } = this.#kept[index] ?? { row: undefined, madeMs: undefined, failure: null };
      const ageSeconds = madeMs === undefined ? null : Math.max(0, (Date.now() - madeMs) / 1000);
      return { source, row, ageSeconds, failure };
    });
  }

  async #readOne(index: number, document: HostDocument): Promise<void> {
    const kept = this.#kept[index];
    if (!kept) return;
    try {
      const reading = await document.readIfChanged();
      kept.failure = null;
      if (!reading) return;
      kept.row = hostRowOf(reading.status);
      kept.madeMs = reading.madeMs;
    } catch (error) {
      kept.failure = messageOf(error);
    }
  }
}
