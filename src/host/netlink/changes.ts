/**
 * Rings after changes of links, IPv4 addresses, IPv4 routes and nftables rules (iptables rules too, where iptables is
 * built on nftables), whoever made them. A ring carries no value: the listener reads the host. Messages that the kernel
 * dropped ring like any other, and a socket that failed is opened again. Routes that touch nothing of ours do not ring.
 */
import { readFileSync } from 'node:fs';
import { messageOf } from '../../lib/errors.js';
import { Listeners } from '../../lib/listeners.js';
import type { Log } from '../../lib/log.js';
import { changeGroups } from './messages.js';
import { readRuleNews, ruleGroups, type RuleAuthor } from './rule-news.js';
import { keepsAny, type MessageFilter } from './route-filter.js';
import { NetlinkSocket, protocols, type NetlinkCalls, type NetlinkOptions } from './socket.js';

const reopenMs = 1000;
/**
 * Each ring costs a reading of the host. The first ring comes at once. The gap before each next one grows while
 * changes go on, for example while a routing daemon loads its table. After a quiet time a ring comes at once again.
 */
const firstGapMs = 50;
const longestGapMs = 500;

export interface ChangesOptions {
  readonly calls: NetlinkCalls;
  readonly log: Log;
  /** Whether this program started the process: what such a process removes is no news. */
  readonly isOwnCommand: (pid: number) => boolean;
}

type Kind = 'routing' | 'rules';

export class Changes {
  readonly #options: ChangesOptions;
  readonly #listeners = new Listeners();
  readonly #sockets = new Map<Kind, NetlinkSocket>();
  readonly #hearing = new Set<Kind>();
  readonly #reopenTimers = new Set<NodeJS.Timeout>();
  readonly #bells = {
    routing: new Bell(() => this.#listeners.ring()),
    rules: new Bell(() => this.#listeners.ring()),
  };
  #keepsRoute: MessageFilter = () => true;
  #removed = false;
  readonly #heard = { routing: true, rules: true };
  /** Who removed rules last, as people know it: `iptables (of kube-proxy)`. */
  lastRemover: string | undefined;

  /** @throws an errno error when the kernel gives no socket for links and routes */
  constructor(options: ChangesOptions) {
    this.#options = options;
    this.#open('routing');
    try {
      this.#open('rules');
    } catch (error) {
      // The kernel has no nftables, or this process may not listen. The periodic pass finds what changed.
      options.log.debug('host.deaf', `changes of packet filter rules are not heard (${messageOf(error)})`);
    }
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Whether both kinds ring now. */
  get hearsAll(): boolean {
    return this.#hearing.has('routing') && this.#hearing.has('rules');
  }

  /** Changes of other routes ring no more. */
  watchRoutes(keeps: MessageFilter): void {
    this.#keepsRoute = keeps;
  }

  /** Whether this kind changed since the last `begin`, and the rest after it is over. */
  isDue(kind: Kind): boolean {
    return this.#heard[kind] && !this.#bells[kind].rests;
  }

  /** Called before a kind is read. */
  begin(kind: Kind): void {
    this.#heard[kind] = false;
  }

  /** Called after a kind was read: no change of it rings for this time. */
  rest(kind: Kind, ms: number): void {
    this.#bells[kind].rest(ms);
  }

  close(): void {
    for (const timer of this.#reopenTimers) clearTimeout(timer);
    for (const bell of Object.values(this.#bells)) bell.close();
    for (const socket of this.#sockets.values()) socket.close();
    this.#listeners.clear();
  }

  #open(kind: Kind): void {
    const heard: NetlinkOptions =
      kind === 'routing'
        ? {
            protocol: protocols.route,
            groups: changeGroups,
            isRelevant: datagram => keepsAny(datagram, this.#keepsRoute),
          }
        : { protocol: protocols.netfilter, groups: ruleGroups, isRelevant: datagram => this.#hearRules(datagram) };
    const socket = new NetlinkSocket(this.#options.calls, {
      ...heard,
      onRing: () => this.#ring(kind),
      onEnd: code => this.#reopenLater(kind, code),
    });
    this.#sockets.set(kind, socket);
    this.#hearing.add(kind);
  }

  #ring(kind: Kind): void {
    this.#heard[kind] = true;
    this.#bells[kind].ring();
  }

  #hearRules(datagram: Buffer): boolean {
    const { changes, removes, author } = readRuleNews(datagram);
    this.#removed ||= removes;
    if (author && this.#removed) {
      this.#removed = false;
      if (!this.#options.isOwnCommand(author.pid)) this.lastRemover = describeAuthor(author);
    }
    return changes;
  }

  #reopenLater(kind: Kind, why: string): void {
    this.#hearing.delete(kind);
    const what = kind === 'rules' ? 'packet filter rules' : 'links and routes';
    this.#options.log.warn('host.deaf', `changes of ${what} are not heard (${why}), trying again`);
    const timer = setTimeout(() => {
      this.#reopenTimers.delete(timer);
      try {
        this.#open(kind);
        this.#ring(kind);
      } catch (error) {
        this.#reopenLater(kind, messageOf(error));
      }
    }, reopenMs);
    this.#reopenTimers.add(timer);
  }
}

/** Joins rings that come one after another. */
class Bell {
  readonly #listener: () => void;
  #timer: NodeJS.Timeout | undefined;
  #lastMs = -longestGapMs;
  #gapMs = firstGapMs;
  #restUntilMs = 0;

  constructor(listener: () => void) {
    this.#listener = listener;
  }

  get rests(): boolean {
    return performance.now() < this.#restUntilMs;
  }

  rest(ms: number): void {
    this.#restUntilMs = performance.now() + ms;
  }

  ring(): void {
    if (this.#timer) return;
    const nowMs = performance.now();
    if (nowMs - this.#lastMs >= longestGapMs) this.#gapMs = firstGapMs;
    const dueMs = Math.max(this.#lastMs + this.#gapMs, this.#restUntilMs);
    this.#timer = setTimeout(() => this.#onDue(), Math.max(0, dueMs - nowMs));
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #onDue(): void {
    this.#timer = undefined;
    // A reading that was under way may have prolonged the rest.
    if (this.rests) return this.ring();
    this.#lastMs = performance.now();
    this.#gapMs = Math.min(2 * this.#gapMs, longestGapMs);
    this.#listener();
  }
}

/** Adds the name of the parent, as far as the process still runs. */
function describeAuthor({ pid, name }: RuleAuthor): string {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    if (/^Name:\t(.*)$/m.exec(status)?.[1] !== name) return name;
    const parent = /^PPid:\t(\d+)$/m.exec(status)?.[1] ?? '0';
    return `${name} of ${readFileSync(`/proc/${parent}/comm`, 'latin1').trim()}`;
  } catch {
    return name;
  }
}
