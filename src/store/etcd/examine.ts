/** Examines an etcd before a host relies on it: who answers, which version, whether its clock runs, what the user may do. */
import { setTimeout as delay } from 'node:timers/promises';
import { bootClock } from '../../lib/clock.js';
import { isTartanError, messageOf, TartanError } from '../../lib/errors.js';
import { silentLog } from '../../lib/log.js';
import { Keys, onlyKey } from '../keys.js';
import type { Kv } from '../kv.js';
import { adviceFor } from './advice.js';
import { Connection } from './connection.js';
import { openEtcd } from './etcd-kv.js';
import { errorKindOf, plainMessage } from './errors.js';
import type { EtcdOptions } from './options.js';

export interface EtcdExamination {
  /** Of the endpoints that answer. */
  readonly versions: readonly string[];
  /** Hexadecimal, as etcdctl shows it. */
  readonly clusterId: string;
  /** Endpoints that do not answer, each with the reason. */
  readonly silent: readonly string[];
  /** undefined when there is no network document. */
  readonly networkText: string | undefined;
}

/** How long the clock of TTLs is watched, and how far it may be off, in seconds: etcd tells whole ones. */
const clockMs = 2_100;
const ttlSeconds = 60;
const answerMs = 5_000;
const oldest = [3, 4] as const;

/**
 * @throws TartanError STORE_UNAVAILABLE, PERMISSION, CONFIG_INVALID; USAGE where the endpoints are not of one cluster
 */
export async function examineEtcd(options: EtcdOptions): Promise<EtcdExamination> {
  const members = await Promise.all(options.endpoints.map(endpoint => askMember(endpoint, options)));
  const answers = members.filter(member => 'version' in member);
  const silent = members.flatMap(member => ('reason' in member ? [member.reason] : []));
  const [first] = answers;
  if (!first) throw new TartanError('STORE_UNAVAILABLE', silent.join('; '));
  const other = answers.find(({ clusterId }) => clusterId !== first.clusterId);
  if (other)
    throw new TartanError(
      'USAGE',
      `${first.endpoint} is of the etcd cluster ${first.clusterId} and ${other.endpoint} of ${other.clusterId}: give the endpoints of one cluster`,
    );
  for (const { endpoint, version } of answers)
    if (isTooOld(version))
      throw new TartanError(
        'CONFIG_INVALID',
        `${endpoint} is etcd ${version}, expected ${oldest.join('.')} or later: update it`,
      );
  const kv = openEtcd(options, silentLog);
  try {
    const networkText = await checkPermissions(kv, new Keys(options.prefix));
    await checkClock(kv);
    return { versions: answers.map(({ version }) => version), clusterId: first.clusterId, silent, networkText };
  } finally {
    await kv.close();
  }
}

export function isTooOld(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major < oldest[0] || (major === oldest[0] && minor < oldest[1]);
}

type Member =
  { readonly endpoint: string; readonly version: string; readonly clusterId: string } | { readonly reason: string };

async function askMember(endpoint: string, options: EtcdOptions): Promise<Member> {
  const connection = new Connection(endpoint, options, true, true);
  const late = delay(answerMs, undefined, { ref: false }).then(() => {
    throw new Error(`no answer within ${answerMs / 1000} s`);
  });
  try {
    await Promise.race([connection.reachable, late]);
    const { version, header } = await Promise.race([connection.etcd.maintenance.status(), late]);
    return { endpoint, version, clusterId: BigInt(header.cluster_id).toString(16) };
  } catch (error) {
    const message = plainMessage(error);
    if (errorKindOf(error) === 'login-needed') return versionUnasked(endpoint, options);
    if (errorKindOf(error) === 'denied')
      throw new TartanError('PERMISSION', `${endpoint} refuses the user ${options.username ?? ''}: ${message}`, {
        cause: error,
      });
    return { reason: `${endpoint}: ${message}; ${await adviceFor(options, endpoint, messageOf(error))}` };
  } finally {
    connection.close();
    late.catch(() => {});
  }
}

function versionUnasked(endpoint: string, { username }: EtcdOptions): never {
  throw new TartanError(
    'PERMISSION',
    `${endpoint} wants a login${username === undefined ? '' : ' other than that'}: give --etcd-username and --etcd-password-file, or a token`,
  );
}

/** A transaction whose compare cannot hold writes nothing, and etcd checks the permissions for all of it. */
async function checkPermissions(kv: Kv, keys: Keys): Promise<string | undefined> {
  const signal = AbortSignal.timeout(answerMs);
  const { entries } = await kv.list(onlyKey(keys.config), { signal });
  const probe = Buffer.from('probe');
  const writes = [keys.subnets, keys.tombstones].map(({ start }) => ({
    kind: 'put' as const,
    key: Buffer.concat([start, probe]),
    value: probe,
    leaseId: '0',
  }));
  await kv.list({ start: keys.subnets.start, end: Buffer.concat([keys.subnets.start, probe]) }, { signal });
  await kv.commit([{ kind: 'modified-at', key: keys.config, revision: 2n ** 62n }], writes, { signal });
  return entries[0]?.value.toString('utf8');
}

async function checkClock(kv: Kv): Promise<void> {
  const signal = AbortSignal.timeout(answerMs + 2 * clockMs);
  const leaseId = await kv.grantLease(ttlSeconds, { signal });
  try {
    const began = bootClock.now();
    await delay(clockMs);
    const left = (await kv.timeToLive(leaseId, { signal }))?.ttlSeconds;
    const passed = (bootClock.now() - began) / 1000;
    const counted = left === undefined ? undefined : ttlSeconds - left;
    if (counted === undefined || counted < passed - 2 || counted > passed + 3)
      throw new TartanError(
        'STORE_UNAVAILABLE',
        `in ${passed.toFixed(1)} s etcd's clock of TTLs ${counted === undefined ? 'ended a lease of' : 'counted'} ${counted ?? ttlSeconds} s: leases would end at the wrong time; look at the clock and the load of its machine`,
      );
  } finally {
    await kv.revokeLease(leaseId, { signal }).catch((error: unknown) => {
      if (!isTartanError(error)) throw error;
    });
  }
}
