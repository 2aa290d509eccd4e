/**
 * The state file: what a restart needs before etcd answers, in `<state-dir>/state.json`, 0600, with a version and a
 * checksum. A damaged, newer or foreign file is refused as a whole, never trusted in part; members that this version
 * does not know are ignored. Version 1 had the subnet only. StateFile reads and writes the file, StateWriter decides when.
 */
import { createHash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import type { Clock } from '../lib/clock.js';
import { messageOf } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import type { Log } from '../lib/log.js';
import { formatPrefix, parsePrefix, type Prefix } from '../model/ip.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease } from '../store/store.js';
import type { LocalNode } from './local-node.js';
import type { Peers } from './peers.js';
import { formatSavedState, savedStateSchema, parsed, type SavedState } from './saved-state.js';

export interface State {
  readonly nodeId: string;
  /** The next start asks for this subnet first. */
  readonly subnet: Prefix;
  /** What a start may use while the store does not answer; undefined after the subnet was lost. */
  readonly saved: SavedState | undefined;
}

export type StateRead =
  | { readonly kind: 'found'; readonly state: State }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly reason: string };

type FullRead =
  | { readonly kind: 'found'; readonly state: State; readonly files: readonly string[] }
  | { readonly kind: 'newer'; readonly reason: string }
  | Exclude<StateRead, { kind: 'found' }>;

const version = 2;
/** A file with 65,536 peers has 9 MB. */
const maxBytes = 32 * 1024 * 1024;

const common = { nodeId: z.string(), subnet: parsed(parsePrefix), files: z.array(z.string().startsWith('/')) };
const bodies = {
  1: z.object({ ...common, network: z.string() }).transform(body => ({ ...body, memory: undefined })),
  [version]: z.object({ ...common, memory: savedStateSchema.optional() }),
};
const file = z.object({ version: z.literal([1, version]), sha256: z.string(), body: z.custom<object>(isObject) });
/** Whatever else a newer version writes. */
const newerFile = z.object({ version: z.int().gt(version) });

export class StateFile {
  readonly path: string;
  readonly #files: readonly string[];

  /** @param files the files that this daemon writes outside its directories, for `tartan cleanup` */
  constructor(stateDir: string, files: readonly string[] = []) {
    this.path = join(stateDir, 'state.json');
    this.#files = files;
  }

  read(nodeId: string): StateRead {
    const read = this.#read();
    if (read.kind === 'newer') return { ...read, kind: 'refused' };
    if (read.kind !== 'found') return read;
    if (read.state.nodeId !== nodeId) return this.#refused(`belongs to node ${read.state.nodeId}`);
    return { kind: 'found', state: read.state };
  }

  /** Returns the files that a daemon of this state directory wrote; none when the state file cannot be read. */
  writtenFiles(): readonly string[] {
    const read = this.#read();
    return read.kind === 'found' ? read.files : [];
  }

  #read(): FullRead {
    const text = readBounded(this.path, maxBytes);
    if (text === undefined) {
      return existsSync(this.path) ? this.#refused(`is no readable file of at most ${maxBytes} bytes`) : absent;
    }
    const content = parseJson(text);
    const newer = newerFile.safeParse(content);
    if (newer.success)
      return { ...this.#refused(`was written by a newer version (${newer.data.version})`), kind: 'newer' };
    const outer = file.safeParse(content);
    if (!outer.success) return this.#refused(`is damaged, or not a state file of version 1 to ${version}`);
    if (checksum(outer.data.body) !== outer.data.sha256) return this.#refused('is damaged: its checksum does not fit');
    const body = bodies[outer.data.version].safeParse(outer.data.body);
    if (!body.success) return this.#refused(`has no sound ${body.error.issues[0]?.path.join('.') ?? 'content'}`);
    const { nodeId, subnet, memory: saved, files } = body.data;
    return { kind: 'found', state: { nodeId, subnet, saved }, files };
  }

  #refused(reason: string): { readonly kind: 'refused'; readonly reason: string } {
    return { kind: 'refused', reason: `${this.path} ${reason}` };
  }

  /** @throws Error in Node's shape; then the old file stays */
  write(state: State): void {
    this.#write(state, this.#files);
  }

  /**
   * Removes the saved state after the subnet was lost or released, so that no later start uses it. A file that cannot
   * be rewritten is removed; so is one of a newer version, which could be used again after an upgrade.
   * @throws Error in Node's shape
   */
  forget(): void {
    const read = this.#read();
    try {
      if (read.kind === 'found') this.#write({ ...read.state, saved: undefined }, read.files);
      if (read.kind === 'newer') rmSync(this.path);
    } catch (cause) {
      rmSync(this.path, { force: true });
      if (existsSync(this.path)) throw new Error(`${messageOf(cause)}, and it cannot be removed`, { cause });
    }
  }

  #write({ nodeId, subnet, saved }: State, files: readonly string[]): void {
    const body = { nodeId, subnet: formatPrefix(subnet), files, ...(saved && { memory: formatSavedState(saved) }) };
    writeFileAtomic(this.path, `${JSON.stringify({ version, sha256: checksum(body), body })}\n`, 0o600);
  }
}

const absent = { kind: 'absent' } as const;

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

/** @returns undefined for a text that is no JSON; the schema of the file refuses it */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checksum(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

export interface StateWriterPorts {
  readonly node: Pick<LocalNode, 'current'>;
  readonly state: StateFile;
  readonly peers: Peers;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly log: Log;
}

/** The least time between two writes. It grows with the peers: many peers make a large file and change often. */
const pace = { leastMs: 1_000, perPeerMs: 2, mostMs: 30_000 };

/**
 * Keeps the state file so fresh that the next start can use it. A write is due when the peers or the lease changed, its features too, or
 * when the lease was renewed for half of its TTL. The writes are rare enough to spare the disk.
 */
export class StateWriter {
  readonly #ports: StateWriterPorts;
  readonly #ttlSeconds: number;
  #written: { readonly atMs: number; readonly renewedAtMs: number; readonly content: string } | undefined;
  #failed = false;

  constructor(ports: StateWriterPorts, ttlSeconds: number) {
    this.#ports = ports;
    this.#ttlSeconds = ttlSeconds;
  }

  /** Writes when a write is due. The agent calls this once per tick and after each lease set. */
  writeWhenDue(network: NetworkConfig, ownLease: OwnLease): void {
    // Peers that are not known yet must not replace the saved ones.
    if (!this.#ports.peers.known) return;
    const paceMs = Math.min(pace.mostMs, Math.max(pace.leastMs, this.#ports.peers.current.length * pace.perPeerMs));
    const halfMs = this.#ttlSeconds * 500;
    const sinceMs = this.#ports.clock.now() - (this.#written?.atMs ?? -Infinity);
    const stale = ownLease.renewedAtMs - (this.#written?.renewedAtMs ?? -Infinity) >= halfMs;
    if (sinceMs >= Math.min(paceMs, halfMs) && (stale || this.#isNew(ownLease))) this.#write(network, ownLease);
  }

  /** Writes the new address at once: a boot without etcd refuses what was written for another one. */
  moved(network: NetworkConfig, ownLease: OwnLease, unconfirmed: boolean): void {
    const { state, peers, node } = this.#ports;
    if (!unconfirmed) {
      if (ownLease.status !== 'lost' && peers.known) this.#write(network, ownLease);
      return;
    }
    const read = state.read(node.current.id);
    const saved = read.kind === 'found' ? read.state.saved : undefined;
    if (read.kind !== 'found' || !saved) return;
    // Whatever else the file says is of the last answer of etcd, and stays.
    const { publicIp, interface: link } = node.current;
    const moved = { ...saved, lease: { ...saved.lease, publicIp }, address: link.address };
    this.#attempt('a start without etcd refuses it: it has another address', () =>
      state.write({ ...read.state, saved: moved }),
    );
  }

  /** Writes what changed since the last write; called before the daemon ends. */
  writeLast(network: NetworkConfig, ownLease: OwnLease): void {
    if (ownLease.status === 'held' && this.#ports.peers.known) this.#write(network, ownLease);
  }

  /** Removes the saved state, so that no later start uses it. */
  forget(): void {
    this.#failed = false;
    this.#attempt('remove it before a start without etcd: its subnet is not ours any more', () =>
      this.#ports.state.forget(),
    );
  }

  #isNew(ownLease: OwnLease): boolean {
    return this.#written?.content !== this.#contentOf(ownLease);
  }

  #contentOf({ lease }: OwnLease): string {
    const { changes, holdDowns } = this.#ports.peers;
    const untilMs = holdDowns.reduce((latest, holdDown) => Math.max(latest, holdDown.untilMs), 0);
    const features = JSON.stringify(lease.features);
    return `${formatPrefix(lease.subnet)} ${lease.leaseId} ${changes} ${holdDowns.length} ${untilMs} ${features}`;
  }

  #write(network: NetworkConfig, ownLease: OwnLease): void {
    const { state, peers, clock, wallNow } = this.#ports;
    const node = this.#ports.node.current;
    const atMs = clock.now();
    const { lease, renewedAtMs } = ownLease;
    const saved = {
      network,
      // Somebody may have altered the lease in etcd.
      lease: { ...lease, publicIp: node.publicIp, bootId: node.bootId },
      address: node.interface.address,
      ttlSeconds: this.#ttlSeconds,
      renewedAtMs,
      renewedAtWallMs: wallNow() - (atMs - renewedAtMs),
      peers: peers.current,
      holdDowns: peers.holdDowns,
    };
    this.#attempt('a start finds the subnet in etcd instead, and needs etcd for it', () =>
      state.write({ nodeId: node.id, subnet: lease.subnet, saved }),
    );
    this.#written = { atMs, renewedAtMs, content: this.#contentOf(ownLease) };
  }

  /** Logs a failure once until a write succeeds: a disk may be full for days. */
  #attempt(advice: string, write: () => void): void {
    const { state, log } = this.#ports;
    try {
      write();
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) log.error('state.failed', `cannot write ${state.path} (${messageOf(error)}): ${advice}`);
      this.#failed = true;
    }
  }
}
