/**
 * Tells of packets that were dropped as spoofed, because it may be what an operator wants to pass: a client that is
 * routed behind a host, without masquerade. It is told as long as there are such packets, and a minute longer.
 */
const keptMs = 60_000;

type Counters = Readonly<Record<string, number>>;

export class SpoofWarning {
  #seen: number;
  #untilMs = -Infinity;

  /** @param found the counters of the data process that was adopted; what they hold was told before */
  constructor({ tx_spoof_src: sent = 0, rx_spoof_src: received = 0 }: Counters = {}) {
    this.#seen = sent + received;
  }

  /** @param counters what was counted so far */
  texts({ tx_spoof_src: sent = 0, rx_spoof_src: received = 0 }: Counters, nowMs: number): readonly string[] {
    if (sent + received > this.#seen) this.#untilMs = nowMs + keptMs;
    this.#seen = sent + received;
    if (nowMs >= this.#untilMs) return [];
    return [
      `packets are dropped as spoofed, ${sent} from this host (tx_spoof_src) and ${received} from peers (rx_spoof_src): their ` +
        `source is not in the subnet of the host that sends them; if they are of clients routed behind a host, let that ` +
        `host masquerade them, or start tartand with --no-source-check on every host`,
    ];
  }
}
