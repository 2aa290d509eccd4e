/**
 * The image of a container: the programs, and of Debian the C library, iptables and nft, from the packages that set-up
 * fetched. The archive is an OCI layout that `docker load` of any version reads, too.
 *
 * Sources: OCI Image Format Specification 1.1 (layout, index, manifest, config); Docker Image Specification 1.2
 * (manifest.json).
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Platform } from './platforms.js';
import type { Release } from './program-tree.js';
import { run } from './run.js';
import { Tree, writeTar } from './tree.js';

/** The name that `docker load` gives the image, before its version. */
const imageName = 'tartan';

/** What Debian's packages bring that a program never reads. */
const unread = ['usr/share/man', 'usr/share/locale', 'usr/share/lintian', 'usr/share/bug', 'usr/share/doc-base'];

const mediaType = (kind: string): string => `application/vnd.oci.image.${kind}`;

/** @returns the name of the file, below `into` */
export function makeImage(release: Release, platform: Platform, programs: Tree, into: string, level: number): string {
  const { cache, version, epoch } = release;
  const work = join(cache, 'package', platform.debian, 'image');
  rmSync(work, { recursive: true, force: true });
  const root = new Tree(join(work, 'root'));
  addDebian(cache, platform, root);
  root.adopt(programs, 'usr');
  writeTar(root, join(work, 'layer.tar'), epoch);
  const archive = new Tree(join(work, 'archive'));
  const plain = readFileSync(join(work, 'layer.tar'));
  const layer = addBlob(archive, mediaType('layer.v1.tar+gzip'), gzipSync(plain, { level }));
  const config = addBlob(archive, mediaType('config.v1+json'), json(imageConfig(release, platform, digestOf(plain))));
  const manifest = { schemaVersion: 2, mediaType: mediaType('manifest.v1+json'), config, layers: [layer] };
  const descriptor = addBlob(archive, manifest.mediaType, json(manifest));
  archive.write('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  archive.write('index.json', json(imageIndex(descriptor, version, platform)));
  const tags = [`${imageName}:${version}`];
  archive.write(
    'manifest.json',
    json([{ Config: blobPath(config.digest), RepoTags: tags, Layers: [blobPath(layer.digest)] }]),
  );
  const name = `tartan-${version}-image-${platform.debian}.tar`;
  writeTar(archive, join(into, name), epoch);
  return name;
}

/** Unpacks Debian's packages, and makes the links that their scripts would make. */
function addDebian(cache: string, platform: Platform, root: Tree): void {
  const folder = join(cache, 'image', platform.debian);
  const packages = existsSync(folder) ? readdirSync(folder).filter(file => file.endsWith('.deb')) : [];
  if (packages.length === 0) throw new Error(`${folder} has no packages: run test/support/setup.sh package`);
  for (const file of packages.sort()) run('dpkg-deb', ['-x', join(folder, file), root.root]);
  for (const folder of unread) rmSync(root.path(folder), { recursive: true, force: true });
  for (const name of ['iptables', 'iptables-save', 'iptables-restore'])
    root.link('xtables-nft-multi', `usr/sbin/${name}`);
  root.write('etc/passwd', 'root:x:0:0:root:/root:/bin/false\n');
  root.write('etc/group', 'root:x:0:\n');
}

function imageConfig({ root, version, epoch }: Release, platform: Platform, layerId: string): unknown {
  const created = new Date(epoch * 1000).toISOString();
  return {
    created,
    architecture: platform.debian,
    os: 'linux',
    config: {
      Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', ...unitEnvironment(root)],
      Entrypoint: ['/usr/sbin/tartand'],
      Labels: { 'org.opencontainers.image.title': 'tartan', 'org.opencontainers.image.version': version },
    },
    rootfs: { type: 'layers', diff_ids: [layerId] },
    history: [{ created, created_by: 'npm run package' }],
  };
}

/** @returns the variables that the unit sets (systemd.exec(5)): what Node.js and malloc are told */
function unitEnvironment(root: string): readonly string[] {
  const unit = readFileSync(join(root, 'config/systemd/tartand.service'), 'utf8');
  const line = /^Environment=(.*)$/m.exec(unit)?.[1] ?? '';
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
}

function imageIndex(descriptor: Descriptor, version: string, platform: Platform): unknown {
  const annotations = {
    'org.opencontainers.image.ref.name': version,
    'io.containerd.image.name': `docker.io/library/${imageName}:${version}`,
  };
  const manifests = [{ ...descriptor, platform: { architecture: platform.debian, os: 'linux' }, annotations }];
  return { schemaVersion: 2, mediaType: mediaType('index.v1+json'), manifests };
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;

function addBlob(archive: Tree, type: string, bytes: Uint8Array): Descriptor {
  const digest = digestOf(bytes);
  archive.write(blobPath(digest), bytes);
  return { mediaType: type, digest, size: bytes.length };
}
