/**
 * Rings after changes of links, IPv4 addresses, IPv4 routes and nftables rules (iptables rules too, where iptables is
 * built on nftables), whoever made them. A ring carries no value: the listener reads the host. Messages that the kernel
 * dropped ring like any other, and a socket that failed is opened again.
 */
import { messageOf } from '../../lib/errors.js';
import { Listeners } from '../../lib/listeners.js';
import type { Log } from '../../lib/log.js';
import { changeGroups, changesRules, ruleGroups } from './messages.js';
import { NetlinkSocket, protocols, type NetlinkCalls, type NetlinkOptions } from './socket.js';

const reopenMs = 1000;
/**
 * Each ring costs a reading of the whole host. The first ring comes at once. The gap before each next one grows while
 * changes go on, for example while a routing daemon loads its table. After a quiet time a ring comes at once again.
 */
const firstGapMs = 50;
const longestGapMs = 500;

const routing: NetlinkOptions = { protocol: protocols.route, groups: changeGroups };
const rules: NetlinkOptions = { protocol: protocols.netfilter, groups: ruleGroups, isRelevant: changesRules };

export class Changes {
  readonly #calls: NetlinkCalls;
  readonly #log: Log;
  readonly #listeners = new Listeners();
  readonly #sockets = new Map<NetlinkOptions, NetlinkSocket>();
  readonly #reopenTimers = new Set<NodeJS.Timeout>();
  #ringTimer: NodeJS.Timeout | undefined;
  #lastRingMs = -longestGapMs;
  #gapMs = firstGapMs;

  /** @throws an errno error when the kernel gives no socket for links and routes */
  constructor(calls: NetlinkCalls, log: Log) {
    this.#calls = calls;
    this.#log = log;
    this.#open(routing);
    try {
      this.#open(rules);
    } catch (error) {
      // The kernel has no nftables, or this process may not listen. The periodic pass finds what changed.
      log.debug('host.deaf', `changes of packet filter rules are not heard (${messageOf(error)})`);
    }
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  close(): void {
    for (const timer of this.#reopenTimers) clearTimeout(timer);
    clearTimeout(this.#ringTimer);
    for (const socket of this.#sockets.values()) socket.close();
    this.#listeners.clear();
  }

  #open(source: NetlinkOptions): void {
    const socket = new NetlinkSocket(this.#calls, {
      ...source,
      onRing: () => this.#ring(),
      onEnd: code => this.#reopenLater(source, code),
    });
    this.#sockets.set(source, socket);
  }

  #ring(): void {
    if (this.#ringTimer) return;
    const sinceMs = performance.now() - this.#lastRingMs;
    if (sinceMs >= longestGapMs) this.#gapMs = firstGapMs;
    this.#ringTimer = setTimeout(
      () => {
        this.#ringTimer = undefined;
        this.#lastRingMs = performance.now();
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
      this.#reopenTimers.delete(timer);
      try {
        this.#open(source);
        this.#ring();
      } catch (error) {
        this.#reopenLater(source, messageOf(error));
      }
    }, reopenMs);
    this.#reopenTimers.add(timer);
  }
}
