/**
 * Acquires the own lease. An attempt reads a snapshot of the cluster, chooses a subnet and writes one guarded
 * transaction. After a lost race or an unanswered write the next attempt finds the result by our node id.
 */
import { chooseQuarantined, chooseSubnet, isFree, type Tombstone } from '../model/allocation.js';
import { isTartanError } from '../lib/errors.js';
import { LogThrottle } from '../lib/log.js';
import { backoffMs } from '../lib/retry.js';
import { formatPrefix, prefixesOverlap, samePrefix, type Prefix } from '../model/ip.js';
import { leaseValueOf, type Lease } from '../model/lease.js';
import { isLeasable } from '../model/network.js';
import {
  createKey,
  deleteKey,
  dropLeases,
  grantLease,
  idsOf,
  reservationAt,
  rewriteKey,
  tombstoneOf,
  type Claim,
  type ClaimResult,
  type Grant,
  type OwnLeaseValue,
} from './claim.js';
import type { StoreContext } from './context.js';
import { refuseDuplicates } from './duplicates.js';
import { isOwnLease, type ClusterSnapshot, type SnapshotReader } from './entries.js';
import { unansweredRetry } from './lease-state.js';
import { noFreeSubnet, tombstoneSeconds } from './quarantine.js';
import type { LeaseRequest, PreviousSubnet } from './store.js';

/** Hosts that lost the same subnet to another one choose again at different times. */
const lostRace = { firstMs: 100, capMs: 1_000 };

/** @throws TartanError NO_FREE_SUBNET, DUPLICATE_NODE, PERMISSION */
export async function acquireLease(
  context: StoreContext,
  reader: SnapshotReader,
  want: LeaseRequest,
  signal: AbortSignal,
): Promise<Claim> {
  return new Acquisition(context, reader, want, signal).run();
}

/** Returns the value that a node publishes. */
export function ownLeaseValue({ node, backend, features }: LeaseRequest): OwnLeaseValue {
  const { id: nodeId, bootId, hardware, hostName, publicIp } = node;
  return leaseValueOf({ publicIp, backend, nodeId, bootId, hardware, hostName, features, released: false });
}

type Target = { readonly kind: 'adopt'; readonly lease: Lease } | { readonly kind: 'create'; readonly subnet: Prefix };

class Acquisition {
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #signal: AbortSignal;
  readonly #reader: SnapshotReader;
  /** The etcd leases are granted once and serve all attempts. */
  #grant: Grant | undefined;
  /** A write with the grant was not answered: etcd may have done it, or may do it later. */
  #maybeUsed = false;

  constructor(context: StoreContext, reader: SnapshotReader, want: LeaseRequest, signal: AbortSignal) {
    this.#context = context;
    this.#want = want;
    this.#signal = signal;
    this.#reader = reader;
  }

  async run(): Promise<Claim> {
    const { clock, log } = this.#context;
    const throttle = new LogThrottle();
    let claim: Claim | undefined;
    try {
      for (let races = 0, failures = 0; !claim;) {
        try {
          claim = await this.#attempt();
          failures = 0;
          if (!claim) await clock.sleep(backoffMs(++races, lostRace), this.#signal);
        } catch (error) {
          this.#signal.throwIfAborted();
          if (!isTartanError(error, 'STORE_UNAVAILABLE')) throw error;
          failures++;
          if (throttle.due()) log.warn('store.unavailable', error.message, { attempt: failures });
          await clock.sleep(backoffMs(failures, unansweredRetry), this.#signal);
        }
      }
      return claim;
    } finally {
      if (this.#grant?.leaseId !== claim?.lease.leaseId)
        await this.#dropGrant(AbortSignal.timeout(3_000)).catch(() => {});
    }
  }

  /** @returns undefined when another attempt is needed */
  async #attempt(): Promise<Claim | undefined> {
    const { node, network } = this.#want;
    const snapshot = await this.#reader.readSnapshot(network, this.#signal);
    await refuseDuplicates(this.#context, snapshot.leases, node, this.#signal);
    const own = snapshot.leases.filter(lease => isOwnLease(lease, node));
    const unleasable = own.filter(lease => lease.leaseId !== '0' && !isLeasable(network, lease.subnet));
    if (unleasable.length > 0) {
      await this.#remove(unleasable, snapshot, 'it does not fit the network any more');
      return undefined;
    }
    const target = chooseTarget(this.#want, own, snapshot) ?? (await this.#chooseQuarantined(snapshot));
    const claim =
      target.kind === 'adopt' ? await this.#adopt(target.lease, snapshot) : await this.#create(target, snapshot);
    if (!claim) return undefined;
    const others = own.filter(lease => lease.leaseId !== '0' && !samePrefix(lease.subnet, claim.lease.subnet));
    await this.#remove(others, snapshot, `we keep ${formatPrefix(claim.lease.subnet)}`).catch((error: unknown) => {
      // The claim counts; a lease that could not be deleted ends with its TTL.
      if (!isTartanError(error)) throw error;
    });
    return claim;
  }

  /** @throws TartanError NO_FREE_SUBNET */
  async #chooseQuarantined(snapshot: ClusterSnapshot): Promise<Target> {
    const { quarantine, reuseQuarantined } = this.#context;
    const { network, node } = this.#want;
    const aged = await quarantine.judge(keptForOthers(snapshot, node.id), this.#signal);
    const request = { network, taken: snapshot.taken, nodeId: node.id, random: Math.random };
    const subnet = chooseQuarantined(request, aged, reuseQuarantined);
    if (!subnet) throw noFreeSubnet(network, snapshot.leases.length, aged);
    return { kind: 'create', subnet };
  }

  async #create(target: { readonly subnet: Prefix }, snapshot: ClusterSnapshot): Promise<Claim | undefined> {
    const reserved = tombstoneOf(snapshot, target.subnet)?.reserved === true;
    const grant = reserved ? reservationAt(this.#context.clock.now()) : await this.#freshGrant();
    const request = { subnet: target.subnet, value: ownLeaseValue(this.#want), grant, snapshot };
    return this.#settle(createKey(this.#context, request, this.#signal));
  }

  async #adopt(lease: Lease, snapshot: ClusterSnapshot): Promise<Claim | undefined> {
    const value = ownLeaseValue(this.#want);
    const tombstone = tombstoneOf(snapshot, lease.subnet);
    const tombstoneLeaseId = tombstone?.nodeId === value.nodeId ? tombstone.leaseId : undefined;
    const renewed = await this.#renew(lease, tombstoneLeaseId);
    const unchanged = lease.text === value.text && tombstoneLeaseId === renewed?.tombstoneLeaseId;
    if (renewed && unchanged) return { ...renewed, lease };
    const grant = renewed ?? (await this.#freshGrant());
    const claim = await this.#settle(rewriteKey(this.#context, lease, value, grant, this.#signal));
    if (!claim) return undefined;
    const former = [lease.nodeId === undefined ? '0' : lease.leaseId, tombstone?.leaseId ?? '0'];
    const unused = former.filter(id => !idsOf(grant).includes(id));
    await dropLeases(this.#context, unused, this.#signal).catch(() => {});
    return claim;
  }

  /** Renews the etcd leases that the subnet has, if they are alive and of the wanted TTL. A reservation has none. */
  async #renew(lease: Lease, tombstoneLeaseId: string | undefined): Promise<Grant | undefined> {
    const { kv, clock } = this.#context;
    const { ttlSeconds } = this.#want;
    const { leaseId } = lease;
    if (leaseId === '0') return reservationAt(clock.now());
    if (lease.nodeId === undefined || tombstoneLeaseId === undefined || tombstoneLeaseId === '0') return undefined;
    const time = await kv.timeToLive(leaseId, { signal: this.#signal });
    if (time?.grantedSeconds !== ttlSeconds) return undefined;
    const sentAtMs = clock.now();
    const [granted = 0, tombstoneGranted] = await kv.keepAlive([leaseId, tombstoneLeaseId], 3_000, {
      signal: this.#signal,
    });
    return granted > 0 && tombstoneGranted === tombstoneSeconds(ttlSeconds)
      ? { leaseId, tombstoneLeaseId, sentAtMs }
      : undefined;
  }

  async #freshGrant(): Promise<Grant> {
    const { ttlSeconds } = this.#want;
    const { clock } = this.#context;
    if (this.#grant && clock.now() - this.#grant.sentAtMs > ttlSeconds * 250) await this.#dropGrant(this.#signal);
    this.#grant ??= await grantLease(this.#context, ttlSeconds, this.#signal);
    return this.#grant;
  }

  async #settle(writing: Promise<ClaimResult>): Promise<Claim | undefined> {
    try {
      const result = await writing;
      if (result === 'lease-gone') this.#grant = undefined;
      return typeof result === 'string' ? undefined : result;
    } catch (error) {
      this.#maybeUsed = true;
      throw error;
    }
  }

  /**
   * Revokes the etcd leases of the grant. After an unanswered write the tombstone may exist, and its etcd lease ends
   * with its TTL only: no other node may take the subnet while our data plane may still use it.
   */
  async #dropGrant(signal: AbortSignal): Promise<void> {
    if (!this.#grant) return;
    const leaseIds = this.#maybeUsed ? [this.#grant.leaseId] : idsOf(this.#grant);
    this.#grant = undefined;
    this.#maybeUsed = false;
    await dropLeases(this.#context, leaseIds, signal);
  }

  async #remove(leases: readonly Lease[], snapshot: ClusterSnapshot, why: string): Promise<void> {
    for (const lease of leases) {
      if (!(await deleteKey(this.#context, lease, tombstoneOf(snapshot, lease.subnet), this.#signal))) continue;
      const subnet = formatPrefix(lease.subnet);
      this.#context.log.info('lease.removed', `our old lease of ${subnet} is given back: ${why}`, { subnet });
    }
  }
}

/**
 * Chooses the subnet in this order: the lease that the state file names, the reservation for this node, the state file,
 * the own entry, `subnet.env`, a free subnet.
 */
function chooseTarget(want: LeaseRequest, own: readonly Lease[], snapshot: ClusterSnapshot): Target | undefined {
  const { network, node } = want;
  const allocation = { network, taken: snapshot.taken, tombstones: snapshot.tombstones, nodeId: node.id };
  const leasable = own.filter(({ subnet }) => isLeasable(network, subnet));
  const at = (subnet: Prefix): Target | undefined => {
    const lease = leasable.find(entry => samePrefix(entry.subnet, subnet));
    if (lease) return { kind: 'adopt', lease };
    return isFree(allocation, subnet) ? { kind: 'create', subnet } : undefined;
  };
  const from = (source: PreviousSubnet['source']): Target | undefined =>
    want.previous.flatMap(item => (item.source === source ? (at(item.subnet) ?? []) : []))[0];
  // An entry with our node id goes before one with our address alone.
  const entry = leasable.find(lease => lease.nodeId !== undefined) ?? leasable[0];
  const state = from('state');
  if (state?.kind === 'adopt') return state;
  const reserved =
    leasable.find(({ leaseId }) => leaseId === '0') ??
    snapshot.tombstones.find(tombstone => tombstone.reserved && tombstone.nodeId === node.id);
  const found = (reserved && at(reserved.subnet)) ?? state ?? (entry && at(entry.subnet)) ?? from('subnet-env');
  if (found) return found;
  const subnet = chooseSubnet({ ...allocation, random: Math.random });
  return subnet && { kind: 'create', subnet };
}

/** Returns the tombstones of other nodes on subnets without a lease: this node may not take those subnets. */
function keptForOthers({ tombstones, taken }: ClusterSnapshot, nodeId: string): readonly Tombstone[] {
  return tombstones.filter(
    tombstone => tombstone.nodeId !== nodeId && !taken.some(other => prefixesOverlap(other, tombstone.subnet)),
  );
}
