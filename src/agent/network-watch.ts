/** Watches the network document. A document that changed or is bad is reported, and the running network stays. */
import { isTartanError } from '../lib/errors.js';
import { formatPrefix } from '../model/ip.js';
import { formatBackend, type NetworkConfig } from '../model/network.js';
import type { LeaseStore } from '../store/store.js';

/**
 * Ends by abort only.
 * @param check throws a TartanError CONFIG_INVALID for a document that this host cannot run
 * @param onProblem receives the difference after each change, undefined when there is none
 */
export async function watchNetwork(
  store: LeaseStore,
  running: NetworkConfig,
  signal: AbortSignal,
  check: (network: NetworkConfig) => void,
  onProblem: (problem: string | undefined) => void,
): Promise<void> {
  let problem: string | undefined;
  for await (const _ of store.networkChanges(running, { signal })) {
    try {
      problem = judge(await store.network({ signal }), running, check);
    } catch (error) {
      signal.throwIfAborted();
      if (isTartanError(error, 'CONFIG_INVALID')) problem = invalid(error.message);
    }
    onProblem(problem);
  }
}

function judge(
  now: NetworkConfig,
  running: NetworkConfig,
  check: (network: NetworkConfig) => void,
): string | undefined {
  const changes = difference(now, running);
  try {
    check(now);
  } catch (error) {
    if (isTartanError(error, 'CONFIG_INVALID')) return invalid([error.message, ...changes].join('; '));
    throw error;
  }
  if (changes.length === 0) return undefined;
  return `config_mismatch: the network document changed: ${changes.join(', ')}; what was is kept until a restart`;
}

function invalid(why: string): string {
  return `config_invalid: ${why}; the last good document is kept`;
}

/** Names each member that differs: the range alone may be the same. */
function difference(now: NetworkConfig, running: NetworkConfig): readonly string[] {
  const [after, before] = [membersOf(now), membersOf(running)];
  return [...after].flatMap(([name, value]) =>
    value === before.get(name) ? [] : [`${name} is ${value} now and was ${before.get(name)}`],
  );
}

function membersOf({ network, subnetLength, nftables, backend }: NetworkConfig): ReadonlyMap<string, string> {
  return new Map([
    ['Network', formatPrefix(network)],
    ['SubnetLen', String(subnetLength)],
    ['EnableNFTables', String(nftables)],
    ['Backend', JSON.stringify(formatBackend(backend))],
  ]);
}
