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
import type { Backend } from '../backend/backend.js';
import type { DatapathConfig } from '../datapath/datapath.js';
import { formatPrefix } from '../model/ipv4.js';
import type { Vantage } from '../model/lease-set.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease } from '../store/store.js';
import { FootingSearch, type Footing } from './footing.js';
import { orphanMs } from './memory.js';
import { watchNetwork } from './network-watch.js';
import { Peers } from './peers.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import { Reconciler, type Desired } from './reconciler.js';
import { RememberedLease } from './remembered-lease.js';
import { StateWriter } from './state-writer.js';
import type { Phase } from './status.js';
import { watchUnderlay, type Footprint } from './underlay-watch.js';

/** How far a living daemon moves the data plane's own deadline ahead, and how often. */
const forwardAheadMs = 15_000;
const tickMs = 1_000;
const retry = { firstMs: 500, capMs: 5_000 };

export class Agent {
  phase: Phase = 'starting';
  network: NetworkConfig | undefined;
  backend: Backend | undefined;
  held: OwnLease | undefined;
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
    this.#writer = new StateWriter({ ...ports, peers: this.peers }, options.node, options.ttlSeconds);
  }

  /** Started from the state file, and the store has not answered since. */
  get unconfirmed(): boolean {
    return this.held instanceof RememberedLease && !this.held.settled;
  }

  /** Resolves only by rejection: the signal's reason, or the TartanError that ends the daemon. */
  async run(signal: AbortSignal): Promise<never> {
    const end = new AbortController();
    const life = AbortSignal.any([signal, end.signal]);
    try {
      await this.#live(await this.#findFooting(life), life);
    } finally {
      end.abort();
    }
    throw new TartanError('INVARIANT', 'the agent ended without a reason');
  }

  async #findFooting(signal: AbortSignal): Promise<Footing> {
    const search = new FootingSearch(this.ports, this.options, {
      enter: phase => this.#enter(phase),
      prepared: ({ network, backend }) => ([this.network, this.backend] = [network, backend]),
      retrying: (event, codes, attempt) => this.#retrying(event, signal, codes, attempt),
    });
    const { footing, memory } = await search.find(signal);
    [this.network, this.backend, this.held] = [footing.network, footing.backend, footing.held];
    if (memory) this.peers.remember(memory, this.#vantage(footing), this.options.node);
    if (this.unconfirmed) this.peers.makeDo();
    this.#listen(footing.held);
    return footing;
  }

  #listen(held: OwnLease): void {
    let { status: state } = held;
    held.onChange(() => {
      const subnet = formatPrefix(held.lease.subnet);
      if (held.status !== state)
        this.ports.log.info('lease.state', `the lease of ${subnet} is ${held.status}`, { state: held.status });
      state = held.status;
      this.reconciler.ring();
    });
  }

  async #live(footing: Footing, signal: AbortSignal): Promise<void> {
    const { network, held } = footing;
    const running = AbortSignal.any([signal, held.lost]);
    if (held.lost.aborted) this.#onLost(held);
    else held.lost.addEventListener('abort', () => this.#onLost(held), { once: true });
    try {
      await this.#startDatapath(footing, running);
      await this.#forward(footing, running);
    } catch (error) {
      if (!held.lost.aborted) throw error;
      if (this.options.onLost === 'degraded' && isOwnedByOther(held.lost.reason)) await aborted(signal);
      throw held.lost.reason;
    } finally {
      if (!this.unconfirmed) this.#writer.writeLast(network, held);
      await held.close();
    }
  }

  async #startDatapath({ network, backend, held }: Footing, signal: AbortSignal): Promise<void> {
    this.#enter('configuring');
    await this.#retrying('datapath.waiting', signal, ['DATAPATH_FAILED'], async () => {
      this.#moveForwardUntil(held);
      await this.ports.datapath.start(this.#datapathConfig({ network, backend, held }, this.options.node));
      // Lost meanwhile: it stays fenced.
      signal.throwIfAborted();
      this.ports.datapath.fence(false);
      this.#moveForwardUntil(held);
    });
  }

  #datapathConfig({ network, backend, held }: Footing, node: Footprint): DatapathConfig {
    const { checkSource, checkDestination } = this.options;
    return {
      network: network.network,
      subnet: held.lease.subnet,
      publicIp: node.publicIp,
      bindAddress: node.interface.address,
      port: network.backend.type === 'udp' ? network.backend.port : 0,
      mtu: backend.mtu,
      checkSource,
      checkDestination,
    };
  }

  /** Everything that goes on while the lease is ours; the first to fail ends all. */
  async #forward(footing: Footing, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const running = AbortSignal.any([signal, stop.signal]);
    const loops = [
      this.#watch(footing, running),
      this.reconciler.run(this.options.resyncMs, running, () => this.#onPass(footing)),
      this.#tick(footing, running),
      this.#watchUnderlay(footing, running),
      watchNetwork(this.ports.store, footing.network, running, problem => this.#onNetwork(problem)),
    ];
    try {
      await Promise.race(loops);
    } finally {
      stop.abort();
      await Promise.allSettled(loops);
    }
  }

  async #watch(footing: Footing, signal: AbortSignal): Promise<void> {
    for await (const set of this.ports.store.watch({ signal })) {
      this.peers.accept(set, this.#vantage(footing));
      this.reconciler.ring();
      if (!this.unconfirmed) this.#writer.writeWhenDue(footing.network, footing.held);
    }
  }

  #watchUnderlay(footing: Footing, signal: AbortSignal): Promise<never> {
    const watch = {
      ...this.ports,
      current: () => this.options.node,
      choose: this.options.chooseUnderlay,
      move: (to: Footprint) => this.#moveTo(footing, to, signal),
      onProblem: (problem: string | undefined) => (this.underlayProblem = problem),
    };
    return watchUnderlay(watch, signal);
  }

  /** The tunnel first, so that it is there when peers send to the new address; the plan and Docker's files follow. */
  async #moveTo(footing: Footing, to: Footprint, signal: AbortSignal): Promise<void> {
    const { network, held } = footing;
    const { node } = this.options;
    const { publicIp, interface: link } = node;
    this.options.checkNetwork(network);
    const backend = this.options.chooseBackend({ ...this.options, node: { ...node, ...to }, network });
    await this.ports.datapath.start(this.#datapathConfig({ network, backend, held }, to));
    this.options.takeUnderlay(to);
    this.backend = backend;
    this.reconciler.ring();
    if (to.interface.address !== link.address) this.ports.store.reconnect();
    if (to.publicIp !== publicIp)
      held.update({ publicIp: to.publicIp }).catch((error: unknown) => {
        if (!signal.aborted) this.ports.log.warn('lease.not-updated', messageOf(error));
      });
  }

  #vantage({ network, held }: Footing): Vantage {
    return { network: network.network, subnet: held.lease.subnet, publicIp: this.options.node.publicIp };
  }

  async #onPass(footing: Footing): Promise<void> {
    // Not by a pass that was under way when the subnet was lost.
    if (this.phase !== 'configuring' && this.phase !== 'ready') return;
    const forwarded = this.#forwarding;
    await this.#tellDocker(footing);
    // That first: Docker starts when we are ready.
    if (this.#forwarding && !forwarded) return this.reconciler.ring();
    // Ready already, or lost in the meantime.
    if (this.phase !== 'configuring') return;
    const { held } = footing;
    this.#enter('ready');
    this.ports.notify('READY=1');
    this.ports.log.info('daemon.ready', 'Docker may start', { subnet: formatPrefix(held.lease.subnet) });
  }

  /** Each time, so that files that others lost or changed are put right; Docker takes them at its next start. */
  async #tellDocker({ network, held }: Footing): Promise<void> {
    const mtu = this.backend?.mtu;
    if (mtu === undefined) return;
    const ipMasquerade = this.options.ipMasquerade !== 'off';
    const settings = { network: network.network, subnet: held.lease.subnet, mtu, ipMasquerade };
    const { written, conflicts, needsForwarding } = await this.ports.docker.write(settings);
    for (const path of written) this.ports.log.info('docker.written', `wrote ${path}`, { path });
    const standing = new Set(this.dockerProblems);
    for (const conflict of conflicts) if (!standing.has(conflict)) this.ports.log.warn('docker.conflict', conflict);
    this.dockerProblems = conflicts;
    this.#forwarding = needsForwarding;
  }

  async #tick({ network, held }: Footing, signal: AbortSignal): Promise<void> {
    for (;;) {
      this.#moveForwardUntil(held);
      if (this.peers.expire()) this.reconciler.ring();
      if (!this.unconfirmed) this.#writer.writeWhenDue(network, held);
      await this.ports.clock.sleep(tickMs, signal);
      if (this.peers.makeDo()) this.reconciler.ring();
    }
  }

  /** Without a living daemon the engine stops by itself before the quarantine that protects the subnet ends. */
  #moveForwardUntil(held: OwnLease): void {
    const now = this.ports.clock.now();
    const alone = held.deadlineMs === Infinity ? now + 2 ** 40 : held.renewedAtMs + orphanMs(this.options.ttlSeconds);
    this.ports.datapath.forwardUntil(Math.max(alone, now + forwardAheadMs));
  }

  #onNetwork(problem: string | undefined): void {
    if (problem !== undefined && problem !== this.problem) this.ports.log.warn('network.differs', problem);
    this.problem = problem;
  }

  /** At once, before any loop ends: packets of a subnet that is another's must stop within a second. */
  #onLost(held: OwnLease): void {
    if (!isOwnedByOther(held.lost.reason)) return;
    this.ports.datapath.fence(true);
    this.#enter('lost');
    this.#writer.forget();
    const subnet = formatPrefix(held.lease.subnet);
    const text = `${messageOf(held.lost.reason)}; traffic of ${subnet} is stopped, Docker is left alone`;
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
    if (!this.backend || !this.held || !this.peers.known || this.held.status === 'lost') return undefined;
    return { backend: this.backend, self: this.held.lease, peers: this.peers.current, forwarding: this.#forwarding };
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

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
