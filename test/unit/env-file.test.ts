/** Files of variables that flannel's readers and other programs share with us. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDockerFiles } from '../../src/docker/settings/docker-files.js';
import { readVariables, withVariables } from '../../src/docker/settings/env-file.js';
import { parseSubnetEnv } from '../../src/docker/settings/settings.js';
import { formatPrefix, parsePrefix } from '../../src/model/ip.js';

describe('fault F3: subnet.env is read in all forms that flannel reads', () => {
  it.each([
    ['FLANNEL_SUBNET: 10.5.3.1/24', '10.5.3.0/24'],
    ['FLANNEL_SUBNET = 10.5.3.1/24', '10.5.3.0/24'],
    ['  FLANNEL_SUBNET=10.5.3.1/24', '10.5.3.0/24'],
    ['\tFLANNEL_SUBNET :10.5.3.1/24\t', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=10.5.3.1/24 # ours', '10.5.3.0/24'],
    ['FLANNEL_SUBNET="10.5.3.1/24" # ours', '10.5.3.0/24'],
    ["export   FLANNEL_SUBNET='10.5.3.1/24'", '10.5.3.0/24'],
    ['FLANNEL_SUBNET=10.5.3.1/24\r\nFLANNEL_MTU=1472\r\n', '10.5.3.0/24'],
    ['# a\n\n#FLANNEL_SUBNET=10.5.9.1/24\nFLANNEL_SUBNET=10.5.3.1/24', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=10.5.4.1/24\nFLANNEL_SUBNET=10.5.3.1/24\n', '10.5.3.0/24'],
    ['BASE=10.5\nFLANNEL_SUBNET=${BASE}.3.1/24\n', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=10.5.3.1/24,fd00::1/64', '10.5.3.0/24'],
    ['NOTE="two\nFLANNEL_SUBNET=10.5.9.1/24\nlines"\nFLANNEL_SUBNET=10.5.3.1/24\n', '10.5.3.0/24'],
    ['no variable at all\nFLANNEL_SUBNET=10.5.3.1/24\n', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=10.5.3.1/24,10.5.4.1/24', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/24#ours', undefined],
    ['FLANNEL_SUBNET="10.5.3.1/24', undefined],
    ['FLANNEL_SUBNET=', undefined],
    ['XFLANNEL_SUBNET=10.5.3.1/24', undefined],
    ['flannel_subnet=10.5.3.1/24', undefined],
  ])('fault F3: %j is %s', (text, expected) => {
    const subnet = parseSubnetEnv(text);
    expect(subnet && formatPrefix(subnet)).toBe(expected);
  });

  it('fault F3: values keep what is in their quotes', () => {
    const text = `A="x \\"y\\" \\n#z" # c\nB='$A\\n' C=1\nD=\\$A #\nE=a#b\nF=\n`;
    expect([...readVariables(text)]).toEqual([
      ['A', 'x "y" \n#z'],
      ['B', '$A\\n'],
      ['C', '1'],
      ['D', '$A'],
      ['E', 'a#b'],
      ['F', ''],
    ]);
  });
});

describe('fault F2: variables of others stay in the file', () => {
  const ours = 'FLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1472\n';
  const names = ['FLANNEL_SUBNET', 'FLANNEL_MTU', 'FLANNEL_IPV6_SUBNET'];

  it.each([
    [undefined, ours],
    ['', ours],
    [ours, ours],
    ['FLANNEL_MTU: 9000\nexport FLANNEL_SUBNET = "x"\n# of flannel\n', ours],
    ['FLANNEL_IPV6_SUBNET=fd00::1/64\n', ours],
    ['\0\x01 garbage\n"', ours],
    ['DOCKER_NETWORK_OPTIONS=" --bip=10.5.3.1/24"', `${ours}DOCKER_NETWORK_OPTIONS=" --bip=10.5.3.1/24"\n`],
    ['# why\nA=1\nFLANNEL_MTU=9\nB="two\nlines"\ngarbage\n', `${ours}# why\nA=1\nB="two\nlines"\n`],
  ])('fault F2: of %j remains what is not ours', (before, expected) => {
    const text = withVariables(before, ours, names);
    expect(text).toBe(expected);
    expect(withVariables(text, ours, names)).toBe(expected);
  });
});

describe("fault F2: beside flannel's mk-docker-opts.sh", () => {
  let folder = '';
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'tartan-env-'))));
  afterEach(() => rmSync(folder, { recursive: true }));

  it('fault F2: what it writes into subnet.env stays, our lines are put back, a file without it is as flannel writes it', async () => {
    const [subnetFile, dockerEnvFile] = [join(folder, 'subnet.env'), join(folder, 'docker.env')];
    const docker = {
      config: 'env',
      daemonJsonFile: join(folder, 'daemon.json'),
      subnetLength: 0,
      pools: false,
      firewall: 'auto',
    } as const;
    mkdirSync(join(folder, 'state'));
    const files = openDockerFiles(
      { subnetFile, dockerEnvFile, stateDir: join(folder, 'state'), docker },
      { root: folder, dockerd: join(folder, 'dockerd') },
    );
    const [network, subnet] = [parsePrefix('10.5.0.0/16'), parsePrefix('10.5.29.0/24')];
    const settings = { network, subnet, mtu: 1472, ipMasquerade: true };
    await files.write(settings);
    const own = 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
    expect(readFileSync(subnetFile, 'utf8')).toBe(own);
    // It replaces the whole file.
    const line = 'DOCKER_NETWORK_OPTIONS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472"\n';
    writeFileSync(subnetFile, line);
    writeFileSync(dockerEnvFile, `${readFileSync(dockerEnvFile, 'utf8')}HTTP_PROXY=http://192.0.2.7:3128\n`);
    expect((await files.write(settings)).written).toEqual([subnetFile]);
    expect(readFileSync(subnetFile, 'utf8')).toBe(own + line);
    expect((await files.write({ ...settings, mtu: 1422 })).written).toEqual([subnetFile, dockerEnvFile]);
    expect(readFileSync(subnetFile, 'utf8')).toBe(own.replace('1472', '1422') + line);
    expect(readFileSync(dockerEnvFile, 'utf8')).toMatch(/--mtu=1422"\nHTTP_PROXY=http:\/\/192\.0\.2\.7:3128\n$/);
  });
});
