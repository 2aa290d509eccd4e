import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeOptions, parseDaemonOptions } from '../../src/daemon/options.js';
import { parseRun, refusalOf } from '../support/samples.js';

const secret = 'hunter2-horse';

const withoutLogin = parseRun([]).etcd;

describe('secrets', () => {
  let folder = '';
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), `tartan-options-${process.pid}-`))));
  afterEach(() => rmSync(folder, { recursive: true }));

  function passwordFile(content: string, mode = 0o600): string {
    const path = join(folder, 'password');
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  }

  it('a password is taken from flag, variable and file', () => {
    const login = { username: 'alice', password: secret };
    expect(parseRun(['--etcd-username=alice', `--etcd-password=${secret}`]).etcd).toMatchObject(login);
    expect(parseRun([], { FLANNELD_ETCD_USERNAME: 'alice', TARTAN_ETCD_PASSWORD: secret }).etcd).toMatchObject(login);
    const file = passwordFile(`${secret}\n`);
    expect(parseRun(['--etcd-username=alice', '--etcd-password-file', file]).etcd).toMatchObject(login);
    expect(parseRun(['--etcd-username=alice', '--etcd-password-file', file]).notes).toEqual([]);
  });

  it('both or none: half a login is noted and not used', () => {
    expect(parseRun(['--etcd-username=alice'])).toMatchObject({
      etcd: withoutLogin,
      notes: [expect.stringContaining('no password')],
    });
    const alone = parseRun([], { TARTAN_ETCD_PASSWORD: secret });
    expect(alone.etcd).toEqual(withoutLogin);
    expect(alone.notes.join()).toContain('no user name');
  });

  it('a file open to all is noted; absent, empty, long ones and directories are refused', () => {
    const user = '--etcd-username=alice';
    expect(parseRun([user, `--etcd-password-file=${passwordFile(secret, 0o644)}`]).notes.join()).toContain('chmod 600');
    expect(refusalOf([`--etcd-password-file=${folder}/absent`])).toMatch(
      /^CONFIG_INVALID --etcd-password-file: .*absent/,
    );
    expect(refusalOf([`--etcd-password-file=${passwordFile('\n')}`])).toMatch(/^CONFIG_INVALID .*is empty/);
    expect(refusalOf([`--etcd-password-file=${passwordFile('x'.repeat(5000))}`])).toMatch(
      /^CONFIG_INVALID .*5000 bytes/,
    );
    expect(refusalOf([`--etcd-password-file=${folder}`])).toMatch(/^CONFIG_INVALID .*is not a file/);
    expect(refusalOf([`--etcd-password-file=${passwordFile(secret)}`, `--etcd-password=${secret}`])).toMatch(
      /^USAGE .*twice/,
    );
  });

  it('never crosses the network in clear unless asked to', () => {
    const login = ['--etcd-username=alice', `--etcd-password=${secret}`];
    expect(refusalOf([...login, '--etcd-endpoints=http://192.0.2.1:2379'])).toMatch(/^USAGE .*in clear/);
    expect(parseRun([...login, '--etcd-endpoints=http://192.0.2.1:2379', '--insecure-etcd']).etcd.password).toBe(
      secret,
    );
    expect(parseRun([...login, '--etcd-endpoints=https://192.0.2.1:2379']).etcd.password).toBe(secret);
  });

  it('is in no description, note or help', () => {
    const options = parseRun([
      '--etcd-username=alice',
      `--etcd-password=${secret}`,
      '--public-ip=192.0.2.1',
      '--iface-regex=^e',
    ]);
    const described = JSON.stringify(describeOptions(options));
    expect(described).toContain('"password":"(set)"');
    expect(described).toContain('"publicIp":"192.0.2.1"');
    expect(described).toContain('"ifaceRegex":["^e"]');
    expect(described + options.notes.join()).not.toContain(secret);
    expect(options.notes.join()).toContain('process list');
    const help = parseDaemonOptions([`--etcd-password=${secret}`, '--help'], {});
    expect(JSON.stringify(help)).not.toContain(secret);
  });

  it.each([
    [[`--etcd-passwrod=${secret}`]],
    [[`--etcd-password:${secret}`]],
    [[`---etcd-password=${secret}`]],
    [[`--=${secret}`]],
    [['--etcd-username=a', '--etcd-password', 'part-one', secret]],
    [['--etcd-username=a', `--etcd-password=${secret}`, 'positional']],
    [['--etcd-username=a', `--etcd-password=${secret}`, '--lease-ttl=0']],
    [['--etcd-username=a', `--etcd-password=${secret}`, '--etcd-endpoints=http://192.0.2.1:1']],
    [[`--etcd-endpoints=http://alice:${secret}@192.0.2.1:2379`]],
    [[`--etcd-endpoints=http://alice:x,${secret}@192.0.2.1:2379`]],
    [[`--etcd-password=${secret}`, '--etcd-password-file=/x']],
  ])('is in no error: %#', words => {
    const text = refusalOf(words);
    expect(text).toMatch(/^USAGE /);
    expect(text).not.toContain(secret);
  });
});
