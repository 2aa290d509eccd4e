/**
 * The descriptors of the data process: how they are opened, widened into lanes and replaced, and the errors that tell
 * an operator why that was not possible.
 *
 * A lane is a TUN queue and a UDP socket for bulk flows, with a thread for each direction; the last of several is for dense
 * flows. Beside the lanes, one more queue and one more socket serve the sparse flows. Where the kernel accepts no steering
 * program, there is one queue, one socket and a warning.
 */
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { TartanError, errnoOf, messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native, type NativeUdp } from '../../lib/native.js';
import { formatIpv4, ipv4Number } from '../../model/ip.js';
import type { DatapathConfig } from '../datapath.js';
import { isOrphanTun } from '../kernel/kernel-devices.js';
import { killUnreachable } from './find-process.js';
import { KernelDrops } from './kernel-drops.js';

export interface TunnelOptions {
  readonly runDir: string;
  readonly device: string;
  /** Number of lanes where the kernel can steer flows; with 0 there is one queue and one socket. */
  readonly lanes: number;
  readonly log: Log;
}

/** The engine requests this buffer for each direction. Packets that arrive during a handover wait there. */
const udpBufferBytes = 4 * 1024 * 1024;

/** How long to wait until the link is gone: after a kill, and else, because a data process may just be ending. */
export const linkGoneTimeoutMs = 2000;
const linkGraceMs = 200;

/** Who waits for a port waits for another program to end, flanneld for example, and packets wait as long. */
const portRetryMs = 50;

export interface Descriptors {
  readonly tunFds: readonly number[];
  readonly udpFds: readonly number[];
}

/** Descriptors, with warnings about what the kernel did not give. */
export type PreparedDescriptors = Descriptors & {
  /** Lanes over which flows are distributed from the commit on; undefined: as they are. */
  readonly steer?: number;
  readonly bufferWarning: string | undefined;
  readonly laneWarning: string | undefined;
};

/** The TUN queues and the UDP sockets. They outlive the data processes that read them. */
export class DescriptorSet {
  readonly #options: TunnelOptions;
  readonly #drops: KernelDrops;
  #queueWarning: string | undefined;
  #isLinkNew: boolean;
  #current: PreparedDescriptors;

  /** Takes ownership of the descriptors. @param isLinkNew the link was just made, so it carries nothing yet */
  constructor(options: TunnelOptions, descriptors: Descriptors, isLinkNew: boolean) {
    this.#options = options;
    this.#isLinkNew = isLinkNew;
    this.#drops = new KernelDrops(options.device);
    this.#current = { ...descriptors, bufferWarning: undefined, laneWarning: undefined };
  }

  get warnings(): readonly string[] {
    const { bufferWarning, laneWarning } = this.#current;
    return [bufferWarning, laneWarning, this.#queueWarning].filter(text => text !== undefined);
  }

  /** Counters of what the kernel dropped in front of the data process. */
  get drops(): Readonly<Record<string, number>> {
    return this.#drops.read(this.#current.udpFds);
  }

  /** @returns false while the link is being made again */
  setPersistent(on: boolean): boolean {
    const [fd] = this.#current.tunFds;
    if (fd === undefined || !this.linkExists) return false;
    native().tunSetPersist(fd, on);
    return true;
  }

  get linkExists(): boolean {
    return tunnelExists(this.#current.tunFds, this.#options.device);
  }

  /**
   * Lets as many packets wait in a new link as their size allows, which the features of the data process decide. A link
   * that carries packets keeps its length: a change of it stops the link for a moment, and packets would be lost.
   */
  fitQueue(features: readonly string[]): void {
    if (!this.#isLinkNew) return;
    this.#isLinkNew = false;
    const { tunQueueLength, tunQueueLengthWithoutTso } = native().limits;
    const packets = features.includes('tun_tso') ? tunQueueLength : tunQueueLengthWithoutTso;
    try {
      native().setTunQueue(this.#options.device, packets);
      this.#queueWarning = undefined;
    } catch (error) {
      this.#queueWarning = `the link ${this.#options.device} has no transmit queue of ${packets} packets (${messageOf(error)}): packets may be lost while the data process is replaced`;
    }
  }

  matches(config: DatapathConfig): boolean {
    return this.linkExists && underlayMatches(this.#current.udpFds, config);
  }

  /**
   * Returns the descriptors for the next data process: the current ones that match, and new ones in place of the
   * others. The current ones stay open, because a data process may be reading them. The caller must `commit` or
   * `discard` the result.
   * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
   */
  async prepare(config: DatapathConfig): Promise<PreparedDescriptors> {
    let next = this.#current;
    try {
      if (!this.linkExists) next = { ...next, tunFds: [await openTunnel(this.#options)] };
      if (!underlayMatches(next.udpFds, config)) {
        const udp = openUnderlay(config, false);
        const bufferWarning = bufferWarningOf(Math.min(udp.receiveBuffer, udp.sendBuffer));
        next = { ...next, udpFds: [udp.fd], bufferWarning };
      }
      return this.#widen(next, config);
    } catch (error) {
      this.discard(next);
      throw error;
    }
  }

  /**
   * Adds lanes where there is one queue or one socket, new or of an earlier daemon. There are always as many queues as
   * sockets: the number of those that exist decides. Where one kind cannot be widened, the other is reduced to one.
   */
  #widen(set: PreparedDescriptors, config: DatapathConfig): PreparedDescriptors {
    const { device } = this.#options;
    let { tunFds, udpFds } = set;
    const lanes = Math.max(tunFds.length, udpFds.length) - 1 || this.#options.lanes;
    const [tunFd] = tunFds;
    const [udpFd] = udpFds;
    if (lanes === 0 || tunFd === undefined || udpFd === undefined) return { ...set, laneWarning: undefined };
    if (tunFds.length === udpFds.length && tunFds.length > 1) return this.#addLanes(set, config);
    let problem: string | undefined;
    if (tunFds.length === 1) ({ fds: tunFds, problem } = widenTunnel(tunFd, device, lanes));
    if (udpFds.length === 1 && problem === undefined)
      ({ fds: udpFds, problem } = widenUnderlay(udpFd, lanes, share => openUnderlay(config, share)));
    if (problem === undefined) return { ...set, tunFds, udpFds, laneWarning: undefined };
    this.discard({ tunFds: tunFds.slice(1), udpFds: udpFds.slice(1) });
    return { ...set, tunFds: [tunFd], udpFds: [udpFd], laneWarning: problem };
  }

  /**
   * An earlier build has made fewer lanes. Its data process may still read its queues by the distribution of before, so
   * the new ones get nothing until the commit.
   */
  #addLanes(set: PreparedDescriptors, config: DatapathConfig): PreparedDescriptors {
    const { device, lanes } = this.#options;
    const as = { ...set, laneWarning: undefined };
    if (set.tunFds.length > lanes) return as;
    const tun = widen(set.tunFds, lanes, () => () => native().openTun(device, false).fd);
    if (tun.problem !== undefined) return { ...as, laneWarning: tun.problem };
    const udp = widen(set.udpFds, lanes, () => () => openUnderlay(config, true).fd);
    if (udp.problem === undefined) return { ...as, tunFds: tun.fds, udpFds: udp.fds, steer: lanes };
    closeAll(tun.fds.slice(set.tunFds.length));
    return { ...as, laneWarning: udp.problem };
  }

  /** Makes the prepared descriptors the current ones and closes the others, which no data process may read any more. */
  commit(next: PreparedDescriptors): void {
    const kept = [...next.tunFds, ...next.udpFds];
    this.#drops.retire(this.#current.udpFds.filter(fd => !kept.includes(fd)));
    closeAll([...this.#current.tunFds, ...this.#current.udpFds].filter(fd => !kept.includes(fd)));
    this.#isLinkNew ||= next.tunFds[0] !== this.#current.tunFds[0];
    const { steer, ...rest } = next;
    this.#current = { ...rest, laneWarning: rest.laneWarning ?? steered(next, steer) };
  }

  /** Closes the prepared descriptors that are not current. No data process may read them. */
  discard(next: Descriptors): void {
    const kept = [...this.#current.tunFds, ...this.#current.udpFds];
    closeAll([...next.tunFds, ...next.udpFds].filter(fd => !kept.includes(fd)));
  }

  close(): void {
    this.#drops.retire(this.#current.udpFds);
    closeAll([...this.#current.tunFds, ...this.#current.udpFds]);
    this.#current = { ...this.#current, tunFds: [], udpFds: [] };
  }
}

function bufferWarningOf(bytes: number): string | undefined {
  return bytes < udpBufferBytes
    ? `the UDP socket has buffers of ${bytes} bytes instead of ${udpBufferBytes}: raise net.core.rmem_max and wmem_max`
    : undefined;
}

export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors) native().closeFd(fd);
}

/** Returns the number of lanes for this host: one for dense flows, and others, of which each occupies two processors. */
export function defaultLanes(): number {
  return Math.min(native().limits.lanesMax, 1 + Math.max(1, Math.floor(availableParallelism() / 2)));
}

/** Distributes flows over lanes that were added. @returns why that failed */
function steered({ tunFds: [tunFd = -1], udpFds: [udpFd = -1] }: Descriptors, lanes?: number): string | undefined {
  if (lanes === undefined) return undefined;
  try {
    native().steerTun(tunFd, lanes);
    native().steerUdp(udpFd, lanes);
    return undefined;
  } catch (error) {
    return laneProblem(error);
  }
}

export interface Widened {
  /** Those given, then the added ones; the caller owns all of them. */
  readonly fds: readonly number[];
  /** Why none were added. */
  readonly problem: string | undefined;
}

/** Adds queues to the one that made the link. */
export function widenTunnel(fd: number, device: string, lanes: number): Widened {
  return widen([fd], lanes, () => {
    native().steerTun(fd, lanes);
    return () => native().openTun(device, false).fd;
  });
}

/** Adds sockets to the one that is bound to the address. That was bound alone, so no other program shares the port. */
export function widenUnderlay(fd: number, lanes: number, open: (share: boolean) => NativeUdp): Widened {
  const widened = widen([fd], lanes, () => {
    native().shareUdp(fd, true);
    return () => open(true).fd;
  });
  if (widened.problem !== undefined) return unshared(fd, widened.problem);
  try {
    native().steerUdp(fd, lanes);
    return widened;
  } catch (error) {
    closeAll(widened.fds.slice(1));
    return unshared(fd, laneProblem(error));
  }
}

function unshared(fd: number, problem: string): Widened {
  native().shareUdp(fd, false);
  return { fds: [fd], problem };
}

/** @param begin prepares those that there are and returns the function that opens each further one */
function widen(present: readonly number[], lanes: number, begin: () => () => number): Widened {
  const fds = [...present];
  try {
    const open = begin();
    while (fds.length <= lanes) fds.push(open());
    return { fds, problem: undefined };
  } catch (error) {
    closeAll(fds.slice(present.length));
    return { fds: present, problem: laneProblem(error) };
  }
}

function laneProblem(error: unknown): string {
  return `flows that send little wait behind bulk ones: ${messageOf(error)} (kernel 5.8 with CONFIG_BPF_SYSCALL, and root or CAP_BPF, are needed)`;
}

/** Whether the link of the TUN descriptors still exists under its name. */
function tunnelExists(fds: readonly number[], device: string): boolean {
  try {
    return fds.length > 0 && fds.every(fd => native().tunName(fd) === device);
  } catch {
    return false;
  }
}

/**
 * Makes the link, or takes one of ours that stayed and that nobody has open. When the link belongs to an unreachable data process of this run directory, that process is killed
 * first. Any other link of the name is DUPLICATE_NODE.
 * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
 */
export async function openTunnel(options: TunnelOptions): Promise<number> {
  let leftMs: number | undefined;
  for (;;) {
    try {
      return native().openTun(options.device, true).fd;
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') throw tunnelError(options.device, error);
      const link = native().kernelLink(options.device);
      if (link && isOrphanTun(link)) return native().openTun(options.device, false).fd;
      if (leftMs !== undefined && leftMs <= 0) throw duplicateError(options, error);
    }
    if (leftMs === undefined) {
      const killed = await killUnreachable(options.runDir, options.log);
      leftMs = killed.length > 0 ? linkGoneTimeoutMs : linkGraceMs;
    } else {
      await delay(10);
      leftMs -= 10;
    }
  }
}

function duplicateError(options: TunnelOptions, cause: unknown): TartanError {
  return new TartanError(
    'DUPLICATE_NODE',
    `the link ${options.device} exists and is not held by a data process of ${options.runDir}: another tartand runs on ` +
      `this host, or another program made the link; stop it (tartan cleanup --run-dir of the other one), or remove ` +
      `the link with: ip link del ${options.device}`,
    { cause },
  );
}

function tunnelError(device: string, cause: unknown): TartanError {
  const reason = messageOf(cause);
  switch (errnoOf(cause)) {
    case 'ENOENT':
    case 'ENXIO':
    case 'ENODEV':
      return new TartanError(
        'PERMISSION',
        `/dev/net/tun is missing, so the link ${device} cannot be made (${reason}): load it with modprobe tun, or pass ` +
          `the device into the container`,
        { cause },
      );
    case 'EPERM':
    case 'EACCES':
      return new TartanError(
        'PERMISSION',
        `not allowed to make the link ${device} (${reason}): run as root or with the capability CAP_NET_ADMIN and access to /dev/net/tun`,
        { cause },
      );
    default:
      return new TartanError('DATAPATH_FAILED', `cannot make the link ${device}: ${reason}`, { cause });
  }
}

/** Whether the sockets are bound to the address and the port of the configuration. */
function underlayMatches(fds: readonly number[], config: DatapathConfig): boolean {
  try {
    return (
      fds.length > 0 &&
      fds
        .map(fd => native().udpName(fd))
        .every(n => n.address === ipv4Number(config.bindAddress) && n.port === config.port)
    );
  } catch {
    return false;
  }
}

/** @throws TartanError DATAPATH_FAILED, PERMISSION */
function openUnderlay(config: DatapathConfig, share: boolean): NativeUdp {
  try {
    return native().openUdp(ipv4Number(config.bindAddress), config.port, udpBufferBytes, share);
  } catch (cause) {
    throw underlayError(`${formatIpv4(config.bindAddress)}:${config.port}`, config.port, cause);
  }
}

function underlayError(where: string, port: number, cause: unknown): TartanError {
  switch (errnoOf(cause)) {
    case 'EADDRINUSE':
      return new TartanError(
        'DATAPATH_FAILED',
        `UDP ${where} is taken by another program: find it with: ss -lunp sport = :${port}`,
        { cause, retryMs: portRetryMs },
      );
    case 'EADDRNOTAVAIL':
      return new TartanError(
        'DATAPATH_FAILED',
        `UDP ${where} cannot be bound: no interface of this host has the address`,
        { cause },
      );
    case 'EPERM':
    case 'EACCES':
      return new TartanError(
        'PERMISSION',
        `not allowed to bind UDP ${where}: run as root or with CAP_NET_BIND_SERVICE`,
        {
          cause,
        },
      );
    default:
      return new TartanError('DATAPATH_FAILED', `cannot open UDP ${where}: ${messageOf(cause)}`, { cause });
  }
}
