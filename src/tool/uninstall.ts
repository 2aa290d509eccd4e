/** `tartan uninstall`: takes back what `tartan join` and `tartan init` did to this host. */
import { findFlag } from '../cli/flags.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import { readBounded } from '../lib/file.js';
import { readSetupState } from '../setup/setup-state.js';
import { existsSync } from 'node:fs';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import { etcdPaths, hasMaskedTheirs, planEtcdRemoval } from '../setup/etcd-plan.js';
import { freeTheirEtcd, hasOwnEtcd, removeEtcdData } from '../setup/own-etcd.js';
import { planUninstall } from '../setup/join-plan.js';
import { runSetup, type SetupStep } from '../setup/step.js';
import { findOwnNodeId, withStore, type Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { requireRoot } from './join.js';
import type { OptionValues } from './settings.js';

const runDir = findFlag('run-dir')?.fallback ?? '';
const stateDir = findFlag('state-dir')?.fallback ?? '';
const maxSettings = 64 * 1024;

export async function uninstall(call: Call, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  const say = (line: string): void => call.io.stdout(`${line}\n`);
  const dryRun = values['dryRun'] === true;
  const state = await readSetupState();
  const left: string[] = [];
  // The settings are read while the daemon and its files are there.
  const leave = await leaveStep(call, left);
  const etcd = hasOwnEtcd() ? await etcdSteps(call, values['destroyEtcd'] === true) : [];
  await runSetup([...planUninstall(state, leave, cleanupStep(call, left)), ...etcd], {
    say,
    dryRun,
    settle: [['systemctl', 'daemon-reload']],
  });
  for (const line of left) say(`note: ${line}`);
  if (!dryRun && state.docker.active === 'active') say('left to do: systemctl restart docker   (its containers stop)');
  return exitStatus.ok;
}

/** @throws ToolError while other hosts have leases in the etcd of this one, or that cannot be known */
async function etcdSteps(call: Call, destroy: boolean): Promise<readonly SetupStep[]> {
  const own = await findOwnNodeId(call.io, runDir, stateDir);
  if (!destroy && !existsSync(etcdPaths.administrator))
    throw new ToolError(
      exitStatus.checkFailed,
      "this host has one of the members of the cluster's etcd",
      'on the host of tartan init: tartan etcd remove ADDRESS; then here: tartan uninstall --destroy-etcd',
    );
  if (!destroy) {
    const leases = await withStore(call, store => store.listLeases()).then(
      listing => listing.leases,
      (error: unknown) => messageOf(error),
    );
    if (typeof leases === 'string' || leases.some(({ nodeId }) => nodeId !== own)) {
      const why =
        typeof leases === 'string'
          ? `whose leases are in the etcd of this host cannot be known: ${leases}`
          : `the etcd of this host has the leases of others: ${leases.flatMap(lease => (lease.nodeId === own ? [] : [`${formatPrefix(lease.subnet)} of ${formatIpv4(lease.publicIp)}`])).join(', ')}`;
      throw new ToolError(
        exitStatus.checkFailed,
        why,
        'uninstall those hosts first, or end the cluster: tartan uninstall --destroy-etcd',
      );
    }
  }
  const files = Object.values(etcdPaths).filter(path => existsSync(path));
  const settings = readBounded(etcdPaths.settings, maxSettings) ?? '';
  return planEtcdRemoval(files, async () => removeEtcdData(), hasMaskedTheirs(settings) ? freeTheirEtcd : undefined);
}

async function leaveStep(call: Call, left: string[]): Promise<SetupStep> {
  const nodeId = await findOwnNodeId(call.io, runDir, stateDir);
  await call.settings.etcd().catch(() => undefined);
  const leave = async (): Promise<void> => {
    if (nodeId === undefined) return;
    try {
      await withStore(call, async store => {
        await store.getNetworkText();
        await call.io.ports.withoutForwarding(runDir, () => store.releaseNode(nodeId));
      });
    } catch (error) {
      // A host is taken out of a cluster that is gone, too.
      const isUnreachable = error instanceof ToolError && error.status === exitStatus.etcdUnreachable;
      if (!isUnreachable && !isTartanError(error, 'PERMISSION')) throw error;
      left.push(`the subnet stays this host's until its lease ends: ${messageOf(error)}`);
    }
  };
  return { text: 'give the subnet of this host away', undo: 'tartan join', action: { kind: 'call', do: leave } };
}

function cleanupStep(call: Call, left: string[]): SetupStep {
  const clean = async (): Promise<void> => {
    const result = await call.io.ports.cleanup({ runDir, stateDir, flannel: false });
    left.push(...result.left);
  };
  return {
    text: 'remove link, routes, rules and files of tartan (tartan cleanup)',
    undo: 'tartan join',
    action: { kind: 'call', do: clean },
  };
}
