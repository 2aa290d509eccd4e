/**
 * The addon `dist/tartan.node` and its types. All system calls that Node lacks go through the addon. It throws Errors
 * in Node's shape, with `code` (EBUSY), `errno` and `syscall`. A handle is closed by `close`, by garbage collection or
 * by the exit of the process, whichever comes first.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { NativeKernelCalls } from './native-kernel.js';

export type { NativeKernelLink, NativeKernelPath, NativeKernelTraffic } from './native-kernel.js';

export interface NativeTun {
  readonly fd: number;
  readonly name: string;
}

export interface NativeUdp {
  readonly fd: number;
  /** The buffer sizes in bytes that the kernel set after SO_RCVBUFFORCE and SO_SNDBUFFORCE. */
  readonly receiveBuffer: number;
  readonly sendBuffer: number;
}

/** The identity in struct routes_file as numbers, addresses in host order. */
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

/** The control words besides the MTU: they change while the data process lives. */
export interface NativeControl {
  readonly generation: number;
  readonly fence: boolean;
  /** CLOCK_BOOTTIME milliseconds. */
  readonly forwardUntil: number;
}

export interface NativeCounters {
  readonly pid: number;
  readonly threads: number;
  /** The lowest generation that any thread has adopted. */
  readonly adopted: number;
  /** The sums over all threads, by counter name. */
  readonly counters: Record<string, number>;
  /** The names of the kernel's offloads that the data process uses. */
  readonly features: readonly string[];
  /** The names of what the kernel refused at the start (REFUSALS of counters.h). */
  readonly refused: readonly string[];
  /** The system call for which the data process was killed. */
  readonly deniedCall?: number;
}

/**
 * Rows of a table. Addresses are four numbers in host order, the first one first; an IPv4 address is the first of them.
 *
 *   peers    identity (4), IPv6 endpoint (4), IPv4 endpoint, IPv4 port, IPv6 port, features, policy, engine, pairs (4)
 *   routes   address (4), length, family (4 or 6), peer number
 *
 * Row i of `peers` is the peer of number i; the row of a free number is all zero. An endpoint that is zero is none.
 * Routes come sorted: those of IPv4 by address, then those of IPv6.
 */
export interface NativeRows {
  readonly peers: Uint32Array;
  readonly routes: Uint32Array;
}

/** Numbers of a row. The first four of a peer are its identity. */
export const peerRowLength = 18;
export const routeRowLength = 7;
export const identityLength = 4;
export const measurementRowLength = 17;

/** The two shared memories. With another layout only the control words can be used; the rest is undefined. */
export interface NativeTable {
  readonly routesFd: number;
  /** A read-only descriptor of `routes`, for the data process. */
  readonly routesReadOnlyFd: number;
  readonly countersFd: number;
  /** @returns undefined when magic, version, size or the checksum of the live table is wrong */
  identity(): NativeIdentity | undefined;
  setIdentity(identity: NativeIdentity): void;
  /**
   * Writes the slot that is not live and switches (NativeRows).
   * @returns the generation, or 0 when both slots are still in use by a thread (publish again later) or of another layout
   * @throws RangeError as `checkTable` does, and ENOSPC or ENOMEM when memory is full; the older table stays
   */
  publish(peers: Uint32Array, routes: Uint32Array): number;
  /** The live table in the form of `publish`; undefined where `identity` is. */
  rows(): NativeRows | undefined;
  /** Whether what the data process keeps under this number is of no peer; false for another layout. */
  isBlockZeroed(peerNumber: number): boolean;
  control(): NativeControl;
  setMtu(mtu: number): void;
  /** Bytes of the longest outer packet; does nothing with another layout. */
  setUnderlayMtu(mtu: number): void;
  setForwardUntil(bootMs: number): void;
  setFence(on: boolean): void;
  setDrain(on: boolean): void;
  /** Asks all threads a question, which each of them answers when it reads the control words. @returns its number */
  ask(): number;
  /** The newest question that each thread has answered; undefined when the layout is another one. */
  answers(): readonly number[] | undefined;
  /** @returns undefined when the layout is another one */
  counters(): NativeCounters | undefined;
  /** The lowest generation over all threads, as in `counters`; undefined when the layout is another one. */
  adopted(): number | undefined;
  /**
   * Writes what the data process has measured into `rows`, `measurementRowLength` numbers for each peer number of the live
   * table; zeros where it has nothing of that peer. In the order of PEER_STATISTICS of layout.h, then when the peer was
   * heard; times are CLOCK_BOOTTIME milliseconds, 0: never. Peers for which an array has no room are left out.
   * @param changed receives the numbers of the peers whose row was another one before
   * @returns how many these are; undefined when the layout is another one
   */
  measure(rows: Float64Array, changed: Uint32Array): number | undefined;
  /** The last addresses that no peer has and that datagrams came from; undefined when the layout is another one. */
  strangers(): readonly NativeStranger[] | undefined;
  /** Unmaps both memories and closes the three descriptors. */
  close(): void;
}

export interface NativeStranger {
  /** In host order. */
  readonly address: number;
  readonly packets: number;
  /** CLOCK_BOOTTIME milliseconds. */
  readonly lastMs: number;
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
  /** The connection stays open; its end means that the data process is dead. */
  readonly connectionFd: number;
}

/**
 * Receives the bytes of a message, or the reason why reading ended: an errno name or 'EOF'. Reading goes on after
 * ENOBUFS (an overrun) and after EMSGSIZE (a datagram longer than the buffer was lost). Netlink messages that the
 * kernel did not send are dropped.
 */
export type NativeWatchListener = (error: string | undefined, message: Buffer | undefined) => void;

/** Garbage collection ends a watch. The caller owns the descriptor and closes the watch before it. */
export interface NativeWatch {
  /** Ends the watch: the listener is not called any more. A second call does nothing. */
  close(): void;
  /** Lets the process exit while the watch is open. */
  unref(): void;
}

/** Numbers of native/shared/layout.h. */
export interface NativeLimits {
  /** The most lanes that are made. */
  readonly lanesMax: number;
  /** The most TUN queues, and threads, that a data process may have. */
  readonly queuesMax: number;
  readonly threadsMax: number;
  readonly peersMax: number;
  /** Of either address family. */
  readonly routesMax: number;
  /** Packets that wait in each queue of the link while nobody reads it; more of them where the kernel has no TSO for it. */
  readonly tunQueueLength: number;
  readonly tunQueueLengthWithoutTso: number;
  /** Bits of NativeIdentity.flags. */
  readonly flagNoSourceCheck: number;
  readonly flagNoDestinationCheck: number;
  /** Bit of a peer row's features. */
  readonly featureProbe: number;
  /** A peer row's engine. */
  readonly peerEngineKernel: number;
}

export type NativeCapability = 'CAP_NET_ADMIN' | 'CAP_SETGID' | 'CAP_SETUID';

export interface NativeAddon extends NativeKernelCalls {
  readonly build: string;
  readonly limits: NativeLimits;
  /** The layout version of the shared memories and the hello, as in NativeHello.version. */
  readonly layoutVersion: number;
  /**
   * Opens a queue, non-blocking and with IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE. The first queue creates the link
   * with IFF_TUN_EXCL, and the others attach to it. The link gets a transmit queue of
   * `limits.tunQueueLengthWithoutTso`, in which packets wait while no process reads, where the kernel gives it.
   */
  openTun(name: string, first: boolean): NativeTun;
  /** Returns the name of the link of a TUN descriptor (TUNGETIFF); throws EBADFD when the link is gone. */
  tunName(fd: number): string;
  /** Sets how many packets may wait in each queue of the link. */
  setTunQueue(name: string, packets: number): void;
  /** Opens a socket that is bound to the address (host order) and port, with SO_REUSEPORT if `reusePort` is set. */
  openUdp(address: number, port: number, bufferBytes: number, reusePort: boolean): NativeUdp;
  /** Sets whether later sockets may bind to the address of this bound socket too (SO_REUSEPORT). */
  shareUdp(fd: number, share: boolean): void;
  /**
   * Distributes flows over the queues of a TUN, or over the sockets that share an address. Bulk flows go to the first
   * `lanes` queues in the order of opening, but dense flows to the last of several; sparse flows go to the next one.
   * Throws where bpf(2) is not permitted.
   */
  steerTun(fd: number, lanes: number): void;
  steerUdp(fd: number, lanes: number): void;
  /** Returns the address (host order) and port that a UDP socket is bound to. */
  udpName(fd: number): { readonly address: number; readonly port: number };
  /** Datagrams that the kernel dropped at the socket since it was opened (SO_MEMINFO); the count has 32 bits. */
  udpDrops(fd: number): number;
  eventFd(): number;
  /** Adds 1 to an eventfd, which wakes its reader. */
  ring(fd: number): void;
  /** Creates memories that /proc/<pid>/maps shows as `/memfd:routes:<label>` and `/memfd:counters:<label>`. */
  createTable(label: string): NativeTable;
  /**
   * Throws RangeError naming the route or the peer unless the rows can be published (NativeRows): at most
   * `limits.routesMax` routes of a family and `limits.peersMax` peers, the routes sorted, disjoint, without host bits and
   * of peers with endpoint and port.
   */
  checkTable(peers: Uint32Array, routes: Uint32Array): void;
  /**
   * Maps the memories of a living data process by the descriptors that it handed over. The table owns the descriptors
   * then. When the call throws (EPROTO: the size is not that of the layout) the caller still owns them.
   * @param version the version of the layout
   */
  adoptTable(routesFd: number, countersFd: number, version: number): NativeTable;
  /** Opens a listening SOCK_SEQPACKET socket with mode 0600. */
  listenSeqpacket(path: string): number;
  /**
   * Receives the hello and the descriptors of a data process. Blocks for `timeoutMs` at most for each of the two messages.
   * Descriptors of an unknown type are closed; a missing one is EPROTO that names it.
   */
  adopt(path: string, timeoutMs: number): NativeHello;
  closeFd(fd: number): void;
  /** Takes an exclusive flock(2) on the file; returns undefined when another process has it. */
  lockFile(path: string): number | undefined;
  /**
   * Opens a netlink(7) socket with strict checking and extended acks that is a member of the multicast groups.
   * @param protocol a number such as NETLINK_ROUTE
   */
  netlinkOpen(protocol: number, groups: readonly number[], receiveBufferBytes: number): number;
  /** Sends one datagram to the kernel. */
  netlinkSend(fd: number, message: Uint8Array): void;
  /** Reads the datagrams of a descriptor in a thread of its own and calls the listener on the event loop. */
  watch(fd: number, bufferBytes: number, listener: NativeWatchListener): NativeWatch;
  /**
   * Opens an ICMP socket: a raw one, which hears every echo reply and ICMP error of the host and has the identifier 0, or
   * a ping socket, which hears what its own requests caused. Throws EPERM or EACCES where neither is allowed.
   */
  icmpOpen(): { readonly fd: number; readonly identifier: number };
  /** Sends an ICMP message to an address (host order), with the DF bit or without. */
  icmpSend(fd: number, address: number, message: Uint8Array, df: boolean): void;
  /** As `watch`; each message is the IP packet, with both kinds of sockets. */
  icmpWatch(fd: number, bufferBytes: number, listener: NativeWatchListener): NativeWatch;
  /** Returns the bytes of the longest packet that the kernel would send to the address (host order) uncut. */
  pathMtu(address: number): number;
  /**
   * Opens a datagram socket that is connected to this one of unix(7): a path, or an abstract name that begins with '@'.
   * Each `writeNow` of it is one datagram, sent whole or not at all.
   */
  connectDatagram(socket: string): number;
  /**
   * Writes what the descriptor takes without blocking, and waits up to `timeoutMs` for room; returns the number of bytes.
   * A closed pipe or socket is EPIPE.
   */
  writeNow(fd: number, bytes: Uint8Array, timeoutMs: number): number;
  /** Sends `state` as sd_notify(3) does, within a second; `socket` is a path, or an abstract name that begins with '@'. */
  notify(socket: string, state: string): void;
  /** Returns CLOCK_BOOTTIME in milliseconds. */
  bootMs(): number;
  /** Whether the capability is effective in this process (capabilities(7)). */
  hasCapability(name: NativeCapability): boolean;
}

/**
 * Returns a path below dist/; src/ and dist/ are neighbours, so it is the same from both. The package for npm holds the
 * files of every processor, each in a folder.
 */
export function builtFile(name: string): string {
  const [own = '', forProcessor = ''] = [name, `${process.arch}/${name}`].map(path =>
    fileURLToPath(new URL(`../../dist/${path}`, import.meta.url)),
  );
  return existsSync(own) || !existsSync(forProcessor) ? own : forProcessor;
}

let addon: NativeAddon | undefined;

/** Loads the addon at its first use, so that the tool and the unit tests run where the addon was not built. */
export function native(): NativeAddon {
  addon ??= createRequire(import.meta.url)(builtFile('tartan.node')) as NativeAddon;
  return addon;
}
