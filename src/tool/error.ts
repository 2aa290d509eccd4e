/** The tool's exit statuses, and the text of an error: one line for the cause, one line for the next step. */
import { isTartanError, messageOf } from '../lib/errors.js';
import { withoutControls } from './table.js';

export const exitStatus = {
  ok: 0,
  error: 1,
  /** A check found something that is not as it must be. */
  checkFailed: 2,
  daemonUnreachable: 4,
  etcdUnreachable: 5,
  usage: 64,
} as const;

export type ExitStatus = (typeof exitStatus)[keyof typeof exitStatus];

/** A failure whose exit status and next step the command knows. */
export class ToolError extends Error {
  readonly status: ExitStatus;
  readonly next: string;

  constructor(status: ExitStatus, message: string, next: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = 'ToolError';
    this.status = status;
    this.next = next;
  }
}

export function usageError(message: string): ToolError {
  return new ToolError(exitStatus.usage, message, 'see --help');
}

export function toolErrorOf(error: unknown): ToolError {
  if (error instanceof ToolError) return error;
  const wrap = (status: ExitStatus, next: string): ToolError =>
    new ToolError(status, messageOf(error), next, { cause: error });
  if (isTartanError(error, 'USAGE')) return wrap(exitStatus.usage, 'see --help');
  if (isTartanError(error, 'STORE_UNAVAILABLE'))
    return wrap(exitStatus.etcdUnreachable, 'check that etcd runs and that --etcd-endpoints names it');
  if (isTartanError(error, 'PERMISSION'))
    return wrap(exitStatus.error, 'run it as root, or with an etcd user that has the role for it');
  if (isTartanError(error)) return wrap(exitStatus.error, 'put that right and run it again');
  return wrap(exitStatus.error, 'this is a fault of the tool: please report it with the command you gave');
}

export function formatToolError(error: ToolError): string {
  const cause = error.message.split('\n').map(withoutControls).join(' ');
  return `error: ${cause}\nnext: ${error.next}\n`;
}
