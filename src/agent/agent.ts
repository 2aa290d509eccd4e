/**
 * One host's life: wait for the network document, acquire a subnet (or, while the store is silent, stand on those of
 * the state file), bring the tunnel up, tell Docker, keep everything as planned, and stop using the subnet at once when
 * it is lost.
 *
 *   starting -> waiting-for-network -> waiting-for-lease -> configuring -> ready -> (lost | stopping)
 *                        \______ silent store, sound state file ____^
 */
import { isTartanError, messageOf, TartanError, type ErrorCode } from '../lib/errors.js';
import { retrying } from '../lib/retry.js';
import { aborted } from '../lib/scope.js';
import type { Backend } from '../backend/backend.js';
import type { DatapathConfig } from '../datapath/datapath.js';
import { formatPrefix } from '../model/ipv4.js';
import type { UnderlayAddress } from '../model/node.js';
import type { LocalView } from '../model/lease-set.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease } from '../store/store.js';
import { Startup, type Session } from './startup.js';
import { unconfirmedLimitMs } from './saved-state.js';
import { watchNetwork } from './network-watch.js';
import { Peers } from './peers.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import { Reconciler, type Desired } from './reconciler.js';
import { ProvisionalLease } from './provisional-lease.js';
import { StateWriter } from './state-writer.js';
import type { Phase } from './status.js';
import { watchUnderlay } from './underlay-watch.js';

/** How far a living daemon moves the data plane's own deadline ahead, and how often. */
const forwardAheadMs = 15_000;
const tickMs = 1_000;
const retry = { firstMs: 500, capMs: 5_000 };

export class Agent {
  phase: Phase = 'starting';
  network: NetworkConfig | undefined;
  backend: Backend | undefined;
  ownLease: OwnLease | undefined;
  readonly peers: Peers;
  readonly reconciler: Reconciler;
  readonly ports: AgentPorts;
  readonly options: AgentOptions;
  /** What it waits for, or what differs from the running network document. */
  problem: string | undefined;
  underlayProblem: string | undefined;
  /** What keeps Docker from taking its settings. */
  dockerProblems: readonly string[] = [];
  /** Docker waits for the whole host to forward. */
  #forwarding = false;
  readonly #writer: StateWriter;

  constructor(ports: AgentPorts, options: AgentOptions) {
    this.ports = ports;
    this.options = options;
    this.peers = new Peers({ ...ports, holdMs: options.peerHoldMs });
    this.reconciler = new Reconciler(ports, () => this.#desired());
    this.#writer = new StateWriter({ ...ports, peers: this.peers }, options.ttlSeconds);
  }

  /** Started from the state file, and the store has not answered since. */
  get unconfirmed(): boolean {
    return this.ownLease instanceof ProvisionalLease && !this.ownLease.settled;
  }

  /** Resolves only by rejection: the signal's reason, or the TartanError that ends the daemon. */
  async run(signal: AbortSignal): Promise<never> {
    const end = new AbortController();
    const life = AbortSignal.any([signal, end.signal]);
    try {
      await this.#live(await this.#start(life), life);
    } finally {
      end.abort();
    }
    throw new TartanError('INVARIANT', 'the agent ended without a reason');
  }

  async #start(signal: AbortSignal): Promise<Session> {
    const startup = new Startup(this.ports, this.options, {
      enter: phase => this.#enter(phase),
      prepared: ({ network, backend }) => ([this.network, this.backend] = [network, backend]),
      retrying: (event, codes, attempt) => this.#retrying(event, signal, codes, attempt),
    });
    const { session, saved } = await startup.run(signal);
    [this.network, this.backend, this.ownLease] = [session.network, session.backend, session.ownLease];
    if (saved) this.peers.loadSavedPeers(saved, this.#localView(session), this.ports.node.current);
    if (this.unconfirmed) this.peers.useSavedPeers();
    this.#listen(session.ownLease);
    return session;
  }

  #listen(ownLease: OwnLease): void {
    let { status: state } = ownLease;
    ownLease.onChange(() => {
      const subnet = formatPrefix(ownLease.lease.subnet);
      if (ownLease.status !== state)
        this.ports.log.info('lease.state', `the lease of ${subnet} is ${ownLease.status}`, { state: ownLease.status });
      state = ownLease.status;
      this.reconciler.ring();
    });
  }

  async #live(session: Session, signal: AbortSignal): Promise<void> {
    const { network, ownLease } = session;
    const running = AbortSignal.any([signal, ownLease.lost]);
    if (ownLease.lost.aborted) this.#onLost(ownLease);
    else ownLease.lost.addEventListener('abort', () => this.#onLost(ownLease), { once: true });
    try {
      await this.#startDatapath(session, running);
      await this.#forward(session, running);
    } catch (error) {
      if (!ownLease.lost.aborted) throw error;
      if (this.options.onLost === 'degraded' && isOwnedByOther(ownLease.lost.reason)) await aborted(signal);
      throw ownLease.lost.reason;
    } finally {
      if (!this.unconfirmed) this.#writer.writeLast(network, ownLease);
      await ownLease.close();
    }
  }

  async #startDatapath({ network, backend, ownLease }: Session, signal: AbortSignal): Promise<void> {
    this.#enter('configuring');
    await this.#retrying('datapath.waiting', signal, ['DATAPATH_FAILED'], async () => {
      this.#moveForwardUntil(ownLease);
      await this.ports.datapath.start(this.#datapathConfig({ network, backend, ownLease }, this.ports.node.current));
      // Lost meanwhile: it stays fenced.
      signal.throwIfAborted();
      this.ports.datapath.fence(false);
      this.#moveForwardUntil(ownLease);
    });
  }

  #datapathConfig({ network, backend, ownLease }: Session, node: UnderlayAddress): DatapathConfig {
    const { checkSource, checkDestination } = this.options;
    return {
      network: network.network,
      subnet: ownLease.lease.subnet,
      publicIp: node.publicIp,
      bindAddress: node.interface.address,
      port: network.backend.type === 'udp' ? network.backend.port : 0,
      mtu: backend.mtu,
      checkSource,
      checkDestination,
    };
  }

  /** Everything that goes on while the lease is ours; the first to fail ends all. */
  async #forward(session: Session, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const running = AbortSignal.any([signal, stop.signal]);
    const loops = [
      this.#watch(session, running),
      this.reconciler.run(this.options.resyncMs, running, () => this.#onPass(session)),
      this.#tick(session, running),
      this.#watchUnderlay(session, running),
      watchNetwork(this.ports.store, session.network, running, problem => this.#onNetwork(problem)),
    ];
    try {
      await Promise.race(loops);
    } finally {
      stop.abort();
      await Promise.allSettled(loops);
    }
  }

  async #watch(session: Session, signal: AbortSignal): Promise<void> {
    for await (const set of this.ports.store.watch({ signal })) {
      this.peers.applyLeaseSet(set, this.#localView(session));
      this.reconciler.ring();
      if (!this.unconfirmed) this.#writer.writeWhenDue(session.network, session.ownLease);
    }
  }

  #watchUnderlay(session: Session, signal: AbortSignal): Promise<never> {
    const watch = {
      ...this.ports,
      move: (to: UnderlayAddress) => this.#moveTo(session, to, signal),
      onProblem: (problem: string | undefined) => (this.underlayProblem = problem),
    };
    return watchUnderlay(watch, signal);
  }

  /** The tunnel first, so that it is there when peers send to the new address; the plan and Docker's files follow. */
  async #moveTo(session: Session, to: UnderlayAddress, signal: AbortSignal): Promise<void> {
    const { network, ownLease } = session;
    const { node, underlay } = this.ports;
    const { publicIp, interface: link } = node.current;
    underlay.check(network.network);
    const backend = this.options.chooseBackend({ ...this.options, node: { ...node.current, ...to }, network });
    await this.ports.datapath.start(this.#datapathConfig({ network, backend, ownLease }, to));
    node.move(to);
    this.backend = backend;
    this.reconciler.ring();
    if (to.interface.address !== link.address) this.ports.store.reconnect();
    if (to.publicIp !== publicIp)
      ownLease.update({ publicIp: to.publicIp }).catch((error: unknown) => {
        if (!signal.aborted) this.ports.log.warn('lease.not-updated', messageOf(error));
      });
  }

  #localView({ network, ownLease }: Session): LocalView {
    return { network: network.network, subnet: ownLease.lease.subnet, publicIp: this.ports.node.current.publicIp };
  }

  async #onPass(session: Session): Promise<void> {
    // Not by a pass that was under way when the subnet was lost.
    if (this.phase !== 'configuring' && this.phase !== 'ready') return;
    const forwarded = this.#forwarding;
    await this.#tellDocker(session);
    // That first: Docker starts when we are ready.
    if (this.#forwarding && !forwarded) return this.reconciler.ring();
    // Ready already, or lost in the meantime.
    if (this.phase !== 'configuring') return;
    const { ownLease } = session;
    this.#enter('ready');
    this.ports.notify('READY=1');
    this.ports.log.info('daemon.ready', 'Docker may start', { subnet: formatPrefix(ownLease.lease.subnet) });
  }

  /** Each time, so that files that others lost or changed are put right; Docker takes them at its next start. */
  async #tellDocker({ network, ownLease }: Session): Promise<void> {
    const mtu = this.backend?.mtu;
    if (mtu === undefined) return;
    const ipMasquerade = this.options.ipMasquerade !== 'off';
    const settings = { network: network.network, subnet: ownLease.lease.subnet, mtu, ipMasquerade };
    const { written, conflicts, needsForwarding } = await this.ports.docker.write(settings);
    for (const path of written) this.ports.log.info('docker.written', `wrote ${path}`, { path });
    const standing = new Set(this.dockerProblems);
    for (const conflict of conflicts) if (!standing.has(conflict)) this.ports.log.warn('docker.conflict', conflict);
    this.dockerProblems = conflicts;
    this.#forwarding = needsForwarding;
  }

  async #tick({ network, ownLease }: Session, signal: AbortSignal): Promise<void> {
    for (;;) {
      this.#moveForwardUntil(ownLease);
      if (this.peers.expire()) this.reconciler.ring();
      if (!this.unconfirmed) this.#writer.writeWhenDue(network, ownLease);
      await this.ports.clock.sleep(tickMs, signal);
      if (this.peers.useSavedPeers()) this.reconciler.ring();
    }
  }

  /** Without a living daemon the engine stops by itself before the quarantine that protects the subnet ends. */
  #moveForwardUntil(ownLease: OwnLease): void {
    const now = this.ports.clock.now();
    const alone =
      ownLease.deadlineMs === Infinity
        ? now + 2 ** 40
        : ownLease.renewedAtMs + unconfirmedLimitMs(this.options.ttlSeconds);
    this.ports.datapath.forwardUntil(Math.max(alone, now + forwardAheadMs));
  }

  #onNetwork(problem: string | undefined): void {
    if (problem !== undefined && problem !== this.problem) this.ports.log.warn('network.differs', problem);
    this.problem = problem;
  }

  /** At once, before any loop ends: packets of a subnet that is another's must stop within a second. */
  #onLost(ownLease: OwnLease): void {
    if (!isOwnedByOther(ownLease.lost.reason)) return;
    this.ports.datapath.fence(true);
    this.#enter('lost');
    this.#writer.forget();
    const subnet = formatPrefix(ownLease.lease.subnet);
    const text = `${messageOf(ownLease.lost.reason)}; traffic of ${subnet} is stopped, Docker is left alone`;
    this.ports.log.error('lease.lost', text, { subnet });
  }

  async #retrying<T>(
    event: string,
    signal: AbortSignal,
    codes: readonly ErrorCode[],
    attempt: () => Promise<T>,
  ): Promise<T> {
    const { clock, log } = this.ports;
    const onProblem = (message: string): void => {
      this.problem = message;
    };
    const result = await retrying({ event, codes, limits: retry, clock, log, signal, onProblem }, attempt);
    this.problem = undefined;
    return result;
  }

  #desired(): Desired | undefined {
    if (!this.backend || !this.ownLease || !this.peers.known || this.ownLease.status === 'lost') return undefined;
    return {
      backend: this.backend,
      self: this.ownLease.lease,
      peers: this.peers.current,
      forwarding: this.#forwarding,
    };
  }

  #enter(phase: Phase): void {
    this.phase = phase;
    this.ports.log.debug('daemon.phase', phase, { phase });
  }
}

/** The subnet, or all that we are, is another host's: nothing of it may pass. */
function isOwnedByOther(reason: unknown): boolean {
  return isTartanError(reason, 'LEASE_LOST') || isTartanError(reason, 'DUPLICATE_NODE');
}
