/**
 * One netlink socket over the addon: requests one at a time, each with its own sequence number and deadline.
 * A reply to an older request is ignored, an interrupted dump is repeated (NLM_F_DUMP_INTR, netlink(7)), a refusal is
 * an Error in Node's shape (`code` EEXIST ...) with the kernel's own words. A socket that listens to multicast groups
 * only rings: also when the kernel dropped messages (ENOBUFS), so that a flood costs a look and never the process.
 */
import { constants } from 'node:os';
import {
  formatMessage,
  getS32,
  getString,
  getU32,
  parseAttributes,
  parseMessages,
  type NetlinkMessage,
} from 'netlink/dist/structs.js';
import type { NativeAddon, NativeWatch } from '../../lib/native.js';
import { Serial } from '../../lib/serial.js';

export type NetlinkDoor = Pick<NativeAddon, 'netlinkOpen' | 'netlinkSend' | 'watch' | 'closeFd'>;

export interface NetlinkOptions {
  /** One of `protocols`, rtnetlink(7) unless said. */
  readonly protocol?: number;
  /** Multicast groups to join; a socket with groups takes no requests. */
  readonly groups?: readonly number[];
  readonly onRing?: () => void;
  /** Which datagrams ring; all of them unless said. */
  readonly isNews?: (datagram: Buffer) => boolean;
  /** The socket is useless from here on; `code` is an errno name or EOF. */
  readonly onEnd?: (code: string) => void;
  readonly timeoutMs?: number;
}

/** linux/netlink.h */
export const protocols = { route: 0, netfilter: 12 } as const;
const nlm = { request: 1, ack: 4, dumpInterrupted: 0x10, dump: 0x300, exclusive: 0x200 } as const;
const create = 0x400;
const append = 0x800;
const acknowledgement = { capped: 0x100, attributes: 0x200 } as const;
const control = { error: 2, done: 3, overrun: 4 } as const;
const errorText = 1;
const headerBytes = 16;

/** Flags of a request that adds: `exclusive` refuses where something is there, `append` comes after it. */
export const addFlags = { exclusive: create | nlm.exclusive, append: create | append } as const;

/** Larger than any message the kernel makes for a dump. */
const datagramBytes = 64 * 1024;
const receiveBufferBytes = 1024 * 1024;
const dumpAttempts = 10;

interface Pending {
  readonly sequence: number;
  readonly messages: NetlinkMessage[];
  readonly kind: 'ack' | 'dump' | 'get';
  interrupted: boolean;
  settle(error?: Error): void;
}

export class NetlinkSocket {
  readonly #door: NetlinkDoor;
  readonly #options: NetlinkOptions;
  readonly #fd: number;
  readonly #watch: NativeWatch;
  /** Dumps must not overlap on one socket (EBUSY), and a request at a time cannot overrun its own buffer. */
  readonly #requests = new Serial();
  #sequence = 0;
  #pending: Pending | undefined;
  #ended: string | undefined;

  /** @throws an errno error when the kernel gives no socket */
  constructor(door: NetlinkDoor, options: NetlinkOptions = {}) {
    this.#door = door;
    this.#options = options;
    this.#fd = door.netlinkOpen(options.protocol ?? protocols.route, options.groups ?? [], receiveBufferBytes);
    try {
      this.#watch = door.watch(this.#fd, datagramBytes, (error, message) => this.#onEvent(error, message));
    } catch (error) {
      door.closeFd(this.#fd);
      throw error;
    }
  }

  /** Closed, by us or by a failure of reading: every request is refused from here on. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Asks for a change and waits until the kernel says that it is made. */
  async change(type: number, flags: number, body: Uint8Array): Promise<void> {
    await this.#requests.run(() => this.#exchange('ack', type, nlm.ack | flags, body));
  }

  /** Everything of a kind, as one consistent whole. */
  async dump<T>(type: number, body: Uint8Array, read: (message: Buffer) => T | undefined): Promise<T[]> {
    const reply = await this.#requests.run(async () => {
      for (let attempt = 1; ; attempt++) {
        const pending = await this.#exchange('dump', type, nlm.dump, body);
        if (!pending.interrupted) return pending;
        if (attempt === dumpAttempts) throw errnoError('EINTR', `the list changed under ${dumpAttempts} reads of it`);
      }
    });
    return reply.messages.flatMap(message => read(message.data) ?? []);
  }

  /** The answer to a question about one thing. */
  async get<T>(type: number, body: Uint8Array, read: (message: Buffer) => T | undefined): Promise<T | undefined> {
    const reply = await this.#requests.run(() => this.#exchange('get', type, 0, body));
    const [message] = reply.messages;
    return message && read(message.data);
  }

  close(): void {
    if (this.#ended !== undefined) return;
    this.#end('ECANCELED');
    this.#watch.close();
    this.#door.closeFd(this.#fd);
  }

  #exchange(kind: Pending['kind'], type: number, flags: number, body: Uint8Array): Promise<Pending> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(errnoError(this.#ended, 'the netlink socket is closed'));
      const timeoutMs = this.#options.timeoutMs ?? 5000;
      const timer = setTimeout(
        () => pending.settle(errnoError('ETIMEDOUT', `no answer from the kernel in ${timeoutMs} ms`)),
        timeoutMs,
      );
      const sequence = (this.#sequence = (this.#sequence % 0xffffffff) + 1);
      const pending: Pending = {
        sequence,
        kind,
        messages: [],
        interrupted: false,
        settle: error => {
          clearTimeout(timer);
          this.#pending = undefined;
          if (error) reject(error);
          else resolve(pending);
        },
      };
      this.#pending = pending;
      try {
        const request = { type, flags: nlm.request | flags, seq: sequence, port: 0, data: body };
        this.#door.netlinkSend(this.#fd, Buffer.concat(formatMessage(request)));
      } catch (error) {
        pending.settle(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  #onEvent(error: string | undefined, message: Buffer | undefined): void {
    if (this.#ended !== undefined) return;
    if (error === 'ENOBUFS' || error === 'EMSGSIZE') {
      // Whatever was lost is seen by looking again; the reply to a request may be among it.
      this.#pending?.settle(errnoError(error, 'a message of the kernel was lost'));
      this.#options.onRing?.();
    } else if (error !== undefined) {
      this.#end(error);
      this.#watch.close();
      this.#door.closeFd(this.#fd);
      this.#options.onEnd?.(error);
    } else if (this.#options.onRing) {
      if (!message || this.#options.isNews?.(message) !== false) this.#options.onRing();
    } else if (message) {
      this.#onDatagram(message);
    }
  }

  #end(code: string): void {
    this.#ended = code;
    this.#pending?.settle(errnoError(code, 'the netlink socket was closed'));
  }

  #onDatagram(datagram: Buffer): void {
    let messages: readonly NetlinkMessage[];
    try {
      messages = parseMessages(datagram);
    } catch (error) {
      this.#pending?.settle(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    for (const message of messages) {
      if (this.#pending && message.seq === this.#pending.sequence) take(this.#pending, message);
    }
  }
}

function take(pending: Pending, message: NetlinkMessage): void {
  if ((message.flags & nlm.dumpInterrupted) !== 0) pending.interrupted = true;
  switch (message.type) {
    case control.error:
    case control.done:
      return pending.settle(refusal(message));
    case control.overrun:
      return pending.settle(errnoError('ENOBUFS', 'the kernel dropped its answer'));
    default:
      pending.messages.push(message);
      if (pending.kind === 'get') pending.settle();
  }
}

/** NLMSG_ERROR and NLMSG_DONE begin with a negative errno, 0 for success. */
function refusal(message: NetlinkMessage): Error | undefined {
  const code = message.data.length >= 4 ? getS32(message.data.subarray(0, 4)) : 0;
  if (!code) return undefined;
  const name = Object.entries(constants.errno).find(([, value]) => value === -code)?.[0] ?? `errno ${-code}`;
  return errnoError(name, message.type === control.error ? kernelWords(message) : undefined);
}

/** The kernel's explanation behind an error (NETLINK_EXT_ACK), after the request it quotes. */
function kernelWords(message: NetlinkMessage): string | undefined {
  if ((message.flags & acknowledgement.attributes) === 0) return undefined;
  let words: string | undefined;
  try {
    const capped = (message.flags & acknowledgement.capped) !== 0;
    const quoted = capped ? headerBytes : getU32(message.data.subarray(4, 8));
    const start = 4 + ((quoted + 3) & ~3);
    parseAttributes(message.data.subarray(start), item => {
      if (item.type === errorText) words = getString(item.data);
    });
  } catch {
    // The words only explain: an error without them is still that error.
  }
  return words;
}

function errnoError(code: string, detail: string | undefined): Error {
  return Object.assign(new Error(detail === undefined ? code : `${code}: ${detail}`), { code, syscall: 'netlink' });
}
