/**
 * Keeps the state file so fresh that the next start can stand on it: written when the peers or the lease change or the
 * lease was renewed for half of its time, seldom enough to spare the disk, and once more at the end.
 */
import type { Clock } from '../lib/clock.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { NetworkConfig } from '../model/network.js';
import type { OwnLease } from '../store/store.js';
import type { LocalNode } from './local-node.js';
import type { Peers } from './peers.js';
import type { StateFile } from './state-file.js';

export interface StateWriterPorts {
  readonly node: Pick<LocalNode, 'current'>;
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
  readonly #ttlSeconds: number;
  #written: { readonly atMs: number; readonly renewedAtMs: number; readonly of: string } | undefined;
  #failed = false;

  constructor(ports: StateWriterPorts, ttlSeconds: number) {
    this.#ports = ports;
    this.#ttlSeconds = ttlSeconds;
  }

  /** To be called now and then. */
  writeWhenDue(network: NetworkConfig, ownLease: OwnLease): void {
    // What is not known yet must not replace what an earlier run knew.
    if (!this.#ports.peers.known) return;
    const paceMs = Math.min(pace.mostMs, Math.max(pace.leastMs, this.#ports.peers.current.length * pace.perPeerMs));
    const halfMs = this.#ttlSeconds * 500;
    const sinceMs = this.#ports.clock.now() - (this.#written?.atMs ?? -Infinity);
    const stale = ownLease.renewedAtMs - (this.#written?.renewedAtMs ?? -Infinity) >= halfMs;
    if (sinceMs >= Math.min(paceMs, halfMs) && (stale || this.#isNew(ownLease))) this.#write(network, ownLease);
  }

  /** Before the daemon ends: what changed since the last write. */
  writeLast(network: NetworkConfig, ownLease: OwnLease): void {
    if (ownLease.status === 'held' && this.#ports.peers.known) this.#write(network, ownLease);
  }

  /** No later start may stand on what was written. */
  forget(): void {
    this.#failed = false;
    this.#attempt('remove it before a start without etcd: its subnet is not ours any more', () =>
      this.#ports.state.forget(),
    );
  }

  #isNew(ownLease: OwnLease): boolean {
    return this.#written?.of !== this.#contentOf(ownLease);
  }

  #contentOf({ lease }: OwnLease): string {
    const { changes, holdDowns } = this.#ports.peers;
    const untilMs = holdDowns.reduce((latest, ownLease) => Math.max(latest, ownLease.untilMs), 0);
    return `${lease.subnet.base}/${lease.subnet.length} ${lease.leaseId} ${changes} ${holdDowns.length} ${untilMs}`;
  }

  #write(network: NetworkConfig, ownLease: OwnLease): void {
    const { state, peers, clock, wallNow } = this.#ports;
    const node = this.#ports.node.current;
    const atMs = clock.now();
    const { lease, renewedAtMs } = ownLease;
    const saved = {
      network,
      lease: { ...lease, bootId: node.bootId },
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
    this.#written = { atMs, renewedAtMs, of: this.#contentOf(ownLease) };
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
