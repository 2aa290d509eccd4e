/**
 * The addon's ICMP sockets against the kernel, raw and ping, on a way of two hops of which the second carries 1300 bytes:
 * replies, errors with what they quote, DF; and the echo of `tartan ping` over both packages.
 */
import { cpSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeIcmpError, formatEcho, readIcmp } from '../../src/host/icmp.js';
import { Namespaces } from '../support/namespaces.js';
import { root, run } from '../support/tools.js';

const far = '198.51.100.2';
let spaces: Namespaces;

beforeAll(async () => {
  spaces = new Namespaces();
  await spaces.openUnderlay(1500);
  for (const [letter, address] of [
    ['a', '192.0.2.1'],
    ['f', '192.0.2.9'],
  ] as const)
    await spaces.openHost(letter, address, 1500);
  const [router, end] = [spaces.name('u'), spaces.name('f')];
  await run(['ip', '-n', router, 'link', 'add', 'narrow', 'type', 'veth', 'peer', 'name', 'narrow', 'netns', end]);
  for (const [name, address] of [
    [router, '198.51.100.1/24'],
    [end, `${far}/24`],
  ] as const) {
    await run(['ip', '-n', name, 'address', 'add', address, 'dev', 'narrow']);
    await run(['ip', '-n', name, 'link', 'set', 'narrow', 'mtu', '1300', 'up']);
  }
  await run(['ip', '-n', end, 'route', 'replace', 'default', 'via', '198.51.100.1']);
  await run(spaces.inside('u', ['sysctl', '-q', '-w', 'net.ipv4.ip_forward=1']));
  await run(spaces.inside('a', ['sysctl', '-q', '-w', 'net.ipv4.ping_group_range=0 0']));
});
afterAll(() => spaces.close());

type Step = { readonly to: string; readonly bytes: number; readonly df: boolean };

/** Runs a script of the built program in host a, and returns what it printed. */
async function inHost(script: string, raw: boolean, options: readonly string[] = []): Promise<unknown> {
  const node = [process.execPath, ...options, '--input-type=module', '-e', script];
  const command = raw ? node : ['setpriv', '--bounding-set=-net_raw', '--inh-caps=-all', ...node];
  return JSON.parse(await run(spaces.inside('a', command)));
}

/** The words for what each step heard; for a send that failed its errno. */
async function ask(steps: readonly Step[], raw: boolean): Promise<unknown> {
  const built = (name: string): string => JSON.stringify(join(root, 'dist', name));
  return inHost(
    `import { openIcmp, describeIcmpError } from ${built('host/icmp.js')};
    import { parseIpv4, formatIpv4 } from ${built('model/ip.js')};
    const heard = new Map();
    const icmp = openIcmp(news => {
      const echo = news.kind === 'reply' ? news : news.quoted.echo;
      if (echo?.identifier !== icmp.identifier) return;
      const text = news.kind === 'reply' ? 'reply' : describeIcmpError(news) + ' about ' + formatIpv4(news.quoted.destination);
      heard.get(echo.sequence)?.(text + ' from ' + formatIpv4(news.from));
    });
    const said = [];
    for (const [sequence, { to, bytes, df }] of ${JSON.stringify(steps)}.entries())
      said.push(await new Promise(resolve => {
        setTimeout(resolve, 3000, 'nothing');
        heard.set(sequence, resolve);
        try { icmp.sendEcho(parseIpv4(to), { sequence, payloadBytes: bytes - 28, df }); }
        catch (error) { resolve(error.code); }
      }));
    console.log(JSON.stringify(said));
    process.exit(0);`,
    raw,
  );
}

describe.each([
  ['a raw socket', true],
  ['a ping socket', false],
])('%s', (_, raw) => {
  test('hears replies, and errors with what they quote', async () => {
    const steps = [
      { to: far, bytes: 76, df: false },
      { to: far, bytes: 1400, df: false },
      { to: far, bytes: 1400, df: true },
      // DF asks the way each time: what the kernel has learnt in between does not count.
      { to: far, bytes: 1400, df: true },
      { to: far, bytes: 1300, df: true },
      { to: far, bytes: 1501, df: true },
      { to: '203.0.113.1', bytes: 76, df: false },
    ];
    const narrow = `fragmentation needed, MTU 1300 about ${far} from 192.0.2.253`;
    expect(await ask(steps, raw)).toEqual([
      `reply from ${far}`,
      `reply from ${far}`,
      narrow,
      narrow,
      `reply from ${far}`,
      'EMSGSIZE',
      'unreachable: no route to its network about 203.0.113.1 from 192.0.2.253',
    ]);
  });
});

test('a raw socket hears errors about UDP of this host, with the ports', async () => {
  const heard = await inHost(
    `import { openIcmp } from ${JSON.stringify(join(root, 'dist/host/icmp.js'))};
    import { createSocket } from 'node:dgram';
    const udp = createSocket('udp4');
    const icmp = openIcmp(({ kind, type, code, quoted }) => {
      console.log(JSON.stringify({ kind, type, code, protocol: quoted.protocol, to: quoted.ports.destination }));
      process.exit(0);
    });
    udp.send('x', 8285, '192.0.2.9');
    setTimeout(() => process.exit(1), 3000);`,
    true,
  );
  expect(heard).toEqual({ kind: 'error', type: 3, code: 3, protocol: 17, to: 8285 });
});

/** Node as it is where raw-socket did not build. */
const withoutPackage = [
  '--import',
  `data:text/javascript,${encodeURIComponent(
    `import { register } from 'node:module';
    register('data:text/javascript,' + encodeURIComponent(
      "export async function resolve(name, context, next) {" +
      "if (name === 'raw-socket') throw new Error('not built'); return next(name, context); }"));`,
  )}`,
];

test.each([
  ['the package raw-socket', true, []],
  ['fault U5: the raw socket of the addon', true, withoutPackage],
  ['fault U5: the ping socket of the addon', false, withoutPackage],
])('the echo of the tool asks by %s', async (_, raw, options) => {
  const answers = await inHost(
    `import { openEcho } from ${JSON.stringify(join(root, 'dist/tool/echo.js'))};
    import { parseIpv4 } from ${JSON.stringify(join(root, 'dist/model/ip.js'))};
    const echo = await openEcho();
    const ask = (to, bytes) => echo.ping(parseIpv4(to), { timeoutMs: 2000, payloadBytes: bytes - 28, df: true });
    const said = [await ask('${far}', 76), await ask('${far}', 1400), await ask('${far}', 1600)];
    console.log(JSON.stringify(said.map(answer => answer.reason ?? typeof answer.rttMs)));
    process.exit(0);`,
    raw,
    options,
  );
  expect(answers).toEqual([
    'number',
    'fragmentation needed, MTU 1300 (from 192.0.2.253)',
    expect.stringMatching(/^longer than the MTU of this host's route to it, 1[35]00, and may not be cut$/),
  ]);
});

test('fault U5: without a right to either kind of socket, and without an addon, the error says what to do', async () => {
  await run(spaces.inside('f', ['sysctl', '-q', '-w', 'net.ipv4.ping_group_range=1 0']));
  const open = (file: string): string =>
    `import { openEcho } from ${JSON.stringify(file)};
    await openEcho().catch(error => console.log(error.message, '-', error.next));`;
  const node = [process.execPath, ...withoutPackage, '--input-type=module', '-e'];
  const denied = ['setpriv', '--bounding-set=-net_raw', '--inh-caps=-all', ...node];
  const said = await run(spaces.inside('f', [...denied, open(join(root, 'dist/tool/echo.js'))]));
  expect(said).toMatch(/^this user may open no ICMP socket - run it as root, or allow .*ping_group_range/);
  // The program without what make builds.
  const bare = join(spaces.directory, 'bare');
  cpSync(join(root, 'dist'), join(bare, 'dist'), { recursive: true, filter: name => !name.endsWith('.node') });
  cpSync(join(root, 'package.json'), join(bare, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(bare, 'node_modules'));
  const unbuilt = await run(spaces.inside('f', [...node, open(join(bare, 'dist/tool/echo.js'))]));
  expect(unbuilt).toMatch(/^the addon of tartan does not load \(.*\), nor does .* \(not built\) - build the addon/);
});

test('packets of others, cut or odd ones are not read', () => {
  const ip = (protocol: number, rest: Buffer): Buffer =>
    Buffer.concat([Buffer.from([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]), rest]);
  const echo = formatEcho(7, 9, 10);
  const error = Buffer.from([3, 4, 0, 0, 0, 0, 5, 0]);
  const whole = ip(1, Buffer.concat([error, ip(1, echo)]));
  const news = readIcmp(whole);
  expect(news).toMatchObject({ kind: 'error', mtu: 1280, quoted: { echo: { identifier: 7, sequence: 9 } } });
  expect(news?.kind === 'error' && describeIcmpError(news)).toBe('fragmentation needed, MTU 1280');
  expect(readIcmp(ip(1, echo))).toBeUndefined();
  expect(readIcmp(ip(17, echo))).toBeUndefined();
  for (let length = 0; length < whole.length; length++) {
    const cut = readIcmp(whole.subarray(0, length));
    if (length < 48) expect(cut).toBeUndefined();
    else expect(cut).toMatchObject({ quoted: { protocol: 1 } });
  }
  whole[28] = 0x4f;
  expect(readIcmp(whole)).toBeUndefined();
});
