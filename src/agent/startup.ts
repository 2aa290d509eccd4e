/**
 * The start: makes the session, which is the network, the backend and the lease that the agent runs on. The store gives
 * them. While it does not answer, the saved state is used; its answer later confirms that session or ends it.
 */
import { isTartanError, messageOf, TartanError, type ErrorCode } from '../lib/errors.js';
import { Listeners } from '../lib/listeners.js';
import type { Backend } from '../backend/backend.js';
import type { Features } from '../model/features.js';
import { formatPrefix, samePrefix } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import type { NetworkConfig } from '../model/network.js';
import type { LeaseChange, LeaseStatus, OwnLease, PreviousSubnet } from '../store/store.js';
import { refuseSavedState, renewedHereMs, type SavedState } from './saved-state.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import type { Phase } from './status.js';

export interface Session {
  readonly network: NetworkConfig;
  readonly backend: Backend;
  readonly ownLease: OwnLease;
}

export interface StartupListener {
  setPhase(phase: Phase): void;
  /** Returns what the lease is to say. @param saved by this host, whether or not it is used */
  announces(network: NetworkConfig, saved: SavedState | undefined): Features;
  /** Called when the network is known and the lease is not. */
  prepared(known: Omit<Session, 'ownLease'>): void;
  /** Repeats `attempt` until it succeeds; errors of other codes are thrown. */
  retrying<T>(event: string, codes: readonly ErrorCode[], attempt: () => Promise<T>): Promise<T>;
}

/** How long the start waits for the store before it uses the saved state. */
const storeTimeoutMs = 1_000;

export class Startup {
  readonly #ports: AgentPorts;
  readonly #options: AgentOptions;
  readonly #listener: StartupListener;
  /** The lease of the saved state, once it is used. */
  #provisional: ProvisionalLease | undefined;
  #saved: SavedState | undefined;
  /** Why etcd has not given the network document. */
  #cause = 'etcd is silent';

  constructor(ports: AgentPorts, options: AgentOptions, listener: StartupListener) {
    this.#ports = ports;
    this.#options = options;
    this.#listener = listener;
  }

  /** @returns the session, and a usable saved state whether or not the session was made from it */
  async run(signal: AbortSignal): Promise<{ readonly session: Session; readonly saved?: SavedState | undefined }> {
    const { previous, saved } = this.#readSavedState();
    this.#saved = saved;
    if (saved) this.#logRefusal(saved);
    const fromStore = this.#acquireSession(previous, signal);
    if (!saved) return { session: await fromStore };
    for (;;) {
      const timeout = this.#ports.clock.sleep(storeTimeoutMs, signal).then(() => undefined);
      const session = await Promise.race([fromStore, timeout]);
      const usable = this.#usable;
      if (session) return { session, saved: usable };
      // The wall clock may have been wrong at the start, so the saved state is judged anew each time.
      if (usable) return { session: this.#useSavedState(usable, fromStore, signal), saved: usable };
    }
  }

  /** The saved state if it may be used here and now. */
  get #usable(): SavedState | undefined {
    return this.#saved && this.#refuse(this.#saved) === undefined ? this.#saved : undefined;
  }

  async #acquireSession(previous: readonly PreviousSubnet[], signal: AbortSignal): Promise<Session> {
    const { store, log, node } = this.#ports;
    const { ttlSeconds } = this.#options;
    this.#listener.setPhase('waiting-for-network');
    // A host that can stand on its saved state goes on asking where etcd refuses it; another one has nothing to offer.
    const refused = this.#usable ? (['PERMISSION'] as const) : [];
    const codes = ['CONFIG_INVALID', 'STORE_UNAVAILABLE', ...refused] as const;
    const prepared = await this.#listener.retrying('network.waiting', codes, () => this.#askNetwork(signal));
    const { network, backend } = prepared;
    for (const warning of network.warnings) log.warn('network.warning', warning);
    if (!this.#provisional) {
      this.#listener.prepared(prepared);
      this.#listener.setPhase('waiting-for-lease');
    }
    const waits = ['NO_FREE_SUBNET', 'STORE_UNAVAILABLE', ...refused] as const;
    const ownLease = await this.#listener.retrying('lease.waiting', waits, () =>
      store
        .acquire(
          {
            node: node.current,
            network,
            backend: backend.announce(),
            features: this.#listener.announces(network, this.#saved),
            ttlSeconds,
            previous,
          },
          { signal },
        )
        .catch((error: unknown) => {
          // The subnet is in use here and cannot be acquired: another host has it.
          if (this.#provisional && isTartanError(error, 'NO_FREE_SUBNET')) throw lostError(this.#provisional, error);
          throw error;
        }),
    );
    const subnet = formatPrefix(ownLease.lease.subnet);
    const loggedTtl = ownLease.deadlineMs === Infinity ? null : ttlSeconds;
    log.info('lease.acquired', `subnet ${subnet} is ours: ${whyThis(subnet, previous)}`, {
      subnet,
      backend: backend.type,
      ttlSeconds: loggedTtl,
    });
    return { network, backend, ownLease };
  }

  /** A document that cannot be used gives way to the last good one: the lease must be renewed as long as etcd answers. */
  async #askNetwork(signal: AbortSignal): Promise<Omit<Session, 'ownLease'>> {
    const { store, state, log } = this.#ports;
    try {
      return this.#prepare(await store.network({ signal }));
    } catch (error) {
      this.#cause = messageOf(error);
      if (!isTartanError(error, 'CONFIG_INVALID')) throw error;
      const usable = this.#usable;
      if (!usable) throw error;
      log.warn('network.kept', `${error.message}; the last good document is kept, that of ${state.path}`);
      return this.#prepare(usable.network);
    }
  }

  /**
   * Returns what the host knows before the store answers: the subnets to ask for, and the saved state. The state file comes first, then `subnet.env`; the store puts our own entry in etcd between them.
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
    return { previous, saved: read.kind === 'found' ? read.state.saved : undefined };
  }

  #logRefusal(saved: SavedState): void {
    const { log, state } = this.#ports;
    const reason = this.#refuse(saved);
    if (reason !== undefined) log.warn('state.refused', `${state.path} ${reason}; only its subnet is asked for again`);
  }

  #refuse(saved: SavedState): string | undefined {
    const { clock, wallNow, datapath, node } = this.#ports;
    const forwardUntilMs = datapath.adopted ? datapath.forwardUntilMs : 0;
    const here = { node: node.current, nowMs: clock.now(), wallNowMs: wallNow(), forwardUntilMs };
    const reason = refuseSavedState(saved, here);
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

  /** @param fromStore settles the provisional lease: the same subnet goes on unchanged, with any other it is lost */
  #useSavedState(saved: SavedState, fromStore: Promise<Session>, signal: AbortSignal): Session {
    const { ttlSeconds } = this.#options;
    const { clock, log, state } = this.#ports;
    const node = this.#ports.node.current;
    const ownLease = new ProvisionalLease(saved.lease, renewedHereMs(saved, { node, ttlSeconds, nowMs: clock.now() }));
    this.#provisional = ownLease;
    fromStore.then(
      session => ownLease.settle(session.ownLease),
      (error: unknown) => {
        if (!signal.aborted) ownLease.lose(error);
      },
    );
    const [subnet, peers] = [formatPrefix(saved.lease.subnet), saved.peers.length];
    log.warn('lease.remembered', `${this.#cause}: ${subnet} and ${peers} peers of ${state.path} are used meanwhile`, {
      subnet,
      peers,
    });
    return { ...this.#prepare(saved.network), ownLease };
  }
}

/**
 * The provisional lease: the lease of the saved state, for a start without an answer of the store. Its status is
 * UNKNOWN. Its use is safe while the quarantine protects the subnet and the peers bind inner sources to owners. When
 * the store gives a lease of the same subnet, this one delegates to it; with any other subnet this one is LOST.
 */
export class ProvisionalLease implements OwnLease {
  readonly #lease: Lease;
  readonly #renewedAtMs: number;
  readonly #listeners = new Listeners();
  readonly #lost = new AbortController();
  readonly #settled: Promise<OwnLease>;
  #resolveSettled: (acquired: OwnLease) => void = () => {};
  /** The lease that the store gave. */
  #acquired: OwnLease | undefined;

  /** @param renewedAtMs CLOCK_BOOTTIME ms of this boot at which the lease was certainly ours */
  constructor(lease: Lease, renewedAtMs: number) {
    this.#lease = lease;
    this.#renewedAtMs = renewedAtMs;
    this.#settled = new Promise((resolve, reject) => {
      this.#resolveSettled = resolve;
      this.lost.addEventListener('abort', () => reject(this.lost.reason), { once: true });
    });
    // The rejection matters only to `update`.
    this.#settled.catch(() => {});
  }

  /** Whether the store gave this lease. */
  get settled(): boolean {
    return this.#acquired !== undefined;
  }

  get lease(): Lease {
    return this.#acquired?.lease ?? this.#lease;
  }

  get status(): LeaseStatus {
    if (this.#lost.signal.aborted) return 'lost';
    return this.#acquired?.status ?? 'unknown';
  }

  get deadlineMs(): number {
    return this.#acquired?.deadlineMs ?? (this.#lease.leaseId === '0' ? Infinity : this.#renewedAtMs);
  }

  get renewedAtMs(): number {
    return this.#acquired?.renewedAtMs ?? this.#renewedAtMs;
  }

  get renewFailures(): number {
    return this.#acquired?.renewFailures ?? 0;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async settle(acquired: OwnLease): Promise<void> {
    const { subnet } = acquired.lease;
    if (!samePrefix(subnet, this.#lease.subnet)) {
      await acquired.close();
      const [saved, given] = [formatPrefix(this.#lease.subnet), formatPrefix(subnet)];
      this.lose(
        new TartanError('LEASE_LOST', `subnet ${saved} is not ours any more: etcd gave ${given}, for the next start`),
      );
      return;
    }
    this.#acquired = acquired;
    this.#resolveSettled(acquired);
    acquired.onChange(() => this.#listeners.ring());
    const onLost = (): void => this.lose(acquired.lost.reason);
    if (acquired.lost.aborted) onLost();
    else acquired.lost.addEventListener('abort', onLost, { once: true });
    this.#listeners.ring();
  }

  lose(reason: unknown): void {
    this.#lost.abort(reason);
    this.#listeners.ring();
  }

  async update(change: LeaseChange): Promise<void> {
    await (await this.#settled).update(change);
  }

  async close(): Promise<void> {
    await this.#acquired?.close();
  }
}

function lostError({ lease }: OwnLease, cause: TartanError): TartanError {
  return new TartanError(
    'LEASE_LOST',
    `subnet ${formatPrefix(lease.subnet)} is not ours any more, and there is no other: ${cause.message}`,
    { cause },
  );
}

/** @param previous what this host remembers of its subnet */
function whyThis(subnet: string, previous: readonly PreviousSubnet[]): string {
  const before = previous.find(candidate => formatPrefix(candidate.subnet) === subnet);
  if (!before) return 'etcd kept it for this node, or it was free';
  return before.source === 'state' ? 'it is that of the saved state' : 'it is that of subnet.env';
}
