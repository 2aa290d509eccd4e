/** Logs what becomes of peers: each change is one event, ten a second by name, then a sum. */
import type { Log } from '../lib/log.js';
import { formatIpv4, formatPrefix } from '../model/ip.js';
import type { Verdict } from './judge-peer.js';
import type { WatchedPeer } from './watched-peer.js';

const perSecond = 10;
const secondMs = 1_000;

export class PeerLog {
  readonly #log: Log;
  #secondMs = -Infinity;
  #named = 0;
  #more = { silent: 0, up: 0 };

  constructor(log: Log) {
    this.#log = log;
  }

  changed(peer: WatchedPeer, before: Verdict, nowMs: number): void {
    const { state } = peer.verdict;
    // Who was never silent is heard for the first time: there are thousands of those after a start.
    if (state !== 'silent' && !(state === 'up' && before.state === 'silent')) return;
    this.#begin(nowMs);
    if (this.#named++ >= perSecond) this.#more[state]++;
    else this.#name(peer);
  }

  /** Called at each look. */
  tick(nowMs: number): void {
    this.#begin(nowMs);
  }

  #name({ tunnel, lease, verdict: { state, kind, reason, nextStep } }: WatchedPeer): void {
    const peer = formatIpv4(tunnel.endpoint);
    const fields = { subnet: formatPrefix(lease.subnet), peer };
    if (state === 'up') return this.#log.info('peer.up', `${peer} answers again`, fields);
    const event = kind === 'one-way' ? 'peer.one-way' : 'peer.silent';
    this.#log.warn(event, `${reason}; next: ${nextStep}`, fields);
  }

  #begin(nowMs: number): void {
    if (nowMs - this.#secondMs < secondMs) return;
    const { silent, up } = this.#more;
    if (silent + up > 0)
      this.#log.warn('peers.changed', `${silent} more peers became silent, ${up} more answer again: tartan peers`, {
        silent,
        up,
      });
    this.#more = { silent: 0, up: 0 };
    this.#named = 0;
    this.#secondMs = nowMs;
  }
}
