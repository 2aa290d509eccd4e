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
      const network = await store.network({ signal });
      check(network);
      problem = difference(network, running);
    } catch (error) {
      signal.throwIfAborted();
      if (isTartanError(error, 'CONFIG_INVALID'))
        problem = `config_invalid: ${error.message}; the last good document is kept`;
    }
    onProblem(problem);
  }
}

/** Names each member that differs: the range alone may be the same. */
function difference(now: NetworkConfig, running: NetworkConfig): string | undefined {
  const [after, before] = [membersOf(now), membersOf(running)];
  const changes = [...after].flatMap(([name, value]) =>
    value === before.get(name) ? [] : [`${name} is ${value} now and was ${before.get(name)}`],
  );
  if (changes.length === 0) return undefined;
  return `config_mismatch: the network document changed: ${changes.join(', ')}; what was is kept until a restart`;
}

function membersOf({ network, subnetLength, nftables, backend }: NetworkConfig): ReadonlyMap<string, string> {
  return new Map([
    ['Network', formatPrefix(network)],
    ['SubnetLen', String(subnetLength)],
    ['EnableNFTables', String(nftables)],
    ['Backend', JSON.stringify(formatBackend(backend))],
  ]);
}
