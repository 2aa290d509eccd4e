/**
 * Asks the running daemon for its Status and its events over the local socket. A missing daemon, a missing permission, a late answer
 * and an answer that is not a Status are all the same to the caller: unreachable, with the reason.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { readEventFiles } from '../admin/event-file.js';
import { eventListOf, eventListSchema } from '../admin/events.js';
import { statusSocketPath } from '../admin/socket-path.js';
import { statusSchema } from '../agent/status.js';
import { daemonSettingsSchema, type DaemonSettings } from '../cli/daemon-settings.js';
import { errnoOf, messageOf } from '../lib/errors.js';
import { askSocket } from '../lib/socket-http.js';
import type { EventsReading, StatusReading } from './ports.js';

const timeoutMs = 2000;
/** 5000 peers take half a megabyte. */
const maxBytes = 16 * 1024 * 1024;

export async function readStatus(runDir: string): Promise<StatusReading> {
  const path = statusSocketPath(runDir);
  try {
    const parsed = statusSchema.safeParse(JSON.parse(await fetchText(path, '/status')));
    if (parsed.success) return { kind: 'status', status: parsed.data };
    const where = parsed.error.issues[0]?.path.join('.') ?? '';
    return { kind: 'unreachable', reason: otherDaemon(path, where) };
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(path, error) };
  }
}

/** @returns undefined where no daemon answers, or one that does not tell its settings */
export async function readSettings(runDir: string): Promise<DaemonSettings | undefined> {
  try {
    return daemonSettingsSchema.safeParse(JSON.parse(await fetchText(statusSocketPath(runDir), '/settings'))).data;
  } catch {
    return undefined;
  }
}

/** Asks for the events of the daemon after one of them, and reads the files of the state directory where it is away. */
export async function readEvents(runDir: string, stateDir: string, afterId: number): Promise<EventsReading> {
  const path = statusSocketPath(runDir);
  let reason: string;
  try {
    const parsed = eventListSchema.safeParse(JSON.parse(await fetchText(path, `/events?after=${afterId}`)));
    if (parsed.success) return { kind: 'events', list: parsed.data, unasked: undefined };
    reason = otherDaemon(path, parsed.error.issues[0]?.path.join('.') ?? '');
  } catch (error) {
    reason = reasonOf(path, error);
  }
  const kept = readEventFiles(stateDir);
  if (!kept.known) return { kind: 'unreachable', reason: `${reason}; ${kept.why}` };
  if (kept.value.length === 0) return { kind: 'unreachable', reason: `${reason}; ${stateDir} has no events` };
  const events = kept.value.filter(({ id }) => id > afterId);
  return { kind: 'events', list: eventListOf(events, kept.value.at(-1)?.id), unasked: reason };
}

function otherDaemon(path: string, where: string): string {
  return `what answers on ${path} is not this tartand (${where || 'document'} differs)`;
}

/** A daemon that many ask drops the slowest: it is asked again. EAGAIN: too many wait for it to accept them. */
const againErrors = ['ECONNRESET', 'EPIPE', 'EAGAIN'];
const attempts = 4;

async function fetchText(socketPath: string, path: string): Promise<string> {
  const endMs = performance.now() + timeoutMs;
  for (let attempt = 1; ; attempt++) {
    try {
      const leftMs = Math.max(1, Math.ceil(endMs - performance.now()));
      const { status, text } = await askSocket({ socketPath, path, timeoutMs: leftMs, maxBytes });
      if (status !== 200) throw new Error(`the answer was HTTP ${status}`);
      return text;
    } catch (error) {
      if (attempt === attempts || !againErrors.includes(errnoOf(error) ?? '')) throw error;
      await delay(50);
    }
  }
}

function reasonOf(path: string, error: unknown): string {
  if (error instanceof Error && error.name === 'AbortError')
    return `nothing answered on ${path} within ${timeoutMs} ms`;
  switch (errnoOf(error)) {
    case 'ENOENT':
      return `there is no socket ${path}`;
    case 'ECONNREFUSED':
      return `nobody listens on ${path}`;
    case 'EACCES':
    case 'EPERM':
      return `${path} is for root and members of the group tartan`;
    default:
      return `${path}: ${messageOf(error)}`;
  }
}
