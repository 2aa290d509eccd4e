/** Measured traffic between namespaces by native/build/probe (probe.c), and captures by tcpdump. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { ended, probe, run, start, type Running } from './tools.js';

/** Namespaces by their letters; the class of that name is one. */
export interface Places {
  inside(letter: string, command: readonly string[]): readonly string[];
}

/** From a namespace, by its letter, to a port in another. */
export interface Between {
  readonly from: string;
  readonly to: string;
  readonly address: string;
  readonly port: number;
}

/** What became of numbered datagrams. */
export interface FlowReport {
  readonly sent: number;
  readonly received: number;
  readonly lost: number;
  readonly firstLost: number;
  readonly lastLost: number;
  readonly duplicates: number;
  readonly reordered: number;
  /** Between two arrivals. */
  readonly longestGapMs: number;
  /** As the receiver saw it. */
  readonly source: string;
  readonly oneSource: boolean;
}

export interface TransferReport {
  readonly bytes: number;
  readonly checksum: string;
  readonly source: string;
}

/** The sums of both ends: equal but for the source when nothing broke. */
export interface StreamReport {
  readonly sent: TransferReport;
  readonly received: TransferReport;
  /** Between two receives that brought something. */
  readonly longestGapMs: number;
}

export interface Transfer extends StreamReport {
  readonly seconds: number;
}

/** A flow of numbered datagrams that runs until `stop`. */
export class Flow {
  readonly #sender: Running;
  readonly #receiver: Running;
  readonly #sent: Promise<string>;
  readonly #answer: () => Promise<string>;

  private constructor(sender: Running, sent: Promise<string>, receiver: Running, answer: () => Promise<string>) {
    this.#sender = sender;
    this.#sent = sent;
    this.#receiver = receiver;
    this.#answer = answer;
  }

  static async open(spaces: Places, o: Between & { readonly rate: number }): Promise<Flow> {
    const receiver = start(spaces.inside(o.to, [probe, 'receive', String(o.port)]));
    const answer = await linesAfterFirst(receiver);
    // A sender that moves to another processor overtakes what waits at the former one, without any overlay too.
    const words = [probe, 'send', o.address, String(o.port), String(o.rate)];
    const sender = start(spaces.inside(o.from, ['taskset', '-c', '0', ...words]));
    const sent = await secondLine(sender);
    return new Flow(sender, sent.line, receiver, answer);
  }

  /** Datagrams that have come so far. One question at a time. */
  async received(): Promise<number> {
    this.#receiver.stdin.write('?\n');
    return (JSON.parse(await this.#answer()) as Pick<FlowReport, 'received'>).received;
  }

  async stop(): Promise<FlowReport> {
    this.#sender.kill('SIGTERM');
    const { sent } = JSON.parse(await this.#sent) as { sent: number };
    this.#receiver.stdin.end(`${sent}\n`);
    return JSON.parse(await this.#answer()) as FlowReport;
  }
}

/** One TCP connection; both ends' sums over what they sent and received. */
export async function transfer(spaces: Places, o: Between & { readonly bytes: number }): Promise<Transfer> {
  const server = start(spaces.inside(o.to, [probe, 'serve', String(o.port)]));
  const report = await secondLine(server);
  const begin = performance.now();
  const sent = await run(spaces.inside(o.from, [probe, 'push', o.address, String(o.port), String(o.bytes)]));
  const received = await report.line;
  await ended(server);
  return { ...streamReport(sent, received), seconds: (performance.now() - begin) / 1000 };
}

function streamReport(sent: string, received: string): StreamReport {
  const { longestGapMs: _, ...ofSender } = JSON.parse(sent) as TransferReport & { longestGapMs: number };
  const { longestGapMs, ...ofReceiver } = JSON.parse(received) as TransferReport & { longestGapMs: number };
  return { sent: ofSender, received: ofReceiver, longestGapMs };
}

/** One TCP connection that carries bytes at a steady rate until `stop`. */
export class Stream {
  readonly #sender: Running;
  readonly #sent: Promise<string>;
  readonly #received: Promise<string>;

  private constructor(sender: Running, sent: Promise<string>, received: Promise<string>) {
    this.#sender = sender;
    this.#sent = sent;
    this.#received = received;
  }

  static async open(spaces: Places, o: Between & { readonly bytesPerSecond: number }): Promise<Stream> {
    const server = start(spaces.inside(o.to, [probe, 'serve', String(o.port)]));
    const { line } = await secondLine(server);
    const most = String(2 ** 32 - 1);
    const words = ['push', o.address, String(o.port), most, String(o.bytesPerSecond)];
    const sender = start(spaces.inside(o.from, [probe, ...words]));
    return new Stream(sender, text(sender.stdout), line);
  }

  async stop(): Promise<StreamReport> {
    this.#sender.kill('SIGTERM');
    return streamReport(await this.#sent, await this.#received);
  }
}

export interface OuterDatagram {
  readonly from: string;
  readonly fromPort: number;
  readonly to: string;
  readonly toPort: number;
  readonly hex: string;
}

/** Sends datagrams with any outer source from a namespace. */
export async function inject(spaces: Places, from: string, datagrams: readonly OuterDatagram[]): Promise<void> {
  const lines = datagrams.map(d => `${d.from} ${d.fromPort} ${d.to} ${d.toPort} ${d.hex}\n`);
  await run(spaces.inside(from, [probe, 'inject']), { input: lines.join('') });
}

/** A service manager's socket: `first` is what comes to it first, `READY=1` if all is well. */
export async function notifySocket(path: string): Promise<{ readonly first: Promise<string> }> {
  return { first: (await secondLine(start([probe, 'notified', path]))).line };
}

/** Counts the packets that match a filter until `stop`. */
export class Capture {
  readonly #child: Running;
  readonly #told: Promise<unknown>;
  #text = '';

  private constructor(child: Running) {
    this.#child = child;
    this.#told = once(child.stdout, 'close');
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text;
    });
  }

  static async open(spaces: Places, where: string, link: string, filter: string): Promise<Capture> {
    const options = ['-i', link, '-n', '-l', '--immediate-mode', '-s', '96', filter];
    const child = start(spaces.inside(where, ['tcpdump', ...options]));
    const capture = new Capture(child);
    for await (const line of createInterface(child.stderr)) if (line.includes('listening on')) return capture;
    throw new Error(`tcpdump ended (${await ended(child)}): is the filter ${filter} right?`);
  }

  /** One line a packet. */
  get lines(): readonly string[] {
    return this.#text.split('\n').filter(line => line !== '');
  }

  async stop(): Promise<readonly string[]> {
    this.#child.kill('SIGINT');
    await this.#told;
    return this.lines;
  }
}

/** Waits for the first line, which says that the program is ready; the second is its report. */
export async function secondLine(child: Running): Promise<{ readonly line: Promise<string> }> {
  const line = (await linesAfterFirst(child))();
  // Somebody asks for it later, or nobody does.
  line.catch(() => {});
  return { line };
}

/** Waits for the first line; what is returned gives one of the others at each call. */
async function linesAfterFirst(child: Running): Promise<() => Promise<string>> {
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const complaints: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => complaints.push(text));
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`the probe ended (${await ended(child)}): ${complaints.join('')}`);
    return value;
  };
  await next();
  return next;
}
