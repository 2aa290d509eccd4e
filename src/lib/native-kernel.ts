/**
 * The addon's part of the kernel engine: the BPF programs with their maps, the kernel link and the filters. Errors are
 * those of the addon (native.ts). Addresses are numbers in host order.
 */

/** `outbound` judges what leaves by the tun, `inbound` what comes in by the kernel link. */
export type NativeKernelProgram = 'outbound' | 'inbound';

/** `refuse`: no packet passes either way; `user`: it is sent by the slow path and heard by either; `kernel`: both ways. */
export type NativePairState = 'refuse' | 'user' | 'kernel';

export interface NativeKernelConfig {
  /** The cluster network; what goes to its broadcast is dropped. */
  readonly network: number;
  readonly networkLength: number;
  readonly subnet: number;
  readonly subnetLength: number;
  /** VXLAN network identifier, 24 bits. */
  readonly vni: number;
  /** Interface indexes of the tun and of the kernel link. */
  readonly tunIndex: number;
  readonly linkIndex: number;
  /** The outer source, to which outer packets must come. */
  readonly local: number;
  /** Bits of NativeIdentity.flags. */
  readonly flags: number;
  /** Prefix lengths in use, 4 at most. */
  readonly lengths: readonly number[];
}

export interface NativeKernelPeer {
  readonly remote: number;
  readonly local: number;
  readonly state: NativePairState;
  /** Bytes of the longest outer packet by the MTU of the route to it; 0: no limit known. */
  readonly mtu: number;
  /** The first four numbers of its row (NativeRows). */
  readonly identity: Uint32Array;
}

/** What the programs noted of a peer. Times are CLOCK_BOOTTIME nanoseconds, 0: never. */
export interface NativeKernelTraffic {
  readonly peer: number;
  readonly sentPackets: number;
  readonly sentBytes: number;
  readonly receivedPackets: number;
  readonly receivedBytes: number;
  readonly heardNs: bigint;
  readonly sentNs: bigint;
  /**
   * When it last answered a question on the kernel path, with the sequence and the opaque of that answer. Only who heard
   * the question knows the opaque.
   */
  readonly answeredNs: bigint;
  readonly answeredSequence: number;
  readonly answeredOpaque: bigint;
}

/** The loaded programs and their maps. A peer is named by its number. */
export interface NativeKernelPath {
  /** Descriptors of the programs. */
  readonly outbound: number;
  readonly inbound: number;
  configure(config: NativeKernelConfig): void;
  /** @param ns CLOCK_BOOTTIME nanoseconds past which both programs drop everything */
  setDeadline(ns: bigint): void;
  setFence(lost: boolean): void;
  setPeer(number: number, peer: NativeKernelPeer): void;
  setState(number: number, state: NativePairState): void;
  /**
   * Has `outbound` note which flows send to the peer, so that its next `setState` keeps their order: for two seconds after
   * it a flow goes on as before until it has paused for 20 ms. To be called two seconds before. Without it all flows
   * change at once; `setState` with the state that is there ends the noting.
   */
  recordFlows(number: number): void;
  clearPeer(number: number): void;
  setPrefix(address: number, length: number, peerNumber: number): void;
  removePrefix(address: number, length: number): void;
  /** A row for each peer that had traffic. */
  traffic(): readonly NativeKernelTraffic[];
  /** The sums over all processors, by counter name. */
  counters(): Record<string, number>;
  /**
   * Whether an outer packet leaves from the `local` of its peer (Linux 6.0). Before that it leaves from the address that
   * the route has.
   */
  choosesSource(): boolean;
  /**
   * Runs a program on one packet (BPF_PROG_TEST_RUN), which counts as a real one does. Throws EPROTONOSUPPORT for `inbound`
   * where `choosesSource` is false: no tunnel key can be made there.
   * @param tunnelKey how it came out of the tunnel; without it, it came out of none
   * @returns its TC_ACT_ number, and the packet as it left it
   */
  test(
    program: NativeKernelProgram,
    packet: Uint8Array,
    tunnelKey?: { readonly remote: number; readonly local: number; readonly vni: number },
  ): { readonly verdict: number; readonly packet: Buffer };
  close(): void;
}

export interface NativeKernelLink {
  readonly index: number;
  /** As `ip -d link` names it: `vxlan`. */
  readonly kind: string;
  readonly alias: string;
  readonly port: number;
  readonly up: boolean;
  /** Of a tun: a process has it open. */
  readonly carrier: boolean;
  readonly gpe: boolean;
  readonly external: boolean;
}

export interface NativeKernelCalls {
  /** Loads programs and maps. Throws an error that names the step, the errno and the end of the verifier's log. */
  loadKernelPath(): NativeKernelPath;
  /** Makes a VXLAN-GPE link in external mode: down, without an address and without IPv6. */
  createKernelLink(link: {
    readonly name: string;
    readonly port: number;
    readonly alias: string;
    readonly mtu: number;
  }): void;
  /** Returns the link of that name, of any kind, whoever made it. */
  kernelLink(name: string): NativeKernelLink | undefined;
  /** Returns the name of a link of kind vxlan, other than `except`, that has this UDP port. */
  vxlanOnPort(port: number, except: string): string | undefined;
  setLinkAlias(index: number, alias: string): void;
  setLinkUp(index: number, up: boolean): void;
  deleteLink(index: number): void;
  /** Puts the program in the place of the filter that is there, in one step; makes the clsact queue where it is absent. */
  attachFilter(index: number, direction: 'ingress' | 'egress', programFd: number): void;
  /**
   * Makes the clsact queue where it is absent. The kernel drops what an upright link sends meanwhile, some milliseconds
   * (qdisc_graft of net/sched/sch_api.c), so it is made while the link is down.
   */
  makeFilterQueue(index: number): void;
  /** Returns the id of the program of our filter. */
  hasFilter(index: number, direction: 'ingress' | 'egress'): number | undefined;
  /** Removes our filters; the clsact queue stays. */
  detachFilters(index: number): void;
  /** Whether the tun stays when its last descriptor is closed (TUNSETPERSIST). */
  tunSetPersist(fd: number, on: boolean): void;
}
