/** The bad packets of test/vectors/packets.json as they come over the underlay, and the counters they end in. */
import { readFileSync } from 'node:fs';
import type { OuterDatagram } from './traffic.js';

export interface Vector {
  readonly id: string;
  readonly dir: string;
  readonly outer_from: string;
  readonly name: string;
  readonly hex: string;
  readonly counter: string;
}

export type Counters = Readonly<Record<string, number>>;

/** They are written for 10.5.1.0/24 at 192.0.2.1 with the peer 10.5.2.0/24 at 192.0.2.2. */
export const vectors = JSON.parse(
  readFileSync(new URL('../vectors/packets.json', import.meta.url), 'utf8'),
) as readonly Vector[];

/** Our own address as outer source: the receiving kernel drops it before any socket sees it (a martian). */
export const neverArrives = 'P39';
export const arriving = vectors.filter(({ dir, id }) => dir === 'rx' && id !== neverArrives);

export function datagramOf({ outer_from, hex }: Vector): OuterDatagram {
  const [from = '', port = ''] = outer_from.split(':');
  return { from, fromPort: Number(port), to: '192.0.2.1', toPort: 8285, hex };
}

/** In addition to the counter that a packet ends in. */
export const beside: ReadonlySet<string> = new Set(['rx_trimmed', 'rx_opts', 'rx_port']);

/** Those that count packets from the underlay. */
export function receivedOf(counters: Counters): Counters {
  return Object.fromEntries(Object.entries(counters).filter(([name]) => name.startsWith('rx_') && name !== 'rx_bytes'));
}

export function totalOf(counters: Counters): number {
  return Object.entries(counters).reduce((sum, [name, value]) => sum + (beside.has(name) ? 0 : value), 0);
}

export function difference(after: Counters, before: Counters): Counters {
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, value]) => [name, value - (before[name] ?? 0)] as const)
      .filter(([, value]) => value !== 0),
  );
}
