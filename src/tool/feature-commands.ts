/** The commands for the features that leases announce: what every host announces, and this host's withdrawn. */
import { apiVersion } from '../agent/status.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import type { Features } from '../model/features.js';
import { comparePrefixes, formatPrefix } from '../model/ip.js';
import type { Withdrawal } from '../store/withdraw-features.js';
import { print, requireNodeId, withStore, type Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { formatTable, type Column } from './table.js';

interface FeatureItem {
  readonly subnet: string;
  /** null in an entry that flannel wrote. */
  readonly nodeId: string | null;
  /** Without members for a host that announces none. */
  readonly features: Features;
}

const columns: readonly Column<FeatureItem>[] = [
  { title: 'SUBNET', cell: item => item.subnet },
  { title: 'NODE', cell: item => item.nodeId ?? '-' },
  { title: 'FEATURES', cell: item => describeFeatures(item.features) || '-' },
];

export async function showFeatures(call: Call): Promise<ExitStatus> {
  const { leases } = await withStore(call, store => store.listLeases());
  const items = [...leases]
    .sort((a, b) => comparePrefixes(a.subnet, b.subnet))
    .map(({ subnet, nodeId, features }): FeatureItem => {
      return { subnet: formatPrefix(subnet), nodeId: nodeId ?? null, features };
    });
  print(call, { apiVersion, kind: 'FeatureList', items }, (output, paint) =>
    formatTable(columns, items, output, paint),
  );
  return exitStatus.ok;
}

/** The data plane goes on: a feature is received for a while after it was withdrawn. */
export async function withdrawOwnFeatures(call: Call): Promise<ExitStatus> {
  const nodeId = await requireNodeId(call);
  const { runDir } = call.settings;
  const withdrawals = await withStore(call, store =>
    call.io.ports.withoutDaemon(runDir, () => store.withdrawFeatures(nodeId)).catch(explainRunning),
  );
  const items = withdrawals.map(({ subnet, withdrawn, features }) => {
    return { subnet: formatPrefix(subnet), withdrawn, features };
  });
  const lines = withdrawals.map(describeWithdrawal);
  if (lines.length === 0) lines.push('this host has no lease');
  const document = { apiVersion, kind: 'FeatureWithdrawal', nodeId, items };
  print(call, document, () => lines.map(line => `${line}\n`).join(''));
  return exitStatus.ok;
}

/** @returns an empty text for none */
function describeFeatures({ probe, inner6, kernel, backends = {} }: Features): string {
  return [
    ...(probe ? ['probe'] : []),
    ...(inner6 ? ['inner6'] : []),
    ...(kernel ? [`kernel (port ${kernel.port}, VNI ${kernel.vni})`] : []),
    ...Object.keys(backends).map(name => `backend ${name}`),
  ].join(', ');
}

function describeWithdrawal({ subnet, withdrawn, features }: Withdrawal): string {
  const lease = `the lease of ${formatPrefix(subnet)}`;
  if (!withdrawn) return `${lease} announces no features`;
  return `removed from ${lease}: ${describeFeatures(features) || 'features that this version does not know'}`;
}

function explainRunning(cause: unknown): never {
  if (!isTartanError(cause, 'DUPLICATE_NODE')) throw cause;
  const reason = `the daemon of this host would write its features again: ${messageOf(cause)}`;
  const next = 'stop it first (systemctl stop tartand), then run tartan features withdraw';
  throw new ToolError(exitStatus.error, reason, next, { cause });
}
