/** The cluster's etcd where this host has it: the facts before it is made, its administrator's login, its users. */
import { randomBytes } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { arch } from 'node:os';
import { readEnvironmentText } from '../cli/environment-file.js';
import { findProgram } from '../lib/child-environment.js';
import { TartanError } from '../lib/errors.js';
import { readBounded, removeEmptyDirectory } from '../lib/file.js';
import { Rtnetlink } from '../host/netlink/rtnetlink.js';
import { NetlinkSocket } from '../host/netlink/socket.js';
import { native } from '../lib/native.js';
import { formatIpv4, formatPrefix, type Prefix } from '../model/ip.js';
import { isTooOld } from '../store/etcd/examine.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { EtcdMembers } from '../store/etcd/members.js';
import { EtcdUsers, roleName } from '../store/etcd/users.js';
import { caFingerprint } from './certificates.js';
import { etcdData, etcdPaths, type EtcdFacts, type OwnNetwork } from './etcd-plan.js';
import { readUnit } from './setup-state.js';
import { runProgram } from './step.js';
import type { JoinToken } from './token.js';

export function hasOwnEtcd(): boolean {
  return existsSync(etcdPaths.settings);
}

export async function readEtcdFacts(): Promise<EtcdFacts> {
  const isDebian = findProgram('apt-get') !== undefined;
  return {
    version: findProgram('etcd') === undefined ? undefined : await readEtcdVersion(),
    openssl: findProgram('openssl') !== undefined,
    theirs: await readUnit('etcd.service'),
    packages: isDebian ? await aptPackages() : undefined,
    machine: arch(),
  };
}

/** Debian and Ubuntu have it as etcd-server and etcd-client since the split, as etcd before. */
async function aptPackages(): Promise<readonly string[]> {
  const shown = await runProgram(['apt-cache', 'show', '--quiet', 'etcd-server']).catch(() => '');
  return shown.includes('Package:') ? ['etcd-server', 'etcd-client'] : ['etcd'];
}

async function readEtcdVersion(): Promise<string> {
  const text = await runProgram(['etcd', '--version']);
  return /etcd Version:\s*(\S+)/.exec(text)?.[1] ?? '';
}

/** Ends the mask of the distribution's etcd. What its package has enabled would start at the next boot. */
export async function freeTheirEtcd(): Promise<void> {
  await runProgram(['systemctl', '--quiet', 'unmask', 'etcd.service']);
  if ((await readUnit('etcd.service')).load !== 'not-found')
    await runProgram(['systemctl', '--quiet', 'disable', 'etcd.service']);
}

/** @throws TartanError HOST_REFUSED */
export async function checkEtcdVersion(): Promise<void> {
  const version = await readEtcdVersion();
  if (isTooOld(version || '0'))
    throw new TartanError(
      'HOST_REFUSED',
      `etcd here is ${version || 'of an unknown version'}, expected 3.4 or later: install a later one, or give --etcd-endpoints`,
    );
}

export function removeEtcdData(): void {
  rmSync(etcdData, { recursive: true, force: true });
}

export function removeCertificates(): void {
  const { ca, caKey, certificate, key } = etcdPaths;
  for (const path of [ca, caKey, certificate, key]) rmSync(path, { force: true });
  for (const path of ['/etc/tartan/etcd', '/etc/tartan']) removeEmptyDirectory(path);
}

/** Routes and addresses of this host that touch a network. */
export async function readOwnNetworks(): Promise<readonly OwnNetwork[]> {
  const rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
  try {
    const links = await rtnetlink.links();
    const nameOf = (index: number | undefined): string => links.find(link => link.index === index)?.name ?? 'no link';
    const addresses = await rtnetlink.addresses();
    const routes = await rtnetlink.routes(() => true);
    return [
      ...addresses.map(({ address, length, linkIndex }) => ({
        prefix: { base: address, length: 32 } as Prefix,
        text: `the address ${formatIpv4(address)}/${length} on ${nameOf(linkIndex)}`,
      })),
      ...routes.map(({ destination, linkIndex }) => ({
        prefix: destination,
        text: `the route ${formatPrefix(destination)} on ${nameOf(linkIndex)}`,
      })),
    ];
  } finally {
    rtnetlink.close();
  }
}

/** @throws TartanError CONFIG_INVALID where this host is not that of the cluster's etcd */
export function administratorOptions(prefix: string): EtcdOptions {
  const text = readBounded(etcdPaths.administrator, 4096);
  const variables = readEnvironmentText(text ?? '');
  const [username, ...rest] = (variables.get('ETCDCTL_USER') ?? '').split(':');
  const endpoint = variables.get('ETCDCTL_ENDPOINTS');
  if (!username || endpoint === undefined)
    throw new TartanError(
      'CONFIG_INVALID',
      `${etcdPaths.administrator} is not here: tokens are made on the host where tartan init made the cluster's etcd`,
    );
  return { endpoints: [endpoint], prefix, caFile: etcdPaths.ca, username, password: rest.join(':') };
}

export function newSecret(): string {
  return randomBytes(24).toString('base64url');
}

/** Makes a user of etcd and the token that brings its password, which is kept nowhere. */
export async function newToken(prefix: string, name: string): Promise<JoinToken> {
  const options = administratorOptions(prefix);
  const password = newSecret();
  const users = new EtcdUsers(options);
  try {
    await users.add(name, password, roleName);
  } finally {
    users.close();
  }
  return { endpoints: await clientUrls(options), prefix, ca: caFingerprint(), user: name, password };
}

/** Where the members that vote are reached; that of this host comes first. */
async function clientUrls(options: EtcdOptions): Promise<readonly string[]> {
  const members = new EtcdMembers(options);
  try {
    const urls = (await members.list()).flatMap(({ isLearner, clientUrls: own }) => (isLearner ? [] : own));
    return [...new Set([...options.endpoints, ...urls])];
  } finally {
    members.close();
  }
}

export function newUserName(): string {
  return `host-${randomBytes(4).toString('hex')}`;
}
