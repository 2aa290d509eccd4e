/**
 * Events: what happened on this host lately. Each log record of level info and above is one, whatever the log shows. The
 * daemon keeps the newest in memory, answers with them on the status socket, and hands them to a file for the time after
 * it.
 */
import * as z from 'zod';
import { apiVersion } from '../agent/status.js';
import type { LogRecord } from '../lib/log.js';

const eventSchema = z
  .object({
    /** Grows by one from event to event, over restarts too. */
    id: z.number(),
    /** RFC 3339, UTC. */
    time: z.string(),
    level: z.enum(['info', 'warn', 'error']),
    /** A stable dotted name, for machines. */
    event: z.string(),
    message: z.string(),
    fields: z.record(z.string(), z.unknown()),
  })
  .readonly();

export type KeptEvent = z.infer<typeof eventSchema>;

export const eventListSchema = z
  .object({
    apiVersion: z.literal(apiVersion),
    kind: z.literal('EventList'),
    /** Of the newest event; 0 when there was none yet. */
    lastId: z.number(),
    events: z.array(eventSchema).readonly(),
  })
  .readonly();

export type EventList = z.infer<typeof eventListSchema>;

/** Of the newest events, which are kept. */
const keptMost = 500;
const longestMessage = 2_000;
const mostFieldBytes = 4_096;

/** Returns the event of a line of the file; undefined when it is none. */
export function parseEvent(line: string): KeptEvent | undefined {
  if (line === '') return undefined;
  try {
    return eventSchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

export class Events {
  readonly #most: number;
  #kept: KeptEvent[] = [];
  #lastId = 0;
  #keep: ((event: KeptEvent) => void) | undefined;

  constructor(most: number = keptMost) {
    this.#most = most;
  }

  add({ timeMs, level, event, message, fields }: LogRecord): void {
    if (level === 'debug') return;
    const kept: KeptEvent = {
      id: ++this.#lastId,
      time: new Date(timeMs).toISOString(),
      level,
      event,
      message: message.slice(0, longestMessage),
      fields: boundedFields(fields),
    };
    this.#kept.push(kept);
    if (this.#kept.length > this.#most) this.#kept.shift();
    this.#keep?.(kept);
  }

  /**
   * Puts the events of an earlier life before those of this one, and hands each of this life to `keep`.
   * @param earlier the oldest first
   */
  continueFrom(earlier: readonly KeptEvent[], keep: (event: KeptEvent) => void): void {
    const before = earlier.reduce((most, { id }) => Math.max(most, id), 0);
    const ours = this.#kept.map(event => ({ ...event, id: event.id + before }));
    this.#lastId += before;
    this.#kept = [...earlier, ...ours].slice(-this.#most);
    this.#keep = keep;
    for (const event of ours) keep(event);
  }

  /** Returns the events with a higher id, the oldest first. */
  listAfter(id: number): EventList {
    return eventListOf(
      this.#kept.filter(event => event.id > id),
      this.#lastId,
    );
  }
}

export function eventListOf(events: readonly KeptEvent[], lastId: number = events.at(-1)?.id ?? 0): EventList {
  return { apiVersion, kind: 'EventList', lastId, events };
}

/** Returns the fields as JSON has them, or how large they were. */
function boundedFields(fields: LogRecord['fields']): Record<string, unknown> {
  const text = JSON.stringify(fields, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
  if (text.length > mostFieldBytes) return { omittedBytes: text.length };
  return JSON.parse(text) as Record<string, unknown>;
}
