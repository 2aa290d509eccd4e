/**
 * The commands that change who has which subnet: reservations, and a host's planned leave. They write to etcd in
 * guarded transactions, which a running daemon sees in its own watch.
 */
import { apiVersion } from '../agent/status.js';
import { runsBackend } from '../backend/all.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import { formatIpv4, formatPrefix, isUnicastHost, parsePrefix, prefixContains, readIpv4, shown } from '../model/ip.js';
import type { Prefix } from '../model/ip.js';
import type { BackendInfo } from '../model/lease.js';
import { parseNetworkConfig, type NetworkConfig } from '../model/network.js';
import type { Holder, Refusal, ReserveResult } from '../store/reservation.js';
import type { ReleaseResult } from '../store/reservation.js';
import type { ToolStore } from './ports.js';
import { noNetworkError, print, requireNodeId, withStore, type Call } from './commands.js';
import { exitStatus, ToolError, usageError, type ExitStatus } from './error.js';

export interface ReserveOptions {
  readonly subnet: string | undefined;
  readonly publicIp: string | undefined;
  /** --node-id is on the command line, not only in the environment. */
  readonly nodeIdGiven: boolean;
}

export async function reserveLease(call: Call, options: ReserveOptions): Promise<ExitStatus> {
  const subnet = options.subnet === undefined ? undefined : readSubnet(options.subnet);
  const holder = await readHolder(call, options);
  const result = await withStore(call, async store => {
    const network = await readNetwork(call, store);
    if (holder.kind === 'address' && prefixContains(network.network, holder.publicIp))
      throw usageError(
        `--public-ip ${formatIpv4(holder.publicIp)} is inside the overlay network, expected an outer address`,
      );
    return store.reserve({ network, subnet, holder, backend: unseenBackend(network) });
  });
  if (result.kind === 'refused') throw refusalError(result);
  const document = {
    apiVersion,
    kind: 'Reservation',
    subnet: formatPrefix(result.subnet),
    nodeId: holder.kind === 'node' ? holder.nodeId : null,
    publicIp: holder.kind === 'address' ? formatIpv4(holder.publicIp) : null,
    before: result.before,
  };
  print(call, document, () => `${reservedText(result, holder)}\n`);
  return exitStatus.ok;
}

export async function releaseLease(call: Call, text: string, force: boolean): Promise<ExitStatus> {
  const subnet = readSubnet(text);
  const result = await withStore(call, store => store.release(subnet, force));
  if (result.kind === 'refused') throw refusalError(result);
  const document = {
    apiVersion,
    kind: 'Release',
    subnet: formatPrefix(subnet),
    state: result.kind,
    nodeId: result.kind === 'free' ? null : result.nodeId,
  };
  print(call, document, () => `${releasedText(formatPrefix(subnet), result)}\n`);
  return exitStatus.ok;
}

/** The data plane is stopped first: a host that still forwards for a subnet must not release it. */
export async function leave(call: Call): Promise<ExitStatus> {
  const { runDir } = call.settings;
  const nodeId = await requireNodeId(call);
  const left = await withStore(call, async store => {
    // etcd must answer before the data plane is stopped: a host is not stopped for nothing.
    await store.getNetworkText();
    return call.io.ports.withoutForwarding(runDir, () => store.releaseNode(nodeId)).catch(explainRunning);
  });
  const released = left.map(({ subnet, reserved }) => ({ subnet: formatPrefix(subnet), reserved }));
  const lines = released.map(({ subnet, reserved }) =>
    reserved ? `left ${subnet}, which stays reserved for this host` : `left ${subnet}, which is free now`,
  );
  if (lines.length === 0) lines.push('this host had no subnet');
  print(call, { apiVersion, kind: 'Leave', nodeId, released }, () => lines.map(line => `${line}\n`).join(''));
  return exitStatus.ok;
}

async function readHolder(call: Call, { publicIp, nodeIdGiven }: ReserveOptions): Promise<Holder> {
  if (publicIp !== undefined && nodeIdGiven)
    throw usageError('--node-id and --public-ip are given, expected one of them');
  if (publicIp !== undefined) {
    const address = readIpv4(publicIp);
    if (address === undefined || !isUnicastHost(address))
      throw usageError(`--public-ip '${shown(publicIp)}' is not an address of a host, expected one such as 192.0.2.1`);
    return { kind: 'address', publicIp: address };
  }
  return { kind: 'node', nodeId: await requireNodeId(call) };
}

function readSubnet(text: string): Prefix {
  try {
    return parsePrefix(text);
  } catch (cause) {
    throw new ToolError(exitStatus.usage, messageOf(cause), 'give a subnet such as 10.5.1.0/24', { cause });
  }
}

async function readNetwork(call: Call, store: ToolStore): Promise<NetworkConfig> {
  const text = await store.getNetworkText();
  if (text === undefined) throw await noNetworkError(call);
  return parseNetworkConfig(text);
}

/**
 * Returns what a host that was not seen yet is reserved with. A backend that this version does not run may need data
 * in every lease, which only its host has, so it is not named.
 */
function unseenBackend({ backend }: NetworkConfig): BackendInfo {
  return { type: runsBackend(backend.type) ? backend.type : 'udp', data: undefined };
}

function reservedText({ subnet, before }: Exclude<ReserveResult, Refusal>, holder: Holder): string {
  const whose = holder.kind === 'node' ? `node ${holder.nodeId}` : `the host at ${formatIpv4(holder.publicIp)}`;
  const text = formatPrefix(subnet);
  switch (before) {
    case 'free':
      return `${text} is reserved for ${whose}, which takes it at its next start`;
    case 'leased':
      return `${text} is reserved for ${whose}, which goes on using it`;
    case 'reserved':
      return `${text} was reserved for ${whose} already`;
  }
}

function releasedText(subnet: string, result: Exclude<ReleaseResult, Refusal>): string {
  switch (result.kind) {
    case 'free':
      return `${subnet} is free`;
    case 'leased':
      return `${subnet} is no longer reserved; node ${result.nodeId} is alive and goes on with an ordinary lease`;
    case 'ending':
      return (
        `${subnet} is no longer reserved; node ${result.nodeId} did not answer: its lease ends in ${result.seconds} s ` +
        `unless it comes back, and the subnet stays kept for it as after any lease (--force frees it at once)`
      );
  }
}

function refusalError({ reason, next }: Refusal): ToolError {
  return new ToolError(exitStatus.error, reason, next);
}

/** Refuses to leave while a daemon runs: the daemon would take a subnet again at once. */
function explainRunning(cause: unknown): never {
  if (!isTartanError(cause, 'DUPLICATE_NODE')) throw cause;
  const next = 'stop it, so that nothing starts it again (systemctl disable --now tartand), then run tartan leave';
  throw new ToolError(exitStatus.error, messageOf(cause), next, { cause });
}
