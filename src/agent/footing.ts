/**
 * What the host runs on: network, backend and lease. The store gives them; while it is silent those of the state file
 * are used, and what the store says later confirms them or ends them.
 */
import { isTartanError, TartanError, type ErrorCode } from '../lib/errors.js';
import type { Backend } from '../backend/backend.js';
import { formatPrefix } from '../model/ipv4.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease, LeaseRequest } from '../store/store.js';
import { renewedHereMs, type Memory } from './memory.js';
import type { AgentOptions, AgentPorts } from './ports.js';
import { recall } from './recall.js';
import { RememberedLease } from './remembered-lease.js';
import type { Phase } from './status.js';

export interface Footing {
  readonly network: NetworkConfig;
  readonly backend: Backend;
  readonly held: OwnLease;
}

export interface FootingListener {
  enter(phase: Phase): void;
  /** The network is known, a lease not yet. */
  prepared(known: Omit<Footing, 'held'>): void;
  /** Tries until it works, for errors that are expected to heal. */
  retrying<T>(event: string, codes: readonly ErrorCode[], attempt: () => Promise<T>): Promise<T>;
}

/** How long the store may be silent before the state file is used. */
const silenceMs = 1_000;

export class FootingSearch {
  readonly #ports: AgentPorts;
  readonly #options: AgentOptions;
  readonly #listener: FootingListener;
  /** The remembered lease, once it is used. */
  #inUse: RememberedLease | undefined;

  constructor(ports: AgentPorts, options: AgentOptions, listener: FootingListener) {
    this.#ports = ports;
    this.#options = options;
    this.#listener = listener;
  }

  /** @returns also what a sound state file says, whoever gave the footing */
  async find(signal: AbortSignal): Promise<{ readonly footing: Footing; readonly memory?: Memory }> {
    const { previous, memory } = recall(this.#ports, this.#options.node, network => this.#prepare(network));
    const asking = this.#askStore(previous, signal);
    if (!memory) return { footing: await asking };
    const silence = this.#ports.clock.sleep(silenceMs, signal).then(() => undefined);
    const answer = await Promise.race([asking, silence]);
    return { footing: answer ?? this.#standOn(memory, asking, signal), memory };
  }

  async #askStore(previous: LeaseRequest['previous'], signal: AbortSignal): Promise<Footing> {
    const { store, log } = this.#ports;
    const { node, ttlSeconds } = this.#options;
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
    const held = await this.#listener.retrying('lease.waiting', ['NO_FREE_SUBNET', 'STORE_UNAVAILABLE'], () =>
      store.acquire({ node, network, ttlSeconds, previous }, { signal }).catch((error: unknown) => {
        // In use already and not to be had: somebody else has it.
        if (this.#inUse && isTartanError(error, 'NO_FREE_SUBNET')) throw lostMeanwhile(this.#inUse, error);
        throw error;
      }),
    );
    const subnet = formatPrefix(held.lease.subnet);
    const lasting = held.deadlineMs === Infinity ? null : ttlSeconds;
    log.info('lease.acquired', `subnet ${subnet} is ours`, { subnet, backend: backend.type, ttlSeconds: lasting });
    return { network, backend, held };
  }

  /** @throws TartanError CONFIG_INVALID */
  #prepare(network: NetworkConfig): Omit<Footing, 'held'> {
    this.#options.checkNetwork(network);
    return { network, backend: this.#options.chooseBackend({ ...this.#options, network }) };
  }

  /** @param asking what replaces it: the same subnet goes on unchanged, any other means that this one is lost */
  #standOn(memory: Memory, asking: Promise<Footing>, signal: AbortSignal): Footing {
    const { node, ttlSeconds } = this.#options;
    const { clock, log, state } = this.#ports;
    const held = new RememberedLease(memory.lease, renewedHereMs(memory, { node, ttlSeconds, nowMs: clock.now() }));
    this.#inUse = held;
    asking.then(
      answer => held.settle(answer.held),
      (error: unknown) => {
        if (!signal.aborted) held.lose(error);
      },
    );
    const [subnet, peers] = [formatPrefix(memory.lease.subnet), memory.peers.length];
    log.warn('lease.remembered', `etcd is silent: ${subnet} and ${peers} peers of ${state.path} are used meanwhile`, {
      subnet,
      peers,
    });
    return { ...this.#prepare(memory.network), held };
  }
}

function lostMeanwhile({ lease }: OwnLease, cause: TartanError): TartanError {
  return new TartanError(
    'LEASE_LOST',
    `subnet ${formatPrefix(lease.subnet)} is not ours any more, and there is no other: ${cause.message}`,
    { cause },
  );
}
