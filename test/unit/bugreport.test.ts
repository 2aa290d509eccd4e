/** `tartan bugreport`: the archive, its bounds, and that no secret is in it, wherever one stood. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { eventListOf } from '../../src/admin/events.js';
import { evidencePort } from '../../src/tool/bugreport/evidence.js';
import { isSecretName, SecretFilter } from '../../src/tool/bugreport/secrets.js';
import { archiveOf } from '../../src/tool/bugreport/tar.js';
import type { EvidencePort, ToolIo, ToolPorts } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import { noChanges, noPorts, sampleStatus } from '../support/samples.js';

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), `tartan-bugreport-${process.pid}-`));
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(directory, { recursive: true, force: true });
});

describe('an archive', () => {
  it('is read by tar', () => {
    const files = [
      { name: 'd/report.txt', content: Buffer.from('hello\n') },
      { name: 'd/empty', content: Buffer.alloc(0) },
      { name: `d/${'x'.repeat(98)}`, content: Buffer.alloc(513, 'a') },
    ];
    const path = join(directory, 'a.tar');
    writeFileSync(path, archiveOf(files, Date.UTC(2026, 0, 31)));
    execFileSync('tar', ['-xf', path, '-C', directory]);
    for (const { name, content } of files) expect(readFileSync(join(directory, name))).toEqual(content);
    expect(statSync(join(directory, 'd/empty'))).toMatchObject({ size: 0, mtimeMs: Date.UTC(2026, 0, 31) });
    expect(execFileSync('tar', ['-tvf', path], { encoding: 'utf8' })).toMatch(/^-rw------- 0\/0 +6 /);
  });

  it.each(['', 'x'.repeat(101), 'ä', 'a b'])("has no file named '%s'", name => {
    expect(() => archiveOf([{ name, content: Buffer.alloc(0) }], 0)).toThrow(RangeError);
  });
});

describe('secrets', () => {
  it.each(['TARTAN_ETCD_PASSWORD', 'etcdPassword', 'x-api-token', 'clientSecret', 'PRIVATE_KEY', 'authkey', 'passwd'])(
    '%s names one',
    name => expect(isSecretName(name)).toBe(true),
  );
  it.each(['etcd-password-file', 'TARTAN_ETCD_KEYFILE', 'keyPath', 'tokenDir', 'passes', 'subnet', 'KEYS_FILE'])(
    '%s names none',
    name => expect(isSecretName(name)).toBe(false),
  );

  const cases: readonly (readonly [string, string])[] = [
    ['TARTAN_ETCD_PASSWORD=s3cr3t', 'TARTAN_ETCD_PASSWORD=(removed)'],
    ['export API_TOKEN="s3cr3t with \\" spaces"', 'export API_TOKEN=(removed)'],
    [
      'x --etcd-password=s3cr3t --etcd-password-file=/etc/p -v',
      'x --etcd-password=(removed) --etcd-password-file=/etc/p -v',
    ],
    ['x --etcd-password s3cr3t -v', 'x --etcd-password (removed) -v'],
    ['x -v --etcd-password s3cr3t', 'x -v --etcd-password (removed)'],
    ['said="a password=s3cr3t and --token s3cr3t"', 'said="a password=(removed) and --token (removed)'],
    ['{"msg":"x\\n--token s3cr3t\\npassword=s3cr3t"}', '{"msg":"x\\n--token (removed)'],
    ['opts=password=s3cr3t', 'opts=password=(removed)'],
    ['{"a":1,"token":"s3cr3t","b":2}', '{"a":1,"token":(removed),"b":2}'],
    ['["--token","s3cr3t"]', '["--token",(removed)]'],
    ['text with {\\"password\\":\\"s3cr3t\\"} in it', 'text with {\\"password\\":\\(removed)'],
    ['etcd at https://user:s3cr3t@192.0.2.1:2379/x', 'etcd at https://(removed)@192.0.2.1:2379/x'],
    ['http://u:s3/cr@3t@h:1', 'http://(removed)@h:1'],
    ['Authorization: Basic czNjcjN0Cg==', 'Authorization: Basic (removed)'],
    ['a\n-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\nb', 'a\n(removed)\nb'],
    ['a\n-----BEGIN EC PRIVATE KEY-----\ns3cr3t', 'a\n(removed)'],
    ['password: s3cr3t', 'password: (removed)'],
    ['net.ipv4.tcp_fastopen_key = s3cr3t-s3cr3t', 'net.ipv4.tcp_fastopen_key = (removed)'],
    // No secrets.
    ['TARTAN_ETCD_KEYFILE=/etc/tartan/client.key', 'TARTAN_ETCD_KEYFILE=/etc/tartan/client.key'],
    ['{"key":"/coreos.com/network/subnets/10.5.1.0-24"}', '{"key":"/coreos.com/network/subnets/10.5.1.0-24"}'],
    ['http://192.0.2.1:2379 and a@b', 'http://192.0.2.1:2379 and a@b'],
    ['lease.acquired subnet=10.5.1.0/24', 'lease.acquired subnet=10.5.1.0/24'],
  ];
  it.each(cases)('%s', (text, expected) => {
    const filter = new SecretFilter([]);
    expect(filter.clean(text)).toBe(expected);
    expect(filter.count > 0).toBe(text !== expected);
  });

  it('that are known go wherever they stand, in each of their forms', () => {
    const secret = 'p"ss w/rd+ü';
    const filter = new SecretFilter([secret, '', ' ']);
    const forms = [
      secret,
      JSON.stringify(secret).slice(1, -1),
      encodeURIComponent(secret),
      Buffer.from(secret).toString('base64'),
    ];
    for (const form of forms) expect(filter.clean(`before ${form} after`)).toMatch(/^before \(removed\)=* after$/);
    expect(filter.cleanJson({ [secret]: [`x${secret}`] })).toBe('{\n  "(removed)": [\n    "x(removed)"\n  ]\n}');
    // A short one is a part of many words.
    expect(new SecretFilter(['ab']).clean('ab table (ab)')).toBe('(removed) table ((removed))');
  });
});

/** One in each form, in each source; none may be in the archive. */
const planted = {
  known: 'Known-Pa55word',
  inFile: 'File-Pa55word',
  inUser: 'User-Pa55word',
  member: 'Member-T0ken',
  login: 'Login-Pa55',
  pem: 'MIIEvAPrivateBytes',
  flag: 'Flag-Pa55',
};
const everySecret =
  `said ${planted.known} and ${planted.inFile} and ${planted.inUser}\n"api-token": "${planted.member}"\n` +
  `https://root:${planted.login}@192.0.2.1:2379\n--etcd-password ${planted.flag}\n` +
  `-----BEGIN PRIVATE KEY-----\n${planted.pem}\n-----END PRIVATE KEY-----\n`;
const asDocument = {
  text: everySecret,
  nested: { 'api-token': planted.member, list: [{ authKey: [planted.member] }] },
};

interface Given {
  readonly evidence?: Partial<EvidencePort>;
  readonly ports?: Partial<ToolPorts>;
  readonly output?: string;
}

async function report({ evidence, ports, output = join(directory, 'r.tar.gz') }: Given = {}) {
  let [out, err] = ['', ''];
  const status = { ...sampleStatus, problems: [everySecret] };
  const passwordFile = join(directory, 'password');
  writeFileSync(passwordFile, `${planted.inFile}\n`, { mode: 0o600 });
  const event = { id: 1, time: '2026-01-31T08:00:00.000Z', level: 'info' as const, event: 'daemon.starting' };
  const variables = new Map([
    ['BACKUP_PASSWORD', planted.known],
    ['TARTAN_ETCD_USERNAME', 'root'],
    ['TARTAN_ETCD_PASSWORD_FILE', passwordFile],
    ['ETCDCTL_USER', `root:${planted.inUser}`],
    ['TARTAN_NOTE', everySecret],
  ]);
  const io: ToolIo = {
    env: { TARTAN_RUN_DIR: '/r', TARTAN_STATE_DIR: '/s' },
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: async () => '',
    isTty: false,
    ports: {
      ...noPorts,
      readStatus: async () => ({ kind: 'status', status }),
      readEvents: async () => ({
        kind: 'events',
        list: eventListOf([{ ...event, message: everySecret, fields: { options: asDocument } }]),
        unasked: undefined,
      }),
      readEnvironmentFile: () => ({ path: '/etc/default/tartand', variables }),
      openStore: async () => ({
        listLeases: async () => ({
          leases: [],
          kept: [],
          rejected: [{ key: everySecret, revision: 1n, reason: everySecret }],
        }),
        getNetworkText: async () => undefined,
        putNetworkText: async () => {},
        ...noChanges,
        close: async () => {},
      }),
      evidence: {
        readFile: path => ({
          known: true,
          value:
            path === passwordFile
              ? `${planted.inFile}\n`
              : path.endsWith('.json')
                ? JSON.stringify(asDocument)
                : everySecret,
        }),
        run: async (_, args) => (args[0] === '-j' ? JSON.stringify([asDocument]) : everySecret),
        writeNew: evidencePort.writeNew,
        ...evidence,
      },
      ...ports,
    },
  };
  const code = await runTool(['node', 'tartan', 'bugreport', '--output', output], io);
  return { code, out, err, path: output };
}

function extracted(path: string): { readonly names: readonly string[]; readonly read: (name: string) => string } {
  execFileSync('tar', ['-xf', path, '--strip-components=1', '-C', directory]);
  const names = execFileSync('tar', ['-tf', path], { encoding: 'utf8' }).trim().split('\n');
  return {
    names: names.map(name => name.replace(/^[^/]*\//, '')),
    read: name => readFileSync(join(directory, name), 'utf8'),
  };
}

describe('the report', () => {
  it('has every part, and no secret of any of them', async () => {
    const { code, out, err, path } = await report();
    expect([code, err]).toEqual([0, '']);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const { names, read } = extracted(path);
    const expected =
      'report.txt version.txt status.json events.json options.json environment.json state.json subnet.env docker.env ' +
      'daemon.json os-release.txt uname.txt links.json addresses.json routes.json rules.json sockets.txt sysctls.txt ' +
      'iptables-save.txt nft-ruleset.txt journal.txt leases.json';
    for (const name of expected.split(' ')) {
      expect(names).toContain(name);
      if (name === 'report.txt' || name === 'version.txt') continue;
      expect(read(name), name).toContain('(removed)');
      expect(read(name), name).toContain('192.0.2.1:2379');
    }
    const archive = gunzipSync(readFileSync(path)).toString('latin1');
    expect(Object.entries(planted).filter(([, secret]) => archive.includes(secret) || out.includes(secret))).toEqual(
      [],
    );
    expect(JSON.parse(read('status.json'))).toMatchObject({ kind: 'Status', node: sampleStatus.node });
    expect(out).toMatch(
      /^wrote .*r\.tar\.gz: \d+ files, \d+ bytes.*\n(without .*\n)*\d+ secrets were removed.*\nbefore you send it/,
    );
  });

  it('goes on without what fails, hangs or is too long, and says so', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const running = report({
      output: join(directory, 'r.tar'),
      evidence: {
        run: async program => {
          if (program === 'iptables-save') throw new Error(`spawn iptables-save ENOENT ${planted.known}`);
          if (program === 'nft') return new Promise<string>(() => {});
          return program === 'journalctl' ? `${'x'.repeat(99)}\n`.repeat(20_000) : 'x\n';
        },
        readFile: path =>
          path.endsWith('state.json') ? { known: false, why: 'no' } : { known: true, value: undefined },
      },
      ports: { readStatus: async () => ({ kind: 'unreachable', reason: 'there is no socket' }) },
    });
    await vi.advanceTimersByTimeAsync(5_100);
    const { code, out, path } = await running;
    expect(code).toBe(0);
    const { read } = extracted(path);
    const said = read('report.txt');
    expect(said).toContain('iptables-save.txt: failed, spawn iptables-save ENOENT (removed)\n');
    expect(said).toContain('nft-ruleset.txt: failed, no answer within 5 s\n');
    expect(said).toContain('status.json: failed, there is no socket\n');
    expect(said).toContain('state.json: failed, no\n');
    expect(said).toMatch(/journal\.txt: 1048\d{3} bytes, cut: \d+ bytes more\n/);
    expect(read('journal.txt').length).toBeLessThanOrEqual(1024 * 1024);
    expect(out).toContain('without nft-ruleset.txt: no answer within 5 s\n');
    expect(read('uname.txt')).toBe('x\n');
  });

  it('is not written over a file that is there', async () => {
    writeFileSync(join(directory, 'r.tar.gz'), 'mine');
    const { code, err } = await report();
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(/^error: .*r\.tar\.gz cannot be written .*EEXIST.*\nnext: name a new file/),
    ]);
    expect(readFileSync(join(directory, 'r.tar.gz'), 'utf8')).toBe('mine');
  });
});
