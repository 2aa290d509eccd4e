/** Logins, roles and TLS of a real etcd. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootClock } from '../../src/lib/clock.js';
import { openLog, silentLog } from '../../src/lib/log.js';
import { formatPrefix } from '../../src/model/ip.js';
import { getNetworkText, putNetworkText } from '../../src/store/operator.js';
import { openEtcd } from '../../src/store/etcd/etcd-kv.js';
import type { EtcdOptions } from '../../src/store/etcd/options.js';
import { Keys } from '../../src/store/keys.js';
import { openLeaseStore } from '../../src/store/leases.js';
import { releaseSubnet } from '../../src/store/release.js';
import type { LeaseStore } from '../../src/store/store.js';
import { EtcdServer } from '../support/etcd.js';
import { nodeOf, prefix, requestOf, until } from '../support/store.js';

const secret = 'correct-horse-battery';
let life: AbortController;
const opened: LeaseStore[] = [];
const o = (): { signal: AbortSignal } => ({ signal: life.signal });

beforeEach(() => {
  life = new AbortController();
});
afterEach(async () => {
  life.abort();
  await Promise.all(opened.splice(0).map(async store => store.close()));
});

function open(options: Partial<EtcdOptions> & Pick<EtcdOptions, 'endpoints'>, log = silentLog): LeaseStore {
  const store = openLeaseStore(openEtcd({ prefix, ...options }, log), { prefix, log, clock: bootClock });
  opened.push(store);
  return store;
}

async function failure(promise: Promise<unknown>): Promise<{ code?: string; message: string }> {
  return promise.then(
    () => expect.fail('it did not fail'),
    (error: Error) => error,
  );
}

describe('with logins', () => {
  let server: EtcdServer;
  const login = (username: string, password = secret): Pick<EtcdOptions, 'endpoints' | 'username' | 'password'> => ({
    endpoints: [server.endpoint],
    username,
    password,
  });

  beforeAll(async () => {
    // Simple tokens live for 2 s here and only in memory: they wear out often and with each restart.
    server = await EtcdServer.start({ args: ['--auth-token-ttl', '2', '--bcrypt-cost', '4'] });
    await server.ctl('user', 'add', `root:${secret}`);
    await server.ctl('put', `${prefix}/config`, '{"Network":"10.5.0.0/16"}');
    for (const [user, tombstones] of [
      ['full', true],
      ['short', false],
    ] as const) {
      await server.ctl('role', 'add', user);
      await server.ctl('role', 'grant-permission', user, 'read', `${prefix}/config`);
      await server.ctl('role', 'grant-permission', user, 'readwrite', '--prefix', `${prefix}/subnets/`);
      if (tombstones) await server.ctl('role', 'grant-permission', user, 'readwrite', '--prefix', `${prefix}/held/`);
      await server.ctl('user', 'add', `${user}:${secret}`);
      await server.ctl('user', 'grant-role', user, user);
    }
    await server.ctl('user', 'grant-role', 'root', 'root');
    await server.ctl('auth', 'enable');
  });
  afterAll(async () => server.stop());

  it('does all with the minimal role, through worn out tokens and a restart', async () => {
    const store = open(login('full'));
    expect((await store.network(o())).subnetLength).toBe(24);
    const lease = await store.acquire(requestOf(nodeOf(1), { ttlSeconds: 3 }), o());
    const sets = store.watch(o())[Symbol.asyncIterator]();
    expect((await sets.next()).value.leases).toHaveLength(1);
    const begin = bootClock.now();
    await until('renewed with a third token', () => lease.renewedAtMs > begin + 5_000);
    expect(lease.status).toBe('held');
    await server.restart();
    await open(login('full')).acquire(requestOf(nodeOf(2)), o());
    await until('the watch sees it', async () => (await sets.next()).value.leases.length === 2);
    const { renewedAtMs } = lease;
    await until('renewed', () => lease.renewedAtMs > renewedAtMs);
    await lease.close();
    const kv = openEtcd({ prefix, ...login('full') }, silentLog);
    await releaseSubnet({ kv, keys: new Keys(prefix), clock: bootClock }, 'node-1', lease.lease.subnet);
    await kv.close();
    await sets.return?.();
  });

  it('stops with PERMISSION and prints the role when held/ is not granted', async () => {
    const error = await failure(open(login('short')).acquire(requestOf(nodeOf(3)), o()));
    expect(error.code).toBe('PERMISSION');
    expect(error.message).toContain(`read of ${prefix}/held/`);
    for (const part of [
      `read ${prefix}/config`,
      `readwrite --prefix ${prefix}/subnets/`,
      `readwrite --prefix ${prefix}/held/`,
    ])
      expect(error.message).toContain(`etcdctl role grant-permission tartan ${part}`);
  });

  it('fault K1: a role that loses a permission to read or write is told while the lease is held', async () => {
    const grant = async (verb: 'grant' | 'revoke', ...rest: string[]): Promise<string> =>
      server.ctl('--user', `root:${secret}`, 'role', `${verb}-permission`, 'full', ...rest);
    const keys = ['--prefix', `${prefix}/held/`];
    const store = openLeaseStore(openEtcd({ prefix, ...login('full') }, silentLog), {
      prefix,
      log: silentLog,
      clock: bootClock,
      proofMs: 500,
    });
    opened.push(store);
    await store.network(o());
    const lease = await store.acquire(requestOf(nodeOf(4)), o());
    expect(store.problems).toEqual([]);
    await grant('revoke', ...keys);
    await until('told', () => store.problems.length === 1, 5_000);
    expect(store.problems[0]).toMatch(/etcd refuses user 'full' the read of .*held\/.*grant-permission/);
    expect(store.signs.refused).toBe(store.problems[0]);
    await grant('grant', 'read', ...keys);
    await until('well', () => store.problems.length === 0);
    expect(store.signs.refused).toBeUndefined();
    // The next write: somebody changes our key, and it cannot be put right.
    const key = `${prefix}/subnets/${formatPrefix(lease.lease.subnet).replace('/', '-')}`;
    await server.ctl(
      '--user',
      `root:${secret}`,
      'put',
      '--ignore-lease',
      key,
      lease.lease.text.replace('192.0.2.4', '192.0.2.5'),
    );
    await until('told', () => store.problems.some(problem => problem.includes('the write of')), 5_000);
    await grant('grant', 'readwrite', ...keys);
    await until('well', () => store.problems.length === 0);
    expect(lease.status).toBe('held');
  });

  it('refuses a wrong password, a missing login and a foreign key, and shows no secret', async () => {
    const wrong = await failure(open(login('full', 'wrong-guess-1')).network(o()));
    const none = await failure(open({ endpoints: [server.endpoint] }).network(o()));
    const kv = openEtcd({ prefix, ...login('full') }, silentLog);
    const foreign = await failure(putNetworkText(kv, prefix, '{}', o()));
    await kv.close();
    for (const error of [wrong, none, foreign]) {
      expect(error).toMatchObject({ code: 'PERMISSION' });
      expect(JSON.stringify([error.message, error])).not.toMatch(/wrong-guess|correct-horse/);
    }
    expect(none.message).toContain('without a user name');
  });

  it('says once that this release has known faults', async () => {
    const lines: string[] = [];
    const store = open(login('full'), openLog('info', { write: line => void lines.push(line) }));
    await store.network(o());
    await store.network(o());
    const version = /etcd Version: (\S+)/i.exec(await server.ctl('version').catch(() => ''))?.[1];
    if (version === undefined || version.startsWith('3.4.')) await until('the line', () => lines.length > 0);
    expect(lines.filter(line => line.includes('store.version')).length).toBeLessThanOrEqual(1);
    expect(lines.join()).not.toContain(secret);
  });
});

it('works with a login where etcd has authentication switched off', async () => {
  const server = await EtcdServer.start();
  try {
    const store = open({ endpoints: [server.endpoint], username: 'anyone', password: secret });
    expect((await store.acquire(requestOf(nodeOf(1)), o())).status).toBe('held');
  } finally {
    await server.stop();
  }
});

describe('with TLS', () => {
  let server: EtcdServer;
  beforeAll(async () => {
    // etcd makes itself a certificate that is its own authority.
    server = await EtcdServer.start({ scheme: 'https', args: ['--auto-tls'] });
  });
  afterAll(async () => server.stop());

  it('verifies by a CA file alone', async () => {
    const kv = openEtcd(
      { endpoints: [server.endpoint], prefix, caFile: server.file('data/fixtures/client/cert.pem') },
      silentLog,
    );
    await putNetworkText(kv, prefix, '{"Network":"10.5.0.0/16"}', o());
    expect(await getNetworkText(kv, prefix, o())).toContain('10.5.0.0/16');
    await kv.close();
  });

  it('trusts nobody else: without the file the roots of the system decide', async () => {
    expect(await failure(open({ endpoints: [server.endpoint] }).network(o()))).toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
  });

  it('names a file that cannot be used by its flag', () => {
    const directory = mkdtempSync(join(tmpdir(), `tartan-tls-${process.pid}-`));
    try {
      const junk = join(directory, 'junk.pem');
      writeFileSync(junk, 'junk');
      const endpoints = [server.endpoint];
      expect(() => openEtcd({ endpoints, prefix, caFile: join(directory, 'none') }, silentLog)).toThrow(
        /--etcd-cafile .*none/,
      );
      expect(() => openEtcd({ endpoints, prefix, caFile: junk }, silentLog)).toThrow(/--etcd-cafile .*junk/);
      const certFile = server.file('data/fixtures/client/cert.pem');
      expect(() => openEtcd({ endpoints, prefix, certFile, keyFile: junk }, silentLog)).toThrow(
        /--etcd-keyfile .*junk/,
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
