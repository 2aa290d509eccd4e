/** Merging into daemon.json: everything else stays byte for byte, and all of it can be undone. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDockerFiles } from '../../src/docker/settings/docker-files.js';
import type { DockerWriteResult } from '../../src/docker/docker.js';
import { unmergeDaemonJson } from '../../src/docker/settings/merge.js';
import { parsePrefix } from '../../src/model/ip.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-merge-'));
  mkdirSync(at('state'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const at = (name: string): string => join(directory, name);
const file = (): string => at('etc/docker/daemon.json');
const text = (): string => readFileSync(file(), 'utf8');
const stamp = (): object => {
  const { ino, mtimeNs, ctimeNs } = statSync(file(), { bigint: true });
  return { ino, mtimeNs, ctimeNs };
};

function put(name: string, content: string): void {
  mkdirSync(dirname(at(name)), { recursive: true });
  writeFileSync(at(name), content);
}

function write(
  config: 'env' | 'daemon-json',
  subnet = '10.5.29.0/24',
  daemonJsonFile = file(),
): Promise<DockerWriteResult> {
  const options = {
    subnetFile: at('subnet.env'),
    dockerEnvFile: at('docker.env'),
    stateDir: at('state'),
    docker: { config, daemonJsonFile, subnetLength: 0, pools: false, firewall: 'auto' as const },
  };
  const files = openDockerFiles(options, { root: at('root'), dockerd: at('dockerd') });
  const settings = { network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix(subnet), mtu: 1472, ipMasquerade: true };
  return files.write(settings);
}

const merge = (): Promise<DockerWriteResult> => write('daemon-json');

const own = '"bip": "10.5.29.1/24",\n  "ip-masq": false,\n  "mtu": 1472';
const tight = '"bip":"10.5.29.1/24","ip-masq":false,"mtu":1472';

/** What is there, and what it becomes. */
const formattings: readonly (readonly [name: string, before: string, after: string])[] = [
  ['two blanks', '{\n  "debug": true\n}\n', `{\n  "debug": true,\n  ${own}\n}\n`],
  ['no final newline', '{\n  "debug": true\n}', `{\n  "debug": true,\n  ${own}\n}`],
  [
    'tabs',
    '{\n\t"a": [\n\t\t1\n\t],\n\t"b": 2\n}\n',
    `{\n\t"a": [\n\t\t1\n\t],\n\t"b": 2,\n\t${own.replaceAll('\n  ', '\n\t')}\n}\n`,
  ],
  ['CRLF', '{\r\n  "debug": true\r\n}\r\n', `{\r\n  "debug": true,\r\n  ${own.replaceAll('\n', '\r\n')}\r\n}\r\n`],
  ['one line', '{"debug":true}', `{"debug":true,${tight}}`],
  ['one airy line', '{ "a": 1, "b": 2 }', '{ "a": 1, "b": 2, "bip": "10.5.29.1/24", "ip-masq": false, "mtu": 1472 }'],
  [
    'commas first',
    '{ "a": 1\n, "b": 2\n}',
    '{ "a": 1\n, "b": 2,\n "bip": "10.5.29.1/24",\n "ip-masq": false,\n "mtu": 1472\n}',
  ],
  ['an empty object', '{}\n', `{\n  ${own}\n}\n`],
  ['an empty object on two lines', '{\n}\n', `{\n  ${own}\n}\n`],
  ['an empty file', '', `{\n  ${own}\n}\n`],
  ['blanks', ' \n\n', `{\n  ${own}\n}\n`],
  ['a byte order mark', '\uFEFF{"debug":true}', `\uFEFF{"debug":true,${tight}}`],
  ['the same keys further in', '{"log-opts":{"bip":"x","mtu":"9"}}', `{"log-opts":{"bip":"x","mtu":"9"},${tight}}`],
  [
    'other values',
    '{\n  "mtu": 9000,\n  "bip" : "192.0.2.1/24"\n}',
    '{\n  "mtu": 1472,\n  "bip" : "10.5.29.1/24",\n  "ip-masq" : false\n}',
  ],
  [
    'our values',
    '{"mtu": 1472, "ip-masq": false, "bip": "10.5.29.1/24"}',
    '{"mtu": 1472, "ip-masq": false, "bip": "10.5.29.1/24"}',
  ],
  ['odd names and texts', '{"a\\"b,}":"}{\\u00e9","é":[{}]}', `{"a\\"b,}":"}{\\u00e9","é":[{}],${tight}}`],
];

describe('merging and undoing', () => {
  it.each(formattings)('%s', async (_, before, after) => {
    put('etc/docker/daemon.json', before);
    expect((await merge()).written.includes(file())).toBe(before !== after);
    expect(text()).toBe(after);
    expect(readFileSync(at('docker.env'), 'utf8')).toContain('DOCKER_NETWORK_OPTIONS=""\n');
    const untouched = stamp();
    expect(await merge()).toMatchObject({ written: [], conflicts: [] });
    expect(stamp()).toEqual(untouched);
    await write('env');
    expect(text()).toBe(before);
    expect(readdirSync(at('state'))).toEqual([]);
    expect(readFileSync(at('docker.env'), 'utf8')).toContain('--bip=10.5.29.1/24');
  });

  it.each(formattings.filter(([, before]) => before.trim() !== ''))(
    '%s, changed by somebody else in the meantime: only what is ours goes',
    async (_, before) => {
      put('etc/docker/daemon.json', before);
      await merge();
      writeFileSync(file(), text().replace(/\}([^}]*)$/, ',"theirs":1}$1'));
      await merge();
      expect(JSON.parse(text().replace('\uFEFF', ''))).toMatchObject({ theirs: 1, bip: '10.5.29.1/24', mtu: 1472 });
      expect(unmergeDaemonJson(at('state'))).toMatchObject({ left: [] });
      const was = JSON.parse(before.replace('\uFEFF', '')) as object;
      expect(JSON.parse(text().replace('\uFEFF', ''))).toEqual({ ...was, theirs: 1 });
    },
  );

  it('a file and a folder that were not there are gone again', async () => {
    await merge();
    expect(text()).toBe(`{\n  ${own}\n}\n`);
    expect(statSync(file()).mode & 0o7777).toBe(0o644);
    expect(unmergeDaemonJson(at('state'))).toEqual({ file: file(), changed: true, left: [] });
    expect(existsSync(at('etc/docker'))).toBe(false);
    expect(unmergeDaemonJson(at('state'))).toBeUndefined();
  });

  it('mode and owner stay', async () => {
    put('etc/docker/daemon.json', '{}');
    chmodSync(file(), 0o640);
    if (process.getuid?.() === 0) chownSync(file(), 65534, 12345);
    const { mode, uid, gid } = statSync(file());
    await merge();
    expect(statSync(file())).toMatchObject({ mode, uid, gid });
    await write('env');
    expect(statSync(file())).toMatchObject({ mode, uid, gid });
  });

  it('another subnet takes the place of the first, and the way back is the same', async () => {
    const before = '{"debug": true, "bip": "192.0.2.1/24"}';
    put('etc/docker/daemon.json', before);
    await merge();
    await write('daemon-json', '10.5.77.0/24');
    expect(text()).toBe('{"debug": true, "bip": "10.5.77.1/24", "ip-masq": false, "mtu": 1472}');
    await write('env');
    expect(text()).toBe(before);
  });

  it('a value that somebody else changed stays', async () => {
    put('etc/docker/daemon.json', '{"debug": true}');
    await merge();
    writeFileSync(file(), text().replace('1472', '1400'));
    expect(unmergeDaemonJson(at('state'))).toEqual({ file: file(), changed: true, left: ['mtu'] });
    expect(text()).toBe('{"debug": true,"mtu":1400}'.replace(',"mtu":1400', ',"mtu": 1400'));
    expect((await write('env')).conflicts).toEqual([expect.stringContaining("has 'mtu'")]);
  });

  it('another file takes over, the first is as it was', async () => {
    put('etc/docker/daemon.json', '{"a": 1}');
    await merge();
    await write('daemon-json', '10.5.29.0/24', at('other.json'));
    expect(text()).toBe('{"a": 1}');
    expect(readFileSync(at('other.json'), 'utf8')).toBe(`{\n  ${own}\n}\n`);
  });

  it('a write that was cut short is undone all the same', async () => {
    const before = '{"debug": true}';
    put('etc/docker/daemon.json', before);
    await merge();
    const merged = text();
    await write('daemon-json', '10.5.77.0/24');
    // The record was written, the file was not.
    writeFileSync(file(), merged);
    expect(unmergeDaemonJson(at('state'))).toMatchObject({ left: [] });
    expect(text()).toBe(before);
  });
});

describe('refusals leave the file as it is', () => {
  it.each([
    ['{"a": 1, // b\n}', 'is not JSON (line 1), comments are not allowed'],
    ['{"a": 1,}', 'is not JSON'],
    ['{"a": 01}', 'is not JSON'],
    ['{"a": 1} {"b": 2}', 'is not JSON'],
    ["{'a': 1}", 'is not JSON'],
    ['{"password": "secret', 'is not JSON (line 1)'],
    ['[]', 'is not a JSON object'],
    ['null', 'is not a JSON object'],
    ['{"bip": "x", "bip": "y"}', "has 'bip' 2 times"],
    ['{"bridge": "br0"}', "has 'bridge', beside 'bip' dockerd does not start"],
  ])('%j: %s', async (before, message) => {
    put('etc/docker/daemon.json', before);
    const untouched = stamp();
    const refusal = expect(merge()).rejects;
    await refusal.toThrow(message);
    await expect(merge()).rejects.not.toThrow('secret');
    await expect(merge()).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    expect(stamp()).toEqual(untouched);
    expect(readdirSync(at('state'))).toEqual([]);
    expect(existsSync(at('docker.env'))).toBe(false);
  });

  it('brackets without end, and more than is read', async () => {
    put('etc/docker/daemon.json', '['.repeat(500_000));
    await expect(merge()).rejects.toThrow('is not JSON');
    put('etc/docker/daemon.json', `{"a": "${'x'.repeat(1024 * 1024)}"}`);
    await expect(merge()).rejects.toThrow('at most 1048576 are read');
  });

  it('bytes that are no UTF-8', async () => {
    put('etc/docker/daemon.json', '');
    writeFileSync(file(), Buffer.from('{"a": "\xff"}', 'latin1'));
    await expect(merge()).rejects.toThrow('is not UTF-8');
  });

  it('a symbolic link, a directory', async () => {
    put('precious.json', '{}');
    mkdirSync(at('etc/docker'), { recursive: true });
    symlinkSync(at('precious.json'), file());
    await expect(merge()).rejects.toThrow('is a symbolic link, which is not replaced: name the file it leads to');
    rmSync(file());
    mkdirSync(file());
    await expect(merge()).rejects.toThrow('is no file');
    expect(readFileSync(at('precious.json'), 'utf8')).toBe('{}');
  });
});

describe('flags that stand elsewhere', () => {
  const unit = 'lib/systemd/system/docker.service';
  const dropIn = 'etc/systemd/system/docker.service.d';

  it.each([
    ['etc/default/docker', 'DOCKER_OPTS="--dns 192.0.2.1 --bip=192.0.2.1/24"\n', '--bip'],
    ['etc/default/docker', "DOCKER_OPTS='--mtu 1472'\n", '--mtu'],
    ['etc/sysconfig/docker', 'OPTIONS=--ip-masq\n', '--ip-masq'],
    ['etc/sysconfig/docker-network', 'DOCKER_NETWORK_OPTIONS="--bridge=br0"\n', '--bridge'],
    [unit, '[Service]\nExecStart=/usr/bin/dockerd \\\n  --bip 192.0.2.1/24\n', '--bip'],
    [`${dropIn}/a.conf`, '[Service]\nEnvironment="X=--mtu=9000"\n', '--mtu'],
    ['run/systemd/system/docker.service.d/b.conf', '[Service]\nExecStart=dockerd --ip-masq=false\n', '--ip-masq'],
  ])('%s: %j', async (place, content, flag) => {
    put('etc/docker/daemon.json', '{}');
    put(`root/${place}`, content);
    await expect(merge()).rejects.toThrow(
      new RegExp(`^${flag} stands in the flags of /${place}, beside .*take it out of`),
    );
    expect(text()).toBe('{}');
    expect((await write('env')).conflicts).toEqual([]);
  });

  it('in a variable of others in our docker.env, which stays there', async () => {
    put('etc/docker/daemon.json', '{}');
    await write('env');
    const ours = readFileSync(at('docker.env'), 'utf8');
    const place = `--bip stands in the flags of ${at('docker.env')}, beside 'bip' in ${file()} dockerd does not start`;
    put('docker.env', `${ours}OTHER_OPTS="--debug --bip=192.0.2.1/24"\n`);
    await expect(merge()).rejects.toThrow(place);
    put('root/run/docker.pid', '77');
    put('root/proc/77/cmdline', 'dockerd\0--bip=192.0.2.1/24\0');
    await expect(merge()).rejects.toThrow(place);
    expect(text()).toBe('{}');
    expect((await write('env')).conflicts).toEqual([]);
    expect(readFileSync(at('docker.env'), 'utf8')).toContain('OTHER_OPTS="--debug --bip=192.0.2.1/24"\n');
    // The running dockerd has a flag that no variable of ours gave it.
    const kept = `# OTHER_OPTS="--bip=192.0.2.1/24"\nOTHER_OPTS="--debug $DOCKER_OPTS"\n`;
    put('docker.env', `${ours}${kept}`);
    await expect(merge()).rejects.toThrow('--bip stands in the flags of the running dockerd (pid 77)');
    put('root/proc/77/cmdline', 'dockerd\0--bip=10.5.29.1/24\0');
    await merge();
    expect(readFileSync(at('docker.env'), 'utf8')).toContain(kept);
  });

  it.each([
    ['etc/default/docker', '# DOCKER_OPTS="--bip=192.0.2.1/24"\nX="--bip6=fd00::1/64 --mtu-x=1 x--mtu"\n'],
    [unit, '[Service]\n#ExecStart=dockerd --bip=x\nExecStart=dockerd $DOCKER_NETWORK_OPTIONS\n'],
    [`${dropIn}/a.txt`, '[Service]\nExecStart=dockerd --bip=x\n'],
  ])('nothing is seen in %s: %j', async (place, content) => {
    put(`root/${place}`, content);
    await merge();
  });

  it('counts what is left once drop-ins replace and reset each other', async () => {
    put(`root/${unit}`, '[Service]\nExecStart=dockerd --bip=192.0.2.1/24\n');
    await expect(merge()).rejects.toThrow('--bip stands in the flags');
    put(
      `root/${dropIn}/tartan.conf`,
      `[Service]\nEnvironmentFile=${at('docker.env')}\nExecStart=\nExecStart=dockerd\n`,
    );
    await merge();
    put('root/lib/systemd/system/docker.service.d/z.conf', '[Service]\nExecStart=dockerd --mtu=1\n');
    await expect(merge()).rejects.toThrow('--mtu stands in the flags');
    put(`root/${dropIn}/z.conf`, '');
    await merge();
    put(`root/${dropIn}/flannel.conf`, '[Service]\nEnvironmentFile=-/run/flannel/docker\n');
    await merge();
    // The copy that Docker's gate made at the last start, with what docker.env has no more.
    const copy = at('docker-gate.env');
    put(`root/${dropIn}/tartan.conf`, `[Service]\nEnvironmentFile=-${copy}\nExecStart=\nExecStart=dockerd\n`);
    put(`root/${copy}`, 'DOCKER_NETWORK_OPTIONS=" --mtu=1450"\n');
    await merge();
    put('root/run/flannel/docker', 'DOCKER_NETWORK_OPTIONS=" --mtu=1450"\n');
    await expect(merge()).rejects.toThrow('--mtu stands in the flags of /run/flannel/docker');
  });

  it('of the running dockerd: another value is refused, ours and those of our docker.env go at its next start', async () => {
    const running = (...words: readonly string[]): void => put('root/proc/77/cmdline', `${words.join('\0')}\0`);
    put('root/run/docker.pid', '77');
    running('/usr/bin/dockerd', '--bip', '192.0.2.1/24');
    await expect(merge()).rejects.toThrow(
      /^--bip stands in the flags of the running dockerd \(pid 77\).*: start dockerd without it/,
    );
    running('/usr/bin/other', '--bip', '192.0.2.1/24');
    await merge();
    await write('env');
    running('dockerd', '--bip=10.5.29.1/24', '--ip-masq=false', '--mtu', '1472');
    await merge();
    await write('env', '10.5.77.0/24');
    running('dockerd', '--bip=10.5.77.1/24');
    await merge();
    expect(text()).toContain('10.5.29.1/24');
    // And so on, for as long as that one runs.
    expect(await merge()).toMatchObject({ written: [], conflicts: [] });
  });
});
