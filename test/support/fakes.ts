/** Fakes that record calls as text, for the agent's and the reconciler's unit tests. */
import { setTimeout as delay } from 'node:timers/promises';
import type {
  Datapath,
  DatapathConfig,
  DatapathStats,
  PeerMeasurement,
  Stranger,
} from '../../src/datapath/datapath.js';
import type { ApplyOptions, HostNetwork } from '../../src/host/host.js';
import { formatIpv4, formatPrefix, parseIpv4, parsePrefix, type Ipv4 } from '../../src/model/ip.js';
import { noFeatures, type KernelOffer } from '../../src/model/features.js';
import { Wake } from '../../src/lib/wake.js';
import { leaseValueOf, type Lease } from '../../src/model/lease.js';
import { parseNetworkConfig, type NetworkConfig } from '../../src/model/network.js';
import { formatRoute, type HostPlan, type TunnelPeer } from '../../src/model/plan.js';
import type { OwnLease, LeaseChange, LeaseRequest, LeaseStore, StoreSigns, WatchedSet } from '../../src/store/store.js';

export function fakeLease(subnet: string, publicIp: string, nodeId = 'peer', revision = 5n): Lease {
  const backend = { type: 'udp', data: undefined };
  return {
    subnet: parsePrefix(subnet),
    ...leaseValueOf({
      publicIp: parseIpv4(publicIp),
      backend,
      nodeId,
      bootId: 'boot',
      features: noFeatures,
      released: false,
    }),
    createRevision: revision,
    revision,
    leaseId: '77',
  };
}

export const emptyPlan: HostPlan = {
  links: [],
  neighbours: [],
  forwarding: [],
  routes: [],
  sysctls: [],
  firewall: [],
};

export class FakeHost implements HostNetwork {
  hearsAll = false;
  readonly calls: string[] = [];
  /** Thrown by the next passes, first one first. */
  readonly failures: Error[] = [];
  conflicts: readonly string[] = [];
  readonly #listeners: (() => void)[] = [];
  #last = '';

  /** Passes that read all of the host, and how long one takes. */
  sweeps = 0;
  sweepMs = 0;

  async apply(
    _network: string,
    want = emptyPlan,
    { heardOnly = false }: Partial<ApplyOptions> = {},
  ): ReturnType<HostNetwork['apply']> {
    if (!heardOnly) {
      this.sweeps++;
      if (this.sweepMs > 0) await delay(this.sweepMs);
    }
    const text = [
      ...want.links.map(
        ({ name, mtu, address }) => `link ${name} mtu ${mtu} ${address === undefined ? '' : formatPrefix(address)}`,
      ),
      ...want.routes.map(formatRoute),
      ...want.sysctls.flatMap(([name, value]) => (name.includes('.conf.') ? [] : [`${name}=${value}`])),
    ].join('; ');
    this.calls.push(`apply ${text}`);
    const failure = this.failures.shift();
    if (failure) throw failure;
    const changes = text === this.#last ? [] : ['changed'];
    this.#last = text;
    return { changes, conflicts: this.conflicts };
  }

  ring(): void {
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async interfaces(): ReturnType<HostNetwork['interfaces']> {
    return [];
  }

  /** The device by the address of a neighbour that does not answer. */
  readonly dead = new Map<string, string>();

  async deadNeighbour(address: Ipv4): ReturnType<HostNetwork['deadNeighbour']> {
    const device = this.dead.get(formatIpv4(address));
    return device === undefined ? undefined : { address, device };
  }

  async routeTo(): ReturnType<HostNetwork['routeTo']> {
    return undefined;
  }

  async defaultRoute(): ReturnType<HostNetwork['defaultRoute']> {
    return undefined;
  }

  async cleanup(): ReturnType<HostNetwork['cleanup']> {
    return { changes: [], conflicts: [] };
  }

  async close(): Promise<void> {}
}

export class FakeDatapath implements Datapath {
  readonly calls: string[] = [];
  readonly failures: Error[] = [];
  readonly device = 'tartan0';
  readonly adopted = false;
  answersProbes = true;
  kernelOffer: KernelOffer | undefined;
  kernel: DatapathStats['kernel'] = { state: 'off', peers: 0 };
  forwardUntilMs = 0;
  problems: readonly string[] = [];
  started: DatapathConfig | undefined;
  #generation = 0;

  async start(config: DatapathConfig): Promise<void> {
    this.started = config;
    this.calls.push(
      `start ${formatPrefix(config.subnet)} on ${formatIpv4(config.bindAddress)}:${config.port} mtu ${config.mtu}`,
    );
    const failure = this.failures.shift();
    if (failure) throw failure;
  }

  async stop(): Promise<void> {
    this.calls.push('stop');
    const failure = this.failures.shift();
    if (failure) throw failure;
  }

  publish(peers: Parameters<Datapath['publish']>[0]): number {
    this.calls.push(`publish ${peers.map(formatTunnelPeer).join(', ')}`);
    return ++this.#generation;
  }

  forwardUntil(bootMs: number): void {
    this.forwardUntilMs = bootMs;
  }

  fence(lost: boolean): void {
    this.calls.push(`fence ${lost}`);
  }

  get pid(): number | undefined {
    return this.stats().pid;
  }

  stats(): ReturnType<Datapath['stats']> {
    return {
      engine: 'tun',
      pid: 1,
      threads: 2,
      generationPublished: this.#generation,
      generationAdopted: this.#generation,
      counters: {},
      respawns: 0,
      handovers: 0,
      features: [],
      warnings: [],
      warningKinds: [],
      kernel: this.kernel,
    };
  }

  measured: readonly PeerMeasurement[] = [];
  strange: readonly Stranger[] = [];

  measure(): readonly PeerMeasurement[] {
    return this.measured;
  }

  strangers(): readonly Stranger[] {
    return this.strange;
  }

  check(): void {
    this.calls.push('check');
  }

  onChange(): void {}
  async close(): Promise<void> {}
}

/** A store whose answers a test scripts; the last answer of a list is repeated. */
export class FakeStore implements LeaseStore {
  problems: readonly string[] = [];
  signs: StoreSigns = { answeredMs: undefined, watchSinceMs: undefined, refused: undefined, endpoints: [] };
  readonly networks: (string | Error)[] = ['{"Network":"10.5.0.0/16"}'];
  readonly acquired: (FakeHeld | Error)[] = [new FakeHeld(fakeLease('10.5.1.0/24', '192.0.2.1', 'n'))];
  readonly requests: LeaseRequest[] = [];
  readonly #sets: WatchedSet[] = [];
  readonly #more = new Wake();

  push(...leases: Lease[]): void {
    this.#sets.push({ leases, rejected: [], revision: 9n, epoch: 0 });
    this.#more.ring();
  }

  async network(): Promise<NetworkConfig> {
    const next = this.networks.length > 1 ? this.networks.shift() : this.networks[0];
    if (typeof next !== 'string') throw next;
    return parseNetworkConfig(next);
  }

  async acquire(want: LeaseRequest): Promise<OwnLease> {
    this.requests.push(want);
    const next = this.acquired.length > 1 ? this.acquired.shift() : this.acquired[0];
    if (!(next instanceof FakeHeld)) throw next;
    return next;
  }

  async *watch({ signal }: { readonly signal: AbortSignal }): AsyncIterable<WatchedSet> {
    for (;;) {
      for (let set = this.#sets.shift(); set; set = this.#sets.shift()) yield set;
      await this.#more.wait(60_000, signal);
    }
  }

  readonly #documents = new Wake();

  documentChanged(): void {
    this.#documents.ring();
  }

  reconnections = 0;

  reconnect(): void {
    this.reconnections++;
  }

  async *networkChanges(_: NetworkConfig, { signal }: { readonly signal: AbortSignal }): AsyncIterable<void> {
    for (;;) {
      await this.#documents.wait(60_000, signal);
      yield;
    }
  }

  async close(): Promise<void> {}
}

export class FakeHeld implements OwnLease {
  status: OwnLease['status'] = 'held';
  closed = false;
  deadlineMs = 1e12;
  renewedAtMs = 0;
  renewFailures = 0;
  readonly #lost = new AbortController();
  readonly #listeners: (() => void)[] = [];
  readonly lease: Lease;

  constructor(lease: Lease) {
    this.lease = lease;
  }

  become(state: OwnLease['status']): void {
    this.status = state;
    for (const listener of this.#listeners) listener();
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  lose(error: Error): void {
    this.status = 'lost';
    this.#lost.abort(error);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  readonly updates: LeaseChange[] = [];

  async update(change: LeaseChange): Promise<void> {
    this.updates.push(change);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** Waits of a clock: for the end alone, or for one turn of the event loop. */
export const never = (signal: AbortSignal): Promise<void> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

export async function tick(signal: AbortSignal): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
  signal.throwIfAborted();
}

export function formatTunnelPeer({ prefixes, endpoint, port }: TunnelPeer): string {
  return `${prefixes.map(formatPrefix).join(' ')} via ${formatIpv4(endpoint)}:${port}`;
}
