/** The Debian package. Sources: deb(5), deb-control(5), dpkg-deb(1), Debian Policy 6 (maintainer scripts). */
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { glibcFloor, type Platform } from './platforms.js';
import { compressed, type Release } from './program-tree.js';
import { run } from './run.js';
import { emptyTree, type Tree } from './tree.js';

/**
 * The administrator's conffile. Its text never changes, examples stand elsewhere: dpkg asks about one that both sides have
 * changed, and an upgrade without a terminal fails then.
 */
const settingsFile = 'etc/default/tartand';

/**
 * @param fast leaves the files as they are, which tests want
 * @returns the name of the file, below `into`
 */
export function makeDeb(release: Release, platform: Platform, programs: Tree, into: string, fast: boolean): string {
  const { root, cache, version, epoch } = release;
  const tree = emptyTree(join(cache, 'package', platform.debian, 'deb'));
  tree.adopt(programs, 'usr');
  tree.write('usr/share/doc/tartan/changelog.gz', compressed(debianChangelog(version, epoch)));
  tree.copy(join(root, 'config/package/debian/lintian-overrides'), 'usr/share/lintian/overrides/tartan');
  tree.copy(join(root, 'config/package/debian/tartand.default'), settingsFile);
  const files = tree.names();
  tree.write('DEBIAN/control', controlFile(version, platform, installedSize(tree, files)));
  tree.write('DEBIAN/conffiles', `/${settingsFile}\n`);
  tree.write('DEBIAN/md5sums', checksums(tree, files));
  for (const script of ['preinst', 'postinst', 'prerm', 'postrm']) {
    tree.copy(join(root, 'config/package/debian', script), join('DEBIAN', script), 0o755);
  }
  const name = `tartan_${version}_${platform.debian}.deb`;
  mkdirSync(into, { recursive: true });
  run(
    'dpkg-deb',
    ['--root-owner-group', ...(fast ? ['-Znone'] : ['-Zxz', '-z9']), '--build', tree.root, join(into, name)],
    {
      SOURCE_DATE_EPOCH: `${epoch}`,
      DPKG_DEB_THREADS_MAX: '1',
    },
  );
  return name;
}

const maintainer = 'The authors of tartan <tartan@tartan.invalid>';

/** What Debian's tools read of a changelog (deb-changelog(5)); the words are in CHANGELOG.md. */
function debianChangelog(version: string, epoch: number): string {
  const date = new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
  return `tartan (${version}) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md.gz.\n\n -- ${maintainer}  ${date}\n`;
}

function controlFile(version: string, platform: Platform, size: number): string {
  return [
    'Package: tartan',
    `Version: ${version}`,
    `Architecture: ${platform.debian}`,
    'Section: net',
    'Priority: optional',
    `Maintainer: ${maintainer}`,
    `Installed-Size: ${size}`,
    `Depends: libc6 (>= ${glibcFloor}), libgcc-s1, libstdc++6 (>= 10), iptables | nftables, kmod, systemd`,
    'Suggests: docker.io | docker-ce, etcd-server, etcd-client',
    'Description: overlay network for Docker hosts',
    ' Every host leases a subnet out of one cluster network kept in etcd, the bridge',
    ' of Docker gets that subnet, and traffic between containers on different hosts',
    ' travels in UDP. It has the keys, files, wire format and flags of flannel.',
    ' .',
    ' The package holds the Node.js that it runs on. Installing it starts nothing:',
    ' "tartan join" does, once for each host.',
    '',
  ].join('\n');
}

/** In KiB, as dpkg-gencontrol(1) counts: each file by whole KiB, and one for a link. */
function installedSize(tree: Tree, files: readonly string[]): number {
  return files.reduce((sum, name) => {
    const file = lstatSync(tree.path(name));
    return sum + (file.isSymbolicLink() ? 1 : Math.ceil(file.size / 1024));
  }, 0);
}

function checksums(tree: Tree, files: readonly string[]): string {
  return files
    .filter(name => name !== settingsFile && !lstatSync(tree.path(name)).isSymbolicLink())
    .map(
      name =>
        `${createHash('md5')
          .update(readFileSync(tree.path(name)))
          .digest('hex')}  ${name}\n`,
    )
    .join('');
}
