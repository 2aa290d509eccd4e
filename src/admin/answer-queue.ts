/**
 * Decides who is answered when. A few answers are written at a time and the others wait in the order of their requests.
 * A client that reads nothing loses its place to one that waits, the slowest first.
 */
import type { Socket } from 'node:net';

export interface AnswerLimits {
  readonly answers: number;
  readonly stalledMs: number;
  readonly idleMs: number;
}

/** @param onPart is to be called whenever the client has taken a part of the answer */
type WriteAnswer = (onPart: () => void) => void;

export class AnswerQueue {
  readonly #limits: AnswerLimits;
  readonly #waiting = new Map<Socket, WriteAnswer>();
  /** The time of the last progress of each answer that is being written. */
  readonly #writing = new Map<Socket, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: AnswerLimits) {
    this.#limits = limits;
  }

  add(socket: Socket, write: WriteAnswer): void {
    // A client that waits for its turn is not idle.
    socket.setTimeout(0);
    socket.once('close', () => {
      this.#waiting.delete(socket);
      this.#writing.delete(socket);
      this.#next();
    });
    this.#waiting.set(socket, write);
    this.#next();
  }

  #next(): void {
    for (const [socket, write] of this.#waiting) {
      if (this.#writing.size >= this.#limits.answers) break;
      this.#waiting.delete(socket);
      if (socket.destroyed) continue;
      socket.setTimeout(this.#limits.idleMs);
      this.#writing.set(socket, performance.now());
      write(() => this.#writing.has(socket) && this.#writing.set(socket, performance.now()));
    }
    if (this.#waiting.size > 0 && this.#timer === undefined)
      this.#timer = setTimeout(() => this.#dropStalled(), this.#limits.stalledMs / 2);
  }

  /** Drops as many as wait, at most. */
  #dropStalled(): void {
    this.#timer = undefined;
    const stalledSince = performance.now() - this.#limits.stalledMs;
    const stalled = [...this.#writing].filter(([, progressMs]) => progressMs <= stalledSince);
    stalled.sort(([, a], [, b]) => a - b);
    for (const [socket] of stalled.slice(0, this.#waiting.size)) socket.destroy();
    this.#next();
  }
}
