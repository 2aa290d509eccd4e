import {
  lstatSync,
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
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDockerFiles, type DockerFileOptions } from '../../src/docker/settings/docker-files.js';
import {
  engineOptions,
  formatDockerEnv,
  formatSubnetEnv,
  nftablesOptions,
  parseSubnetEnv,
} from '../../src/docker/settings/settings.js';
import { formatPrefix, parsePrefix } from '../../src/model/ip.js';
import { checkParts } from '../../src/model/lease-parts.js';

const settings = {
  network: parsePrefix('10.5.0.0/16'),
  subnet: parsePrefix('10.5.29.0/24'),
  mtu: 1472,
  ipMasquerade: true,
};

/** As tartand hands them over. */
const optionsOf = (subnetLength = 0, pools = false) =>
  engineOptions(checkParts(settings.subnet, { subnetLength, pools }), settings.mtu);

describe('the texts', () => {
  it('subnet.env is flannel byte for byte', () => {
    expect(formatSubnetEnv(settings)).toBe(
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n',
    );
    expect(formatSubnetEnv({ ...settings, ipMasquerade: false })).toContain('FLANNEL_IPMASQ=false\n');
  });

  it('docker.env never lets Docker masquerade', () => {
    expect(formatDockerEnv(optionsOf())).toBe(
      [
        'DOCKER_OPT_BIP="--bip=10.5.29.1/24"',
        'DOCKER_OPT_IPMASQ="--ip-masq=false"',
        'DOCKER_OPT_MTU="--mtu=1472"',
        'DOCKER_OPTS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472"',
        'DOCKER_NETWORK_OPTIONS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472"',
        '',
      ].join('\n'),
    );
  });

  it('docker0 gets the first part of the lease, flannel sees all of it', () => {
    const text = formatDockerEnv(optionsOf(26));
    expect(text).toContain('DOCKER_OPT_BIP="--bip=10.5.29.1/26"\n');
    expect(text).toContain('DOCKER_OPTS=" --bip=10.5.29.1/26 --ip-masq=false --mtu=1472"\n');
  });

  it.each([1, 16, 24, 31])('no part of length %s', length => {
    expect(() => optionsOf(length)).toThrow(
      `--docker-subnet-len ${length} is no part of the leased 10.5.29.0/24: give 0 for the whole, or a length from 25 to 30`,
    );
  });

  it('with the options of the nftables backend, and with none', () => {
    expect(formatDockerEnv([...optionsOf(), ...nftablesOptions])).toContain(
      'DOCKER_OPTS=" --bip=10.5.29.1/24 --ip-masq=false --mtu=1472' +
        ' --bridge-accept-fwmark=0x1000000/0x1000000 --allow-direct-routing"\n',
    );
    expect(formatDockerEnv([])).toBe(
      'DOCKER_OPT_BIP=""\nDOCKER_OPT_IPMASQ=""\nDOCKER_OPT_MTU=""\nDOCKER_OPTS=""\nDOCKER_NETWORK_OPTIONS=""\n',
    );
  });

  it.each([
    [formatSubnetEnv(settings), '10.5.29.0/24'],
    ['export FLANNEL_SUBNET="10.5.3.1/24"\n', '10.5.3.0/24'],
    ['FLANNEL_SUBNET=fd00::1/64\n', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/24; reboot\n', undefined],
    ['FLANNEL_SUBNET=10.5.3.1/0\n', undefined],
    ['', undefined],
  ])('%j reads back as %s', (text, expected) => {
    const subnet = parseSubnetEnv(text);
    expect(subnet && formatPrefix(subnet)).toBe(expected);
  });
});

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-docker-'));
  mkdirSync(join(directory, 'state'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const at = (name: string): string => join(directory, name);

function options(docker: Partial<DockerFileOptions['docker']> = {}): DockerFileOptions {
  const daemonJsonFile = at('daemon.json');
  return {
    subnetFile: at('flannel/subnet.env'),
    dockerEnvFile: at('run/docker.env'),
    stateDir: at('state'),
    docker: { config: 'env', daemonJsonFile, subnetLength: 0, pools: false, firewall: 'auto', ...docker },
  };
}

const open = (docker: Partial<DockerFileOptions['docker']> = {}) =>
  openDockerFiles(options(docker), { root: at('root'), dockerd: at('dockerd') });

describe('the files', () => {
  it('are written once, with mode 0644 whatever the umask, and no temporary file stays', async () => {
    const umask = process.umask(0o077);
    try {
      const files = open();
      const { subnetFile, dockerEnvFile } = options();
      expect(files.previousSubnet()).toBeUndefined();
      expect(await files.write(settings)).toEqual({
        written: [subnetFile, dockerEnvFile],
        conflicts: [],
        needsForwarding: false,
      });
      expect(statSync(subnetFile).mode & 0o777).toBe(0o644);
      expect(files.previousSubnet()).toEqual(settings.subnet);
      const before = statSync(dockerEnvFile).ino;
      expect(await files.write(settings)).toMatchObject({ written: [], conflicts: [] });
      expect(statSync(dockerEnvFile).ino).toBe(before);
      expect(readdirSync(at('run'))).toEqual(['docker.env']);
    } finally {
      process.umask(umask);
    }
  });

  it('tell what others did to them since, also to a daemon.json that was not there', async () => {
    const files = open();
    expect(files.isChangedByOthers()).toBe(false);
    await files.write(settings);
    expect(files.isChangedByOthers()).toBe(false);
    const { subnetFile, dockerEnvFile, docker } = options();
    for (const change of [
      () => rmSync(dockerEnvFile),
      () => writeFileSync(subnetFile, 'DOCKER_OPTS=""\n'),
      () => writeFileSync(docker.daemonJsonFile, '{}\n'),
    ]) {
      change();
      expect(files.isChangedByOthers()).toBe(true);
      await files.write(settings);
      expect(files.isChangedByOthers()).toBe(false);
    }
  });

  it('replace a symbolic link instead of following it', async () => {
    const target = at('precious');
    writeFileSync(target, 'mine');
    mkdirSync(at('flannel'));
    symlinkSync(target, options().subnetFile);
    await open().write(settings);
    expect(readFileSync(target, 'utf8')).toBe('mine');
    expect(lstatSync(options().subnetFile).isSymbolicLink()).toBe(false);
  });

  it('name the path that cannot be written', async () => {
    writeFileSync(at('flannel'), '');
    await expect(open().write(settings)).rejects.toThrow(/cannot write .*flannel\/subnet\.env/);
  });
});

describe('a daemon.json beside our flags', () => {
  it.each([
    ['{"bip": "10.5.29.1/24"}', ["has 'bip', beside tartan's --bip dockerd does not start"]],
    ['{"mtu": 1472, "ip-masq": true}', ["'ip-masq' out of the file", "'mtu' out of the file, or start tartand with"]],
    ['{"bridge": "br0"}', ["has 'bridge', beside tartan's --bip"]],
    ['{"log-opts": {"bip": "x"}, "BIP": 1}', []],
    ['\n', []],
    ['{"bip": 1,}', ['daemon.json is not JSON (line 1), comments are not allowed']],
    ['{\n// why\n}', ['daemon.json is not JSON (line 2)']],
    ['["bip"]', ['daemon.json is not a JSON object']],
  ])('%j is a conflict: %j', async (text, expected) => {
    writeFileSync(at('daemon.json'), text);
    const { written, conflicts } = await open().write(settings);
    expect(written).toHaveLength(2);
    expect(conflicts).toEqual(expected.map(part => expect.stringContaining(part) as string));
    expect(readFileSync(at('daemon.json'), 'utf8')).toBe(text);
  });
});

describe("Docker's nftables backend", () => {
  const words = '--bridge-accept-fwmark=0x1000000/0x1000000 --allow-direct-routing';

  function dockerd(version: string): void {
    writeFileSync(at('dockerd'), `#!/bin/sh\necho 'Docker version ${version}, build 1'\n`, { mode: 0o755 });
  }

  function handedOver(): string {
    return readFileSync(options().dockerEnvFile, 'utf8');
  }

  it.each([
    ['29.0.1', 'auto', '{"firewall-backend": "nftables"}', true],
    ['29.0.1', 'auto', '{"firewall-backend": "iptables"}', false],
    ['29.0.1', 'auto', '{}', false],
    ['29.0.1', 'nftables', '{}', true],
    ['30.1.0-rc.1', 'nftables', '{}', true],
    ['29.0.1', 'iptables', '{"firewall-backend": "nftables"}', false],
    ['28.5.2', 'auto', '{"firewall-backend": "nftables"}', false],
    ['20.10.24+dfsg1', 'nftables', '{}', false],
  ] as const)('dockerd %s, %s, %s: %s', async (version, firewall, text, wanted) => {
    dockerd(version);
    writeFileSync(at('daemon.json'), text);
    const { conflicts, needsForwarding } = await open({ firewall }).write(settings);
    expect(handedOver().includes(` ${words}"`)).toBe(wanted);
    // Docker with this backend does not start without.
    expect(needsForwarding).toBe(wanted);
    const tooOld = Number.parseInt(version, 10) < 29;
    expect(conflicts).toEqual(tooOld ? [expect.stringContaining(`dockerd is version ${version.slice(0, 2)}`)] : []);
  });

  it('is seen in the flags of the unit, and taken up and given up while the daemon runs', async () => {
    dockerd('29.0.1');
    const files = open();
    await files.write(settings);
    expect(handedOver()).not.toContain('fwmark');
    mkdirSync(at('root/etc/default'), { recursive: true });
    writeFileSync(at('root/etc/default/docker'), 'DOCKER_OPTS="--firewall-backend=nftables"\n');
    expect((await files.write(settings)).written).toEqual([options().dockerEnvFile]);
    expect(handedOver()).toContain(words);
    rmSync(at('root/etc/default/docker'));
    await files.write(settings);
    expect(handedOver()).not.toContain('fwmark');
  });

  it('fault C16: dockerd gets nothing of our environment, and is asked once for each file that it is', async () => {
    const script = (version: string): string => `#!/bin/sh\nenv >>'${at('asked')}'\necho 'Docker version ${version}'\n`;
    const asked = (): string => readFileSync(at('asked'), 'utf8');
    process.env['TARTAN_ETCD_PASSWORD'] = 'secret';
    try {
      writeFileSync(at('dockerd'), script('28.5.2, build 1'), { mode: 0o755 });
      const files = open({ firewall: 'nftables' });
      for (let pass = 0; pass < 3; pass++) expect((await files.write(settings)).conflicts).toHaveLength(1);
      expect(asked().match(/^PATH=/gm)).toHaveLength(1);
      expect(asked()).not.toMatch(/secret|TARTAN/);
      // An upgrade of Docker is another file, and so is one that is overwritten.
      writeFileSync(at('dockerd'), script('29.0.1, build 2'), { mode: 0o755 });
      for (let pass = 0; pass < 3; pass++) expect((await files.write(settings)).conflicts).toEqual([]);
      expect(asked().match(/^PATH=/gm)).toHaveLength(2);
      writeFileSync(at('dockerd'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
      expect((await files.write(settings)).conflicts).toHaveLength(1);
    } finally {
      delete process.env['TARTAN_ETCD_PASSWORD'];
    }
  });

  it('is asked for and no dockerd is there', async () => {
    const { conflicts } = await open({ firewall: 'nftables' }).write(settings);
    expect(conflicts).toEqual([expect.stringContaining('the version of dockerd cannot be told')]);
    expect(handedOver()).not.toContain('fwmark');
  });

  it('leaves out what daemon.json has already, and reports what is different there', async () => {
    dockerd('29.0.1');
    const text = '{"firewall-backend": "nftables", "allow-direct-routing": true, "bridge-accept-fwmark": "1/1"}';
    writeFileSync(at('daemon.json'), text);
    const { conflicts } = await open().write(settings);
    expect(conflicts).toEqual([expect.stringContaining('has another bridge-accept-fwmark than the overlay needs')]);
    expect(handedOver()).not.toMatch(/fwmark|direct/);
  });

  it('goes into daemon.json with the rest, and out of it again', async () => {
    dockerd('29.0.1');
    const before = '{"firewall-backend": "nftables"}';
    writeFileSync(at('daemon.json'), before);
    await open({ config: 'daemon-json' }).write(settings);
    expect(JSON.parse(readFileSync(at('daemon.json'), 'utf8'))).toEqual({
      'firewall-backend': 'nftables',
      bip: '10.5.29.1/24',
      'ip-masq': false,
      mtu: 1472,
      'bridge-accept-fwmark': '0x1000000/0x1000000',
      'allow-direct-routing': true,
    });
    await open({ config: 'daemon-json', firewall: 'iptables' }).write(settings);
    expect(readFileSync(at('daemon.json'), 'utf8')).not.toMatch(/fwmark|direct/);
    await open().write(settings);
    expect(readFileSync(at('daemon.json'), 'utf8')).toBe(before);
  });
});
