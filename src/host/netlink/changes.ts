/**
 * A doorbell for changes of links, IPv4 addresses and IPv4 routes, whoever made them. It says nothing about what
 * changed: whoever hears it looks. Messages that the kernel had to drop ring like any other, and a socket that broke
 * is opened again.
 */
import { messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import { changeGroups } from './messages.js';
import { NetlinkSocket, type NetlinkDoor } from './socket.js';

const reopenMs = 1000;
/**
 * Each ring costs a look at the whole host. The first comes at once, the next ones at growing distances while the
 * changes go on (a routing daemon that loads its table), and after a quiet moment it is at once again.
 */
const firstGapMs = 50;
const longestGapMs = 500;

export class Changes {
  readonly #door: NetlinkDoor;
  readonly #log: Log;
  readonly #listeners: (() => void)[] = [];
  #socket: NetlinkSocket | undefined;
  #reopening: NodeJS.Timeout | undefined;
  #ringing: NodeJS.Timeout | undefined;
  #rungMs = -longestGapMs;
  #gapMs = firstGapMs;

  /** @throws an errno error when the kernel gives no socket */
  constructor(door: NetlinkDoor, log: Log) {
    this.#door = door;
    this.#log = log;
    this.#socket = this.#open();
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  close(): void {
    clearTimeout(this.#reopening);
    clearTimeout(this.#ringing);
    this.#socket?.close();
    this.#listeners.length = 0;
  }

  #open(): NetlinkSocket {
    return new NetlinkSocket(this.#door, {
      groups: changeGroups,
      onRing: () => this.#ring(),
      onEnd: code => this.#reopenLater(code),
    });
  }

  #ring(): void {
    if (this.#ringing) return;
    const sinceMs = performance.now() - this.#rungMs;
    if (sinceMs >= longestGapMs) this.#gapMs = firstGapMs;
    this.#ringing = setTimeout(
      () => {
        this.#ringing = undefined;
        this.#rungMs = performance.now();
        this.#gapMs = Math.min(2 * this.#gapMs, longestGapMs);
        for (const listener of this.#listeners) listener();
      },
      Math.max(0, this.#gapMs - sinceMs),
    );
  }

  #reopenLater(why: string): void {
    this.#log.warn('host.deaf', `changes of links and routes are not heard (${why}), trying again`);
    this.#reopening = setTimeout(() => {
      try {
        this.#socket = this.#open();
        this.#ring();
      } catch (error) {
        this.#reopenLater(messageOf(error));
      }
    }, reopenMs);
  }
}
