/**
 * What the host runs on: network, backend and lease. The store gives them; while it is silent those of the state file
 * are used, and what the store says later confirms them or ends them.
 */
import { isTartanError, messageOf, TartanError, type ErrorCode } from '../lib/errors.js';
import type { Backend } from '../backend/backend.js';
import { formatPrefix } from '../model/ipv4.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease, PreviousSubnet } from '../store/store.js';
import { refuseSavedState, renewedHereMs, type SavedState } from './saved-state.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import { ProvisionalLease } from './provisional-lease.js';
import type { Phase } from './status.js';

export interface Session {
  readonly network: NetworkConfig;
  readonly backend: Backend;
  readonly ownLease: OwnLease;
}

export interface StartupListener {
  enter(phase: Phase): void;
  /** The network is known, a lease not yet. */
  prepared(known: Omit<Session, 'ownLease'>): void;
  /** Tries until it works, for errors that are expected to heal. */
  retrying<T>(event: string, codes: readonly ErrorCode[], attempt: () => Promise<T>): Promise<T>;
}

/** How long the store may be silent before the state file is used. */
const silenceMs = 1_000;

export class Startup {
  readonly #ports: AgentPorts;
  readonly #options: AgentOptions;
  readonly #listener: StartupListener;
  /** The remembered lease, once it is used. */
  #inUse: ProvisionalLease | undefined;

  constructor(ports: AgentPorts, options: AgentOptions, listener: StartupListener) {
    this.#ports = ports;
    this.#options = options;
    this.#listener = listener;
  }

  /** @returns also what a sound state file says, whoever gave the session */
  async run(signal: AbortSignal): Promise<{ readonly session: Session; readonly saved?: SavedState }> {
    const { previous, saved } = this.#readSavedState();
    const asking = this.#askStore(previous, signal);
    if (!saved) return { session: await asking };
    const silence = this.#ports.clock.sleep(silenceMs, signal).then(() => undefined);
    const answer = await Promise.race([asking, silence]);
    return { session: answer ?? this.#startFrom(saved, asking, signal), saved };
  }

  async #askStore(previous: readonly PreviousSubnet[], signal: AbortSignal): Promise<Session> {
    const { store, log } = this.#ports;
    const { ttlSeconds } = this.#options;
    const node = this.#ports.node.current;
    this.#listener.enter('waiting-for-network');
    const codes = ['CONFIG_INVALID', 'STORE_UNAVAILABLE'] as const;
    const prepared = await this.#listener.retrying('network.waiting', codes, async () =>
      this.#prepare(await store.network({ signal })),
    );
    const { network, backend } = prepared;
    for (const warning of network.warnings) log.warn('network.warning', warning);
    if (!this.#inUse) {
      this.#listener.prepared(prepared);
      this.#listener.enter('waiting-for-lease');
    }
    const ownLease = await this.#listener.retrying('lease.waiting', ['NO_FREE_SUBNET', 'STORE_UNAVAILABLE'], () =>
      store.acquire({ node, network, ttlSeconds, previous }, { signal }).catch((error: unknown) => {
        // In use already and not to be had: somebody else has it.
        if (this.#inUse && isTartanError(error, 'NO_FREE_SUBNET')) throw lostMeanwhile(this.#inUse, error);
        throw error;
      }),
    );
    const subnet = formatPrefix(ownLease.lease.subnet);
    const lasting = ownLease.deadlineMs === Infinity ? null : ttlSeconds;
    log.info('lease.acquired', `subnet ${subnet} is ours`, { subnet, backend: backend.type, ttlSeconds: lasting });
    return { network, backend, ownLease };
  }

  /**
   * What this host knows before the store answers: subnets to ask for, state file first, then (by the store) our own
   * entry in etcd, then `subnet.env`; and a saved state, unless there is none that may be used here and now.
   */
  #readSavedState(): { readonly previous: readonly PreviousSubnet[]; readonly saved: SavedState | undefined } {
    const { state, docker, log, node } = this.#ports;
    const read = state.read(node.current.id);
    if (read.kind === 'refused') log.warn('state.refused', `${read.reason}; it is not used`);
    const fromEnv = docker.previousSubnet();
    const previous: readonly PreviousSubnet[] = [
      ...(read.kind === 'found' ? [{ subnet: read.state.subnet, source: 'state' as const }] : []),
      ...(fromEnv ? [{ subnet: fromEnv, source: 'subnet-env' as const }] : []),
    ];
    const saved = read.kind === 'found' ? read.state.saved : undefined;
    const reason = saved && this.#refuse(saved);
    if (reason === undefined) return { previous, saved };
    log.warn('state.refused', `${state.path} ${reason}; only its subnet is asked for again`);
    return { previous, saved: undefined };
  }

  #refuse(saved: SavedState): string | undefined {
    const { clock, wallNow, datapath, node } = this.#ports;
    const forwardUntilMs = datapath.adopted ? datapath.forwardUntilMs : 0;
    const now = { node: node.current, nowMs: clock.now(), wallNowMs: wallNow(), forwardUntilMs };
    const reason = refuseSavedState(saved, now);
    if (reason !== undefined) return reason;
    try {
      this.#prepare(saved.network);
      return undefined;
    } catch (error) {
      return `has a network that cannot be used here: ${messageOf(error)}`;
    }
  }

  /** @throws TartanError CONFIG_INVALID */
  #prepare(network: NetworkConfig): Omit<Session, 'ownLease'> {
    const { underlay, node } = this.#ports;
    underlay.check(network.network);
    return { network, backend: this.#options.chooseBackend({ ...this.#options, node: node.current, network }) };
  }

  /** @param asking what replaces it: the same subnet goes on unchanged, any other means that this one is lost */
  #startFrom(saved: SavedState, asking: Promise<Session>, signal: AbortSignal): Session {
    const { ttlSeconds } = this.#options;
    const { clock, log, state } = this.#ports;
    const node = this.#ports.node.current;
    const ownLease = new ProvisionalLease(saved.lease, renewedHereMs(saved, { node, ttlSeconds, nowMs: clock.now() }));
    this.#inUse = ownLease;
    asking.then(
      answer => ownLease.settle(answer.ownLease),
      (error: unknown) => {
        if (!signal.aborted) ownLease.lose(error);
      },
    );
    const [subnet, peers] = [formatPrefix(saved.lease.subnet), saved.peers.length];
    log.warn('lease.remembered', `etcd is silent: ${subnet} and ${peers} peers of ${state.path} are used meanwhile`, {
      subnet,
      peers,
    });
    return { ...this.#prepare(saved.network), ownLease };
  }
}

function lostMeanwhile({ lease }: OwnLease, cause: TartanError): TartanError {
  return new TartanError(
    'LEASE_LOST',
    `subnet ${formatPrefix(lease.subnet)} is not ours any more, and there is no other: ${cause.message}`,
    { cause },
  );
}
