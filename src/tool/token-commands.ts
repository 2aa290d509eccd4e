/** `tartan token`: each token has a user of etcd, so that one can be ended without the others. */
import { silentLog } from '../lib/log.js';
import { findFlag } from '../cli/flags.js';
import { forgetJoined, readJoined } from '../setup/joined.js';
import { administratorOptions, newToken, newUserName } from '../setup/own-etcd.js';
import { formatToken, type JoinToken } from '../setup/token.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import { EtcdUsers } from '../store/etcd/users.js';
import { readTimedLeases } from '../store/operator.js';
import type { Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { requireRoot } from './join.js';
import type { OptionValues } from './settings.js';

const callMs = 5_000;

export function prefixOf({ etcdPrefix }: OptionValues): string {
  return typeof etcdPrefix === 'string' ? etcdPrefix : (findFlag('etcd-prefix')?.fallback ?? '');
}

export async function createToken(call: Call, name: string | undefined, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  if (name !== undefined && (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name) || name === 'root'))
    throw new ToolError(
      exitStatus.usage,
      'the name cannot be used, expected letters and digits',
      'tartan token new rack-7',
    );
  showToken(call, await newToken(prefixOf(values), name ?? newUserName()));
  return exitStatus.ok;
}

/** The one time that it is shown. */
export function showToken(call: Call, token: JoinToken): void {
  call.io.stderr(
    `token of the user ${token.user}, shown once and kept nowhere; on another host give it to: tartan join -\n`,
  );
  call.io.stdout(`${formatToken(token)}\n`);
}

export async function revokeToken(call: Call, name: string, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  const prefix = prefixOf(values);
  const options = administratorOptions(prefix);
  const users = new EtcdUsers(options);
  const kv = openEtcd(options, silentLog);
  try {
    const names = (await users.names()).filter(one => one !== 'root');
    if (!names.includes(name))
      throw new ToolError(
        exitStatus.error,
        `no token has this user; there are: ${names.join(', ') || 'none'}`,
        'give one of them',
      );
    const { leases } = await readTimedLeases(kv, prefix, { signal: AbortSignal.timeout(callMs) });
    const nodeIds = new Set(leases.flatMap(({ nodeId }) => nodeId ?? []));
    const hosts = await readJoined(kv, { prefix, user: name, nodeIds });
    const list = hosts.map(({ hostName, nodeId }) => `${hostName} (${nodeId})`).join(', ');
    if (hosts.length > 0 && values['force'] !== true)
      throw new ToolError(
        exitStatus.checkFailed,
        `by ${name} joined: ${list}; without it they lose their way to etcd, and their subnets when their leases end`,
        `let them join by another token first (tartan token new), or: tartan token revoke ${name} --force`,
      );
    await users.remove(name);
    await forgetJoined(kv, prefix, name);
    call.io.stdout(`${name} is revoked${list === '' ? '' : `; cut off: ${list}`}\n`);
    return exitStatus.ok;
  } finally {
    users.close();
    await kv.close();
  }
}
