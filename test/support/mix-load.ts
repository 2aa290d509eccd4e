/** Traffic of every kind at once between the containers of a MixLab, until it is stopped. */
import { setTimeout as delay } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import type { LabHost } from './lab-host.js';
import type { MixLab } from './mix-lab.js';
import { start, type Running } from './tools.js';
import { Flow, Stream, type FlowReport, type StreamReport } from './traffic.js';

const bulkBytes = 30_000_000;
const [slowStreams, slowBytes] = [30, 100_000];

export interface LoadReport {
  /** 1000 numbered packets a second each way. */
  readonly flows: readonly FlowReport[];
  /** Of bulk TCP each way and thirty slower connections, those whose sums differ. */
  readonly brokenStreams: readonly StreamReport[];
  /** Echo requests of 65,000 bytes. */
  readonly longPings: { readonly sent: number; readonly lost: number };
}

export class Load {
  readonly #flows: readonly Flow[];
  readonly #streams: readonly Stream[];
  readonly #ping: Running;
  readonly #pinged: Promise<string>;

  private constructor(flows: readonly Flow[], streams: readonly Stream[], ping: Running) {
    this.#flows = flows;
    this.#streams = streams;
    this.#ping = ping;
    this.#pinged = text(ping.stdout);
  }

  static async open(mix: MixLab): Promise<Load> {
    const { a, b } = mix;
    const streams = [await stream(mix, a, b, 7100, bulkBytes), await stream(mix, b, a, 7100, bulkBytes)];
    for (let count = 1; count <= slowStreams; count++) streams.push(await stream(mix, a, b, 7100 + count, slowBytes));
    const ping = ['ping', '-n', '-q', '-i', '0.3', '-s', '64972', b.containerAddress];
    const pings = start(mix.inOrder.inside(a.containerNamespace, ping));
    return new Load([await numbered(mix, a, b), await numbered(mix, b, a)], streams, pings);
  }

  async stop(): Promise<LoadReport> {
    const flows: FlowReport[] = [];
    for (const flow of this.#flows) flows.push(await flow.stop());
    this.#ping.kill('SIGINT');
    const [sent = 0, received = 0] = [...(/(\d+) packets transmitted, (\d+) received/.exec(await this.#pinged) ?? [])]
      .slice(1)
      .map(Number);
    const streams = await Promise.all(this.#streams.map(one => one.stop()));
    // The last one may be under way still.
    return {
      flows,
      brokenStreams: streams.filter(isBroken),
      longPings: { sent, lost: Math.max(0, sent - received - 1) },
    };
  }
}

export function numbered(mix: MixLab, from: LabHost, to: LabHost, rate = 1000): Promise<Flow> {
  const ends = { from: from.containerNamespace, to: to.containerNamespace, address: to.containerAddress };
  return Flow.open(mix.inOrder, { ...ends, port: 7001, rate });
}

function stream(mix: MixLab, from: LabHost, to: LabHost, port: number, bytesPerSecond: number): Promise<Stream> {
  const ends = { from: from.containerNamespace, to: to.containerNamespace, address: to.containerAddress, port };
  return Stream.open(mix.inOrder, { ...ends, bytesPerSecond });
}

function isBroken({ sent, received }: StreamReport): boolean {
  return sent.bytes === 0 || sent.bytes !== received.bytes || sent.checksum !== received.checksum;
}

/** Numbered packets a second that cross from a to b, when as many are sent as one sender can. */
export async function lineRate(mix: MixLab): Promise<number> {
  const flow = await numbered(mix, mix.a, mix.b, 100_000);
  await delay(2000);
  const { received } = await flow.stop();
  return received / 2;
}
