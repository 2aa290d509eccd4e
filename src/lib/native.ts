/**
 * The addon `dist/tartan.node` and its types: the only door to system calls that Node does not have. Failures are
 * Errors in Node's own shape, with `code` (EBUSY), `errno` and `syscall`. A handle is closed by `close`, by garbage
 * collection and by exit, whichever comes first.
 */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

export interface NativeTun {
  readonly fd: number;
  readonly name: string;
}

export interface NativeUdp {
  readonly fd: number;
  /** Bytes that the kernel really gave, after SO_RCVBUFFORCE and SO_SNDBUFFORCE. */
  readonly receiveBuffer: number;
  readonly sendBuffer: number;
}

/** Numbers of struct routes_file's identity, addresses in host order. */
export interface NativeIdentity {
  readonly network: number;
  readonly networkLength: number;
  readonly subnet: number;
  readonly subnetLength: number;
  readonly publicIp: number;
  readonly port: number;
  readonly flags: number;
  readonly mtu: number;
}

/** What changes while the data process lives, beside the MTU. */
export interface NativeWords {
  readonly generation: number;
  readonly fence: boolean;
  /** CLOCK_BOOTTIME milliseconds. */
  readonly forwardUntil: number;
}

export interface NativeCounters {
  readonly pid: number;
  readonly threads: number;
  /** Lowest generation adopted by any thread. */
  readonly adopted: number;
  /** Summed over threads, by counter name. */
  readonly counters: Record<string, number>;
  /** Names of the kernel's offloads that the data process uses. */
  readonly features: readonly string[];
}

/** The two shared memories. Of another layout only the words can be written; the rest reads as unknown. */
export interface NativeTable {
  readonly routesFd: number;
  /** A read-only descriptor of `routes`, for the data process. */
  readonly routesReadOnlyFd: number;
  readonly countersFd: number;
  /** undefined when magic, version, size or the live table's checksum is not as it must be. */
  identity(): NativeIdentity | undefined;
  setIdentity(identity: NativeIdentity): void;
  /**
   * Writes the slot that is not live and switches.
   * @param routes as for `checkRoutes`
   * @returns the generation, or 0 when both slots are still in use by a thread (publish again later) or of another layout
   * @throws RangeError as `checkRoutes` does
   */
  publish(routes: Uint32Array): number;
  /** The live table in the form of `publish`; undefined where `identity` is. */
  routes(): Uint32Array | undefined;
  generation(): number;
  words(): NativeWords;
  setMtu(mtu: number): void;
  setForwardUntil(bootMs: number): void;
  setFence(on: boolean): void;
  setDrain(on: boolean): void;
  /** undefined for another layout. */
  counters(): NativeCounters | undefined;
  /** Unmaps both and closes the three descriptors. */
  close(): void;
}

export interface NativeHello {
  readonly version: number;
  readonly pid: number;
  readonly build: string;
  readonly routesFd: number;
  readonly countersFd: number;
  readonly listenFd: number;
  readonly tunFds: readonly number[];
  readonly udpFds: readonly number[];
  readonly wakeFds: readonly number[];
  /** Stays open; its end means that the data process is dead. */
  readonly connectionFd: number;
}

/**
 * Bytes that arrived, or why no more will come: an errno name or 'EOF'. After ENOBUFS (an overrun) and EMSGSIZE (a
 * datagram longer than the buffer was lost) reading goes on. Netlink messages that the kernel did not send are dropped.
 */
export type NativeWatchListener = (error: string | undefined, message: Buffer | undefined) => void;

/** Keep it: a watch that is garbage collected has ended. Close it before the descriptor, which stays the caller's. */
export interface NativeWatch {
  /** No listener call comes after it; closing again does nothing. */
  close(): void;
  /** An open watch alone does not keep the process alive. */
  unref(): void;
}

export interface NativeAddon {
  readonly build: string;
  /** Of the files and the hello, as NativeHello.version names it. */
  readonly layoutVersion: number;
  /**
   * First queue with IFF_TUN_EXCL, more queues attach to it; IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, non-blocking.
   * The link of the first one gets a transmit queue of 5000 packets, which wait there while nobody reads.
   */
  openTun(name: string, first: boolean): NativeTun;
  /** The link name behind a TUN descriptor (TUNGETIFF); throws EBADFD when the link is gone. */
  tunName(fd: number): string;
  /** Bound to address (host order) and port; SO_REUSEPORT only when asked. */
  openUdp(address: number, port: number, bufferBytes: number, reusePort: boolean): NativeUdp;
  /** Whether sockets opened after this one, which is bound, may have its address as well (SO_REUSEPORT). */
  shareUdp(fd: number, share: boolean): void;
  /**
   * Sends bulk flows to one of the first `lanes` queues in the order of opening, sparse ones to the next: the packets
   * that leave by a TUN, the datagrams that arrive at the sockets sharing an address. Throws where bpf(2) may not be used.
   */
  steerTun(fd: number, lanes: number): void;
  steerUdp(fd: number, lanes: number): void;
  /** Address (host order) and port that a UDP socket is bound to. */
  udpName(fd: number): { readonly address: number; readonly port: number };
  eventFd(): number;
  /** Rings an eventfd. */
  ring(fd: number): void;
  /** New memories; /proc/<pid>/maps shows them as `/memfd:routes:<label>` and `/memfd:counters:<label>`. */
  createTable(label: string): NativeTable;
  /**
   * Throws RangeError naming the route unless they are at most 65536, sorted, disjoint, without host bits and with hop
   * and port not zero.
   * @param routes four numbers a route: network, length, hop, port
   */
  checkRoutes(routes: Uint32Array): void;
  /**
   * Maps the memories of a living data process by the descriptors it handed over, and owns them then; when it throws (a
   * size that is not that of the layout is EPROTO) they are still the caller's.
   * @param version of the layout
   */
  adoptTable(routesFd: number, countersFd: number, version: number): NativeTable;
  /** A listening SOCK_SEQPACKET socket, mode 0600. */
  listenSeqpacket(path: string): number;
  /** Asks a data process for its hello and descriptors; throws after `timeoutMs`. Blocks that long at most. */
  adopt(path: string, timeoutMs: number): NativeHello;
  closeFd(fd: number): void;
  /** Takes an exclusive flock(2) on the file, or returns undefined when another process holds it. */
  lockFile(path: string): number | undefined;
  /**
   * A netlink(7) socket with strict checking and extended acks, joined to the multicast groups.
   * @param protocol NETLINK_ROUTE ...
   */
  netlinkOpen(protocol: number, groups: readonly number[], receiveBufferBytes: number): number;
  /** Sends one datagram to the kernel. */
  netlinkSend(fd: number, message: Uint8Array): void;
  /** Reads datagrams of any descriptor in a thread of its own; the listener runs on the event loop. */
  watch(fd: number, bufferBytes: number, listener: NativeWatchListener): NativeWatch;
  /** sd_notify(3): sends `state` to the socket named (path, or abstract with '@'). */
  notify(socket: string, state: string): void;
  /** CLOCK_BOOTTIME in milliseconds. */
  bootMs(): number;
  /** Effective capabilities of this process as a bit mask (capget(2)). */
  capabilities(): bigint;
}

/** dist/, whether this runs from src/ or from dist/: both lie beside it. */
export function builtFile(name: string): string {
  return fileURLToPath(new URL(`../../dist/${name}`, import.meta.url));
}

let addon: NativeAddon | undefined;

/** Loaded at first use, so that the tool and the unit tests run where it was not built. */
export function native(): NativeAddon {
  addon ??= createRequire(import.meta.url)(builtFile('tartan.node')) as NativeAddon;
  return addon;
}
