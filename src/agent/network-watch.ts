/** Watches the network document. A document that changed or is bad is reported, and the running network stays. */
import { isTartanError } from '../lib/errors.js';
import { formatPrefix, samePrefix } from '../model/ip.js';
import { formatBackend, type NetworkConfig } from '../model/network.js';
import type { LeaseStore } from '../store/store.js';

/** Ends by abort only. @param onProblem receives the difference after each change, undefined when there is none */
export async function watchNetwork(
  store: LeaseStore,
  running: NetworkConfig,
  signal: AbortSignal,
  onProblem: (problem: string | undefined) => void,
): Promise<void> {
  let problem: string | undefined;
  for await (const _ of store.networkChanges(running, { signal })) {
    try {
      problem = difference(await store.network({ signal }), running);
    } catch (error) {
      signal.throwIfAborted();
      if (isTartanError(error, 'CONFIG_INVALID'))
        problem = `config_invalid: ${error.message}; the last good document is kept`;
    }
    onProblem(problem);
  }
}

function difference(now: NetworkConfig, running: NetworkConfig): string | undefined {
  const same =
    samePrefix(now.network, running.network) &&
    now.subnetLength === running.subnetLength &&
    now.nftables === running.nftables &&
    JSON.stringify(formatBackend(now.backend)) === JSON.stringify(formatBackend(running.backend));
  if (same) return undefined;
  const kept = `${formatPrefix(running.network)} is kept until a restart`;
  return `config_mismatch: the network document changed to ${formatPrefix(now.network)}; ${kept}`;
}
