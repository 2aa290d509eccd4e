/**
 * The local socket `<runDir>/tartand.sock`: `GET /status` returns the Status document, `GET /events` the events that are
 * kept, `GET /events?after=ID` those after one, `GET /settings` where etcd is. The mode of the socket file decides who may connect: root and the group
 * `tartan`, or root alone where that group does not exist.
 */
import { chmodSync, chownSync, existsSync, lstatSync, readFileSync, renameSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import type { Status } from '../agent/status.js';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import { eventListOf, type EventList } from './events.js';
import {
  closeServer,
  createLimitedServer,
  listen,
  plainText,
  type HttpRequest,
  type HttpResponse,
} from './limited-http.js';
import { statusSocketPath } from './socket-path.js';

export interface StatusAnswers {
  readonly status: () => Status;
  /** By default there are none. */
  readonly eventsAfter?: (id: number) => EventList;
  /** Where the tool finds etcd; no secret. By default nothing is told. */
  readonly settings?: object;
}

export interface StatusServerOptions extends StatusAnswers {
  /** Must exist; the process that holds the lock of the directory owns the socket in it. */
  readonly runDir: string;
  readonly log: Log;
  readonly groupFile?: string;
}

const groupName = 'tartan';
/** sun_path of unix(7) has 108 bytes, with the closing zero. */
const maxPathBytes = 107;

/** @throws TartanError USAGE, PERMISSION or CONFIG_INVALID when the socket cannot be made */
export async function openStatusServer(options: StatusServerOptions): Promise<Closable> {
  const { runDir, log, groupFile = '/etc/group' } = options;
  const path = statusSocketPath(runDir);
  // The socket is made under another name and then renamed: a socket with the right mode is there at every moment.
  const newPath = `${runDir}/.sock-${process.pid}`;
  if (Buffer.byteLength(newPath) > maxPathBytes)
    throw new TartanError('USAGE', `--run-dir ${runDir} is too long for a socket in it, expected at most 90 bytes`);
  // This is checked first: Node reports a missing directory as EACCES.
  if (!existsSync(runDir)) throw socketError(path, new Error(`${runDir} does not exist`));
  const server = createLimitedServer('the status socket', openStatusAnswers(options), log);
  try {
    rmSync(newPath, { force: true });
    await listenPrivately(server, newPath);
    allowGroup(newPath, groupFile, log);
    if (isDirectory(path)) rmSync(path, { recursive: true, force: true });
    renameSync(newPath, path);
  } catch (cause) {
    await closeServer(server);
    rmSync(newPath, { force: true });
    throw socketError(path, cause);
  }
  server.on('error', error => log.error('admin.socket-failed', `the status socket failed: ${messageOf(error)}`));
  return {
    async close() {
      rmSync(path, { force: true });
      await closeServer(server);
    },
  };
}

/** rename(2) replaces everything but a directory. */
function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** @returns the id of the group `tartan`; undefined when the group does not exist */
export function findGroupId(groupFile: string): number | undefined {
  let text: string;
  try {
    text = readFileSync(groupFile, 'utf8');
  } catch {
    return undefined;
  }
  const fields = text
    .split('\n')
    .map(line => line.split(':'))
    .find(([name]) => name === groupName);
  return /^\d+$/.test(fields?.[2] ?? '') ? Number(fields?.[2]) : undefined;
}

export function openStatusAnswers(options: StatusAnswers): (request: HttpRequest) => HttpResponse {
  const { status, eventsAfter = () => eventListOf([]) } = options;
  const settings = options.settings && `${JSON.stringify(options.settings)}\n`;
  const document = new StatusDocument(status);
  return request => responseTo(request, document, eventsAfter, settings);
}

function responseTo(
  { path, query }: HttpRequest,
  document: StatusDocument,
  eventsAfter: (id: number) => EventList,
  settings: string | undefined,
): HttpResponse {
  switch (path) {
    case '/status':
      return { status: 200, type: 'application/json', body: document.current() };
    case '/events': {
      const after = query.get('after') ?? '0';
      if (!/^\d{1,15}$/.test(after)) return plainText(400, 'after is not the id of an event, expected a number');
      return { status: 200, type: 'application/json', body: `${JSON.stringify(eventsAfter(Number(after)))}\n` };
    }
    case '/settings':
      if (settings === undefined) return plainText(404, 'this daemon does not tell its settings');
      return { status: 200, type: 'application/json', body: settings };
    default:
      return plainText(404, `the paths here are /status, /events${settings === undefined ? '' : ' and /settings'}`);
  }
}

/** A longer document is given again for ten times as long as its making took, so that many clients cost little. */
const keptBytes = 64 * 1024;

class StatusDocument {
  readonly #status: () => Status;
  #bytes = Buffer.alloc(0);
  #keptUntilMs = -Infinity;

  constructor(status: () => Status) {
    this.#status = status;
  }

  current(): Buffer {
    const begunMs = performance.now();
    if (begunMs < this.#keptUntilMs) return this.#bytes;
    const bytes = Buffer.from(`${JSON.stringify(this.#status())}\n`);
    const endMs = performance.now();
    this.#keptUntilMs = bytes.length > keptBytes ? endMs + 10 * (endMs - begunMs) : -Infinity;
    this.#bytes = bytes;
    return bytes;
  }
}

function listenPrivately(server: Server, path: string): Promise<void> {
  // bind(2) takes the mode of the socket file from the umask, and listen() binds before it returns.
  const umask = process.umask(0o177);
  try {
    return listen(server, { path });
  } finally {
    process.umask(umask);
  }
}

function allowGroup(path: string, groupFile: string, log: Log): void {
  const group = findGroupId(groupFile);
  if (group === undefined) return;
  try {
    chownSync(path, process.getuid?.() ?? 0, group);
    chmodSync(path, 0o660);
  } catch (error) {
    log.warn('admin.group-refused', `the status socket stays with root alone: ${messageOf(error)}`, {
      group: groupName,
    });
  }
}

function socketError(path: string, cause: unknown): TartanError {
  const denied = errnoOf(cause) === 'EACCES' || errnoOf(cause) === 'EPERM';
  return new TartanError(
    denied ? 'PERMISSION' : 'CONFIG_INVALID',
    `the status socket ${path} cannot be made (${messageOf(cause)}); expected a directory of root's, see --run-dir`,
    { cause },
  );
}
