/**
 * A doorbell for changes of links, IPv4 addresses, IPv4 routes and nftables rules (iptables' too where it is built on
 * them), whoever made them. It says nothing about what changed: whoever hears it looks. Messages that the kernel had
 * to drop ring like any other, and a socket that broke is opened again.
 */
import { messageOf } from '../../lib/errors.js';
import { Listeners } from '../../lib/listeners.js';
import type { Log } from '../../lib/log.js';
import { changeGroups, changesRules, ruleGroups } from './messages.js';
import { NetlinkSocket, protocols, type NetlinkDoor, type NetlinkOptions } from './socket.js';

const reopenMs = 1000;
/**
 * Each ring costs a look at the whole host. The first comes at once, the next ones at growing distances while the
 * changes go on (a routing daemon that loads its table), and after a quiet moment it is at once again.
 */
const firstGapMs = 50;
const longestGapMs = 500;

const routing: NetlinkOptions = { protocol: protocols.route, groups: changeGroups };
const rules: NetlinkOptions = { protocol: protocols.netfilter, groups: ruleGroups, isNews: changesRules };

export class Changes {
  readonly #door: NetlinkDoor;
  readonly #log: Log;
  readonly #listeners = new Listeners();
  readonly #sockets = new Map<NetlinkOptions, NetlinkSocket>();
  readonly #reopening = new Set<NodeJS.Timeout>();
  #ringing: NodeJS.Timeout | undefined;
  #rungMs = -longestGapMs;
  #gapMs = firstGapMs;

  /** @throws an errno error when the kernel gives no socket for links and routes */
  constructor(door: NetlinkDoor, log: Log) {
    this.#door = door;
    this.#log = log;
    this.#open(routing);
    try {
      this.#open(rules);
    } catch (error) {
      // A kernel without nftables, or no privilege to listen: the sweep finds what changed.
      log.debug('host.deaf', `changes of packet filter rules are not heard (${messageOf(error)})`);
    }
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  close(): void {
    for (const timer of this.#reopening) clearTimeout(timer);
    clearTimeout(this.#ringing);
    for (const socket of this.#sockets.values()) socket.close();
    this.#listeners.clear();
  }

  #open(source: NetlinkOptions): void {
    const socket = new NetlinkSocket(this.#door, {
      ...source,
      onRing: () => this.#ring(),
      onEnd: code => this.#reopenLater(source, code),
    });
    this.#sockets.set(source, socket);
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
        this.#listeners.ring();
      },
      Math.max(0, this.#gapMs - sinceMs),
    );
  }

  #reopenLater(source: NetlinkOptions, why: string): void {
    const what = source === rules ? 'packet filter rules' : 'links and routes';
    this.#log.warn('host.deaf', `changes of ${what} are not heard (${why}), trying again`);
    const timer = setTimeout(() => {
      this.#reopening.delete(timer);
      try {
        this.#open(source);
        this.#ring();
      } catch (error) {
        this.#reopenLater(source, messageOf(error));
      }
    }, reopenMs);
    this.#reopening.add(timer);
  }
}
