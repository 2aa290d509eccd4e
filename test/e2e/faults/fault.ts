/** A fault is data: what is done, how it is undone, and what it may cost. Everything else is the same for all. */
import type { FaultLab } from './lab.js';

export interface Fault {
  readonly name: string;
  readonly inject: (lab: FaultLab) => Promise<void>;
  readonly heal?: (lab: FaultLab) => Promise<void>;
  /** Packets that a flow of 1000 a second from or to the victim may lose; default none. */
  readonly lostMax?: number;
  /** The victim may drop peers, and they it; default no. */
  readonly peersMayGo?: boolean;
  /** From the heal until all is as before. */
  readonly convergeMs?: number;
}

/** @throws Error that says what was expected */
export function check(holds: boolean, expected: string): void {
  if (!holds) throw new Error(`expected: ${expected}`);
}
