/**
 * Keeps the state file so fresh that the next start can stand on it: written when the peers or the lease change or the
 * lease was renewed for half of its time, seldom enough to spare the disk, and once more at the end.
 */
import type { Clock } from '../lib/clock.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { OwnLease } from '../store/store.js';
import type { Peers } from './peers.js';
import type { StateFile } from './state-file.js';

export interface StateWriterPorts {
  readonly state: StateFile;
  readonly peers: Peers;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly log: Log;
}

/** Between two writes at least: many peers make a large file and change often. */
const pace = { leastMs: 1_000, perPeerMs: 2, mostMs: 30_000 };

export class StateWriter {
  readonly #ports: StateWriterPorts;
  readonly #node: Node;
  readonly #ttlSeconds: number;
  #written: { readonly atMs: number; readonly renewedAtMs: number; readonly of: string } | undefined;
  #failed = false;

  constructor(ports: StateWriterPorts, node: Node, ttlSeconds: number) {
    this.#ports = ports;
    this.#node = node;
    this.#ttlSeconds = ttlSeconds;
  }

  /** To be called now and then. */
  writeWhenDue(network: NetworkConfig, held: OwnLease): void {
    // What is not known yet must not replace what an earlier run knew.
    if (!this.#ports.peers.known) return;
    const paceMs = Math.min(pace.mostMs, Math.max(pace.leastMs, this.#ports.peers.current.length * pace.perPeerMs));
    const halfMs = this.#ttlSeconds * 500;
    const sinceMs = this.#ports.clock.now() - (this.#written?.atMs ?? -Infinity);
    const stale = held.renewedAtMs - (this.#written?.renewedAtMs ?? -Infinity) >= halfMs;
    if (sinceMs >= Math.min(paceMs, halfMs) && (stale || this.#isNew(held))) this.#write(network, held);
  }

  /** Before the daemon ends: what changed since the last write. */
  writeLast(network: NetworkConfig, held: OwnLease): void {
    if (held.status === 'held' && this.#ports.peers.known) this.#write(network, held);
  }

  /** No later start may stand on what was written. */
  forget(): void {
    this.#failed = false;
    this.#attempt('remove it before a start without etcd: its subnet is not ours any more', () =>
      this.#ports.state.forget(),
    );
  }

  #isNew(held: OwnLease): boolean {
    return this.#written?.of !== this.#contentOf(held);
  }

  #contentOf({ lease }: OwnLease): string {
    const { changes, heldDown } = this.#ports.peers;
    const untilMs = heldDown.reduce((latest, held) => Math.max(latest, held.untilMs), 0);
    return `${lease.subnet.base}/${lease.subnet.length} ${lease.leaseId} ${changes} ${heldDown.length} ${untilMs}`;
  }

  #write(network: NetworkConfig, held: OwnLease): void {
    const { state, peers, clock, wallNow } = this.#ports;
    const atMs = clock.now();
    const { lease, renewedAtMs } = held;
    const memory = {
      network,
      lease: { ...lease, bootId: this.#node.bootId },
      address: this.#node.interface.address,
      ttlSeconds: this.#ttlSeconds,
      renewedAtMs,
      renewedAtWallMs: wallNow() - (atMs - renewedAtMs),
      peers: peers.current,
      heldDown: peers.heldDown,
    };
    this.#attempt('a start finds the subnet in etcd instead, and needs etcd for it', () =>
      state.write({ nodeId: this.#node.id, subnet: lease.subnet, memory }),
    );
    this.#written = { atMs, renewedAtMs, of: this.#contentOf(held) };
  }

  /** Said once until it works again: a disk may be full for days. */
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
