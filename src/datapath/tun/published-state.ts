/**
 * The published state: the newest table of peers with their numbers, and the control words (deadline and fence). It
 * outlives the data processes and is written into the table of each. The generation counts on over all tables, although
 * each new one begins at 0.
 */
import { TartanError, messageOf } from '../../lib/errors.js';
import { identityLength, native, peerRowLength, type NativeRows, type NativeTable } from '../../lib/native.js';
import { samePrefix } from '../../model/ip.js';
import type { TunnelPeer } from '../../model/plan.js';
import type { Generation } from '../datapath.js';
import {
  addNumbers,
  assignNumbers,
  hasUsableNumber,
  hashIdentity,
  noNumbers,
  nothingSettled,
  readIdentity,
  resumeNumbers,
  type IdentityHash,
  type PeerNumbers,
  type Settled,
} from './peer-numbers.js';
import { alterRows, packTable, sameRows, type NumberedPeer } from './table.js';

/** What the addon knows of tables; unit tests do without it. */
export interface TableRules {
  readonly peersMax: number;
  /** @throws RangeError that names the route or the peer that a data process could not use */
  check(rows: NativeRows): void;
}

const nativeRules: TableRules = {
  get peersMax() {
    return native().limits.peersMax;
  },
  check: ({ peers, routes }) => native().checkTable(peers, routes),
};

/** What was written into a table last. */
interface Written {
  readonly generation: Generation;
  /** The same by the count of the table. */
  readonly inTable: number;
  /** The generation that the table had before; 0 when it is not known. */
  readonly before: Generation;
}

export class PublishedState {
  readonly #rules: TableRules;
  #rows: NativeRows = { peers: new Uint32Array(0), routes: new Uint32Array(0) };
  #numbers: PeerNumbers = noNumbers;
  /** Of the newest peers, by identity: only a new peer is hashed. */
  #hashes = new Map<string, IdentityHash>();
  /** What `numbers` returns; it is asked for again and again, and changes with the peers only. */
  #pairs: readonly (readonly [identity: string, number: number])[] | undefined;
  #refused: readonly TunnelPeer[] = [];
  /** The peers of the newest rows, in the order of the caller; none when some of them were refused. */
  #numbered: readonly NumberedPeer[] = [];
  #forwardUntil = 0;
  #fence = false;
  #generation: Generation = 0;
  readonly #written = new WeakMap<NativeTable, Written>();
  /** No table has the newest rows yet. */
  #unwritten = false;

  constructor(rules: TableRules = nativeRules) {
    this.#rules = rules;
  }

  /** False until peers were published or read from an adopted table. */
  get hasPeers(): boolean {
    return this.#generation > 0;
  }

  /** The generation of the newest table, whether it is written or not. */
  get generation(): Generation {
    return this.#generation;
  }

  /** Peers that are left out of the newest table, because no number is free for them. */
  get refused(): readonly TunnelPeer[] {
    return this.#refused;
  }

  get forwardUntil(): number {
    return this.#forwardUntil;
  }

  /** The identity and the number of each peer that has one, once they were published by this daemon. */
  numbers(): readonly (readonly [identity: string, number: number])[] {
    this.#pairs ??= Array.from(this.#hashes).flatMap(([identity, hash]) => {
      const number = this.#numbers.inUse.get(hash);
      return number === undefined ? [] : [[identity, number] as const];
    });
    return this.#pairs;
  }

  /** Whether the newest rows are not in this table yet. */
  isBehind(table: NativeTable): boolean {
    return this.hasPeers && this.#written.get(table)?.generation !== this.#generation;
  }

  /** Continues the state that an earlier daemon wrote. @returns false when the table is damaged */
  resume(table: NativeTable): boolean {
    const rows = table.rows();
    if (!rows) return false;
    const { generation } = table.control();
    this.#rows = rows;
    this.#numbers = resumeNumbers(identitiesOf(rows.peers), table.adopted() === generation ? 0 : generation);
    this.#generation = generation;
    this.#written.set(table, { generation, inTable: generation, before: 0 });
    this.readControlWords(table);
    return true;
  }

  /** Reads the only part of a table of another layout that can be read. */
  readControlWords(table: NativeTable): void {
    const { forwardUntil, fence } = table.control();
    this.#forwardUntil = forwardUntil;
    this.#fence = fence;
  }

  /**
   * Equal peers keep the generation. A table that is written nowhere yet is replaced under the same generation.
   * @param running the table of the data process; undefined when there is none, or another process takes over
   * @throws RangeError that names the route that a data process could not use; nothing has changed then
   */
  replace(peers: readonly TunnelPeer[], running: NativeTable | undefined): Generation {
    const next = this.#unwritten ? this.#generation : this.#generation + 1;
    const altered = this.#alter(peers, running);
    if (altered) return this.#setRows(altered, next);
    const hashes = new Map<string, IdentityHash>();
    for (const { identity } of peers) hashes.set(identity, this.#hashes.get(identity) ?? hashIdentity(identity));
    const { peersMax } = this.#rules;
    const numbers = assignNumbers(this.#numbers, [...hashes.values()], next, this.#settled(running), peersMax);
    const { numbered, refused } = numberPeers(peers, hashes, numbers);
    const rows = packTable(numbered);
    this.#rules.check(rows);
    this.#hashes = hashes;
    this.#pairs = undefined;
    this.#numbers = numbers;
    this.#refused = refused;
    this.#numbered = refused.length === 0 ? numbered : [];
    return this.#setRows(rows, next);
  }

  #setRows(rows: NativeRows, next: Generation): Generation {
    if (this.#generation > 0 && sameRows(rows, this.#rows)) return this.#generation;
    this.#rows = rows;
    this.#generation = next;
    this.#unwritten = true;
    return next;
  }

  /** Rewrites the rows of peers that moved or came. @returns undefined when a peer has left, or has other prefixes */
  #alter(peers: readonly TunnelPeer[], running: NativeTable | undefined): NativeRows | undefined {
    const found = matchPeers(this.#numbered, peers);
    if (!found) return undefined;
    const { kept, moved, come } = found;
    const hashes = come.map(({ identity }) => hashIdentity(identity));
    const { peersMax } = this.#rules;
    const numbers =
      come.length === 0 ? this.#numbers : addNumbers(this.#numbers, hashes, this.#settled(running), peersMax);
    const added = come.flatMap((peer, i) => {
      const [hash = '', number] = [hashes[i], numbers.inUse.get(hashes[i] ?? '')];
      return number === undefined ? [] : [{ peer, hash, number }];
    });
    if (added.length < come.length) return undefined;
    const comers = added.values();
    const numbered: NumberedPeer[] = [];
    for (const one of kept) {
      const next = one ?? comers.next().value;
      if (next) numbered.push(next);
    }
    const rows = alterRows(this.#rows, [...moved, ...added], added);
    this.#rules.check(rows);
    for (const { peer, hash } of added) this.#hashes.set(peer.identity, hash);
    if (added.length > 0) this.#pairs = undefined;
    this.#numbers = numbers;
    this.#numbered = numbered;
    return rows;
  }

  /** Whether `replace` would give a number to a peer that it has refused. */
  canNumberRefused(running: NativeTable | undefined): boolean {
    return this.#refused.length > 0 && hasUsableNumber(this.#numbers, this.#settled(running), this.#rules.peersMax);
  }

  setForwardUntil(bootMs: number): void {
    this.#forwardUntil = bootMs;
  }

  setFence(on: boolean): void {
    this.#fence = on;
  }

  writeControlWords(table: NativeTable): void {
    table.setForwardUntil(this.#forwardUntil);
    table.setFence(this.#fence);
  }

  /**
   * @returns false while a thread still reads the slot that would be written
   * @throws TartanError DATAPATH_FAILED when memory is full; the older table stays
   */
  writeRows(table: NativeTable): boolean {
    const { peers, routes } = this.#rows;
    const inTable = publish(table, peers, routes);
    if (inTable === 0) return false;
    const before = this.#written.get(table)?.generation ?? 0;
    this.#written.set(table, { generation: this.#generation, inTable, before });
    this.#unwritten = false;
    return true;
  }

  /** Writes everything into a table that no thread reads yet. @throws TartanError DATAPATH_FAILED */
  writeAll(table: NativeTable): void {
    this.writeControlWords(table);
    if (this.hasPeers) this.writeRows(table);
  }

  /** Converts the generation that a data process reports, by the count of its table, into our count. */
  adopted(table: NativeTable, reported: number): Generation {
    const { generation, inTable } = this.#written.get(table) ?? { generation: 0, inTable: 0 };
    return Math.max(0, generation - inTable + reported);
  }

  #settled(table: NativeTable | undefined): Settled {
    const written = table && this.#written.get(table);
    const adopted = table?.adopted();
    if (!table || !written || adopted === undefined) return nothingSettled;
    return {
      generation: settledGeneration(written, adopted),
      isBlockZeroed: number => table.isBlockZeroed(number),
    };
  }
}

/** The generation that every thread uses at least. Threads are at the newest table of the memory or at the one before. */
function settledGeneration({ generation, inTable, before }: Written, reported: number): Generation {
  // A thread of a new process has no table yet, and will begin with the first one.
  if (reported === inTable || inTable === 1) return generation;
  return reported === inTable - 1 ? before : 0;
}

/** With more differences all rows are packed anew. */
const fewMax = 100;

interface Match {
  /** The peers that were there before, as they are now, by the place of each in the list; undefined for who came. */
  readonly kept: readonly (NumberedPeer | undefined)[];
  readonly moved: readonly NumberedPeer[];
  readonly come: readonly TunnelPeer[];
}

/** Finds who moved and who came, when all others are there in the same order. */
function matchPeers(before: readonly NumberedPeer[], peers: readonly TunnelPeer[]): Match | undefined {
  if (before.length === 0 || peers.length < before.length || peers.length > before.length + fewMax) return undefined;
  const kept: (NumberedPeer | undefined)[] = [];
  const [moved, come]: [NumberedPeer[], TunnelPeer[]] = [[], []];
  let at = 0;
  for (const peer of peers) {
    const old = before[at];
    if (old?.peer === peer) {
      kept.push(old);
      at++;
      continue;
    }
    const now = old && keptPeer(old, peer);
    kept.push(now);
    if (!now) come.push(peer);
    else {
      at++;
      moved.push(now);
    }
    if (moved.length + come.length > fewMax) return undefined;
  }
  return at === before.length ? { kept, moved, come } : undefined;
}

/** @returns undefined when the peer is another one, or has other prefixes */
function keptPeer(old: NumberedPeer, peer: TunnelPeer): NumberedPeer | undefined {
  return isSamePeer(peer, old.peer) ? { ...old, peer } : undefined;
}

function isSamePeer(peer: TunnelPeer, old: TunnelPeer): boolean {
  return (
    old.identity === peer.identity &&
    old.prefixes.length === peer.prefixes.length &&
    old.prefixes.every((prefix, i) => samePrefix(prefix, peer.prefixes[i] ?? prefix))
  );
}

function numberPeers(
  peers: readonly TunnelPeer[],
  hashes: ReadonlyMap<string, IdentityHash>,
  { inUse }: PeerNumbers,
): { readonly numbered: readonly NumberedPeer[]; readonly refused: readonly TunnelPeer[] } {
  const numbered: NumberedPeer[] = [];
  const refused: TunnelPeer[] = [];
  for (const peer of peers) {
    const hash = hashes.get(peer.identity) ?? '';
    const number = inUse.get(hash);
    if (number === undefined) refused.push(peer);
    else numbered.push({ peer, hash, number });
  }
  return { numbered, refused };
}

function identitiesOf(peers: Uint32Array): readonly (IdentityHash | undefined)[] {
  const count = peers.length / peerRowLength;
  return Array.from({ length: count }, (_, number) => {
    const at = number * peerRowLength;
    return readIdentity(peers.subarray(at, at + identityLength));
  });
}

function publish(table: NativeTable, peers: Uint32Array, routes: Uint32Array): number {
  try {
    return table.publish(peers, routes);
  } catch (cause) {
    if (cause instanceof RangeError) throw cause;
    const count = peers.length / peerRowLength;
    throw new TartanError(
      'DATAPATH_FAILED',
      `cannot write the table of ${count} peers (${messageOf(cause)}): the older one stays; free some memory`,
      { cause },
    );
  }
}
