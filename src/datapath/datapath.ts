/** The port to the engine that carries packets. */
import type { TunnelRoute } from '../model/plan.js';
import type { Ipv4, Prefix } from '../model/ipv4.js';

/** Number of a published route table; 0 is the empty table of a fresh start. */
export type Generation = number;

export interface DatapathConfig {
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** Our own address as peers see it: never a valid outer source. */
  readonly publicIp: Ipv4;
  /** Outer source: the UDP socket is bound to it. */
  readonly bindAddress: Ipv4;
  readonly port: number;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  /** Drop inner packets whose source or destination does not fit their sender; on unless switched off by name. */
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
}

export interface DatapathStats {
  readonly engine: 'tun';
  /** undefined while no data process runs. */
  readonly pid: number | undefined;
  readonly threads: number;
  readonly generationPublished: Generation;
  /** The lowest over all threads. */
  readonly generationAdopted: Generation;
  /** Summed over threads; every received packet is in exactly one counter, except those named "beside". */
  readonly counters: Readonly<Record<string, number>>;
  readonly respawns: number;
  /** What the kernel does in bulk for the engine; packets pass without it, only slower. */
  readonly features: readonly string[];
  /** Things the kernel gave less of, or features missing. */
  readonly warnings: readonly string[];
}

export interface Datapath {
  /** Name of the tunnel link. */
  readonly device: string;
  /** True when a data process of an earlier daemon was found and goes on without a lost packet. */
  readonly adopted: boolean;
  /** As last set by `forwardUntil`, also by the earlier daemon of an adopted process; 0 before. */
  readonly forwardUntilMs: number;
  /**
   * Gives the engine its identity and lets packets flow. An adopted process with the same identity and of our build is
   * left as it is; from any other one a new process takes over, without a lost packet, and while it cannot the old one
   * goes on. One of another layout goes on until the first `publish`. Called again after a change.
   * @throws TartanError DATAPATH_FAILED, PERMISSION
   */
  start(config: DatapathConfig): Promise<void>;
  /** Never blocks: while both slots are in use the newest table waits. */
  publish(routes: readonly TunnelRoute[]): Generation;
  /** Milliseconds of CLOCK_BOOTTIME past which the engine drops everything unless moved ahead. */
  forwardUntil(bootMs: number): void;
  /** Drops both directions: the subnet belongs to somebody else. */
  fence(lost: boolean): void;
  stats(): DatapathStats;
  /** Looks at once for what it looks for every second: a link that was deleted. To be called when links changed. */
  check(): void;
  /** Rings when the data process was respawned or could not be. */
  onChange(listener: () => void): void;
  /** Leaves the engine running. */
  close(): Promise<void>;
}
