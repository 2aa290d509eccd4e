/** The packages, made in a hurry, and what is in them: all that the tables of the source name. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePackage } from '../../src/package/node-runtime.js';
import { platforms } from '../../src/package/platforms.js';
import { configFolders, programs } from '../../src/package/program-tree.js';
import { SystemdHost } from '../support/systemd-host.js';
import { root, run } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const platform = platforms.find(({ node }) => node === process.arch);
const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;
let work: string;
let debian: string;

beforeAll(async () => {
  if (platform === undefined) throw new Error(`packages are made on x64 and arm64, this is ${process.arch}`);
  work = mkdtempSync(join(tmpdir(), `tartan-packages-${process.pid}-`));
  debian = join(work, 'deb');
  const wanted = ['--fast', '--only', 'deb,tarball,npm', '--arch', platform.debian, '--out', work];
  await run(['bash', join(root, 'test/support/package.sh'), ...wanted], { timeoutMs: 110_000 });
  await run(['dpkg-deb', '-R', join(work, `tartan_${version}_${platform.debian}.deb`), debian]);
}, 120_000);
afterAll(() => rmSync(work, { recursive: true, force: true }));

const held = (name: string): string => readFileSync(join(debian, name), 'utf8');
const nodeVersion = (): string => `v${platform === undefined ? '' : nodePackage(root, platform).version}`;

/** What `tartan version` says of an installation. */
async function partsOf(command: readonly string[]): Promise<Record<string, string>> {
  return JSON.parse(await run([...command, 'version', '-o', 'json'])) as Record<string, string>;
}

test('SHA256SUMS has every file, by its hash', () => {
  const lines = readFileSync(join(work, 'SHA256SUMS'), 'utf8').trim().split('\n');
  expect(lines).toHaveLength(3);
  for (const line of lines) {
    const [hash, name = ''] = line.split('  ');
    expect(
      createHash('sha256')
        .update(readFileSync(join(work, name)))
        .digest('hex'),
    ).toBe(hash);
  }
});

describe('the .deb', () => {
  test.each(programs)('it has $name with its man page and its completions', ({ name, folder, section }) => {
    const link = readlinkSync(join(debian, 'usr', folder, name));
    expect(lstatSync(join(debian, 'usr', folder, link)).mode & 0o777).toBe(0o755);
    for (const file of [
      `man/man${section}/${name}.${section}.gz`,
      `bash-completion/completions/${name}`,
      `zsh/vendor-completions/_${name}`,
      `fish/vendor_completions.d/${name}.fish`,
    ])
      expect(lstatSync(join(debian, 'usr/share', file)).size).toBeGreaterThan(100);
  });

  test('its units are those of the source, with their capabilities', () => {
    const places: Readonly<Record<string, string>> = {
      'tartand.service': 'usr/lib/systemd/system',
      // `tartan init` copies it where it is wanted.
      'tartan-etcd.service': 'usr/share/tartan/systemd',
    };
    const units = readdirSync(join(root, 'config/systemd')).filter(name => name.endsWith('.service'));
    expect(units.sort()).toEqual(Object.keys(places).sort());
    for (const [unit, place] of Object.entries(places)) {
      expect(held(join(place, unit))).toBe(readFileSync(join(root, 'config/systemd', unit), 'utf8'));
    }
    expect(held('usr/lib/systemd/system/tartand.service')).toMatch(/^CapabilityBoundingSet=.*CAP_NET_ADMIN.*CAP_BPF/m);
  });

  test('it has the files of config/', () => {
    for (const [folder, place] of Object.entries(configFolders)) {
      expect(readdirSync(join(debian, 'usr', place)).sort()).toEqual(readdirSync(join(root, 'config', folder)).sort());
    }
  });

  test('the administrator has a conffile whose text never changes, every other file has a checksum', () => {
    expect(held('DEBIAN/conffiles')).toBe('/etc/default/tartand\n');
    const hash = createHash('sha256').update(held('etc/default/tartand')).digest('hex');
    expect(hash).toBe('afdef91d9049ee622b059e7073d999fe601b80c11ef4d624705d0a8ab8e7b839');
    execFileSync('md5sum', ['--quiet', '-c', 'DEBIAN/md5sums'], { cwd: debian });
    const files = readdirSync(debian, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name).slice(debian.length + 1))
      .filter(name => !name.startsWith('DEBIAN/') && name !== 'etc/default/tartand');
    expect(files.filter(name => name.startsWith('etc/'))).toEqual([]);
    expect(held('usr/share/tartan/tartand.default')).toBe(readFileSync(join(root, 'config/tartand.default'), 'utf8'));
    expect(
      held('DEBIAN/md5sums')
        .trim()
        .split('\n')
        .map(line => line.slice(34))
        .sort(),
    ).toEqual(files.sort());
  });

  test('its programs run on the Node.js inside, with their native half', async () => {
    const home = join(debian, 'usr/lib/tartan');
    const parts = await partsOf([join(home, 'bin/node'), join(debian, 'usr/bin/tartan')]);
    expect(parts).toMatchObject({ version, node: nodeVersion(), nodePath: join(home, 'bin/node') });
    expect(parts['native']).toMatch(/^[0-9a-f]{12}$/);
    expect(parts['dataProcess']).toBe(join(home, 'dist/tartan-datapath'));
    expect(readFileSync(join(home, 'dist/bundle/tartand.js'), 'utf8')).toMatch(/^#!\/usr\/lib\/tartan\/bin\/node\n/);
  });

  test('the native half wants no newer C library than that of Debian 11', () => {
    for (const file of ['tartan.node', 'tartan-datapath']) {
      const symbols = execFileSync('objdump', ['-T', join(debian, 'usr/lib/tartan/dist', file)], { encoding: 'utf8' });
      const minors = [...symbols.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
      expect(Math.max(...minors)).toBeLessThanOrEqual(31);
    }
  });
});

describe('the package for npm', () => {
  test('it is installed without scripts and a compiler, and runs on this Node.js and on that of the packages', async () => {
    const prefix = join(work, 'global');
    const tarball = join(work, `tartan-${version}.tgz`);
    await run(['npm', 'install', '-g', '--offline', '--ignore-scripts', '--prefix', prefix, tarball]);
    const nodes = [process.execPath, join(debian, 'usr/lib/tartan/bin/node')];
    for (const node of nodes) {
      const parts = await partsOf([node, join(prefix, 'bin/tartan')]);
      expect(parts['native']).toMatch(/^[0-9a-f]{12}$/);
    }
    expect(readdirSync(join(prefix, 'bin')).sort()).toEqual(programs.map(({ name }) => name).sort());
    expect(readdirSync(join(prefix, 'lib/node_modules/tartan/dist')).sort()).toEqual([
      'arm64',
      'bundle',
      'proto',
      'x64',
    ]);
  });

  test('made again with another umask and in another time zone, it has the same bytes', async () => {
    const again = join(work, 'again');
    const make = [process.execPath, join(root, 'dist/package/package.js'), '--fast', '--only', 'npm', '--out', again];
    await run(['sh', '-c', 'umask 077; exec "$@"', 'sh', ...make], { environment: { TZ: 'Asia/Tokyo', LC_ALL: 'C' } });
    const bytes = (folder: string): Buffer => readFileSync(join(folder, `tartan-${version}.tgz`));
    expect(bytes(again).equals(bytes(work))).toBe(true);
  });
});

describe('the tarball', () => {
  test('it holds the files of the .deb', async () => {
    const list = await run(['tar', '-t', '-z', '-f', join(work, `tartan-${version}-linux-${platform?.debian}.tar.gz`)]);
    const names = new Set(list.split('\n').map(name => name.replace(/^[^/]*\//, '')));
    for (const line of held('DEBIAN/md5sums').trim().split('\n')) {
      const name = line.slice(34).replace(/^usr\//, '');
      // Only Debian's own tools read these.
      if (!/^share\/(lintian|doc\/tartan\/changelog)/.test(name)) expect(names).toContain(name);
    }
    expect(names).toContain('install.sh');
  });
});

describe('a host of a real systemd, with neither Node.js nor a compiler', () => {
  let host: SystemdHost;
  const lab = useLab({ nodes: ['b'] }, async opened => {
    await opened.spaces.openHost('s', '192.0.2.9', 1500);
    host = new SystemdHost(opened.spaces, 's', 'nothing');
    await host.boot({ 'docker/daemon.json': '{"exec-opts":["native.cgroupdriver=cgroupfs"]}\n' });
    await host.run(['sh', '-c', `umount /usr/local/bin/node /usr/local/lib/node_modules/tartan; ${without}`]);
    cpSync(join(work, `tartan_${version}_${platform?.debian}.deb`), host.path('/root/tartan.deb'));
  });
  const without =
    'for program in node npm gcc cc clang make tartan tartand; do while file=$(command -v $program); do rm "$file"; done; done';

  test('the package installs, starts nothing, and join makes the host a member', async () => {
    await lab().node('b').bringUp();
    await host.systemctl('start', 'docker');
    // What this machine lacks of its dependencies is a matter of the long tests.
    await host.run(['dpkg', '--force-depends', '-i', '/root/tartan.deb']);
    expect((await host.attempt(['sh', '-c', 'command -v node gcc'])).stdout).toBe('');
    expect(await host.show('tartand', 'ActiveState')).toBe('inactive');
    const said = await host.run(['tartan', 'join', 'http://192.0.2.254:2379', '--restart-docker']);
    expect(said).toContain('UDP passes to 192.0.2.1\n');
    expect(await host.run(['ip', '-br', 'address', 'show', 'docker0'])).toContain(' 10.5.');
    expect(await host.run(['tartan', 'ping'])).toContain('3 of 3');
  });

  test('an upgrade brings the drop-in of Docker that join put in place, but where somebody changed it', async () => {
    const shipped = '/usr/share/tartan/systemd/docker.service.d/tartan.conf';
    const used = '/etc/systemd/system/docker.service.d/tartan.conf';
    const [now, earlier] = [host.read(used), '# an earlier one\n'];
    expect(host.read(shipped)).toBe(now);
    for (const [theirs, after] of [
      [earlier, now],
      ['# changed\n', '# changed\n'],
    ] as const) {
      host.write(shipped, earlier);
      host.write(used, theirs);
      await host.run(['dpkg', '--force-depends', '-i', '/root/tartan.deb']);
      expect(host.read(used)).toBe(after);
    }
    expect(await host.show('tartand', 'ActiveState')).toBe('active');
  });

  test('purged: its link is gone, and Docker runs on', async () => {
    const dockerd = await host.mainPid('docker');
    await host.run(['dpkg', '-P', 'tartan']);
    expect(await host.mainPid('docker')).toBe(dockerd);
    expect((await host.run(['ip', '-br', 'link'])).includes('tartan0')).toBe(false);
  });
});
