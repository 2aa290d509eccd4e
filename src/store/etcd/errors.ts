/**
 * Sorts the errors of the etcd client by kind. Where gRPC's status code is ambiguous the text of the error decides
 * (etcd's api/v3rpc/rpctypes).
 */
import {
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
} from 'etcd3';
import { messageOf, TartanError } from '../../lib/errors.js';
import { Keys } from '../keys.js';
import type { EtcdOptions } from './options.js';
import { inOurWords } from './words.js';

/**
 * transport      the endpoint gave no usable answer: another is tried, and a write may have been done
 * token          the login token has expired: the client logs in and repeats the call, and nothing was done
 * login-needed   etcd needs a login and got none
 * login-unknown  etcd has authentication switched off
 * no-space       etcd has raised its alarm NOSPACE and refuses writes
 */
export type EtcdErrorKind =
  | 'transport'
  | 'token'
  | 'login-needed'
  | 'login-unknown'
  | 'denied'
  | 'too-large'
  | 'no-space'
  | 'compacted'
  | 'lease-gone'
  | 'lease-exists';

export class NoAnswer extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs / 1000} s`);
  }
}

const byText: readonly (readonly [RegExp, EtcdErrorKind])[] = [
  [/user name is empty/, 'login-needed'],
  [/authentication is not enabled/, 'login-unknown'],
  [/revision of auth store is old|invalid auth token/, 'token'],
  [/permission denied|authentication failed/, 'denied'],
  [/larger than max/, 'too-large'],
  [/database space exceeded/, 'no-space'],
  [/required revision has been compacted/, 'compacted'],
  [/requested lease not found/, 'lease-gone'],
  [/lease already exists/, 'lease-exists'],
];

export function errorKindOf(error: unknown): EtcdErrorKind {
  if (error instanceof EtcdInvalidAuthTokenError) return 'token';
  if (error instanceof EtcdPermissionDeniedError || error instanceof EtcdAuthenticationFailedError) return 'denied';
  if (error instanceof EtcdLeaseInvalidError) return 'lease-gone';
  const message = messageOf(error);
  return byText.find(([pattern]) => pattern.test(message))?.[1] ?? 'transport';
}

/** Returns what the client says of a failure, in our words. */
export function plainMessage(error: unknown): string {
  return inOurWords(messageOf(error));
}

/**
 * Returns the error of a missing permission, with the role that the user needs.
 * @param what the refused operation and its keys: `write of /coreos.com/network/held/10.5.1.0-24`
 */
export function permissionError(options: EtcdOptions, what: string, cause: unknown): TartanError {
  const user = options.username === undefined ? 'a client without a user name' : `user '${options.username}'`;
  return new TartanError(
    'PERMISSION',
    `etcd refuses ${user} the ${what} (${plainMessage(cause)}). ${roleText(options.prefix)}`,
    { cause },
  );
}

function roleText(prefix: string): string {
  const keys = new Keys(prefix);
  const [config, subnets, tombstones] = [keys.config, keys.subnets.start, keys.tombstones.start].map(String);
  return [
    `Its role needs: read ${config}, readwrite --prefix ${subnets}, readwrite --prefix ${tombstones}.`,
    'Make it with:',
    'etcdctl role add tartan;',
    `etcdctl role grant-permission tartan read ${config};`,
    `etcdctl role grant-permission tartan readwrite --prefix ${subnets};`,
    `etcdctl role grant-permission tartan readwrite --prefix ${tombstones};`,
    'etcdctl user grant-role <user> tartan',
  ].join(' ');
}
