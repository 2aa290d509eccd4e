/**
 * `tartan docker-opts` beside flannel's mk-docker-opts.sh (v0.28): what the script under dash wrote and returned for
 * each of these command lines was recorded.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isRoutedVia, writeDockerOpts } from '../../src/tool/docker-opts.js';
import { messageOf } from '../../src/lib/errors.js';
import { parsePrefix } from '../../src/model/ip.js';

const standard = 'FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n';
const masquerading = standard.replace('false', 'true');
const bip = 'DOCKER_OPT_BIP="--bip=10.1.74.1/24"\n';
const mtu = 'DOCKER_OPT_MTU="--mtu=1472"\n';
const all = ' --bip=10.1.74.1/24 --ip-masq=true --mtu=1472';
const noRoutes = (): string => 'Iface\tDestination\tGateway\n';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-opts-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

interface Outcome {
  readonly status: number;
  readonly text: string | undefined;
  readonly err: string;
}

async function run(
  line: string,
  flannel: string | undefined,
  env: Readonly<Record<string, string>> = {},
  routes = noRoutes,
): Promise<Outcome> {
  const [input, output] = [join(directory, 'subnet.env'), join(directory, 'out/docker.env')];
  if (flannel !== undefined) writeFileSync(input, flannel);
  const words = ['-f', input, '-d', output, ...line.split(' ').filter(word => word !== '')];
  let err = '';
  let status: number;
  try {
    status = await writeDockerOpts(words, { env, stderr: text => void (err += text) }, routes);
  } catch (error) {
    err = messageOf(error);
    status = error instanceof Error && 'status' in error ? Number(error.status) : -1;
  }
  return { status, text: existsSync(output) ? readFileSync(output, 'utf8') : undefined, err };
}

describe('the file', () => {
  it.each([
    ['', standard, `${bip}DOCKER_OPT_IPMASQ="--ip-masq=true"\n${mtu}DOCKER_OPTS="${all}"\n`],
    ['-i', standard, `${bip}DOCKER_OPT_IPMASQ="--ip-masq=true"\n${mtu}`],
    ['-c', standard, `DOCKER_OPTS="${all}"\n`],
    ['-ic', standard, `${bip}DOCKER_OPT_IPMASQ="--ip-masq=true"\n${mtu}DOCKER_OPTS="${all}"\n`],
    ['-c', masquerading, `DOCKER_OPTS="${all.replace('true', 'false')}"\n`],
    ['-m', standard, `${bip}${mtu}DOCKER_OPTS=" --bip=10.1.74.1/24 --mtu=1472"\n`],
    ['-mc', 'FLANNEL_IPMASQ=maybe\n', 'DOCKER_OPTS=""\n'],
    ['-c -k DOCKER_NETWORK_OPTIONS', standard, `DOCKER_NETWORK_OPTIONS="${all}"\n`],
    ['-ckX', standard, `X="${all}"\n`],
    ['-c stop -i', standard, `DOCKER_OPTS="${all}"\n`],
    ['-- -c', standard, `${bip}DOCKER_OPT_IPMASQ="--ip-masq=true"\n${mtu}DOCKER_OPTS="${all}"\n`],
    ['', '', 'DOCKER_OPTS=""\n'],
    ['', undefined, 'DOCKER_OPTS=""\n'],
    ['-i', undefined, ''],
    [
      '-c',
      '# c\n\nexport FLANNEL_SUBNET="10.1.74.1/24"\nFLANNEL_MTU=\'1400\' # t\n',
      'DOCKER_OPTS=" --bip=10.1.74.1/24 --mtu=1400"\n',
    ],
    ['-c', 'FLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_SUBNET=10.1.75.1/24\n', 'DOCKER_OPTS=" --bip=10.1.75.1/24"\n'],
    ['-c', 'FLANNEL_IPV6_SUBNET=fd42:1::1/64\nFLANNEL_MTU=1450\n', 'DOCKER_OPTS=" --mtu=1450"\n'],
    [
      '',
      'FLANNEL_MTU=1400\nDOCKER_OPT_ZED=--zed\nDOCKER_OPTS="--pre --set"\nDOCKER_OPT_BIP=--bip=9.9.9.9/24\n',
      'DOCKER_OPT_BIP="--bip=9.9.9.9/24"\nDOCKER_OPT_MTU="--mtu=1400"\nDOCKER_OPT_ZED="--zed"\n' +
        'DOCKER_OPTS="--pre --set  --bip=9.9.9.9/24 --mtu=1400 --zed"\n',
    ],
  ])('%j of %j', async (line, flannel, text) => {
    expect(await run(line, flannel)).toEqual({ status: 0, text, err: '' });
  });

  it.each([
    [{ DOCKER_OPTS: '--foo' }, '-c', `DOCKER_OPTS="--foo ${all}"\n`],
    [{ NAMED: '--foo' }, '-ck NAMED', `NAMED="--foo ${all}"\n`],
    [{ DOCKER_OPT_IPMASQ: '--own' }, '-cm', 'DOCKER_OPTS=" --bip=10.1.74.1/24 --own --mtu=1472"\n'],
    [
      { DOCKER_OPT_A: '--a', XDOCKER_OPT_Q: '--q', DOCKER_OPT_E: '' },
      '-cm',
      'DOCKER_OPTS=" --a --bip=10.1.74.1/24  --mtu=1472 --q"\n',
    ],
    [{ FLANNEL_SUBNET: '10.2.3.1/24' }, '-c', `DOCKER_OPTS="${all}"\n`],
  ])('with %j in the environment', async (env, line, text) => {
    expect(await run(line, standard, env)).toEqual({ status: 0, text, err: '' });
  });

  it('takes the settings from the environment where the file is missing', async () => {
    expect((await run('-c', undefined, { FLANNEL_MTU: '9000' })).text).toBe('DOCKER_OPTS=" --mtu=9000"\n');
  });

  it('is written through a link, and replaced at once', async () => {
    const target = join(directory, 'target');
    writeFileSync(target, 'old');
    mkdirSync(join(directory, 'out'));
    symlinkSync(target, join(directory, 'out/docker.env'));
    expect((await run('-c', standard)).text).toBe(`DOCKER_OPTS="${all}"\n`);
    expect(readFileSync(target, 'utf8')).toBe(`DOCKER_OPTS="${all}"\n`);
  });
});

describe('refusals end with 1 and write nothing', () => {
  it.each(['-h', '-?', '-x', '-k', '--help'])('usage for %s', async line => {
    const { status, text, err } = await run(line, standard);
    expect({ status, text }).toEqual({ status: 1, text: undefined });
    expect(err).toContain('usage: tartan docker-opts [-f FLANNEL-ENV-FILE]');
  });

  it.each([
    ['', 'FLANNEL_IPMASQ=maybe\n', "FLANNEL_IPMASQ is 'maybe'"],
    ['', 'touch /tmp/owned\n', "line 1 ('touch /tmp/owned') sets no variable"],
    ['', 'FLANNEL_MTU=$(reboot)\n', 'sets no variable'],
    ['', 'FLANNEL_MTU="`reboot`"\n', 'sets no variable'],
    ['', 'FLANNEL_MTU=1400; reboot\n', 'sets no variable'],
    ['', "FLANNEL_MTU='$(reboot)'\n", "would be '--mtu=$(reboot)'"],
    ['-k A;B', standard, "-k 'A;B' is no name"],
  ])('%j of %j', async (line, flannel, message) => {
    const { status, text, err } = await run(line, flannel);
    expect({ status, text }).toEqual({ status: 1, text: undefined });
    expect(err).toContain(message);
  });
});

/** As the kernel prints it on a little-endian machine; 10.1.74.0/24 by a gateway, 10.1.75.0/24 on a link. */
const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	FD0200C0	0003	0	0	0	00000000	0	0	0
eth0	004A010A	FD0200C0	0003	0	0	0	00FFFFFF	0	0	0
docker0	004B010A	00000000	0001	0	0	0	00FFFFFF	0	0	0
`;

describe('a route by a gateway to the own subnet', () => {
  it('is an error once the file is written, as with the script', async () => {
    const { status, text, err } = await run('-c', standard, {}, () => table);
    expect({ status, text }).toEqual({ status: 1, text: `DOCKER_OPTS="${all}"\n` });
    expect(err).toContain('already leads to 10.1.74.0/24');
  });

  it.each([
    ['10.1.74.0/24', true],
    ['10.1.75.0/24', false],
    ['10.1.74.0/25', false],
    ['10.1.0.0/16', false],
    ['0.0.0.0/0', true],
  ])('%s: %s', (subnet, expected) => expect(isRoutedVia(table, parsePrefix(subnet))).toBe(expected));
});
