/** Opening what the data process works with, and saying in an operator's words why that was not possible. */
import { setTimeout as delay } from 'node:timers/promises';
import { TartanError, errnoOf, messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { native, type NativeUdp } from '../../lib/native.js';
import { formatIpv4 } from '../../model/ipv4.js';
import type { DatapathConfig } from '../datapath.js';
import { widenTunnel, widenUnderlay } from './lanes.js';
import { killUnreachable } from './find-process.js';

export interface TunnelOptions {
  readonly runDir: string;
  readonly device: string;
  /** Where the kernel can steer flows (lanes.ts); 0: one queue, one socket. */
  readonly lanes: number;
  readonly log: Log;
}

/** Asked from the kernel for each direction: what arrives while a data process is replaced waits there. */
const udpBufferBytes = 4 * 1024 * 1024;

/** How long a link may stay after the process that held it was ended, or while one that was told to end does. */
const linkGoneLimitMs = 2000;
const linkGraceMs = 200;

export interface Descriptors {
  readonly tunFds: readonly number[];
  readonly udpFds: readonly number[];
}

/** With what the kernel gave less of than was asked. */
type Prepared = Descriptors & {
  readonly bufferWarning: string | undefined;
  readonly laneWarning: string | undefined;
};

/** The link and the sockets that outlive the data processes working on them. */
export class DescriptorSet {
  readonly #options: TunnelOptions;
  #current: Prepared;

  /** Owns the descriptors given. */
  constructor(options: TunnelOptions, held: Descriptors) {
    this.#options = options;
    this.#current = { ...held, bufferWarning: undefined, laneWarning: undefined };
  }

  get warnings(): readonly string[] {
    return [this.#current.bufferWarning, this.#current.laneWarning].filter(text => text !== undefined);
  }

  get linkAlive(): boolean {
    return tunnelAlive(this.#current.tunFds, this.#options.device);
  }

  fit(config: DatapathConfig): boolean {
    return this.linkAlive && underlayFits(this.#current.udpFds, config);
  }

  /**
   * For the next data process: what fits, and the rest opened anew. What is held stays open and as it was, for the one
   * that may be working on it. To be passed to `take` or to `drop`.
   * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
   */
  async prepare(config: DatapathConfig): Promise<Prepared> {
    let next = this.#current;
    try {
      if (!this.linkAlive) next = { ...next, tunFds: [await openTunnel(this.#options)] };
      if (!underlayFits(next.udpFds, config)) {
        const udp = openUnderlay(config, false);
        const bufferWarning = warningOf(Math.min(udp.receiveBuffer, udp.sendBuffer));
        next = { ...next, udpFds: [udp.fd], bufferWarning };
      }
      return this.#widen(next, config);
    } catch (error) {
      this.drop(next);
      throw error;
    }
  }

  /**
   * One queue and one socket, new or of an earlier daemon, become lanes. There are as many of one as of the other: what
   * exists already decides, and where one kind cannot be widened the other is narrowed.
   */
  #widen(set: Prepared, config: DatapathConfig): Prepared {
    const { device } = this.#options;
    let { tunFds, udpFds } = set;
    const lanes = Math.max(tunFds.length, udpFds.length) - 1 || this.#options.lanes;
    const [tunFd] = tunFds;
    const [udpFd] = udpFds;
    if (lanes === 0 || tunFd === undefined || udpFd === undefined) return { ...set, laneWarning: undefined };
    let problem: string | undefined;
    if (tunFds.length === 1) ({ fds: tunFds, problem } = widenTunnel(tunFd, device, lanes));
    if (udpFds.length === 1 && problem === undefined)
      ({ fds: udpFds, problem } = widenUnderlay(udpFd, lanes, share => openUnderlay(config, share)));
    if (problem === undefined) return { ...set, tunFds, udpFds, laneWarning: undefined };
    this.drop({ tunFds: tunFds.slice(1), udpFds: udpFds.slice(1) });
    return { ...set, tunFds: [tunFd], udpFds: [udpFd], laneWarning: problem };
  }

  /** From now on these are held; no data process reads the others any more. */
  take(next: Prepared): void {
    const kept = [...next.tunFds, ...next.udpFds];
    closeAll([...this.#current.tunFds, ...this.#current.udpFds].filter(fd => !kept.includes(fd)));
    this.#current = next;
  }

  /** Nothing reads them: those that were added are closed again. */
  drop(next: Descriptors): void {
    const kept = [...this.#current.tunFds, ...this.#current.udpFds];
    closeAll([...next.tunFds, ...next.udpFds].filter(fd => !kept.includes(fd)));
  }

  close(): void {
    closeAll([...this.#current.tunFds, ...this.#current.udpFds]);
    this.#current = { ...this.#current, tunFds: [], udpFds: [] };
  }
}

function warningOf(bytes: number): string | undefined {
  return bytes < udpBufferBytes
    ? `the UDP socket has buffers of ${bytes} bytes instead of ${udpBufferBytes}: raise net.core.rmem_max and wmem_max`
    : undefined;
}

export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors) native().closeFd(fd);
}

/** Whether the link behind a TUN descriptor still exists under the name. */
function tunnelAlive(fds: readonly number[], device: string): boolean {
  try {
    return fds.length > 0 && fds.every(fd => native().tunName(fd) === device);
  } catch {
    return false;
  }
}

/**
 * Makes the link. One that exists is DUPLICATE_NODE, unless a data process of this run directory holds it that cannot
 * be asked any more: that one is ended first.
 * @throws TartanError DUPLICATE_NODE, PERMISSION, DATAPATH_FAILED
 */
export async function openTunnel(options: TunnelOptions): Promise<number> {
  let leftMs: number | undefined;
  for (;;) {
    try {
      return native().openTun(options.device, true).fd;
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') throw tunnelError(options.device, error);
      if (leftMs !== undefined && leftMs <= 0) throw duplicateError(options, error);
    }
    if (leftMs === undefined) {
      const killed = await killUnreachable(options.runDir, options.log);
      leftMs = killed.length > 0 ? linkGoneLimitMs : linkGraceMs;
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

/** Whether the socket is bound as the configuration wants it. */
function underlayFits(fds: readonly number[], config: DatapathConfig): boolean {
  try {
    return (
      fds.length > 0 &&
      fds.map(fd => native().udpName(fd)).every(n => n.address === config.bindAddress && n.port === config.port)
    );
  } catch {
    return false;
  }
}

/** @throws TartanError DATAPATH_FAILED, PERMISSION */
function openUnderlay(config: DatapathConfig, share: boolean): NativeUdp {
  try {
    return native().openUdp(config.bindAddress, config.port, udpBufferBytes, share);
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
        { cause },
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
