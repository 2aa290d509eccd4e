/**
 * `tartan cleanup` stops the data process and removes everything of ours from this host (link, routes, firewall rules,
 * files). Identity and last subnet in the state directory stay, so that the host comes back with both.
 */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { statusSocketPath } from '../admin/socket-path.js';
import { loadNodeId, nodeIdFile } from '../agent/local-node.js';
import { StateFile } from '../agent/state-file.js';
import { linkNames, tunnelDevice } from '../backend/all.js';
import { releaseTun } from '../datapath/kernel/kernel-devices.js';
import { cleanupDatapath } from '../datapath/tun/cleanup.js';
import { unmergeDaemonJson } from '../docker/settings/merge.js';
import { gateFile } from '../docker/settings/settings.js';
import { runCommand } from '../host/firewall/command.js';
import { removeFlannelRules } from '../host/firewall/flannel.js';
import type { HostNetwork } from '../host/host.js';
import { openKernelHost } from '../host/kernel-host.js';
import { messageOf, TartanError } from '../lib/errors.js';
import { silentLog } from '../lib/log.js';
import { native } from '../lib/native.js';
import { formatIpv4, prefixContains } from '../model/ip.js';
import { lockRunDir, lockName } from '../cli/lock.js';
import type { CleanupRequest, CleanupResult } from './ports.js';

/** @throws TartanError DUPLICATE_NODE while a daemon runs, PERMISSION, HOST_REFUSED, DATAPATH_FAILED, CONFIG_INVALID */
export async function cleanUpHost({ runDir, stateDir, flannel }: CleanupRequest): Promise<CleanupResult> {
  if (flannel) return cleanUpFlannel();
  return withoutForwarding(runDir, async pids => {
    const host = openKernelHost({ log: silentLog });
    try {
      const bridge = await bridgeLeft(host, stateDir);
      const { changes } = await host.cleanup(linkNames, { signal: new AbortController().signal });
      const files = removeFiles(runDir, stateDir);
      // The merge is undone last: an operator must first repair a daemon.json that somebody broke.
      const unmerged = unmergeDaemonJson(stateDir);
      return {
        removed: [
          ...pids.map(pid => `data process ${pid}`),
          ...changes.map(change => `by: ${change}`),
          ...files,
          ...(unmerged?.changed ? [`settings of ${unmerged.file}`] : []),
        ],
        left: [
          ...(unmerged?.left ?? []).map(key => `'${key}' in ${unmerged?.file ?? ''} was changed by others and stays`),
          ...bridge,
        ],
      };
    } finally {
      await host.close();
    }
  });
}

/** Docker keeps the address of its bridge in a store of its own, and gives it to docker0 again when --bip is gone. */
async function bridgeLeft(host: HostNetwork, stateDir: string): Promise<readonly string[]> {
  if (!existsSync(nodeIdFile(stateDir))) return [];
  const read = new StateFile(stateDir).read(loadNodeId(stateDir));
  const subnet = read.kind === 'found' ? read.state.subnet : undefined;
  const docker0 = (await host.interfaces()).find(({ name }) => name === 'docker0');
  const address = docker0?.addresses.find(found => subnet && prefixContains(subnet, found.address));
  if (!address) return [];
  const text = `${formatIpv4(address.address)}/${address.prefix.length}`;
  return [
    `docker0 has ${text} and keeps it over a restart of Docker and a reboot, from Docker's own store: for another one put "bip": "172.17.0.1/16" into /etc/docker/daemon.json and run: systemctl restart docker`,
  ];
}

/** @throws TartanError PERMISSION, HOST_REFUSED */
async function cleanUpFlannel(): Promise<CleanupResult> {
  if (!native().hasCapability('CAP_NET_ADMIN'))
    throw new TartanError('PERMISSION', 'this changes the packet filter of this host');
  try {
    return { removed: await removeFlannelRules(runCommand, AbortSignal.timeout(30_000)), left: [] };
  } catch (cause) {
    throw new TartanError('HOST_REFUSED', `the rules of flannel are not all removed: ${messageOf(cause)}`, { cause });
  }
}

/**
 * Stops the data plane of this host, and keeps a daemon from starting until the work is done.
 * @throws TartanError DUPLICATE_NODE while a daemon runs, PERMISSION, DATAPATH_FAILED
 */
export async function withoutForwarding<T>(runDir: string, work: (pids: readonly number[]) => Promise<T>): Promise<T> {
  if (!native().hasCapability('CAP_NET_ADMIN'))
    throw new TartanError('PERMISSION', 'this changes the network of this host');
  return withoutDaemon(runDir, async () =>
    work(await cleanupDatapath({ runDir, device: tunnelDevice, log: silentLog })),
  );
}

/**
 * Keeps a daemon from starting until the work is done; the data plane goes on, by user space alone: the next daemon may be of
 * a build that knows no engine kernel.
 * @throws TartanError DUPLICATE_NODE while a daemon runs, CONFIG_INVALID
 */
export async function withoutDaemon<T>(runDir: string, work: () => Promise<T>): Promise<T> {
  const unlock = existsSync(runDir) ? lockRunDir(runDir) : (): void => {};
  try {
    // First, because etcd may be silent, and the programs of this build would drop everything after the lease's deadline.
    releaseTun(tunnelDevice);
    return await work();
  } finally {
    unlock();
  }
}

/** Removes what a daemon of this state directory wrote, and entries of the run directory with one of our names. */
function removeFiles(runDir: string, stateDir: string): readonly string[] {
  const written = new StateFile(stateDir).writtenFiles();
  const envFile = join(runDir, 'docker.env');
  const ours = [envFile, gateFile(envFile), statusSocketPath(runDir), join(runDir, lockName)];
  const gone = [...new Set([...written, ...ours])].filter(path => existsSync(path));
  for (const path of gone) rmSync(path, { force: true });
  if (existsSync(runDir) && readdirSync(runDir).length === 0) rmdirSync(runDir);
  return gone;
}
