/**
 * The questions that go over the kernel path: probes of kind 3, as UDP inside the tunnel. The program `outbound` sends them
 * by the kernel whatever the engine of the pair is, the program `inbound` of the peer answers, and ours notes the answer: no
 * socket hears it.
 */
import { createSocket, type Socket } from 'node:dgram';
import { addressBytes, formatIpv4, type Ipv4, type Prefix } from '../../model/ip.js';

/** KERNEL_PROBE_PORT of native/shared/kernel-maps.h; both ends have it. */
const probePort = 8285;
const questionBytes = 24;

export interface Question {
  /** 32 bits. */
  readonly sequence: number;
  /** 64 bits. */
  readonly opaque: bigint;
}

/** The bytes as native/datapath/probe.h tells them, of the kind of the kernel path. */
export function packQuestion({ sequence, opaque }: Question, sender: Prefix): Buffer {
  const question = Buffer.alloc(questionBytes);
  question.set([0xe0, 1, 3, 0]);
  question.writeUInt32BE(sequence, 4);
  question.writeBigUInt64BE(opaque, 8);
  question.set([4, sender.length], 16);
  question.set(addressBytes(sender.base), 18);
  return question;
}

/** A socket at the first address of our subnet, as soon as the host has it. */
export class PairQuestions {
  readonly #sender: Prefix;
  #socket: Socket | undefined;
  #isOpen = false;

  constructor(sender: Prefix) {
    this.#sender = sender;
  }

  /** Whether questions can be sent; the socket is opened when it is not. */
  ready(): boolean {
    if (!this.#socket) this.#open();
    return this.#isOpen;
  }

  /** @param to the first address of the peer's subnet */
  send(question: Question, to: Ipv4): void {
    // What the kernel refuses is a question without an answer.
    if (this.#isOpen) this.#socket?.send(packQuestion(question, this.#sender), probePort, formatIpv4(to), () => {});
  }

  close(): void {
    this.#socket?.removeAllListeners().on('error', () => {});
    this.#socket?.close();
    this.#socket = undefined;
    this.#isOpen = false;
  }

  #open(): void {
    const socket = createSocket('udp4');
    this.#socket = socket.unref();
    // EADDRNOTAVAIL until the host adapter has given the tun its address.
    socket.on('error', () => this.close());
    socket.bind({ port: probePort, address: formatIpv4(this.#sender.base), exclusive: true }, () => {
      this.#isOpen = true;
    });
  }
}
