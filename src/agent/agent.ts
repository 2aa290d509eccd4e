/**
 * One host's life: wait for the network document, acquire a subnet, bring the tunnel up, tell Docker, keep everything
 * as planned, and stop using the subnet at once when it is lost.
 *
 *   starting -> waiting-for-network -> waiting-for-lease -> configuring -> ready -> (lost | stopping)
 */
import type { Clock } from '../lib/clock.js';
import { isTartanError, messageOf, TartanError, type ErrorCode } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { retrying } from '../lib/retry.js';
import type { Backend, BackendContext } from '../backend/backend.js';
import type { Datapath } from '../datapath/datapath.js';
import type { DockerFiles } from '../docker/docker.js';
import type { HostNetwork } from '../host/host.js';
import { formatPrefix, samePrefix } from '../model/ipv4.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { HeldLease, LeaseRequest, LeaseStore } from '../store/store.js';
import { Peers } from './peers.js';
import { Reconciler, type Desired } from './reconciler.js';
import type { StateFile } from './state-file.js';
import type { Phase } from './status.js';

export interface AgentPorts {
  readonly store: LeaseStore;
  readonly host: HostNetwork;
  readonly datapath: Datapath;
  readonly docker: DockerFiles;
  readonly state: StateFile;
  readonly clock: Clock;
  readonly log: Log;
  /** sd_notify(3). */
  readonly notify: (state: string) => void;
}

export interface AgentOptions {
  readonly node: Node;
  readonly ttlSeconds: number;
  readonly resyncMs: number;
  readonly ipMasquerade: BackendContext['ipMasquerade'];
  readonly forwardRules: boolean;
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
  /** @throws TartanError CONFIG_INVALID for a backend this version does not run */
  readonly chooseBackend: (context: BackendContext) => Backend;
  /** Refuses a network that would cut the host off. */
  readonly checkNetwork: (network: NetworkConfig) => void;
}

/** A subnet stays its owner's for this many TTLs after the last KeepAlive (reliability.md section 3). */
const quarantineTtls = 7;
/** How far a living daemon moves the data plane's own deadline ahead, and how often. */
const forwardAheadMs = 15_000;
const forwardTickMs = 1_000;
const retry = { firstMs: 500, capMs: 5_000 };

export class Agent {
  phase: Phase = 'starting';
  network: NetworkConfig | undefined;
  backend: Backend | undefined;
  held: HeldLease | undefined;
  readonly peers: Peers;
  readonly reconciler: Reconciler;
  readonly ports: AgentPorts;
  readonly options: AgentOptions;
  /** What it waits for, or what differs from the running network document. */
  problem: string | undefined;

  constructor(ports: AgentPorts, options: AgentOptions) {
    this.ports = ports;
    this.options = options;
    this.peers = new Peers(ports.log);
    this.reconciler = new Reconciler(ports, () => this.#desired());
  }

  /** Resolves only by rejection: the signal's reason, or the TartanError that ends the daemon. */
  async run(signal: AbortSignal): Promise<never> {
    const { network, backend } = await this.#waitForNetwork(signal);
    const held = await this.#waitForLease(network, backend, signal);
    const running = AbortSignal.any([signal, held.lost]);
    held.lost.addEventListener('abort', () => this.#onLost(held), { once: true });
    try {
      await this.#startDatapath(network, backend, held, running);
      await this.#forward(network, held, running);
    } catch (error) {
      throw held.lost.aborted ? held.lost.reason : error;
    } finally {
      await held.close();
    }
    throw new TartanError('INVARIANT', 'the agent ended without a reason');
  }

  async #waitForNetwork(signal: AbortSignal): Promise<{ network: NetworkConfig; backend: Backend }> {
    this.#enter('waiting-for-network');
    return this.#retrying('network.waiting', signal, ['CONFIG_INVALID', 'STORE_UNAVAILABLE'], async () => {
      const network = await this.ports.store.network({ signal });
      this.options.checkNetwork(network);
      const backend = this.options.chooseBackend({ ...this.options, network });
      for (const warning of network.warnings) this.ports.log.warn('network.warning', warning);
      this.network = network;
      this.backend = backend;
      return { network, backend };
    });
  }

  async #waitForLease(network: NetworkConfig, backend: Backend, signal: AbortSignal): Promise<HeldLease> {
    this.#enter('waiting-for-lease');
    const request = {
      node: this.options.node,
      network,
      ttlSeconds: this.options.ttlSeconds,
      previous: this.#previous(),
    };
    const held = await this.#retrying('lease.waiting', signal, ['NO_FREE_SUBNET', 'STORE_UNAVAILABLE'], () =>
      this.ports.store.acquire(request, { signal }),
    );
    this.held = held;
    let state = held.state;
    held.onChange(() => {
      if (held.state !== state)
        this.ports.log.info('lease.state', `the lease of ${formatPrefix(held.lease.subnet)} is ${held.state}`, {
          state: held.state,
        });
      state = held.state;
      this.reconciler.ring();
    });
    this.ports.log.info('lease.acquired', `subnet ${formatPrefix(held.lease.subnet)} is ours`, {
      subnet: formatPrefix(held.lease.subnet),
      backend: backend.type,
      ttlSeconds: held.deadlineMs === Infinity ? null : this.options.ttlSeconds,
    });
    this.#saveState(network, held);
    return held;
  }

  /** State file first, then (by the store) our own entry in etcd, then `subnet.env`. */
  #previous(): LeaseRequest['previous'] {
    const read = this.ports.state.read(this.options.node.id);
    if (read.kind === 'refused') this.ports.log.warn('state.refused', `${read.reason}; it is not used`);
    const fromEnv = this.ports.docker.previousSubnet();
    return [
      ...(read.kind === 'found' ? [{ subnet: read.state.subnet, source: 'state' as const }] : []),
      ...(fromEnv ? [{ subnet: fromEnv, source: 'subnet-env' as const }] : []),
    ];
  }

  #saveState(network: NetworkConfig, held: HeldLease): void {
    try {
      this.ports.state.write({ nodeId: this.options.node.id, network: network.network, subnet: held.lease.subnet });
    } catch (error) {
      this.ports.log.error(
        'state.failed',
        `cannot write ${this.ports.state.path} (${messageOf(error)}): a restart finds the subnet in etcd instead`,
      );
    }
  }

  async #startDatapath(network: NetworkConfig, backend: Backend, held: HeldLease, signal: AbortSignal): Promise<void> {
    this.#enter('configuring');
    const { node, checkSource, checkDestination } = this.options;
    const port = network.backend.type === 'udp' ? network.backend.port : 0;
    await this.#retrying('datapath.waiting', signal, ['DATAPATH_FAILED'], async () => {
      this.#moveForwardUntil(held);
      await this.ports.datapath.start({
        network: network.network,
        subnet: held.lease.subnet,
        publicIp: node.publicIp,
        bindAddress: node.interface.address,
        port,
        mtu: backend.mtu,
        checkSource,
        checkDestination,
      });
      this.ports.datapath.fence(false);
      this.#moveForwardUntil(held);
    });
  }

  /** Everything that goes on while the lease is ours; the first to fail ends all. */
  async #forward(network: NetworkConfig, held: HeldLease, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const running = AbortSignal.any([signal, stop.signal]);
    const loops = [
      this.#watch(network, held, running),
      this.reconciler.run(this.options.resyncMs, running, () => this.#onPass(network, held)),
      this.#tick(held, running),
      this.#watchNetwork(network, running),
    ];
    try {
      await Promise.race(loops);
    } finally {
      stop.abort();
      await Promise.allSettled(loops);
    }
  }

  async #watch(network: NetworkConfig, held: HeldLease, signal: AbortSignal): Promise<void> {
    for await (const set of this.ports.store.watch({ signal })) {
      const self = { network: network.network, subnet: held.lease.subnet, publicIp: this.options.node.publicIp };
      this.peers.accept(set, self);
      this.reconciler.ring();
    }
  }

  async #onPass(network: NetworkConfig, held: HeldLease): Promise<void> {
    if (!this.backend || this.phase === 'ready') return;
    const written = this.ports.docker.write({
      network: network.network,
      subnet: held.lease.subnet,
      mtu: this.backend.mtu,
      ipMasquerade: this.options.ipMasquerade !== 'off',
    });
    for (const path of written) this.ports.log.info('docker.written', `wrote ${path}`, { path });
    this.#enter('ready');
    this.ports.notify('READY=1');
    this.ports.log.info('daemon.ready', 'Docker may start', { subnet: formatPrefix(held.lease.subnet) });
  }

  async #tick(held: HeldLease, signal: AbortSignal): Promise<void> {
    for (;;) {
      this.#moveForwardUntil(held);
      await this.ports.clock.sleep(forwardTickMs, signal);
    }
  }

  /** Without a living daemon the engine stops by itself before the quarantine that protects the subnet ends. */
  #moveForwardUntil(held: HeldLease): void {
    const now = this.ports.clock.now();
    const orphanMs =
      held.deadlineMs === Infinity
        ? now + 2 ** 40
        : held.renewedAtMs + (quarantineTtls - 1) * this.options.ttlSeconds * 1000;
    this.ports.datapath.forwardUntil(Math.max(orphanMs, now + forwardAheadMs));
  }

  /** The running network stays as it is; a changed or spoilt document is said, not followed. */
  async #watchNetwork(running: NetworkConfig, signal: AbortSignal): Promise<void> {
    for await (const _ of this.ports.store.networkChanges({ signal })) {
      const problem = await this.#compareNetwork(running, signal);
      if (problem !== undefined && problem !== this.problem) this.ports.log.warn('network.differs', problem);
      this.problem = problem;
    }
  }

  async #compareNetwork(running: NetworkConfig, signal: AbortSignal): Promise<string | undefined> {
    try {
      const now = await this.ports.store.network({ signal });
      const same =
        samePrefix(now.network, running.network) &&
        now.subnetLength === running.subnetLength &&
        JSON.stringify(now.backend) === JSON.stringify(running.backend);
      return same
        ? undefined
        : `config_mismatch: the network document changed to ${formatPrefix(now.network)}; ${formatPrefix(running.network)} is kept until a restart`;
    } catch (error) {
      signal.throwIfAborted();
      if (isTartanError(error, 'CONFIG_INVALID'))
        return `config_invalid: ${error.message}; the last good document is kept`;
      return this.problem;
    }
  }

  /** At once, before any loop ends: packets of a subnet that is another's must stop within a second. */
  #onLost(held: HeldLease): void {
    this.ports.datapath.fence(true);
    this.#enter('lost');
    this.ports.log.error(
      'lease.lost',
      `${messageOf(held.lost.reason)}; traffic of ${formatPrefix(held.lease.subnet)} is stopped`,
      {
        subnet: formatPrefix(held.lease.subnet),
      },
    );
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
    if (!this.backend || !this.held || !this.peers.known || this.held.state === 'lost') return undefined;
    return { backend: this.backend, self: this.held.lease, peers: this.peers.current };
  }

  #enter(phase: Phase): void {
    this.phase = phase;
    this.ports.log.debug('daemon.phase', phase, { phase });
  }
}
