/** The port to the engine that carries packets. */
import type { KernelOffer } from '../model/features.js';
import type { EngineChoice, TunnelPeer } from '../model/plan.js';
import type { Ipv4, Prefix } from '../model/ip.js';

/** The number of a published route table; 0 is the empty table of a new data process. */
export type Generation = number;

export interface DatapathConfig {
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** Our own address as peers see it. It is never a valid outer source. */
  readonly publicIp: Ipv4;
  /** The outer source: the UDP socket is bound to it. */
  readonly bindAddress: Ipv4;
  readonly port: number;
  /** Bytes of the largest inner packet that is sent. */
  readonly mtu: number;
  /**
   * Bytes of the largest outer packet of the underlay: what fits it is received, whatever `mtu` is, because peers may have
   * a longer one. Default: `mtu` and the most that any engine adds.
   */
  readonly underlayMtu?: number;
  /** Drop inner packets whose source or destination does not match their sender; on unless an option disables it. */
  readonly checkSource: boolean;
  readonly checkDestination: boolean;
  readonly engine: EngineChoice;
  /** VXLAN network identifier of the kernel engine, 24 bits. */
  readonly vni: number;
}

/** `unavailable`: it was asked for, and this host cannot; `on` also while it only receives. */
export interface KernelEngineStats {
  readonly state: 'off' | 'on' | 'unavailable';
  /** Why it is unavailable. */
  readonly reason?: string;
  /** Peers whose packets go by the kernel now. */
  readonly peers: number;
}

/**
 * `kernel`: it gives less than was asked for; `account`: the user of the data process; `room`: peers that found none;
 * `spoofed`: packets whose source is not their sender's; `build`: a data process of another build goes on.
 */
export type WarningKind = 'kernel' | 'account' | 'room' | 'spoofed' | 'build';

export interface DatapathStats {
  readonly engine: 'tun';
  /** undefined while no data process runs. */
  readonly pid: number | undefined;
  readonly threads: number;
  readonly generationPublished: Generation;
  /** The lowest generation over all threads. */
  readonly generationAdopted: Generation;
  /** Sums over all threads. Every received packet is in exactly one counter, except in those named "beside". */
  readonly counters: Readonly<Record<string, number>>;
  readonly respawns: number;
  /** Data processes that took the place of a running one. */
  readonly handovers: number;
  /** The offloads of the kernel that the engine uses; without them packets pass, only slower. */
  readonly features: readonly string[];
  /** What the kernel gave less of than requested, or does not offer. */
  readonly warnings: readonly string[];
  /** The kind of each warning, in the same order. */
  readonly warningKinds: readonly WarningKind[];
  readonly kernel: KernelEngineStats;
}

/** What the data process has measured of one peer. Times are CLOCK_BOOTTIME milliseconds; undefined: never, not known. */
export interface PeerMeasurement {
  /** As in TunnelPeer. */
  readonly identity: string;
  /** By user space. */
  readonly heardMs: number | undefined;
  /** Data or an answer of its kernel path, which goes on when its processes are dead. */
  readonly heardByKernelMs?: number | undefined;
  /** When a packet was last sent to it, or refused by the kernel; a question not counted. */
  readonly sentMs: number | undefined;
  /** Inner packets of others than the engine itself. */
  readonly sent: { readonly packets: number; readonly bytes: number };
  readonly received: { readonly packets: number; readonly bytes: number };
  /** Questions and the answers to them, without those that search the path MTU. */
  readonly asked: number;
  readonly answered: number;
  readonly askedMs: number | undefined;
  readonly answeredMs: number | undefined;
  readonly roundTripUs: { readonly p50: number; readonly p99: number | undefined } | undefined;
  /** Of the last 32 questions at most. */
  readonly loss: number | undefined;
  /**
   * Bytes of the longest inner packet that is known to pass, each way; asked for while data passes. A narrower way in is
   * known 95 s later at the latest, and then not at all while the peer asks for nothing.
   */
  readonly pathMtuOut: number | undefined;
  readonly pathMtuIn: number | undefined;
  /** Where its packets come from, when that is not its endpoint. */
  readonly addressSeen: { readonly address: Ipv4; readonly port: number } | undefined;
  /** The engine that packets to it go by. */
  readonly engine: 'user' | 'kernel';
  /** Why not by the kernel, when both hosts could; `no answer on UDP 4790 for 12 s` is what doctor looks for. */
  readonly engineReason?: string;
}

/** An address that no lease names and that datagrams come from. */
export interface Stranger {
  readonly address: Ipv4;
  /** Since the address is among the last few. */
  readonly packets: number;
  /** CLOCK_BOOTTIME milliseconds. */
  readonly lastMs: number;
}

export interface Datapath {
  /** The name of the tunnel link. */
  readonly device: string;
  /** True while a data process of an earlier daemon was adopted and goes on without a lost packet. */
  readonly adopted: boolean;
  /** That of the data process; undefined while none runs. */
  readonly pid: number | undefined;
  /** Whether the data process answers probes: the one that runs, or the next one. */
  readonly answersProbes: boolean;
  /** Where the kernel engine receives; undefined where it does not, and `stats().kernel` says why. */
  readonly kernelOffer: KernelOffer | undefined;
  /** What keeps packets from being carried as published, one line each. */
  readonly problems: readonly string[];
  /** The deadline that `forwardUntil` set last, also in the daemon before when a process was adopted; else 0. */
  readonly forwardUntilMs: number;
  /**
   * Gives the engine its identity and lets packets flow. An adopted process of the same identity and build is left as
   * it is. A new process takes over from any other one without a lost packet; while that fails, the old one goes on. A
   * process of another layout goes on until the first `publish`. The caller calls `start` again after a change.
   * @throws TartanError DATAPATH_FAILED, PERMISSION
   */
  start(config: DatapathConfig): Promise<void>;
  /**
   * Ends the data process and lets go of the link, which the kernel then removes; `start` makes both again.
   * @throws TartanError DATAPATH_FAILED when the data process does not end
   */
  stop(): Promise<void>;
  /**
   * Publishes the peers and never blocks: while both slots are in use, the newest table waits. When memory is full the
   * older one stays, and the newest is written as soon as there is room. Peers beyond the numbers there are, 65,536, are
   * left out; a warning names them.
   * @throws RangeError naming a route that the engine cannot use, TartanError DATAPATH_FAILED when memory is full
   */
  publish(peers: readonly TunnelPeer[]): Generation;
  /** Sets the deadline, in milliseconds of CLOCK_BOOTTIME, past which the engine drops everything. */
  forwardUntil(bootMs: number): void;
  /** Drops packets of both directions, because the subnet belongs to another host; false ends that. */
  fence(lost: boolean): void;
  stats(): DatapathStats;
  /**
   * What was measured of each published peer, by the data process that runs: another one begins anew. Empty while none
   * runs, or one of another layout. The same objects as before for peers of which nothing has changed.
   */
  measure(): readonly PeerMeasurement[];
  /** The last few addresses whose datagrams were dropped because no peer has them; the latest first. */
  strangers(): readonly Stranger[];
  /**
   * Checks at once what the engine checks by itself when nobody does for two seconds: whether the link was deleted and the
   * threads answer. Called after changes of links, and by whoever has a tick anyway.
   */
  check(): void;
  /** Calls the listener after each attempt to respawn the data process. */
  onChange(listener: () => void): void;
  /** The data process keeps running. */
  close(): Promise<void>;
}
