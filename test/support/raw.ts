/** Whole IPv4 packets between namespaces by native/build/raw (raw.c): of any protocol, with any header. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { compile, root, run, start, until, type Running } from './tools.js';
import type { Places } from './traffic.js';

export interface RawPacket {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly payload: Buffer;
  readonly tos?: number;
  readonly ttl?: number;
  /** A multiple of four bytes. */
  readonly options?: Buffer;
  /** Of all fragments of one packet; default: the kernel chooses. */
  readonly identification?: number;
  /** Flags and offset, as they stand in the header. */
  readonly fragment?: number;
}

/** The kernel fills in the checksum. */
function bytesOf(p: RawPacket): Buffer {
  const options = p.options ?? Buffer.alloc(0);
  const header = Buffer.alloc(20);
  header.set([0x45 + options.length / 4, p.tos ?? 0], 0);
  header.writeUInt16BE(header.length + options.length + p.payload.length, 2);
  header.writeUInt16BE(p.identification ?? 0, 4);
  header.writeUInt16BE(p.fragment ?? 0, 6);
  header.set([p.ttl ?? 64, p.protocol], 8);
  header.set([...p.source.split('.'), ...p.destination.split('.')].map(Number), 12);
  return Buffer.concat([header, options, p.payload]);
}

/** The same payload in packets of so many bytes each, but for the last one; a multiple of eight. */
export function fragmentsOf(packet: RawPacket, bytes: number, identification: number): readonly RawPacket[] {
  const { payload } = packet;
  const count = Math.ceil(payload.length / bytes);
  return Array.from({ length: count }, (_, place) => ({
    ...packet,
    identification,
    fragment: (place * bytes) / 8 + (place + 1 < count ? 0x2000 : 0),
    payload: payload.subarray(place * bytes, (place + 1) * bytes),
  }));
}

export interface ReceivedPacket {
  readonly tos: number;
  readonly ttl: number;
  readonly options: Buffer;
  readonly payload: Buffer;
}

function parsed(hex: string): ReceivedPacket {
  const packet = Buffer.from(hex, 'hex');
  const headerBytes = ((packet[0] ?? 0) & 15) * 4;
  const [tos = 0, ttl = 0] = [packet[1], packet[8]];
  return { tos, ttl, options: packet.subarray(20, headerBytes), payload: packet.subarray(headerBytes) };
}

/** Where the program is, made if need be. */
function program(): string {
  const output = join(root, 'native/build/raw');
  compile('test/support/raw.c', output);
  return output;
}

export async function sendRaw(spaces: Places, where: string, packets: readonly RawPacket[]): Promise<void> {
  const input = packets.map(packet => `${bytesOf(packet).toString('hex')}\n`).join('');
  await run(spaces.inside(where, [program(), 'send']), { input });
}

/** Hears what comes of one protocol, until `close`. */
export class RawListener {
  readonly #child: Running;
  readonly #lines: string[] = [];

  private constructor(child: Running) {
    this.#child = child;
    createInterface(child.stdout).on('line', line => this.#lines.push(line));
  }

  static async open(spaces: Places, where: string, protocol: number): Promise<RawListener> {
    const listener = new RawListener(start(spaces.inside(where, [program(), 'receive', String(protocol)])));
    await until('raw socket', () => listener.#lines.shift() === 'ready');
    return listener;
  }

  /** The next packets that came, when so many are there; fewer when no more come within the time. */
  async take(count: number, timeoutMs = 2000): Promise<readonly ReceivedPacket[]> {
    await until('packets', () => this.#lines.length >= count, timeoutMs).catch(() => {});
    return this.#lines.splice(0).map(parsed);
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }
}
