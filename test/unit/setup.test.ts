/** The deciders of `tartan join`: tokens that are wrong in each way, the steps by the state of the host, what undoes them. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { formatEnvironment, readDaemonEnvironment, readEnvironmentText } from '../../src/cli/environment-file.js';
import type { FlagName } from '../../src/cli/flags.js';
import {
  etcdPaths,
  hasMaskedTheirs,
  planEtcd,
  planEtcdRemoval,
  refuseOverlapping,
  type EtcdFacts,
} from '../../src/setup/etcd-plan.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { SetupState, PathName, UnitState } from '../../src/setup/setup-state.js';
import { planJoin, planUninstall } from '../../src/setup/join-plan.js';
import { removeStep, runStep, runSetup, writeStep } from '../../src/setup/step.js';
import { formatMemberToken, formatToken, looksLikeToken, parseMemberToken, parseToken } from '../../src/setup/token.js';
import { isTooOld } from '../../src/store/etcd/examine.js';

const token = {
  endpoints: ['https://192.0.2.1:2379'],
  prefix: '/coreos.com/network',
  ca: 'ab'.repeat(32),
  user: 'host-1',
  password: 'correct-horse',
};

describe('a token', () => {
  const text = formatToken(token);
  const [, payload = '', sum = ''] = text.split('.');

  test('is one line, and is read also with the line breaks that a terminal adds', () => {
    expect(text).toMatch(/^tartan1\.[\w-]+\.[\w-]{8}$/);
    expect(parseToken(text)).toEqual(token);
    expect(parseToken(` ${text.slice(0, 70)}\r\n${text.slice(70)}\n`)).toEqual(token);
  });

  const other = (value: object): string => formatToken(value as typeof token);
  test.each([
    ['nothing', '  \n', /it is empty/],
    ['another word', 'hunter2', /does not begin with tartan1/],
    ['another version', `tartan9.${payload}.${sum}`, /is of version 9, this tartan knows version 1/],
    ['a missing end', `tartan1.${payload}`, /its end is missing/],
    ['a cut end', text.slice(0, -1), /its end is missing/],
    ['a typo', text.replace(payload[20] ?? '', payload[20] === 'x' ? 'y' : 'x'), /check sum is wrong|does not begin/],
    ['a missing character', `tartan1.${payload.slice(0, 30)}${payload.slice(31)}.${sum}`, /check sum is wrong/],
    ['characters of no token', `tartan1.${payload}!.${sum}`, /characters that no token has/],
    ['one part more', `${text}.x`, /other than three parts/],
    ['a plain endpoint', other({ ...token, endpoints: ['http://192.0.2.1:2379'] }), /what it holds/],
    ['no CA', other({ ...token, ca: undefined }), /what it holds/],
    ['a password with a line end', other({ ...token, password: 'correct\nhorse' }), /what it holds/],
  ])('with %s is refused, and nothing of it is shown', (_, bad, why) => {
    const error = (() => {
      try {
        parseToken(bad);
      } catch (thrown) {
        return thrown as Error & { readonly code?: string };
      }
      return undefined;
    })();
    expect(error?.message).toMatch(why);
    expect(error?.code).toBe('USAGE');
    for (const secret of ['correct', 'hunter2', payload.slice(0, 30)]) expect(error?.message).not.toContain(secret);
    expect(error?.cause).toBeUndefined();
  });

  test('of a member of etcd is another one, and holds no word that a settings file could take for more', () => {
    const pem = '-----BEGIN X-----\nAAAA\n-----END X-----\n';
    const cluster = 'first=https://192.0.2.1:2380,etcd-192.0.2.2=https://192.0.2.2:2380';
    const member = { address: '192.0.2.2', name: 'etcd-192.0.2.2', cluster, ca: pem, certificate: pem, key: pem };
    const memberText = formatMemberToken(member);
    expect(memberText).toMatch(/^tartan-etcd1\.[\w-]+\.[\w-]{8}$/);
    expect(parseMemberToken(memberText)).toEqual(member);
    expect(looksLikeToken(memberText.slice(0, 30))).toBe(true);
    expect(() => parseMemberToken(text)).toThrow(/does not begin with tartan-etcd1\..*tartan etcd add printed$/);
    expect(() => parseToken(memberText)).toThrow(/does not begin with tartan1\./);
    for (const bad of [{ name: 'a\nETCD_X=y' }, { cluster: "a=b'" }, { address: '192.0.2.2 ' }, { key: 'none' }])
      expect(() => parseMemberToken(formatMemberToken({ ...member, ...bad }))).toThrow(/what it holds/);
  });

  test('is known from its look, so that an argument is not shown', () => {
    expect([text, 'TARTAN1.x', payload].map(looksLikeToken)).toEqual([true, true, true]);
    expect(['-', 'http://192.0.2.254:2379', '192.0.2.254:2379'].map(looksLikeToken)).toEqual([false, false, false]);
  });
});

describe('the steps', () => {
  const off: UnitState = { load: 'loaded', active: 'inactive', file: 'disabled', restarts: 0 };
  const flags = new Map<FlagName, string>([
    ['etcd-endpoints', 'https://192.0.2.1:2379'],
    ['ip-masq', 'true'],
  ]);
  const request = { flags, ca: 'CA', password: 'correct-horse' };
  const state = (change: Partial<SetupState> = {}): SetupState => ({
    files: new Map(),
    tartand: off,
    docker: off,
    settings: new Map(),
    settingsPath: '/etc/default/tartand',
    shipped: { dropIn: 'DROP-IN', unit: 'UNIT' },
    ...change,
  });
  const texts = (plan: { readonly steps: readonly { readonly text: string; readonly undo: string }[] }): string[] =>
    plan.steps.map(({ text, undo }) => `${text} | ${undo}`);
  /** As a whole join leaves it. */
  const joined = (): SetupState => {
    const files = new Map<PathName, string>();
    const names: Record<string, PathName> = {
      '/etc/tartan/etcd-ca.pem': 'ca',
      '/etc/tartan/etcd-password': 'password',
      '/etc/tartan/join.env': 'joinFile',
      '/etc/systemd/system/docker.service.d/tartan.conf': 'dropIn',
    };
    for (const { action } of planJoin(request, state()).steps)
      if (action.kind === 'write') files.set(names[action.path] ?? 'unit', action.content);
    return state({ files, tartand: { load: 'loaded', active: 'active', file: 'enabled', restarts: 0 } });
  };

  test('of a first join, each with its undo', () => {
    expect(texts(planJoin(request, state()))).toEqual([
      'write /etc/tartan/etcd-ca.pem (mode 0644) | rm /etc/tartan/etcd-ca.pem',
      'write /etc/tartan/etcd-password (mode 0600) | rm /etc/tartan/etcd-password',
      'write /etc/tartan/join.env (mode 0600) | rm /etc/tartan/join.env',
      'write /etc/systemd/system/docker.service.d/tartan.conf (mode 0644) | rm /etc/systemd/system/docker.service.d/tartan.conf',
      'systemctl daemon-reload | nothing',
      'systemctl --quiet enable tartand.service | systemctl --quiet disable tartand.service',
      'systemctl --no-block start tartand.service | systemctl stop tartand.service',
    ]);
  });

  test('are none for a host that joined the same way, and a restart with another setting', () => {
    expect(planJoin(request, joined())).toMatchObject({ steps: [], restarts: false });
    const other = planJoin({ ...request, flags: new Map(flags).set('ip-masq', 'false') }, joined());
    expect(texts(other)).toEqual([
      'write /etc/tartan/join.env (mode 0600) | tartan uninstall',
      'systemctl --no-block restart tartand.service | nothing',
    ]);
    expect(other.settle.at(-1)).toEqual(['systemctl', '--no-block', 'restart', 'tartand.service']);
  });

  test('bring the unit where systemd has none, and stop where it is masked', () => {
    const without = planJoin(request, state({ tartand: { ...off, load: 'not-found' } }));
    expect(texts(without)).toContain(
      'write /etc/systemd/system/tartand.service (mode 0644) | rm /etc/systemd/system/tartand.service',
    );
    expect(() => planJoin(request, state({ tartand: { ...off, load: 'masked' } }))).toThrow(/systemctl unmask/);
  });

  test('are none where the administrator has another value, which is named', () => {
    const settings = new Map([['TARTAN_ETCD_ENDPOINTS', 'http://192.0.2.9:2379']]);
    expect(() => planJoin(request, state({ settings }))).toThrow(
      "TARTAN_ETCD_ENDPOINTS in /etc/default/tartand is 'http://192.0.2.9:2379' and wins over 'https://192.0.2.1:2379'",
    );
    expect(() => planJoin(request, state({ settings: new Map([['TARTAN_IP_MASQ', 'true']]) }))).not.toThrow();
  });

  test('of uninstall take back what is there, and are short where nothing is', () => {
    const [leave, cleanup] = [runStep(['leave']), runStep(['cleanup'])];
    expect(texts({ steps: planUninstall(joined(), leave, cleanup) }).map(line => line.split(' |')[0])).toEqual([
      'systemctl stop tartand.service',
      'systemctl --quiet disable tartand.service',
      'leave',
      'cleanup',
      'remove /etc/systemd/system/docker.service.d/tartan.conf',
      'remove /etc/tartan/join.env',
      'remove /etc/tartan/etcd-password',
      'remove /etc/tartan/etcd-ca.pem',
      'systemctl daemon-reload',
    ]);
    expect(planUninstall(state(), leave, cleanup)).toEqual([cleanup]);
  });

  test('write the password into no file of variables', () => {
    for (const { action } of planJoin(request, state()).steps)
      if (action.kind === 'write' && !action.path.endsWith('password')) expect(action.content).not.toContain('horse');
  });
});

describe('running them', () => {
  let folder = '';
  const said: string[] = [];
  const run = (steps: Parameters<typeof runSetup>[0], dryRun = false): Promise<void> =>
    runSetup(steps, { say: line => said.push(line), dryRun });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), `tartan-setup-${process.pid}-`));
    said.length = 0;
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const at = (name: string): string => join(folder, name);

  test('a step that fails leaves files as they were, with their modes', async () => {
    writeFileSync(at('old'), 'before', { mode: 0o640 });
    writeFileSync(at('gone'), 'kept');
    const steps = [
      writeStep(at('old'), 'after', 0o600, true),
      writeStep(at('new'), 'x', 0o600, false),
      removeStep(at('gone'), 'x'),
      runStep(['touch', at('made')], ['rm', at('made')]),
      runStep(['sh', '-c', 'echo no room >&2; exit 3']),
      runStep(['touch', at('never')]),
    ];
    await expect(run(steps)).rejects.toThrow(/no room; this host is as it was$/);
    expect(readFileSync(at('old'), 'utf8') + readFileSync(at('gone'), 'utf8')).toBe('beforekept');
    expect(['new', 'made', 'never'].map(name => existsSync(at(name)))).toEqual([false, false, false]);
    expect(said).toHaveLength(5);
  });

  test('an undo that fails is told, and the others are done', async () => {
    const steps = [
      writeStep(at('new'), 'x', 0o600, false),
      runStep(['true'], ['sh', '-c', 'echo stuck >&2; exit 1']),
      runStep(['no-such-program-here']),
    ];
    await expect(run(steps)).rejects.toThrow(/there is no program no-such-program-here; not taken back: true: stuck$/);
    expect(existsSync(at('new'))).toBe(false);
  });

  test('a dry run prints all and does nothing', async () => {
    await run([writeStep(at('new'), 'x', 0o600, false), runStep(['touch', at('made')])], true);
    expect(said).toEqual([
      `would write ${at('new')} (mode 0600)   (undo: rm ${at('new')})`,
      `would touch ${at('made')}   (undo: nothing)`,
    ]);
    expect(existsSync(at('new')) || existsSync(at('made'))).toBe(false);
  });

  test('join.env is below the file of the administrator, and each variable names its file', () => {
    writeFileSync(
      at('join.env'),
      formatEnvironment(
        new Map([
          ['A', 'x"$`\\ y'],
          ['B', '1'],
        ]),
      ),
    );
    writeFileSync(at('default'), 'B=2\n');
    expect(readEnvironmentText(readFileSync(at('join.env'), 'utf8')).get('A')).toBe('x"$`\\ y');
    const both = readDaemonEnvironment([at('default')], at('join.env'));
    expect([...(both?.variables ?? [])]).toEqual([
      ['A', 'x"$`\\ y'],
      ['B', '2'],
    ]);
    expect([...(both?.origins?.values() ?? [])]).toEqual([at('join.env'), at('default')]);
    expect(readDaemonEnvironment([at('absent')], at('join.env'))?.variables.get('B')).toBe('1');
  });
});

test.each([
  ['3.3.27', true],
  ['2.3.8', true],
  ['3.4.0', false],
  ['3.10.1', false],
  ['4.0.0', false],
])('etcd %s is too old: %s', (version, old) => {
  expect(isTooOld(version)).toBe(old);
});

describe('an etcd of the cluster', () => {
  const absent: UnitState = { load: 'not-found', active: 'inactive', file: '', restarts: 0 };
  const facts: EtcdFacts = {
    version: undefined,
    openssl: true,
    theirs: absent,
    packages: ['etcd-server', 'etcd-client'],
    machine: 'x64',
  };
  const nothing = async (): Promise<void> => {};
  const effects = {
    checkVersion: nothing,
    makeCertificates: nothing,
    removeCertificates: nothing,
    removeData: nothing,
    makeUsers: nothing,
  };
  const request = {
    address: parseIpv4('192.0.2.1'),
    name: 'first',
    clusterToken: 'of-this-one',
    rootPassword: 'correct-horse',
    unitText: 'UNIT',
  };
  const plan = (change: Partial<EtcdFacts> = {}): readonly string[] =>
    planEtcd(request, { ...facts, ...change }, effects).map(({ text }) => text);

  test("the distribution's unit is masked before its package is installed, where it was not there", () => {
    const install =
      'apt-get --yes --quiet -o DPkg::Lock::Timeout=120 install --no-install-recommends etcd-server etcd-client';
    expect(plan().slice(0, 2)).toEqual(['systemctl --quiet mask etcd.service', install]);
    expect(plan({ theirs: { ...absent, load: 'loaded' } })[0]).toBe(install);
    expect(plan({ version: '3.5.16' })[0]).toBe('check that etcd is 3.4 or later');
    expect(plan({ openssl: false })[1]).toBe(`${install} openssl`);
    expect(plan({ version: '3.5.16', openssl: false })[0]).toMatch(/install --no-install-recommends openssl$/);
  });

  test('that mask is known afterwards, and ended with the etcd', () => {
    const settingsOf = (change: Partial<EtcdFacts>): string => {
      const steps = planEtcd(request, { ...facts, ...change }, effects);
      const found = steps.find(({ action }) => action.kind === 'write' && action.path === etcdPaths.settings);
      return found?.action.kind === 'write' ? found.action.content : '';
    };
    expect(hasMaskedTheirs(settingsOf({}))).toBe(true);
    expect(hasMaskedTheirs(settingsOf({ theirs: { ...absent, load: 'masked' } }))).toBe(false);
    expect(hasMaskedTheirs(settingsOf({ version: '3.5.16' }))).toBe(false);
    const texts = (free: (() => Promise<void>) | undefined): string =>
      planEtcdRemoval([], nothing, free)
        .map(({ text }) => text)
        .join('; ');
    expect(texts(nothing)).toContain('systemctl unmask etcd.service, disabled');
    expect(texts(undefined)).not.toContain('unmask');
  });

  test('one that runs is left alone and named, and none can be had without apt-get', () => {
    const theirs = { ...absent, load: 'loaded', active: 'active' };
    expect(() => plan({ version: '3.5.16', theirs })).toThrow(/^etcd\.service runs on this host already/);
    expect(() => plan({ packages: undefined })).toThrow(/install etcd 3\.4 or later, or give --etcd-endpoints/);
    expect(plan({ version: '3.5.16', packages: undefined })).not.toHaveLength(0);
  });

  test('has no secret in a text, an undo or a command; files with one are for root alone', () => {
    const steps = planEtcd(request, facts, effects);
    expect(JSON.stringify(steps.map(({ text, undo }) => [text, undo]))).not.toMatch(/horse|of-this-one/);
    for (const { action } of steps) {
      if (action.kind === 'run') expect(action.command.join(' ')).not.toMatch(/horse|of-this-one/);
      if (action.kind === 'write' && /horse|of-this-one/.test(action.content)) expect(action.mode).toBe(0o600);
    }
  });

  test('that gets one more member: without a login, a user or a network document of its own', () => {
    const { rootPassword: _, ...rest } = request;
    const { makeUsers: __, ...few } = effects;
    const cluster = 'first=https://192.0.2.9:2380,second=https://192.0.2.1:2380';
    const steps = planEtcd({ ...rest, name: 'second', cluster }, facts, few);
    const written = steps.flatMap(({ action }) => (action.kind === 'write' ? [action] : []));
    expect(written.map(({ path }) => path)).toEqual([etcdPaths.settings, etcdPaths.unit]);
    expect(written[0]?.content).toContain(`ETCD_INITIAL_CLUSTER="${cluster}"`);
    expect(written[0]?.content).toMatch(/ETCD_INITIAL_CLUSTER_STATE="existing/);
    expect(steps.at(-1)?.text).toBe('systemctl start tartan-etcd.service');
  });

  test('is for a network that no route and no address of this host overlaps; a default route does not count', () => {
    const own = [
      { prefix: parsePrefix('0.0.0.0/0'), text: 'the default route' },
      { prefix: parsePrefix('10.5.128.0/17'), text: 'the route 10.5.128.0/17 on eth1' },
    ];
    expect(() => refuseOverlapping(parsePrefix('10.5.0.0/16'), own)).toThrow(
      '--network 10.5.0.0/16 overlaps the route 10.5.128.0/17 on eth1 of this host',
    );
    expect(() => refuseOverlapping(parsePrefix('10.6.0.0/16'), own)).not.toThrow();
  });
});
