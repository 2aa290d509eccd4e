/**
 * What the kernel drops in front of the data process, because that is too slow or stopped: datagrams at the UDP sockets
 * and packets at the queues of the link. The kernel counts for each socket and link, and these outlive data processes;
 * here the counts go on when a socket or the link is replaced.
 */
import { readFileSync } from 'node:fs';
import { native } from '../../lib/native.js';

/** The kernel's counts of sockets have 32 bits. */
const wrap = 2 ** 32;

export class KernelDrops {
  readonly #device: string;
  readonly #seen = new Map<number, number>();
  #linkSeen = 0;
  #received = 0;
  #sent = 0;

  constructor(device: string) {
    this.#device = device;
  }

  /** Returns the counters by name, of all sockets and links so far. */
  read(udpFds: readonly number[]): Readonly<Record<string, number>> {
    for (const fd of udpFds) {
      const drops = native().udpDrops(fd);
      this.#received += (drops - (this.#seen.get(fd) ?? 0) + wrap) % wrap;
      this.#seen.set(fd, drops);
    }
    const drops = linkDrops(this.#device);
    // A smaller count is that of a new link.
    this.#sent += drops >= this.#linkSeen ? drops - this.#linkSeen : drops;
    this.#linkSeen = drops;
    return { rx_dropped: this.#received, tx_dropped: this.#sent };
  }

  /** Keeps the counts of sockets that are about to be closed. */
  retire(udpFds: readonly number[]): void {
    this.read(udpFds);
    for (const fd of udpFds) this.#seen.delete(fd);
  }
}

/** Column `drop` of the transmit half (proc(5), /proc/net/dev); 0 while there is no link. */
function linkDrops(device: string): number {
  const line = readFileSync('/proc/net/dev', 'latin1')
    .split('\n')
    .find(text => text.trimStart().startsWith(`${device}:`));
  return Number(
    line
      ?.slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/)[11] ?? 0,
  );
}
