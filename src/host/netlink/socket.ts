/**
 * A netlink socket over the addon. Requests run one at a time, each with its own sequence number and deadline. A reply
 * to an older request is ignored, and an interrupted dump is repeated (NLM_F_DUMP_INTR, netlink(7)). A refusal is an
 * Error in Node's shape (`code` EEXIST ...) with the text of the kernel. A socket that joins multicast groups only
 * rings. It also rings when the kernel dropped messages (ENOBUFS), so that a flood costs one reading of the host.
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
import { dumpInterrupted, headerBytes, keepMessages, type MessageFilter } from './route-filter.js';

/** The calls of the addon that a netlink socket needs. */
export type NetlinkCalls = Pick<NativeAddon, 'netlinkOpen' | 'netlinkSend' | 'watch' | 'closeFd'>;

export interface NetlinkOptions {
  /** One of `protocols`; rtnetlink(7) by default. */
  readonly protocol?: number;
  /** Multicast groups to join; a socket with groups accepts no requests. */
  readonly groups?: readonly number[];
  readonly onRing?: () => void;
  /** Decides whether a datagram rings; every datagram does by default. */
  readonly isRelevant?: (datagram: Buffer) => boolean;
  /** Called when the socket failed and was closed; `code` is an errno name or EOF. */
  readonly onEnd?: (code: string) => void;
  readonly timeoutMs?: number;
}

/** linux/netlink.h */
export const protocols = { route: 0, netfilter: 12 } as const;
const nlm = { request: 1, ack: 4, dump: 0x300, exclusive: 0x200 } as const;
const create = 0x400;
const append = 0x800;
const replace = 0x100;
const acknowledgement = { capped: 0x100, attributes: 0x200 } as const;
const control = { error: 2, done: 3, overrun: 4 } as const;
const errorText = 1;

/** Flags of a request that adds: where such an object exists it fails, adds after it, or replaces it. */
export const addFlags = {
  exclusive: create | nlm.exclusive,
  append: create | append,
  replace: create | replace,
} as const;

/** Larger than any message that the kernel sends for a dump. */
const datagramBytes = 64 * 1024;
const receiveBufferBytes = 1024 * 1024;
const dumpAttempts = 10;

interface Pending {
  readonly sequence: number;
  readonly messages: NetlinkMessage[];
  readonly kind: 'ack' | 'dump' | 'get';
  readonly keeps: MessageFilter | undefined;
  interrupted: boolean;
  settle(error?: Error): void;
}

export class NetlinkSocket {
  readonly #calls: NetlinkCalls;
  readonly #options: NetlinkOptions;
  readonly #fd: number;
  readonly #watch: NativeWatch;
  /** Dumps must not overlap on a socket (EBUSY), and the reply to a single request cannot overrun the buffer. */
  readonly #requests = new Serial();
  #sequence = 0;
  #pending: Pending | undefined;
  #ended: string | undefined;

  /** @throws an errno error when the kernel gives no socket */
  constructor(calls: NetlinkCalls, options: NetlinkOptions = {}) {
    this.#calls = calls;
    this.#options = options;
    this.#fd = calls.netlinkOpen(options.protocol ?? protocols.route, options.groups ?? [], receiveBufferBytes);
    try {
      this.#watch = calls.watch(this.#fd, datagramBytes, (error, message) => this.#onEvent(error, message));
    } catch (error) {
      calls.closeFd(this.#fd);
      throw error;
    }
  }

  /** The socket is closed, by `close` or after a read error, and refuses every request. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Requests a change, and waits for the acknowledgement of the kernel. */
  async change(type: number, flags: number, body: Uint8Array): Promise<void> {
    await this.#requests.run(() => this.#exchange('ack', type, nlm.ack | flags, body));
  }

  /**
   * Reads all objects of a type, as one consistent list.
   * @param keeps leaves messages out before they are parsed
   */
  async dump<T>(
    type: number,
    body: Uint8Array,
    read: (message: Buffer) => T | undefined,
    keeps?: MessageFilter,
  ): Promise<T[]> {
    const reply = await this.#requests.run(async () => {
      for (let attempt = 1; ; attempt++) {
        const pending = await this.#exchange('dump', type, nlm.dump, body, keeps);
        if (!pending.interrupted) return pending;
        if (attempt === dumpAttempts) throw errnoError('EINTR', `the list changed under ${dumpAttempts} reads of it`);
      }
    });
    return reply.messages.flatMap(message => read(message.data) ?? []);
  }

  /** Reads one object. */
  async get<T>(type: number, body: Uint8Array, read: (message: Buffer) => T | undefined): Promise<T | undefined> {
    const reply = await this.#requests.run(() => this.#exchange('get', type, 0, body));
    const [message] = reply.messages;
    return message && read(message.data);
  }

  close(): void {
    if (this.#ended !== undefined) return;
    this.#end('ECANCELED');
    this.#watch.close();
    this.#calls.closeFd(this.#fd);
  }

  #exchange(
    kind: Pending['kind'],
    type: number,
    flags: number,
    body: Uint8Array,
    keeps?: MessageFilter,
  ): Promise<Pending> {
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
        keeps,
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
        this.#calls.netlinkSend(this.#fd, Buffer.concat(formatMessage(request)));
      } catch (error) {
        pending.settle(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  #onEvent(error: string | undefined, message: Buffer | undefined): void {
    if (this.#ended !== undefined) return;
    if (error === 'ENOBUFS' || error === 'EMSGSIZE') {
      // Whoever hears the ring reads the host again. The lost message may be the reply to a request.
      this.#pending?.settle(errnoError(error, 'a message of the kernel was lost'));
      this.#options.onRing?.();
    } else if (error !== undefined) {
      this.#end(error);
      this.#watch.close();
      this.#calls.closeFd(this.#fd);
      this.#options.onEnd?.(error);
    } else if (this.#options.onRing) {
      if (!message || this.#options.isRelevant?.(message) !== false) this.#options.onRing();
    } else if (message) {
      this.#onDatagram(message);
    }
  }

  #end(code: string): void {
    this.#ended = code;
    this.#pending?.settle(errnoError(code, 'the netlink socket was closed'));
  }

  #onDatagram(datagram: Buffer): void {
    const keeps = this.#pending?.keeps;
    let messages: readonly NetlinkMessage[];
    try {
      messages = parseMessages(keeps ? keepMessages(datagram, keeps) : datagram);
    } catch (error) {
      this.#pending?.settle(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    for (const message of messages) {
      if (this.#pending && message.seq === this.#pending.sequence) addReply(this.#pending, message);
    }
  }
}

function addReply(pending: Pending, message: NetlinkMessage): void {
  if ((message.flags & dumpInterrupted) !== 0) pending.interrupted = true;
  switch (message.type) {
    case control.error:
    case control.done:
      return pending.settle(errorOf(message));
    case control.overrun:
      return pending.settle(errnoError('ENOBUFS', 'the kernel dropped its answer'));
    default:
      pending.messages.push(message);
      if (pending.kind === 'get') pending.settle();
  }
}

/** NLMSG_ERROR and NLMSG_DONE begin with a negative errno, or with 0 for success. */
function errorOf(message: NetlinkMessage): Error | undefined {
  const code = message.data.length >= 4 ? getS32(message.data.subarray(0, 4)) : 0;
  if (!code) return undefined;
  const name = Object.entries(constants.errno).find(([, value]) => value === -code)?.[0] ?? `errno ${-code}`;
  return errnoError(name, message.type === control.error ? extendedAck(message) : undefined);
}

/** Returns the kernel's explanation of an error (NETLINK_EXT_ACK), which follows the quoted request. */
function extendedAck(message: NetlinkMessage): string | undefined {
  if ((message.flags & acknowledgement.attributes) === 0) return undefined;
  let explanation: string | undefined;
  try {
    const capped = (message.flags & acknowledgement.capped) !== 0;
    const quoted = capped ? headerBytes : getU32(message.data.subarray(4, 8));
    const start = 4 + ((quoted + 3) & ~3);
    parseAttributes(message.data.subarray(start), item => {
      if (item.type === errorText) explanation = getString(item.data);
    });
  } catch {
    // The explanation is optional: the error is reported without it.
  }
  return explanation;
}

function errnoError(code: string, detail: string | undefined): Error {
  return Object.assign(new Error(detail === undefined ? code : `${code}: ${detail}`), { code, syscall: 'netlink' });
}
