/** Watches the network document. A document that changed or is bad is reported, and the running network stays. */
import { isTartanError } from '../lib/errors.js';
import { formatPrefix } from '../model/ip.js';
import { formatBackend, type NetworkConfig } from '../model/network.js';
import type { LeaseStore } from '../store/store.js';

export interface NetworkListener {
  /** @throws TartanError CONFIG_INVALID for a document that this host cannot run */
  check(network: NetworkConfig): void;
  /** The difference after each change, undefined when there is none. */
  onProblem(problem: string | undefined): void;
  /** The only member that is followed without a restart; called after each change of a sound document. */
  onEngine(engine: NetworkConfig['engine']): void;
}

/** Ends by abort only. */
export async function watchNetwork(
  store: LeaseStore,
  running: NetworkConfig,
  signal: AbortSignal,
  listener: NetworkListener,
): Promise<void> {
  let problem: string | undefined;
  for await (const _ of store.networkChanges(running, { signal })) {
    try {
      const now = await store.network({ signal });
      problem = judge(now, running, network => listener.check(network));
      listener.onEngine(now.engine);
    } catch (error) {
      signal.throwIfAborted();
      if (isTartanError(error, 'CONFIG_INVALID')) problem = invalid(error.message);
    }
    listener.onProblem(problem);
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

/** Names each member that differs and is not followed: the range alone may be the same. */
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
