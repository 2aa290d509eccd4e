/** One flow of datagrams with known bytes between namespaces by native/build/burst (burst.c). */
import { join } from 'node:path';
import { secondLine, type Between, type Places } from './traffic.js';
import { ended, root, run, start, type Running } from './tools.js';

export const burst = join(root, 'native/build/burst');

/** What became of them. */
export interface BurstReport {
  readonly received: number;
  readonly lost: number;
  readonly firstLost: number;
  /** Came with other bytes or of another length than was sent. */
  readonly corrupted: number;
  readonly duplicates: number;
  readonly reordered: number;
}

export interface SentReport {
  readonly sent: number;
  /** How often the receiver was asked in vain whether all had come so far. */
  readonly unanswered: number;
}

/** The other end of a flow, until `report`. */
export class BurstReceiver {
  readonly #child: Running;
  readonly #report: Promise<string>;

  private constructor(child: Running, report: Promise<string>) {
    this.#child = child;
    this.#report = report;
  }

  static async open(spaces: Places, where: string, port: number): Promise<BurstReceiver> {
    const child = start(spaces.inside(where, [burst, 'receive', String(port)]));
    return new BurstReceiver(child, (await secondLine(child)).line);
  }

  /** @param sent how many datagrams there were in all */
  async report(sent: number): Promise<BurstReport> {
    this.#child.stdin.end(`${sent}\n`);
    const report = JSON.parse(await this.#report) as BurstReport;
    await ended(this.#child);
    return report;
  }
}

/** @param parts of burst.c: datagrams and UDP_SEGMENT messages, in the order in which they are sent */
export async function sendBurst(
  spaces: Places,
  o: Between & { readonly parts: readonly string[] },
): Promise<BurstReport & SentReport> {
  const receiver = await BurstReceiver.open(spaces, o.to, o.port);
  // As the sender of a flow (traffic.ts).
  const send = ['taskset', '-c', '0', burst, 'send', o.address, String(o.port), ...o.parts];
  const text = await run(spaces.inside(o.from, send));
  const sent = JSON.parse(text.split('\n')[1] ?? '') as SentReport;
  return { ...sent, ...(await receiver.report(sent.sent)) };
}

/** Datagrams of any bytes and of one length, in one UDP_SEGMENT message. */
export async function sendSegments(
  spaces: Places,
  o: { readonly from: string; readonly address: string; readonly port: number; readonly segments: readonly Buffer[] },
): Promise<void> {
  const bytes = String(o.segments[0]?.length ?? 0);
  const command = spaces.inside(o.from, [burst, 'raw', o.address, String(o.port), bytes]);
  await run(command, { input: Buffer.concat(o.segments) });
}
