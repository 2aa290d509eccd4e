/** Runs each command of the tool: it prints its document or its table, and returns the exit status or throws. */
import { readFileSync } from 'node:fs';
import { nodeIdFile } from '../agent/local-node.js';
import { apiVersion, type Status } from '../agent/status.js';
import { describeHiddenPlace } from '../cli/install-place.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import { readBounded } from '../lib/file.js';
import { nodeIdPattern } from '../model/node.js';
import { formatLeaseList, leaseListOf } from './lease-view.js';
import { formatNetworkView, networkViewOf, type NetworkView } from './network-view.js';
import type { ToolIo, ToolStore } from './ports.js';
import { formatStatus } from './status-view.js';
import { openPaint, withoutControls, type Output, type Paint } from './table.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import type { ToolSettings } from './settings.js';

export interface Call {
  readonly io: ToolIo;
  readonly settings: ToolSettings;
  readonly output: Output;
}

export async function showLeases(call: Call): Promise<ExitStatus> {
  // The options are read before etcd is asked: a wrong option is found first.
  const { nodeId, runDir, stateDir } = call.settings;
  const listing = await withStore(call, store => store.listLeases());
  const list = leaseListOf(listing, nodeId ?? (await findOwnNodeId(call.io, runDir, stateDir)));
  print(call, list, (output, paint) => formatLeaseList(list, output, paint));
  if (call.output === 'wide') {
    for (const { subnet, nodeId, reserved } of list.kept) {
      const why = reserved ? 'reserved for' : 'kept for';
      call.io.stderr(withoutControls(`note: ${subnet} is ${why} node ${nodeId}, which has no lease`) + '\n');
    }
    for (const { key, reason } of list.rejected)
      call.io.stderr(withoutControls(`note: refused '${key}': ${reason}`) + '\n');
  }
  return exitStatus.ok;
}

/** @param check exit 2 unless the daemon is ready and nothing impairs it */
export async function showStatus(call: Call, check: boolean): Promise<ExitStatus> {
  const status = await daemonStatus(call);
  print(call, status, (output, paint) => formatStatus(status, output, paint));
  const well = status.ready && status.health?.state !== 'impaired';
  return check && !well ? exitStatus.checkFailed : exitStatus.ok;
}

/** @throws ToolError with the status for a daemon that cannot be reached */
export async function daemonStatus(call: Call): Promise<Status> {
  const reading = await call.io.ports.readStatus(call.settings.runDir);
  if (reading.kind === 'status') return reading.status;
  throw daemonError(reading.reason);
}

export function daemonError(reason: string): ToolError {
  const place = describeHiddenPlace();
  return new ToolError(
    exitStatus.daemonUnreachable,
    `tartand cannot be asked: ${reason}`,
    'check that it runs (systemctl status tartand), and --run-dir where it uses another directory' +
      (place === undefined ? '' : `; ${place}`),
  );
}

export async function getConfig(call: Call): Promise<ExitStatus> {
  const text = await withStore(call, store => store.getNetworkText());
  if (text === undefined) throw await noNetworkError(call);
  printNetwork(call, viewOrFailedCheck(text, 'replace it with: tartan config set FILE'));
  return exitStatus.ok;
}

/** @param source a file, `-` for standard input, or the document itself */
export async function setConfig(call: Call, source: string): Promise<ExitStatus> {
  // Not trim(): a byte order mark is told, as `config validate` does.
  const text = (await readDocument(call.io, source)).replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '');
  const view = viewOrFailedCheck(text, 'nothing was written; put the document right and run it again');
  await withStore(call, store => store.putNetworkText(text));
  printNetwork(call, view);
  return exitStatus.ok;
}

export async function validateConfig(call: Call, source: string): Promise<ExitStatus> {
  const text = await readDocument(call.io, source);
  printNetwork(call, viewOrFailedCheck(text, 'put the document right and run it again'));
  return exitStatus.ok;
}

/** @param flannel only the rules that flannel left behind */
export async function cleanUp(call: Call, flannel: boolean): Promise<ExitStatus> {
  const { runDir, stateDir } = call.settings;
  const { removed, left } = await call.io.ports.cleanup({ runDir, stateDir, flannel });
  const document = { apiVersion, kind: 'Cleanup', removed };
  const lines =
    removed.length === 0
      ? [`nothing of ${flannel ? 'flannel' : 'tartan'} was here`]
      : removed.map(line => `removed ${line}`);
  print(call, document, () => lines.map(line => `${withoutControls(line)}\n`).join(''));
  for (const line of left) call.io.stderr(`note: ${withoutControls(line)}\n`);
  return exitStatus.ok;
}

export async function noNetworkError(call: Call): Promise<ToolError> {
  const { options } = await call.settings.etcd();
  return new ToolError(
    exitStatus.error,
    `there is no network document in etcd at ${options.prefix}/config`,
    'write one with: tartan config set FILE',
  );
}

export function print(call: Call, document: object, format: (output: 'table' | 'wide', paint: Paint) => string): void {
  const { io, output } = call;
  io.stdout(output === 'json' ? `${JSON.stringify(document, undefined, 2)}\n` : format(output, openPaint(io)));
}

function printNetwork(call: Call, view: NetworkView): void {
  print(call, view, (output, paint) => formatNetworkView(view, output, paint));
  if (call.output === 'json') return;
  for (const warning of view.warnings) call.io.stderr(`note: ${withoutControls(warning)}\n`);
}

function viewOrFailedCheck(text: string, next: string): NetworkView {
  try {
    return networkViewOf(text);
  } catch (cause) {
    throw new ToolError(exitStatus.checkFailed, messageOf(cause), next, { cause });
  }
}

/** @throws ToolError that says which place named the endpoints when etcd cannot be reached */
export async function withStore<T>(call: Call, use: (store: ToolStore) => Promise<T>): Promise<T> {
  const { options, source } = await call.settings.etcd();
  const store = await call.io.ports.openStore(options);
  try {
    return await use(store);
  } catch (cause) {
    if (!isTartanError(cause, 'STORE_UNAVAILABLE')) throw cause;
    const next = `check that etcd runs at ${options.endpoints.join(',')} (from ${source}); --etcd-endpoints names another`;
    throw new ToolError(exitStatus.etcdUnreachable, messageOf(cause), next, { cause });
  } finally {
    await store.close();
  }
}

/** Asks the daemon that runs here for its node id, else reads the state directory; undefined where neither has one. */
export async function findOwnNodeId(io: ToolIo, runDir: string, stateDir: string): Promise<string | undefined> {
  const reading = await io.ports.readStatus(runDir);
  if (reading.kind === 'status') return reading.status.node.id;
  const kept = readBounded(nodeIdFile(stateDir), 256)?.trimEnd() ?? '';
  return nodeIdPattern.test(kept) ? kept : undefined;
}

/** @throws ToolError where neither the options nor this host name a node */
export async function requireNodeId({ io, settings }: Call): Promise<string> {
  const { nodeId, runDir, stateDir } = settings;
  const own = nodeId ?? (await findOwnNodeId(io, runDir, stateDir));
  if (own !== undefined) return own;
  throw new ToolError(
    exitStatus.error,
    `this host has no node id: no daemon runs here, and ${stateDir} has none`,
    'name the host with --node-id, or the directory with --state-dir',
  );
}

async function readDocument(io: ToolIo, source: string): Promise<string> {
  if (/^\s*[{[]/.test(source)) return source;
  try {
    return source === '-' ? await io.stdin() : readFileSync(source, 'utf8');
  } catch (cause) {
    const name = source === '-' ? 'standard input' : source;
    throw new ToolError(
      exitStatus.error,
      `${name} cannot be read (${messageOf(cause)})`,
      "give a file, '-' for standard input, or the document itself in quotes",
      { cause },
    );
  }
}
