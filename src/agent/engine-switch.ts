/**
 * Decides by which engine packets go: the flag of the host, unless the network document says `user`, which is followed
 * while the daemon runs. The own lease says so first: a host ceases to send by the kernel at once, and goes on receiving
 * for a minute after its lease has ceased to announce it, because peers read it later.
 */
import type { KernelUse } from '../backend/backend.js';
import type { DatapathStats } from '../datapath/datapath.js';
import { messageOf } from '../lib/errors.js';
import { featuresOf, whyNotKernel, type Features } from '../model/features.js';
import type { NetworkConfig } from '../model/network.js';
import type { EngineChoice } from '../model/plan.js';
import type { OwnLease } from '../store/store.js';
import type { AgentPorts } from './ports.js';
import type { SavedState } from './saved-state.js';
import type { KernelEngineStatus } from './status.js';

const receiveMs = 60_000;

export class EngineSwitch {
  readonly #ports: Pick<AgentPorts, 'datapath' | 'clock' | 'log' | 'node'>;
  readonly #flag: EngineChoice;
  #document: NetworkConfig['engine'] = 'auto';
  /** Our lease announces the kernel engine, or that of the daemon before did. */
  #isAnnounced = false;
  #receivesUntilMs = 0;
  /** What the lease was last told to say. */
  #told: string | undefined;
  /** What the data plane was given last. */
  #given: EngineChoice | undefined;
  #lastUse: KernelUse = 'off';

  constructor(ports: Pick<AgentPorts, 'datapath' | 'clock' | 'log' | 'node'>, flag: EngineChoice) {
    this.#ports = ports;
    this.#flag = flag;
  }

  /** What flag and document ask for. */
  get wanted(): EngineChoice {
    return this.#document === 'user' ? 'user' : this.#flag;
  }

  /** Why only user space is wanted; undefined where it is not so. */
  get userReason(): string | undefined {
    if (this.#document === 'user') return 'Engine of the network document is "user"';
    return this.#flag === 'user' ? 'this host runs with --engine=user' : undefined;
  }

  /** What the data plane is asked for: it still receives what peers send that have not read our lease. */
  get asked(): EngineChoice {
    const receives = this.#isAnnounced || this.#ports.clock.now() < this.#receivesUntilMs;
    if (this.wanted !== 'user' || !receives) return this.wanted;
    return this.#given === 'auto' ? 'auto' : 'kernel';
  }

  describe({ state, reason, peers }: DatapathStats['kernel']): KernelEngineStatus {
    return { wanted: this.wanted, state, reason: this.userReason ?? reason ?? null, peers };
  }

  /**
   * Returns why packets to a peer go by user space; null where this host has a reason of its own, which `describe` tells.
   * @param engineReason of the engine itself, where both hosts could
   */
  whyUser(theirs: Features, engineReason: string | null): string | null {
    const ours = this.#ports.datapath.kernelOffer;
    if (this.wanted === 'user' || !ours) return null;
    return whyNotKernel(theirs, ours) ?? engineReason ?? 'the kernel path to it was not tried yet';
  }

  /** How the plan uses the kernel engine that runs. */
  get use(): KernelUse {
    if (!this.#ports.datapath.kernelOffer) return 'off';
    return this.wanted === 'user' ? 'receives' : 'sends';
  }

  /** @returns whether something else is wanted now */
  follow(document: NetworkConfig['engine']): boolean {
    const before = this.wanted;
    this.#document = document;
    return this.wanted !== before;
  }

  /**
   * Called before the lease is acquired, and again when the session begins. Until the engine runs, the lease goes on
   * announcing what it announced before a restart, so that no peer leaves the kernel path meanwhile.
   * @returns what the lease is to say
   */
  begin({ engine }: NetworkConfig, saved: SavedState | undefined): Features {
    const { datapath, node } = this.#ports;
    this.#document = engine;
    const before = saved?.lease.bootId === node.current.bootId ? saved?.lease.features.kernel : undefined;
    const kernelOffer = datapath.kernelOffer ?? before;
    if (kernelOffer) this.#isAnnounced = true;
    const { answersProbes } = datapath;
    return featuresOf({ answersProbes, kernelOffer: this.wanted === 'user' ? undefined : kernelOffer });
  }

  given(engine: EngineChoice): void {
    this.#given = engine;
  }

  /** Gives the data plane what is asked for now, where it has something else. @param give calls `given` */
  keepAsked(give: () => Promise<void>): void {
    if (this.asked === this.#given) return;
    this.#given = this.asked;
    give().catch((error: unknown) => {
      // The next tick tries again.
      this.#given = undefined;
      this.#ports.log.debug('engine.not-changed', messageOf(error));
    });
  }

  /**
   * Called each tick: another data process may run, and the engine may come and go by itself.
   * @param ownLease undefined as long as the store has not confirmed it
   * @returns whether the plan uses the engine in another way now
   */
  announce(ownLease: OwnLease | undefined, hasTunnel: boolean): boolean {
    if (ownLease && this.#ports.datapath.pid) this.#announce(ownLease, hasTunnel);
    const before = this.#lastUse;
    this.#lastUse = this.use;
    return this.use !== before;
  }

  #announce(ownLease: OwnLease, hasTunnel: boolean): void {
    const { datapath, clock } = this.#ports;
    const kernelOffer = hasTunnel && this.wanted !== 'user' ? datapath.kernelOffer : undefined;
    const features = featuresOf({ answersProbes: hasTunnel && datapath.answersProbes, kernelOffer });
    this.#tell(ownLease, features);
    const saysKernel = ownLease.lease.features.kernel !== undefined;
    if (features.kernel) this.#isAnnounced = true;
    else if (this.#isAnnounced && !saysKernel) {
      this.#isAnnounced = false;
      this.#receivesUntilMs = clock.now() + receiveMs;
    }
  }

  /** Writes nothing when the lease says so already. */
  #tell(ownLease: OwnLease, features: Features): void {
    const text = textOf(features);
    if (this.#told === text) return;
    this.#told = text;
    if (text === textOf(ownLease.lease.features)) return;
    const { probe: _, kernel: __, ...kept } = ownLease.lease.features;
    ownLease.update({ features: { ...kept, ...features } }).catch((error: unknown) => {
      this.#ports.log.debug('lease.not-updated', messageOf(error));
    });
  }
}

/** Of the features that the data plane decides. */
function textOf({ probe, kernel }: Features): string {
  return JSON.stringify([probe, kernel?.port, kernel?.vni]);
}
