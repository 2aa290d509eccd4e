/**
 * The control loop of one host. It waits for the network document, acquires a subnet (or uses the saved state while the
 * store does not answer), starts the tunnel, writes Docker's settings and keeps the host as planned. It stops using the
 * subnet at once when the lease is lost.
 *
 *   starting -> waiting-for-network -> waiting-for-lease -> configuring -> ready -> (lost | stopping)
 *                        \______ no answer, sound saved state ______^
 */
import { isTartanError, messageOf, TartanError, type ErrorCode } from '../lib/errors.js';
import { Serial } from '../lib/serial.js';
import { retrying } from '../lib/retry.js';
import { aborted } from '../lib/scope.js';
import { pauseUntilRung, Wake } from '../lib/wake.js';
import type { Backend } from '../backend/backend.js';
import type { DatapathConfig } from '../datapath/datapath.js';
import { formatPrefix } from '../model/ip.js';
import type { Lease } from '../model/lease.js';
import type { UnderlayAddress } from '../model/node.js';
import type { LocalView } from '../model/lease-set.js';
import { vniOf, type NetworkConfig } from '../model/network.js';
import type { OwnLease } from '../store/store.js';
import { EngineSwitch } from './engine-switch.js';
import { ProvisionalLease, Startup, type Session } from './startup.js';
import { unconfirmedLimitMs } from './saved-state.js';
import { watchNetwork } from './network-watch.js';
import { ManagerLine } from './manager-line.js';
import { PeerWatch, type WatchScope } from './peer-watch.js';
import { Peers } from './peers.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import { Reconciler, type Desired } from './reconciler.js';
import { summaryLine } from './snapshot.js';
import { StateWriter } from './state-file.js';
import type { Phase, PlacedProblem } from './status.js';
import { watchUnderlay } from './underlay-watch.js';

/** A running daemon moves the deadline of the data plane this far ahead, once per tick. */
const forwardAheadMs = 15_000;
const tickMs = 2_000;
/** What an error that the agent waits for is about; all else is of the network document. */
const problemPlaces: Partial<Record<ErrorCode, PlacedProblem['place']>> = {
  STORE_UNAVAILABLE: 'store',
  PERMISSION: 'store',
  HOST_REFUSED: 'host',
  DATAPATH_FAILED: 'data-plane',
};

const retryLimits = { firstMs: 500, capMs: 5_000 };

/** Why the own lease has a status, and what follows. */
const leaseStateCauses: ReadonlyMap<OwnLease['status'], string> = new Map([
  ['held', 'etcd has confirmed it'],
  ['unknown', 'etcd has not renewed it in time; traffic goes on, and the renewal is tried again'],
  ['gone', 'its key is not in etcd any more; it is written again, traffic goes on'],
  ['lost', 'another host owns the subnet; its traffic stops here'],
]);

export class Agent {
  phase: Phase = 'starting';
  network: NetworkConfig | undefined;
  backend: Backend | undefined;
  ownLease: OwnLease | undefined;
  readonly peers: Peers;
  readonly reconciler: Reconciler;
  readonly watch: PeerWatch;
  readonly engine: EngineSwitch;
  readonly ports: AgentPorts;
  readonly options: AgentOptions;
  /** What the agent waits for, or how the network document differs from the running one. */
  problem: string | undefined;
  problemPlace: PlacedProblem['place'] = 'network';
  underlayProblem: string | undefined;
  /** Why Docker cannot use its settings. */
  dockerProblems: readonly string[] = [];
  /** What the tick looks at may have changed. */
  readonly #ticks = new Wake();
  /** Until then no pass makes the agent ready, or writes the files by which Docker starts. */
  #isDatapathStarted = false;
  /** Docker does not start until the whole host forwards. */
  #needsForwarding = false;
  readonly #writer: StateWriter;
  readonly #beganWithMs: number;
  readonly #manager: ManagerLine;
  /** The data plane is given one configuration at a time. */
  readonly #starts = new Serial();
  /** Whether the plans of this backend and lease have a tunnel; it is asked for several times a second. */
  #tunnelOf: { readonly backend: Backend; readonly lease: Lease; readonly has: boolean } | undefined;

  constructor(ports: AgentPorts, options: AgentOptions) {
    this.ports = ports;
    this.options = options;
    this.peers = new Peers({ ...ports, holdMs: options.peerHoldMs });
    this.reconciler = new Reconciler(ports, options.networkName, () => this.#desired());
    this.#beganWithMs = ports.wallNow() - ports.clock.now();
    this.watch = new PeerWatch(ports, () => this.#watchScope());
    this.engine = new EngineSwitch(ports, options.engine);
    this.#manager = new ManagerLine(ports, () => summaryLine(this, 'coarse'));
    this.#writer = new StateWriter({ ...ports, peers: this.peers }, options.ttlSeconds);
    ports.datapath.onChange(() => this.#ticks.ring());
  }

  /** The session is that of the saved state, and the store has not answered since. */
  get unconfirmed(): boolean {
    return this.ownLease instanceof ProvisionalLease && !this.ownLease.settled;
  }

  /** CLOCK_REALTIME is slewed with CLOCK_BOOTTIME, and set without it (adjtime(3), clock_settime(2)). */
  get clockSetSeconds(): number {
    const { wallNow, clock } = this.ports;
    return Math.round((wallNow() - clock.now() - this.#beganWithMs) / 1000);
  }

  /** The plans have a tunnel, which needs the data plane; taken for granted before there is a lease to plan with. */
  get hasTunnel(): boolean {
    const { backend, ownLease } = this;
    if (!backend || !ownLease) return true;
    const { lease } = ownLease;
    if (this.#tunnelOf?.backend !== backend || this.#tunnelOf.lease !== lease)
      this.#tunnelOf = { backend, lease, has: backend.plan(lease, []).tunnel !== undefined };
    return this.#tunnelOf.has;
  }

  /** Never resolves. Rejects with the signal's reason, or with the TartanError that ends the daemon. */
  async run(signal: AbortSignal): Promise<never> {
    const end = new AbortController();
    const life = AbortSignal.any([signal, end.signal]);
    try {
      await this.#runSession(await this.#start(life), life);
    } finally {
      end.abort();
    }
    throw new TartanError('INVARIANT', 'the agent ended without a reason');
  }

  async #start(signal: AbortSignal): Promise<Session> {
    const startup = new Startup(this.ports, this.options, {
      setPhase: phase => this.#setPhase(phase),
      announces: (network, state) => this.engine.begin(network, state),
      prepared: ({ network, backend }) => ([this.network, this.backend] = [network, backend]),
      retrying: (event, codes, attempt) => this.#retrying(event, signal, codes, attempt),
    });
    const { session, saved } = await startup.run(signal);
    [this.network, this.backend, this.ownLease] = [session.network, session.backend, session.ownLease];
    if (this.unconfirmed) this.engine.begin(session.network, saved);
    if (saved) this.peers.loadSavedPeers(saved, this.#localView(session), this.ports.node.current);
    if (this.unconfirmed) this.peers.useSavedPeers();
    this.#observe(session.ownLease);
    return session;
  }

  #observe(ownLease: OwnLease): void {
    let { status } = ownLease;
    ownLease.onChange(() => {
      const subnet = formatPrefix(ownLease.lease.subnet);
      if (ownLease.status !== status) {
        const level = ownLease.status === 'held' ? 'info' : 'warn';
        const text = `the lease of ${subnet} is ${ownLease.status}: ${leaseStateCauses.get(ownLease.status)}`;
        this.ports.log[level]('lease.state', text, { state: ownLease.status, subnet });
      }
      status = ownLease.status;
      this.reconciler.ring();
      this.#ticks.ring();
    });
  }

  async #runSession(session: Session, signal: AbortSignal): Promise<void> {
    const { network, ownLease } = session;
    const running = AbortSignal.any([signal, ownLease.lost]);
    if (ownLease.lost.aborted) this.#onLost(ownLease);
    else ownLease.lost.addEventListener('abort', () => this.#onLost(ownLease), { once: true });
    try {
      await this.#runLoops(session, running);
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
    this.#setPhase('configuring');
    this.#isDatapathStarted = false;
    await this.#retrying('datapath.waiting', signal, ['DATAPATH_FAILED'], async () => {
      if (!this.hasTunnel) return this.ports.datapath.stop();
      this.#moveForwardUntil(ownLease);
      await this.#giveDatapath({ network, backend, ownLease });
      // The lease was lost during the start: the data plane stays fenced.
      signal.throwIfAborted();
      this.ports.datapath.fence(false);
      this.#moveForwardUntil(ownLease);
    });
    this.#isDatapathStarted = true;
    this.reconciler.ringHost();
  }

  /** @param move to another underlay address; it is done when the data plane leaves from there */
  async #giveDatapath(session: Session, move?: UnderlayAddress): Promise<void> {
    const { node, datapath } = this.ports;
    const backend = move ? session.backend : (this.backend ?? session.backend);
    const config = this.#datapathConfig({ ...session, backend }, move ?? node.current);
    await datapath.start(config);
    this.engine.given(config.engine);
    if (!move) return;
    node.move(move);
    this.backend = backend;
  }

  #datapathConfig({ network, backend, ownLease }: Session, node: UnderlayAddress): DatapathConfig {
    const { checkSource, checkDestination } = this.options;
    return {
      network: network.network,
      subnet: ownLease.lease.subnet,
      publicIp: node.publicIp,
      bindAddress: node.interface.address,
      port: network.backend.port,
      mtu: backend.mtu,
      underlayMtu: node.interface.mtu,
      checkSource,
      checkDestination,
      engine: this.engine.asked,
      vni: vniOf(network.backend),
    };
  }

  /** Runs the loops of a session; the first loop that fails ends all of them. */
  async #runLoops(session: Session, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const running = AbortSignal.any([signal, stop.signal]);
    // While the data plane waits for its port, the peers are read and the host is prepared.
    const started = this.#startDatapath(session, running);
    const loops = [
      this.#watchLeases(session, running),
      this.reconciler.run(this.options.resyncMs, running, () => this.#onPass(session)),
      started.then(() => this.#tick(session, running)),
      started.then(() => this.#watchUnderlay(session, running)),
      started.then(() => this.#watchNetwork(session, running)),
      started.then(() => this.watch.run(running)),
    ];
    try {
      await Promise.race(loops);
    } finally {
      stop.abort();
      await Promise.allSettled(loops);
    }
  }

  #watchNetwork(session: Session, signal: AbortSignal): Promise<void> {
    const check = (network: NetworkConfig): void => {
      this.ports.underlay.check(network.network);
      this.options.chooseBackend({ ...this.options, node: this.ports.node.current, network });
    };
    return watchNetwork(this.ports.store, session.network, signal, {
      check,
      onProblem: problem => this.#onNetworkProblem(problem),
      onEngine: engine => this.#onEngine(engine),
    });
  }

  async #watchLeases(session: Session, signal: AbortSignal): Promise<void> {
    for await (const set of this.ports.store.watch({ signal })) {
      this.peers.applyLeaseSet(set, this.#localView(session));
      this.reconciler.ring();
      // Behind the ring: a slow disk must not keep the table from the data plane.
      setImmediate(() => {
        this.watch.ring();
        if (!signal.aborted && !this.unconfirmed) this.#writer.writeWhenDue(session.network, session.ownLease);
      });
    }
  }

  #watchUnderlay(session: Session, signal: AbortSignal): Promise<never> {
    const watch = {
      ...this.ports,
      network: session.network.network,
      peers: () => this.peers.current,
      move: (to: UnderlayAddress) => this.#moveTo(session, to, signal),
      onProblem: (problem: string | undefined) => (this.underlayProblem = problem),
    };
    return watchUnderlay(watch, signal);
  }

  /** Moves the tunnel before the plan and Docker's files, so that it is up when peers send to the new address. */
  async #moveTo(session: Session, to: UnderlayAddress, signal: AbortSignal): Promise<void> {
    const { network, ownLease } = session;
    const { node, underlay } = this.ports;
    const { publicIp, interface: link } = node.current;
    underlay.check(network.network);
    const backend = this.options.chooseBackend({ ...this.options, node: { ...node.current, ...to }, network });
    if (this.hasTunnel) await this.#starts.run(() => this.#giveDatapath({ network, backend, ownLease }, to));
    else node.move(to);
    this.#writer.moved(network, ownLease, this.unconfirmed);
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
    // The subnet may have been lost during the pass.
    if (this.phase !== 'configuring' && this.phase !== 'ready') return;
    if (!this.#isDatapathStarted) return;
    const neededForwarding = this.#needsForwarding;
    await this.#writeDockerSettings(session);
    // Docker starts when the agent is ready, so the next pass enables forwarding first.
    if (this.#needsForwarding && !neededForwarding) return this.reconciler.ring();
    // The agent is ready already, or the subnet was lost meanwhile.
    if (this.phase !== 'configuring') return;
    const { ownLease } = session;
    // A failure to tell it fails the pass, and the next one tells it again.
    const subnet = formatPrefix(ownLease.lease.subnet);
    this.#setPhase('ready');
    try {
      this.ports.notify(`READY=1\n${this.#manager.take()}`);
    } catch (error) {
      this.#setPhase('configuring');
      throw error;
    }
    this.ports.log.info('daemon.ready', `Docker may start: this host carries ${subnet}`, { subnet });
  }

  /** Runs after each pass, so that files that others changed are repaired. Docker reads them at its next start. */
  async #writeDockerSettings({ network, ownLease }: Session): Promise<void> {
    const mtu = this.backend?.mtu;
    if (mtu === undefined) return;
    const ipMasquerade = this.options.ipMasquerade !== 'off';
    const settings = { network: network.network, subnet: ownLease.lease.subnet, mtu, ipMasquerade };
    const { written, conflicts, needsForwarding } = await this.ports.docker.write(settings);
    for (const path of written)
      this.ports.log.info('docker.written', `wrote ${path}, which was not as the lease and the options want it`, {
        path,
      });
    const known = new Set(this.dockerProblems);
    for (const conflict of conflicts) if (!known.has(conflict)) this.ports.log.warn('docker.conflict', conflict);
    this.dockerProblems = conflicts;
    this.#needsForwarding = needsForwarding;
  }

  async #tick(session: Session, signal: AbortSignal): Promise<void> {
    const { network, ownLease } = session;
    for (;;) {
      this.#moveForwardUntil(ownLease);
      if (this.engine.announce(this.unconfirmed ? undefined : ownLease, this.hasTunnel)) this.reconciler.ring();
      if (this.hasTunnel) this.engine.keepAsked(() => this.#starts.run(() => this.#giveDatapath(session)));
      if (this.peers.expire()) this.reconciler.ring();
      if (!this.unconfirmed) this.#writer.writeWhenDue(network, ownLease);
      this.#manager.tell();
      await pauseUntilRung(this.ports.clock, tickMs, this.#ticks, signal);
      if (this.hasTunnel) this.ports.datapath.check();
      if (this.peers.useSavedPeers()) this.reconciler.ring();
      if (this.ports.docker.isChangedByOthers()) this.reconciler.ringHost();
    }
  }

  /** Sets the deadline at which an unattended engine stops, before the quarantine that protects the subnet ends. */
  #moveForwardUntil(ownLease: OwnLease): void {
    const now = this.ports.clock.now();
    const unattendedUntilMs =
      ownLease.deadlineMs === Infinity
        ? now + 2 ** 40
        : ownLease.renewedAtMs + unconfirmedLimitMs(this.options.ttlSeconds);
    this.ports.datapath.forwardUntil(Math.max(unattendedUntilMs, now + forwardAheadMs));
  }

  #onEngine(document: NetworkConfig['engine']): void {
    if (!this.engine.follow(document)) return;
    this.#ticks.ring();
    const { wanted, userReason } = this.engine;
    const why = userReason ?? `the network document leaves it to --engine=${wanted}`;
    this.ports.log.info('engine.changed', `packets go by engine ${wanted} where they can: ${why}`, { engine: wanted });
    this.reconciler.ring();
  }

  #onNetworkProblem(problem: string | undefined): void {
    if (problem !== undefined && problem !== this.problem) this.ports.log.warn('network.differs', problem);
    [this.problem, this.problemPlace] = [problem, 'network'];
  }

  /** Runs before the loops end: packets of a subnet that another host owns must stop within a second. */
  #onLost(ownLease: OwnLease): void {
    if (!isOwnedByOther(ownLease.lost.reason)) return;
    this.ports.datapath.fence(true);
    this.#setPhase('lost');
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
    const onProblem = ({ code, message }: TartanError): void => {
      [this.problem, this.problemPlace] = [message, problemPlaces[code] ?? 'network'];
      this.#manager.tell();
    };
    const result = await retrying({ event, codes, limits: retryLimits, clock, log, signal, onProblem }, attempt);
    this.problem = undefined;
    return result;
  }

  #watchScope(): WatchScope | undefined {
    const { backend, peers, ports, reconciler } = this;
    const { tunnel } = reconciler;
    return backend && tunnel && { tunnel, leases: peers.current, node: ports.node.current, mtu: backend.mtu };
  }

  #desired(): Desired | undefined {
    if (!this.backend || !this.ownLease || !this.peers.known || this.ownLease.status === 'lost') return undefined;
    return {
      backend: this.backend,
      self: this.ownLease.lease,
      peers: this.peers.current,
      needs: { forwarding: this.#needsForwarding, kernel: this.engine.use },
    };
  }

  #setPhase(phase: Phase): void {
    this.phase = phase;
    // Readiness is told with its line.
    if (phase !== 'ready') this.#manager.tell();
    this.ports.log.debug('daemon.phase', phase, { phase });
  }
}

/** Whether another host owns the subnet or the identity of this host: then no packet of the subnet may pass. */
function isOwnedByOther(reason: unknown): boolean {
  return isTartanError(reason, 'LEASE_LOST') || isTartanError(reason, 'DUPLICATE_NODE');
}
