import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openEnvFiles } from '../../src/docker/env-files.js';
import { formatDockerEnv, formatSubnetEnv, parseSubnetEnv } from '../../src/docker/settings.js';
import { formatPrefix, parsePrefix } from '../../src/model/ipv4.js';

const settings = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.29.0/24'),
  mtu: 1472,
  ipMasquerade: true,
};

describe('the texts', () => {
  it('subnet.env is flannel byte for byte', () => {
    expect(formatSubnetEnv(settings)).toBe(
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n',
    );
    expect(formatSubnetEnv({ ...settings, ipMasquerade: false })).toContain('FLANNEL_IPMASQ=false\n');
  });

  it('docker.env never lets Docker masquerade', () => {
    for (const ipMasquerade of [true, false]) {
      expect(formatDockerEnv({ ...settings, ipMasquerade })).toBe(
        [
          'DOCKER_OPT_BIP="--bip=10.5.29.1/24"',
          'DOCKER_OPT_IPMASQ="--ip-masq=false"',
          'DOCKER_OPT_MTU="--mtu=1472"',
          'DOCKER_OPTS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472"',
          'DOCKER_NETWORK_OPTIONS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472"',
          '',
        ].join('\n'),
      );
    }
  });

  it.each([
    [formatSubnetEnv(settings), '10.5.29.0/24'],
    ['export FLANNEL_SUBNET="10.5.3.1/24"\n', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=fd00::1/64\n', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_SUBNET=10.5.4.1/24\n', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/24; reboot\n', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/0\n', undefined],
    ['', undefined],
  ])('%j reads back as %s', (text, expected) => {
    const subnet = parseSubnetEnv(text);
    expect(subnet && formatPrefix(subnet)).toBe(expected);
  });
});

describe('the files', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'tartan-docker-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function paths(): { subnetFile: string; dockerEnvFile: string } {
    return { subnetFile: join(directory, 'flannel/subnet.env'), dockerEnvFile: join(directory, 'run/docker.env') };
  }

  it('are written once, with mode 0644 whatever the umask, and no temporary file stays', () => {
    const umask = process.umask(0o077);
    try {
      const files = openEnvFiles(paths());
      expect(files.previousSubnet()).toBeUndefined();
      expect(files.write(settings)).toEqual([paths().subnetFile, paths().dockerEnvFile]);
      expect(statSync(paths().subnetFile).mode & 0o777).toBe(0o644);
      expect(files.previousSubnet()).toEqual(settings.subnet);
      const before = statSync(paths().dockerEnvFile).ino;
      expect(files.write(settings)).toEqual([]);
      expect(statSync(paths().dockerEnvFile).ino).toBe(before);
      expect(readdirSync(join(directory, 'run'))).toEqual(['docker.env']);
      files.remove();
      expect(existsSync(paths().subnetFile)).toBe(false);
    } finally {
      process.umask(umask);
    }
  });

  it('replace a symbolic link instead of following it', () => {
    const target = join(directory, 'precious');
    writeFileSync(target, 'mine');
    const file = join(directory, 'subnet.env');
    symlinkSync(target, file);
    openEnvFiles({ subnetFile: file, dockerEnvFile: join(directory, 'docker.env') }).write(settings);
    expect(readFileSync(target, 'utf8')).toBe('mine');
    expect(lstatSync(file).isSymbolicLink()).toBe(false);
  });

  it('name the path that cannot be written', () => {
    writeFileSync(join(directory, 'file'), '');
    const files = openEnvFiles({
      subnetFile: join(directory, 'file/subnet.env'),
      dockerEnvFile: join(directory, 'docker.env'),
    });
    expect(() => files.write(settings)).toThrow(/cannot write .*file\/subnet\.env/);
  });
});
