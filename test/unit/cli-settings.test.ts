import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ToolSettings, type OptionValues, type SettingsPlaces } from '../../src/tool/settings.js';
import { daemonSettingsOf, daemonSettingsSchema, type DaemonSettings } from '../../src/cli/daemon-settings.js';
import { readDaemonEnvironment, readEnvironmentText, type EnvironmentFile } from '../../src/cli/environment-file.js';
import { runTool } from '../../src/tool/tool.js';
import { TartanError } from '../../src/lib/errors.js';
import { openStatusServer } from '../../src/admin/status-server.js';
import { silentLog } from '../../src/lib/log.js';
import { readSettings } from '../../src/tool/status-client.js';
import { noPorts, noSettings, sampleStatus } from '../support/samples.js';

const secret = 'hunter2-horse';
let folder = '';
let passwordFile = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), `tartan-settings-${process.pid}-`));
  passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, 'from-file\n');
  chmodSync(passwordFile, 0o600);
});
afterAll(() => rmSync(folder, { recursive: true }));

const etcd = async (env: Record<string, string>, values: OptionValues = {}, places: SettingsPlaces = noSettings) =>
  (await new ToolSettings(values, env, places).etcd()).options;

describe('where etcd is', () => {
  it('has the defaults of etcdctl and flannel', async () => {
    expect(await etcd({})).toEqual({
      endpoints: ['http://127.0.0.1:2379'],
      prefix: '/coreos.com/network',
      insecureEtcd: false,
    });
  });

  it('an option wins over TARTAN_, FLANNELD_, ETCDCTL_ in this order', async () => {
    const env = {
      TARTAN_ETCD_ENDPOINTS: 'http://t:1',
      FLANNELD_ETCD_ENDPOINTS: 'http://f:1',
      ETCDCTL_ENDPOINTS: 'http://e:1',
    };
    expect((await etcd(env, { etcdEndpoints: 'http://o:1,http://p:1' })).endpoints).toEqual([
      'http://o:1',
      'http://p:1',
    ]);
    expect((await etcd(env)).endpoints).toEqual(['http://t:1']);
    expect((await etcd({ ...env, TARTAN_ETCD_ENDPOINTS: '' })).endpoints).toEqual(['http://f:1']);
    expect((await etcd({ ETCDCTL_ENDPOINTS: env.ETCDCTL_ENDPOINTS })).endpoints).toEqual(['http://e:1']);
  });

  it('reads the files and the prefix from every place', async () => {
    const http = { ETCDCTL_CACERT: '/ca', ETCDCTL_CERT: '/cert', ETCDCTL_KEY: '/key', ETCDCTL_ENDPOINTS: 'http://e:1' };
    expect(await etcd(http)).toMatchObject({ caFile: '/ca', certFile: '/cert', keyFile: '/key' });
    expect(await etcd({ ...http, FLANNELD_ETCD_CAFILE: '/fca', FLANNELD_ETCD_PREFIX: '/f' })).toMatchObject({
      caFile: '/fca',
      prefix: '/f',
    });
    expect(await etcd(http, { etcdKeyfile: '/okey', etcdPrefix: '/o' })).toMatchObject({
      keyFile: '/okey',
      prefix: '/o',
    });
  });

  it('gives a bare host:port the scheme that the TLS files ask for', async () => {
    expect((await etcd({ ETCDCTL_ENDPOINTS: '127.0.0.1:2379,b:1' })).endpoints).toEqual([
      'http://127.0.0.1:2379',
      'http://b:1',
    ]);
    // https needs the file: that it is looked for shows which scheme was chosen.
    await expect(etcd({ ETCDCTL_ENDPOINTS: 'b:1', ETCDCTL_CACERT: '/nowhere' })).rejects.toThrow(
      /etcd-cafile \/nowhere/,
    );
    expect((await etcd({ TARTAN_ETCD_ENDPOINTS: 'b:1' })).endpoints).toEqual(['http://b:1']);
    await expect(etcd({ TARTAN_ETCD_ENDPOINTS: 'b:0' })).rejects.toThrow(
      /^environment variable TARTAN_ETCD_ENDPOINTS: /,
    );
  });

  it('refuses bad values by the name of their place', async () => {
    await expect(etcd({ ETCDCTL_CACERT: 'ca\r' })).rejects.toThrow(/^environment variable ETCDCTL_CACERT: 'ca\?'/);
    await expect(etcd({ TARTAN_INSECURE_ETCD: 'yes' })).rejects.toThrow(
      /^environment variable TARTAN_INSECURE_ETCD: 'yes'/,
    );
    await expect(etcd({}, { etcdPrefix: '../x' })).rejects.toThrow(/^--etcd-prefix/);
    expect(() => new ToolSettings({ nodeId: '-' }, {}, noSettings).nodeId).toThrow(TartanError);
    expect(() => new ToolSettings({}, { TARTAN_RUN_DIR: 'run\r' }, noSettings).runDir).toThrow(/TARTAN_RUN_DIR/);
  });
});

describe('the login', () => {
  it.each([
    [{ TARTAN_ETCD_USERNAME: 'a', TARTAN_ETCD_PASSWORD: secret }, 'a', secret],
    [{ FLANNELD_ETCD_USERNAME: 'a', FLANNELD_ETCD_PASSWORD: secret }, 'a', secret],
    [{ ETCDCTL_USER: `a:${secret}` }, 'a', secret],
    [{ ETCDCTL_USER: `a:b:c` }, 'a', 'b:c'],
    [{ ETCDCTL_USER: 'a', ETCDCTL_PASSWORD: secret }, 'a', secret],
    [{ TARTAN_ETCD_USERNAME: 'a', ETCDCTL_PASSWORD: secret }, 'a', secret],
    [{ TARTAN_ETCD_USERNAME: 'b', ETCDCTL_USER: `a:${secret}` }, undefined, undefined],
    [{ ETCDCTL_USER: 'a' }, undefined, undefined],
  ] as const)('from %j', async (env, username, password) => {
    expect(await etcd({ ...env })).toEqual({
      ...(await etcd({})),
      ...(username === undefined ? {} : { username, password }),
    });
  });

  it('a file that is named wins over a password in the environment', async () => {
    const env = { TARTAN_ETCD_PASSWORD: secret, ETCDCTL_PASSWORD: secret };
    const named = { etcdUsername: 'a', etcdPasswordFile: passwordFile };
    expect(await etcd(env, named)).toMatchObject({ username: 'a', password: 'from-file' });
    expect(
      await etcd({ TARTAN_ETCD_PASSWORD_FILE: passwordFile, ETCDCTL_PASSWORD: secret }, { etcdUsername: 'a' }),
    ).toMatchObject({ password: 'from-file' });
    await expect(etcd({ ...env, TARTAN_ETCD_PASSWORD_FILE: passwordFile })).rejects.toThrow(/given twice/);
  });

  it('is in no message of the tool', async () => {
    const lines = [
      ['leases', `--etcd-password=${secret}`],
      ['leases', `--etcd-endpoints=http://a:${secret}@192.0.2.1:1`],
      ['leases', '--etcd-endpoints=http://192.0.2.1:1'],
    ];
    for (const words of lines) {
      let text = '';
      const write = (more: string): void => void (text += more);
      const status = await runTool(['node', 'tartan', ...words], {
        env: { ETCDCTL_USER: `alice:${secret}` },
        stdout: write,
        stderr: write,
        stdin: async () => '',
        isTty: false,
        ports: noPorts,
      });
      expect(status).toBe(64);
      expect(text).toMatch(/^error: /);
      expect(text).not.toContain(secret);
    }
  });
});

describe('fault U4: settings that the operator did not give', () => {
  const told = daemonSettingsOf(
    {
      endpoints: ['https://d:1', 'https://d:2'],
      prefix: '/d',
      caFile: '/d/ca',
      certFile: '/d/cert',
      keyFile: '/d/key',
      username: 'tartan',
      password: secret,
    },
    '/d/password',
  );
  const plain = daemonSettingsOf({ endpoints: ['http://d:1'], prefix: '/d' }, undefined);
  const file = (variables: Record<string, string>): EnvironmentFile => ({
    path: '/etc/default/tartand',
    variables: new Map(Object.entries(variables)),
  });
  const places = (daemon: DaemonSettings | undefined, variables: Record<string, string> = {}): SettingsPlaces => ({
    readSettings: async () => daemon,
    readEnvironmentFile: () => file(variables),
  });
  const where = async (env: Record<string, string>, values: OptionValues, from: SettingsPlaces) => {
    const { options, source } = await new ToolSettings(values, env, from).etcd();
    return [options.endpoints.join(), options.prefix, source];
  };

  it('fault U4: the order is option, environment, daemon, file, default', async () => {
    const variables = { TARTAN_ETCD_ENDPOINTS: 'http://f:1', FLANNELD_ETCD_PREFIX: '/f' };
    const env = { TARTAN_ETCD_ENDPOINTS: 'http://e:1' };
    const all = places(plain, variables);
    expect(await where(env, { etcdEndpoints: 'http://o:1' }, all)).toEqual(['http://o:1', '/d', '--etcd-endpoints']);
    expect(await where(env, {}, all)).toEqual(['http://e:1', '/d', 'environment variable TARTAN_ETCD_ENDPOINTS']);
    expect(await where({}, {}, all)).toEqual(['http://d:1', '/d', 'the running tartand (--etcd-endpoints)']);
    const away = places(undefined, variables);
    expect(await where({}, {}, away)).toEqual(['http://f:1', '/f', 'TARTAN_ETCD_ENDPOINTS in /etc/default/tartand']);
    const nothing = await where({}, {}, places(undefined));
    expect(nothing).toEqual(['http://127.0.0.1:2379', '/coreos.com/network', expect.stringMatching(/^the default/)]);
  });

  it('fault U4: the daemon names files, and tells no password', async () => {
    expect(JSON.stringify(told)).not.toContain(secret);
    const parsed = daemonSettingsSchema.parse(JSON.parse(JSON.stringify(told)));
    // Which files are looked for shows what was understood.
    await expect(etcd({}, {}, places(parsed))).rejects.toThrow(/\/d\/password cannot be read/);
    const { caFile, certFile, keyFile, ...withoutTls } = told.etcd;
    expect([caFile, certFile, keyFile]).toEqual(['/d/ca', '/d/cert', '/d/key']);
    const login = { ...withoutTls, caFile: null, certFile: null, keyFile: null, passwordFile };
    const options = await etcd({}, {}, places({ ...told, etcd: login }));
    expect(options).toMatchObject({
      username: 'tartan',
      password: 'from-file',
      endpoints: ['https://d:1', 'https://d:2'],
    });
  });

  it('fault U4: over the status socket; an older daemon tells nothing', async () => {
    const opened = { runDir: folder, status: () => sampleStatus, log: silentLog };
    expect(await readSettings(folder)).toBeUndefined();
    for (const settings of [told, undefined]) {
      const server = await openStatusServer({ ...opened, ...(settings && { settings }) });
      expect(await readSettings(folder)).toEqual(settings);
      await server.close();
    }
  });

  it('fault U4: the file of the daemon has a login too, also where the daemon was given the password as text', async () => {
    const variables = { TARTAN_ETCD_USERNAME: 'f', TARTAN_ETCD_PASSWORD: 'secret-of-file' };
    const http = { TARTAN_ETCD_ENDPOINTS: 'http://127.0.0.1:1' };
    const fromFile = await etcd({}, {}, places(undefined, { ...variables, ...http }));
    expect(fromFile).toMatchObject({ username: 'f', password: 'secret-of-file' });
    const text = daemonSettingsOf(
      { endpoints: ['http://127.0.0.1:1'], prefix: '/d', username: 'd', password: 'x' },
      undefined,
    );
    expect(await etcd({}, {}, places(text, variables))).toMatchObject({ username: 'd', password: 'secret-of-file' });
  });

  it('fault U4: endpoints and logins of the operator get no password of the daemon', async () => {
    const { etcd: known } = told;
    const daemon = { ...told, etcd: { ...known, caFile: null, certFile: null, keyFile: null, passwordFile } };
    expect(await etcd({}, { etcdEndpoints: 'https://other:1' }, places(daemon))).not.toHaveProperty('password');
    expect(await etcd({ ETCDCTL_USER: 'me:mine' }, {}, places(daemon))).toMatchObject({
      username: 'me',
      password: 'mine',
    });
  });

  it('fault U4: directories and the node id come from the file', () => {
    const variables = { TARTAN_RUN_DIR: '/f/run', TARTAN_STATE_DIR: '/f/state', TARTAN_NODE_ID: 'node-f' };
    const settings = new ToolSettings({ stateDir: '/o' }, {}, places(undefined, variables));
    expect([settings.runDir, settings.stateDir, settings.nodeId]).toEqual(['/f/run', '/o', 'node-f']);
  });

  it('fault U4: a file that cannot be read is told beside the default', async () => {
    const unread = { path: '/etc/default/tartand', variables: new Map(), problem: 'EACCES: permission denied' };
    const from = { readSettings: async () => undefined, readEnvironmentFile: () => unread };
    expect((await where({}, {}, from))[2]).toMatch(/the default, .*\/etc\/default\/tartand cannot be read: EACCES/);
    expect(readDaemonEnvironment([join(folder, 'absent'), folder])?.problem).toMatch(/EISDIR/);
    expect(readDaemonEnvironment([join(folder, 'absent')])).toBeUndefined();
    writeFileSync(join(folder, 'tartand'), 'A=1\n');
    expect(readDaemonEnvironment([join(folder, 'absent'), join(folder, 'tartand')])?.variables.get('A')).toBe('1');
  });
});

describe('fault U4: the environment file is read as systemd reads it', () => {
  it.each([
    ['A=1\nB=2', { A: '1', B: '2' }],
    ['# A=1\n;B=2\n\n C = 3 \t\r\n', { C: '3' }],
    ['A=1\nA=2', { A: '2' }],
    ['A="x y"  \nB=\'x "y" \\z\'', { A: 'x y', B: 'x "y" \\z' }],
    ['A="a\\"b\\$c\\d"', { A: 'a"b$c\\d' }],
    ['A=a\\ b\\\nc', { A: 'a bc' }],
    ['A="one\\\ntwo\nthree"', { A: 'onetwo\nthree' }],
    ['A="a"b\'c\' d', { A: 'abc d' }],
    ['A=$HOME ${B} `id` $(id)', { A: '$HOME ${B} `id` $(id)' }],
    ['export A=1\nnonsense\nB=2', { B: '2' }],
    ['# a comment \\\nA=1\nB=2', { B: '2' }],
    ['A=', { A: '' }],
    ['A="never closed\nB=2', { A: 'never closed\nB=2' }],
    ['A=http://a:1,http://b:1 # no comment', { A: 'http://a:1,http://b:1 # no comment' }],
    ['1A=1\n=2\nA-B=3', {}],
    ['A=1\\', { A: '1' }],
    ['\\', {}],
  ])('%j', (text, expected) => expect(Object.fromEntries(readEnvironmentText(text))).toEqual(expected));
});
