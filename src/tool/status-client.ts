/**
 * Asks the running daemon for its Status over the local socket. A missing daemon, a missing permission, a late answer
 * and an answer that is not a Status are all the same to the caller: unreachable, with the reason.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { statusSocketPath } from '../admin/status-server.js';
import { statusSchema } from '../agent/status.js';
import { errnoOf, messageOf } from '../lib/errors.js';
import { askSocket } from '../lib/socket-http.js';
import type { StatusReading } from './ports.js';

const timeoutMs = 2000;
/** 5000 peers take half a megabyte. */
const maxBytes = 16 * 1024 * 1024;

export async function readStatus(runDir: string): Promise<StatusReading> {
  const path = statusSocketPath(runDir);
  try {
    const parsed = statusSchema.safeParse(JSON.parse(await fetchText(path)));
    if (parsed.success) return { kind: 'status', status: parsed.data };
    const where = parsed.error.issues[0]?.path.join('.') ?? '';
    return {
      kind: 'unreachable',
      reason: `what answers on ${path} is not this tartand (${where || 'document'} differs)`,
    };
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(path, error) };
  }
}

/** A daemon that many ask drops the slowest: it is asked again. EAGAIN: too many wait for it to accept them. */
const againErrors = ['ECONNRESET', 'EPIPE', 'EAGAIN'];
const attempts = 4;

async function fetchText(socketPath: string): Promise<string> {
  const endMs = performance.now() + timeoutMs;
  for (let attempt = 1; ; attempt++) {
    try {
      const leftMs = Math.max(1, Math.ceil(endMs - performance.now()));
      const { status, text } = await askSocket({ socketPath, path: '/status', timeoutMs: leftMs, maxBytes });
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
