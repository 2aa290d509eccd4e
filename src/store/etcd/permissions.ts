/** The role that a member needs, in words for the one who must grant it. */
import { TartanError } from '../../lib/errors.js';
import { Keys } from '../keys.js';
import type { EtcdOptions } from './options.js';
import { plainMessage } from './trouble.js';

/** @param what the refused act and its keys: `write of /coreos.com/network/held/10.5.1.0-24` */
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
  const [config, subnets, held] = [keys.config, keys.subnets.start, keys.held.start].map(String);
  return [
    `Its role needs: read ${config}, readwrite --prefix ${subnets}, readwrite --prefix ${held}.`,
    'Make it with:',
    'etcdctl role add tartan;',
    `etcdctl role grant-permission tartan read ${config};`,
    `etcdctl role grant-permission tartan readwrite --prefix ${subnets};`,
    `etcdctl role grant-permission tartan readwrite --prefix ${held};`,
    'etcdctl user grant-role <user> tartan',
  ].join(' ');
}
