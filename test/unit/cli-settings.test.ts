import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ToolSettings, type OptionValues } from '../../src/tool/settings.js';
import { runTool } from '../../src/tool/tool.js';
import { TartanError } from '../../src/lib/errors.js';
import { noPorts } from '../support/samples.js';

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

const etcd = (env: Record<string, string>, values: OptionValues = {}) => new ToolSettings(values, env).etcd();

describe('where etcd is', () => {
  it('has the defaults of etcdctl and flannel', () => {
    expect(etcd({})).toEqual({
      endpoints: ['http://127.0.0.1:2379'],
      prefix: '/coreos.com/network',
      insecureEtcd: false,
    });
  });

  it('an option wins over TARTAN_, FLANNELD_, ETCDCTL_ in this order', () => {
    const env = {
      TARTAN_ETCD_ENDPOINTS: 'http://t:1',
      FLANNELD_ETCD_ENDPOINTS: 'http://f:1',
      ETCDCTL_ENDPOINTS: 'http://e:1',
    };
    expect(etcd(env, { etcdEndpoints: 'http://o:1,http://p:1' }).endpoints).toEqual(['http://o:1', 'http://p:1']);
    expect(etcd(env).endpoints).toEqual(['http://t:1']);
    expect(etcd({ ...env, TARTAN_ETCD_ENDPOINTS: '' }).endpoints).toEqual(['http://f:1']);
    expect(etcd({ ETCDCTL_ENDPOINTS: env.ETCDCTL_ENDPOINTS }).endpoints).toEqual(['http://e:1']);
  });

  it('reads the files and the prefix from every place', () => {
    const http = { ETCDCTL_CACERT: '/ca', ETCDCTL_CERT: '/cert', ETCDCTL_KEY: '/key', ETCDCTL_ENDPOINTS: 'http://e:1' };
    expect(etcd(http)).toMatchObject({ caFile: '/ca', certFile: '/cert', keyFile: '/key' });
    expect(etcd({ ...http, FLANNELD_ETCD_CAFILE: '/fca', FLANNELD_ETCD_PREFIX: '/f' })).toMatchObject({
      caFile: '/fca',
      prefix: '/f',
    });
    expect(etcd(http, { etcdKeyfile: '/okey', etcdPrefix: '/o' })).toMatchObject({ keyFile: '/okey', prefix: '/o' });
  });

  it('gives a bare host:port the scheme that the TLS files ask for', () => {
    expect(etcd({ ETCDCTL_ENDPOINTS: '127.0.0.1:2379,b:1' }).endpoints).toEqual([
      'http://127.0.0.1:2379',
      'http://b:1',
    ]);
    // https needs the file: that it is looked for shows which scheme was chosen.
    expect(() => etcd({ ETCDCTL_ENDPOINTS: 'b:1', ETCDCTL_CACERT: '/nowhere' })).toThrow(/etcd-cafile \/nowhere/);
    expect(etcd({ TARTAN_ETCD_ENDPOINTS: 'b:1' }).endpoints).toEqual(['http://b:1']);
    expect(() => etcd({ TARTAN_ETCD_ENDPOINTS: 'b:0' })).toThrow(/^environment variable TARTAN_ETCD_ENDPOINTS: /);
  });

  it('refuses bad values by the name of their place', () => {
    expect(() => etcd({ ETCDCTL_CACERT: 'ca\r' })).toThrow(/^environment variable ETCDCTL_CACERT: 'ca\?'/);
    expect(() => etcd({ TARTAN_INSECURE_ETCD: 'yes' })).toThrow(/^environment variable TARTAN_INSECURE_ETCD: 'yes'/);
    expect(() => etcd({}, { etcdPrefix: '../x' })).toThrow(/^--etcd-prefix/);
    expect(() => new ToolSettings({ nodeId: '-' }, {}).nodeId).toThrow(TartanError);
    expect(() => new ToolSettings({}, { TARTAN_RUN_DIR: 'run\r' }).runDir).toThrow(/TARTAN_RUN_DIR/);
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
  ] as const)('from %j', (env, username, password) => {
    expect(etcd({ ...env })).toEqual({
      ...etcd({}),
      ...(username === undefined ? {} : { username, password }),
    });
  });

  it('a file that is named wins over a password in the environment', () => {
    const env = { TARTAN_ETCD_PASSWORD: secret, ETCDCTL_PASSWORD: secret };
    const named = { etcdUsername: 'a', etcdPasswordFile: passwordFile };
    expect(etcd(env, named)).toMatchObject({ username: 'a', password: 'from-file' });
    expect(
      etcd({ TARTAN_ETCD_PASSWORD_FILE: passwordFile, ETCDCTL_PASSWORD: secret }, { etcdUsername: 'a' }),
    ).toMatchObject({ password: 'from-file' });
    expect(() => etcd({ ...env, TARTAN_ETCD_PASSWORD_FILE: passwordFile })).toThrow(/given twice/);
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
