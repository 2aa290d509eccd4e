/**
 * What an error of the etcd client means for us. etcd tells by text (its api/v3rpc/rpctypes) where gRPC's status code
 * alone is ambiguous.
 */
import {
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
} from 'etcd3';
import { messageOf } from '../../lib/errors.js';

/**
 * transport      no answer of use from this endpoint: try another; a write may or may not have happened
 * token          the login has worn out: log in again and repeat, nothing was done
 * login-needed   etcd wants a login and got none
 * login-unknown  etcd has authentication switched off
 */
export type Trouble =
  | 'transport'
  | 'token'
  | 'login-needed'
  | 'login-unknown'
  | 'denied'
  | 'too-large'
  | 'compacted'
  | 'lease-gone'
  | 'lease-exists';

export class NoAnswer extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs} ms`);
  }
}

const byText: readonly (readonly [RegExp, Trouble])[] = [
  [/user name is empty/, 'login-needed'],
  [/authentication is not enabled/, 'login-unknown'],
  [/revision of auth store is old|invalid auth token/, 'token'],
  [/permission denied|authentication failed/, 'denied'],
  [/larger than max/, 'too-large'],
  [/required revision has been compacted/, 'compacted'],
  [/requested lease not found/, 'lease-gone'],
  [/lease already exists/, 'lease-exists'],
];

export function troubleOf(error: unknown): Trouble {
  if (error instanceof EtcdInvalidAuthTokenError) return 'token';
  if (error instanceof EtcdPermissionDeniedError || error instanceof EtcdAuthenticationFailedError) return 'denied';
  if (error instanceof EtcdLeaseInvalidError) return 'lease-gone';
  return troubleOfText(messageOf(error));
}

export function troubleOfText(message: string): Trouble {
  return byText.find(([pattern]) => pattern.test(message))?.[1] ?? 'transport';
}

/** etcd3 puts class names in front; the rest is what an operator can use. */
export function plainMessage(error: unknown): string {
  return messageOf(error)
    .replace(/^(\w+Error: )+/, '')
    .replace(/^\d+ ([A-Z_]+): /, '$1: ')
    .slice(0, 300);
}
