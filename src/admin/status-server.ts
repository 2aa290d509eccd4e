/**
 * The local socket: `GET /status` on `<runDir>/tartand.sock` answers what the daemon says of itself. Who may connect
 * is the mode of the socket file: root and group `tartan`, or root alone where there is no such group.
 */
import { chmodSync, chownSync, existsSync, lstatSync, readFileSync, renameSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import type { Status } from '../agent/status.js';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { Closable } from '../lib/scope.js';
import { closeServer, createLimitedServer, plainText, type Answer } from './limited-http.js';

export interface StatusServerOptions {
  /** Must exist; whoever holds its lock owns the socket in it. */
  readonly runDir: string;
  readonly status: () => Status;
  readonly log: Log;
  readonly groupFile?: string;
}

const groupName = 'tartan';
/** sun_path of unix(7) with its closing zero. */
const maxPathBytes = 107;

export function statusSocketPath(runDir: string): string {
  return `${runDir}/tartand.sock`;
}

/** @throws TartanError USAGE, PERMISSION, CONFIG_INVALID when the socket cannot be made */
export async function openStatusServer(options: StatusServerOptions): Promise<Closable> {
  const { runDir, status, log, groupFile = '/etc/group' } = options;
  const path = statusSocketPath(runDir);
  // Made under another name and moved: never a moment without a socket, or with one of the wrong mode.
  const newPath = `${runDir}/.sock-${process.pid}`;
  if (Buffer.byteLength(newPath) > maxPathBytes)
    throw new TartanError('USAGE', `--run-dir ${runDir} is too long for a socket in it, expected at most 90 bytes`);
  // Looked at first: Node reports a missing directory as EACCES.
  if (!existsSync(runDir)) throw refusal(path, new Error(`${runDir} does not exist`));
  const server = createLimitedServer('the status socket', question => answer(question.path, status), log);
  try {
    rmSync(newPath, { force: true });
    await listenPrivately(server, newPath);
    admitGroup(newPath, groupFile, log);
    if (isDirectory(path)) rmSync(path, { recursive: true, force: true });
    renameSync(newPath, path);
  } catch (cause) {
    await closeServer(server);
    rmSync(newPath, { force: true });
    throw refusal(path, cause);
  }
  server.on('error', error => log.error('admin.socket-failed', `the status socket failed: ${messageOf(error)}`));
  return {
    async close() {
      rmSync(path, { force: true });
      await closeServer(server);
    },
  };
}

/** A directory cannot be replaced by rename(2); everything else can. */
function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** @returns undefined when the group does not exist */
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

function answer(path: string, status: () => Status): Answer {
  if (path !== '/status') return plainText(404, 'the one path here is /status');
  return { status: 200, type: 'application/json', body: `${JSON.stringify(status())}\n` };
}

function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // bind(2) takes the mode from the umask, and listen() binds before it returns.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.removeListener('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
}

function admitGroup(path: string, groupFile: string, log: Log): void {
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

function refusal(path: string, cause: unknown): TartanError {
  const denied = errnoOf(cause) === 'EACCES' || errnoOf(cause) === 'EPERM';
  return new TartanError(
    denied ? 'PERMISSION' : 'CONFIG_INVALID',
    `the status socket ${path} cannot be made (${messageOf(cause)}); expected a directory of root's, see --run-dir`,
    { cause },
  );
}
