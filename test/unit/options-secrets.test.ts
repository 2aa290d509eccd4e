import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Environment } from '../../src/cli/flag-syntax.js';
import { describeOptions, parseDaemonOptions, type DaemonOptions } from '../../src/cli/options.js';
import { TartanError } from '../../src/lib/errors.js';

const secret = 'hunter2-horse';

function parse(words: readonly string[], env: Environment = {}): DaemonOptions {
  const invocation = parseDaemonOptions(words, env);
  if (invocation.kind !== 'run') throw new Error(`expected options, got ${invocation.kind}`);
  return invocation.options;
}

/** The error of a refusal as `CODE message`. */
function refusal(words: readonly string[], env: Environment = {}): string {
  try {
    parseDaemonOptions(words, env);
  } catch (error) {
    if (error instanceof TartanError) return `${error.code} ${error.message}`;
    throw error;
  }
  return 'accepted';
}

const withoutLogin = parse([]).etcd;

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
    expect(parse(['--etcd-username=alice', `--etcd-password=${secret}`]).etcd).toMatchObject(login);
    expect(parse([], { FLANNELD_ETCD_USERNAME: 'alice', TARTAN_ETCD_PASSWORD: secret }).etcd).toMatchObject(login);
    const file = passwordFile(`${secret}\n`);
    expect(parse(['--etcd-username=alice', '--etcd-password-file', file]).etcd).toMatchObject(login);
    expect(parse(['--etcd-username=alice', '--etcd-password-file', file]).notes).toEqual([]);
  });

  it('both or none: half a login is noted and not used', () => {
    expect(parse(['--etcd-username=alice'])).toMatchObject({
      etcd: withoutLogin,
      notes: [expect.stringContaining('no password')],
    });
    const alone = parse([], { TARTAN_ETCD_PASSWORD: secret });
    expect(alone.etcd).toEqual(withoutLogin);
    expect(alone.notes.join()).toContain('no user name');
  });

  it('a file open to all is noted; absent, empty, long ones and directories are refused', () => {
    const user = '--etcd-username=alice';
    expect(parse([user, `--etcd-password-file=${passwordFile(secret, 0o644)}`]).notes.join()).toContain('chmod 600');
    expect(refusal([`--etcd-password-file=${folder}/absent`])).toMatch(
      /^CONFIG_INVALID --etcd-password-file: .*absent/,
    );
    expect(refusal([`--etcd-password-file=${passwordFile('\n')}`])).toMatch(/^CONFIG_INVALID .*is empty/);
    expect(refusal([`--etcd-password-file=${passwordFile('x'.repeat(5000))}`])).toMatch(/^CONFIG_INVALID .*5000 bytes/);
    expect(refusal([`--etcd-password-file=${folder}`])).toMatch(/^CONFIG_INVALID .*is not a file/);
    expect(refusal([`--etcd-password-file=${passwordFile(secret)}`, `--etcd-password=${secret}`])).toMatch(
      /^USAGE .*twice/,
    );
  });

  it('never crosses the network in clear unless asked to', () => {
    const login = ['--etcd-username=alice', `--etcd-password=${secret}`];
    expect(refusal([...login, '--etcd-endpoints=http://192.0.2.1:2379'])).toMatch(/^USAGE .*in clear/);
    expect(parse([...login, '--etcd-endpoints=http://192.0.2.1:2379', '--insecure-etcd']).etcd.password).toBe(secret);
    expect(parse([...login, '--etcd-endpoints=https://192.0.2.1:2379']).etcd.password).toBe(secret);
  });

  it('is in no description, note or help', () => {
    const options = parse([
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
    const text = refusal(words);
    expect(text).toMatch(/^USAGE /);
    expect(text).not.toContain(secret);
  });
});
